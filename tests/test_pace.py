"""How often clients are told: alone at each token, many together seldom, and never less in all."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnifill.serve import wire
from omnifill.serve.pace import APART, Pace


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def piece(number: int, text: str, row: int = 0, over: str | None = None) -> dict[str, Any]:
    return {"id": number, "do": "piece", "row": row, "field": "text", "text": text, "over": over,
            "there": True, "tokens": [text]}  # fmt: skip


def end(number: int) -> dict[str, Any]:
    return {"id": number, "do": "end"}


def texts(messages: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(one["id"], one["text"]) for one in messages if one["do"] == "piece"]


def test_one_stream_is_told_of_each_token() -> None:
    pace = Pace(Clock())
    pace.begin(1, True)
    assert texts(pace.take(piece(1, "a"))) == [(1, "a")]
    for letter in "bcd":
        assert pace.take(piece(1, letter)) == []
        assert texts(pace.due()) == [(1, letter)]


def test_many_streams_are_told_together_and_first_pieces_at_once() -> None:
    clock = Clock()
    pace, numbers = Pace(clock), range(1, 12)
    for number in numbers:
        pace.begin(number, True)
        assert texts(pace.take(piece(number, "a"))) == [(number, "a")]
    clock.now += APART * 10
    assert pace.due() == []
    for letter in "bc":
        for number in numbers:
            assert pace.take(piece(number, letter)) == []
        clock.now += APART * 4
        assert pace.due() == []
    clock.now += APART * 4
    assert texts(pace.due()) == [(number, "bc") for number in numbers]


def test_what_nobody_reads_along_is_told_at_its_end() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.begin(1, False)
    assert texts(pace.take(piece(1, "a"))) == [(1, "a")], "that it has begun is told"
    for letter in "bcd":
        pace.take(piece(1, letter))
        clock.now += 60
        assert pace.due() == []
    assert pace.take(end(1)) == [piece(1, "bcd") | {"tokens": ["b", "c", "d"]}, end(1)]


def test_nothing_is_held_for_who_has_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    for number in (1, 2):
        pace.begin(number, True)
        pace.take(piece(number, "a"))
        pace.take(piece(number, "b"))
    pace.end(1)
    clock.now += 1
    assert texts(pace.due()) == [(2, "b")]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.text("xyz", min_size=1),
                          st.floats(0, 2 * APART)), max_size=60),
       st.sets(st.integers(1, 4)))  # fmt: skip
def test_all_is_told_in_order_whenever_and_its_end_last(
    said: list[tuple[int, int, str, float]], streamed: set[int]
) -> None:
    clock = Clock()
    pace, told = Pace(clock), list[dict[str, Any]]()
    for number in range(1, 5):
        pace.begin(number, number in streamed)
    for number, row, text, later in said:
        told += pace.take(piece(number, text, row))
        clock.now += later
        told += pace.due()
    for number in range(1, 5):
        told += pace.take(piece(number, "!", over="stop"))
        told += pace.take(end(number))
        pace.end(number)
    for number in range(1, 5):
        mine = [one for one in told if one["id"] == number]
        assert mine.index(end(number)) == len(mine) - 1
        for row in range(3):
            parts = [one for one in mine[:-1] if one["row"] == row]
            wanted = [text for n, r, text, _ in said if (n, r) == (number, row)]
            wanted += ["!"] if row == 0 else []
            assert "".join(one["text"] for one in parts) == "".join(wanted)
            assert [token for one in parts for token in one["tokens"]] == wanted
            assert [one["over"] for one in parts if one["over"]] == (["stop"] if row == 0 else [])


@given(st.lists(st.text(max_size=9)), st.integers(1, 40))
def test_messages_of_one_flush_arrive_in_order_in_frames_of_some_size(
    said: list[str], large: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wire, "LARGE", large)
        data = wire.packed(*({"text": text} for text in said))
    assert [one["text"] for one in wire.messages(io.BytesIO(data))] == said
    sizes, at = [], 0
    while at < len(data):
        sizes.append(wire.size_of(data[at : at + 4]))
        at += 4 + sizes[-1]
    longest = max((len(json.dumps({"text": text})) for text in said), default=0)
    assert all(size <= max(large, longest) + 2 for size in sizes)
