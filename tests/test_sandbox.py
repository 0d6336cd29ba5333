"""What others wrote and may never end is run elsewhere, and ended there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omnifill import api
from omnifill.errors import RequestError
from omnifill.generate.sandbox import Sandbox
from omnifill.generate.turns import in_turns

ENDLESS = "(.+)+§§"
"""Looks through a text in as many ways as it can be cut."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.end()


def test_one_process_answers_many_questions(sandbox: Sandbox) -> None:
    assert sandbox.ask(pattern="^ra", texts=["rain", "sun", ""]) == {"found": [True, False, False]}
    first = sandbox.start()
    assert sandbox.ask(pattern="春", texts=["a春", "\ud800"]) == {"found": [True, False]}
    assert "unterminated" in sandbox.ask(pattern="(", texts=[])["error"]
    assert sandbox.start() is first


def test_what_never_ends_is_ended_and_the_next_is_answered(sandbox: Sandbox) -> None:
    assert "too much time" in sandbox.ask(pattern=ENDLESS, texts=["a" * 100])["error"]
    assert sandbox.ask(pattern="a", texts=["a"]) == {"found": [True]}


def test_who_leaves_takes_his_answer_along(sandbox: Sandbox) -> None:
    turns = in_turns(lambda: sandbox.ask(pattern=ENDLESS, texts=["a" * 100]))
    next(turns)  # others go on while it is looked for
    waiting = in_turns(lambda: sandbox.ask(pattern="a", texts=["a"]))
    next(waiting)
    turns.close()
    while True:
        try:
            next(waiting)
        except StopIteration as done:
            assert done.value == {"found": [True]}
            break


def test_an_aim_that_never_ends_is_refused(model: api.Model) -> None:
    asked = {"want": "note", "candidates": 2, "max_tokens": 80, "min_p": 0, "temperature": 3}
    with pytest.raises(RequestError, match=r"aim pattern=.*: cannot be looked for \(it takes too"):
        model.generate(1, aims=["pattern=" + ENDLESS], **asked)
