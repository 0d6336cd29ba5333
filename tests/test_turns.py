"""Long work leaves others their turn: nobody waits for a search or for the reading of many."""

from __future__ import annotations

import io
import threading
from collections.abc import Generator
from typing import Any

import pandas as pd
import pytest

from omnifill import api
from omnifill.generate import likelihood, requests
from omnifill.generate import turns as turns_module
from omnifill.generate.rerank import most_agreed
from omnifill.generate.turns import in_turns, pause
from omnifill.serve.engine import Desk
from omnifill.serve.tasks import Served, built
from omnifill.serve.wire import messages

ROWS = [{"kind": "tea", "size": 2.5, "note": "warm " * (i % 5)} for i in range(40)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is read at once."""
    monkeypatch.setattr(likelihood, "SLOTS", 16)


def turns_of(work: Generator[None, None, Any]) -> tuple[int, Any]:
    """How many turns some work takes, and what comes of it."""
    num = 1
    while True:
        try:
            next(work)
        except StopIteration as done:
            return num, done.value
        num += 1


def test_work_goes_on_where_it_paused_and_never_beside_who_waits() -> None:
    seen: list[str] = []

    def work() -> str:
        for i in range(3):
            seen.append(f"work {i}")
            pause()
        return "done"

    turns = in_turns(work)
    for i in range(3):
        next(turns)
        seen.append(f"other {i}")
    with pytest.raises(StopIteration) as done:
        next(turns)
    assert done.value.value == "done"
    assert seen == ["work 0", "other 0", "work 1", "other 1", "work 2", "other 2"]


def test_work_that_fails_says_so_to_who_waits() -> None:
    def work() -> None:
        pause()
        raise ValueError("not this")

    turns = in_turns(work)
    next(turns)
    with pytest.raises(ValueError, match="not this"):
        next(turns)


def test_work_that_nobody_waits_for_ends() -> None:
    ended: list[bool] = []

    def work() -> None:
        try:
            while True:
                pause()
        finally:
            ended.append(True)

    turns = in_turns(work)
    next(turns)
    idle, num = len(turns_module._idle), threading.active_count()
    turns.close()
    assert ended and len(turns_module._idle) == idle + 1
    assert turns_of(in_turns(lambda: 3)) == (1, 3)
    assert threading.active_count() == num, "its thread works for the next"


@pytest.mark.parametrize("wish", [
    {"want": ["note"], "sampling": {"beams": 3}, "max_tokens": 6},
    {"want": ["note"], "choices": ["warm", "heiß", "热"]},
    {"want": ["note"], "rerank": 3, "max_tokens": 6},
    {"want": ["note", "kind"], "aims": ["kind=tea", "length<=3"], "candidates": 4, "max_tokens": 6},
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:of 2 records, not all meet")
@pytest.mark.usefixtures("small")
def test_what_is_searched_or_compared_pauses(model: api.Model, wish: dict[str, Any]) -> None:
    request = built(model.run, {"num": 2, "given": {"count": 3}, **wish})
    num, made = turns_of(in_turns(lambda: requests.made(model.run, request)))
    assert num > 3 and made == requests.made(model.run, request)


def test_comparing_texts_pauses_after_each() -> None:
    assert turns_of(in_turns(lambda: most_agreed(["a b", "a c", "d"])))[0] == 4


class Asked:
    """A desk, and what it has told so far."""

    def __init__(self, model: api.Model) -> None:
        self.out = io.BytesIO()
        self.served = Served("drinks", model, 4, False)
        self.desk = Desk({"drinks": self.served}, self.out)

    def take(self, number: int, do: str, **more: Any) -> None:
        self.desk.take({"id": number, "do": do, "model": "drinks", "streamed": True, **more})

    @property
    def told(self) -> list[dict[str, Any]]:
        return list(messages(io.BytesIO(self.out.getvalue())))

    def ended(self) -> list[int]:
        return [message["id"] for message in self.told if message["do"] == "end"]


@pytest.mark.usefixtures("small")
def test_who_writes_goes_on_while_many_records_are_read(model: api.Model) -> None:
    asked, texts = Asked(model), [str(row["note"]) for row in ROWS]
    asked.take(1, "score", records=ROWS)
    asked.take(2, "embed", inputs=texts)
    wish = {"given": {"kind": "tea"}, "want": ["count"], "num": 1, "seed": 3}
    asked.take(3, "generate", wish=wish)
    asked.take(4, "score", records=ROWS[:1])
    turns = 0
    while asked.desk.busy:
        asked.desk.turn()
        turns += 1
    ended = asked.ended()
    assert turns > 10 and ended.index(3) < 2 and ended.index(4) < 2 and set(ended) == {1, 2, 3, 4}
    found = {message["id"]: message for message in asked.told if message["do"] == "end"}
    whole = model.score(pd.DataFrame(ROWS))
    assert [one["row"] for one in found[1]["scores"]] == whole["row"].tolist()
    assert found[2]["vectors"] == model.embed(texts).tolist()


@pytest.mark.usefixtures("small")
def test_who_leaves_ends_a_search_and_a_reading_within_a_turn(model: api.Model) -> None:
    asked = Asked(model)
    search = {"want": ["note"], "num": 1, "max_tokens": 200, "sampling": {"beams": 4}}
    asked.take(1, "generate", wish=search)
    asked.take(2, "score", records=ROWS)
    for _ in range(3):
        asked.desk.turn()
    idle = len(turns_module._idle)
    assert asked.served.engine.used == 4
    for number in (1, 2):
        asked.desk.take({"id": number, "do": "cancel"})
    assert len(turns_module._idle) == idle + 2 and asked.served.engine.used == 0
    assert not asked.desk.busy and not asked.ended()


def test_what_is_compared_leaves_others_half_of_the_rows(model: api.Model) -> None:
    asked = Asked(model)
    asked.take(1, "generate", wish={"want": ["note"], "num": 2, "candidates": 6, "max_tokens": 4})
    asked.desk.turn()
    assert asked.served.engine.used == 2 == asked.served.engine.rows // 2
    while asked.desk.busy:
        asked.desk.turn()
    assert asked.ended() == [1]
