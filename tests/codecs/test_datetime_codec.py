"""Datetimes: multiples of the step, exact when few, clamped at the ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill.codecs.datetime import DatetimeCodec
from omnifill.errors import RecipeError, ValueRefused

DAY = 86_400_000_000


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-700_000, 2_900_000), min_size=1, max_size=80),
    st.sampled_from([DAY, 1_000_000, 1, 7]),
    st.integers(1, 100),
)
def test_values_stay_multiples_of_the_step_in_order(days: list[int], step: int, cells: int) -> None:
    values = sorted(day * (DAY if step == DAY else step) for day in days)
    codec = DatetimeCodec.fit([values], {"step": step, "cells": cells, "levels": 5})
    codes, _ = codec.encode_many(values)
    again = codec.decode_many(codes.reshape(len(values), -1))
    assert all(type(v) is int and v % step == 0 for v in again)
    assert again == sorted(again)
    assert (codec.low, codec.high) == (values[0], values[-1])
    if cells >= len(set(values)):
        assert again == values
    assert codec.decode(codec.encode(values[0])) == values[0]


def test_two_years_of_days_are_exact() -> None:
    values = [day * DAY for day in range(18_000, 18_730)] * 3
    codec = DatetimeCodec.fit([values], {"step": DAY})
    codes, _ = codec.encode_many(values)
    assert codec.decode_many(codes.reshape(len(values), -1)) == values
    assert codec.describe().endswith("steps of 1 day")


def test_times_outside_the_range_are_counted_and_moved_to_its_ends() -> None:
    codec = DatetimeCodec.fit([[0, 5 * DAY, 9 * DAY]], {"step": DAY})
    assert codec.clamped([-DAY, 0, DAY - 1, 9 * DAY, 10 * DAY]) == 2
    assert codec.decode(codec.encode(400 * DAY)) == 9 * DAY
    assert codec.cell_values().tolist() == [0, 5 * DAY, 9 * DAY]


def test_a_time_within_a_step_belongs_to_it() -> None:
    codec = DatetimeCodec.fit([[0, DAY, 2 * DAY]], {"step": DAY})
    assert codec.decode(codec.encode(2 * DAY - 1)) == DAY


def test_options_for_the_reader_are_no_fault() -> None:
    DatetimeCodec.fit([[0]], {"format": "%Y", "time_zone": "UTC"})


@pytest.mark.parametrize("bad", [1.5, True, "2020-01-01", 2**63, -(2**70)])
def test_what_is_no_microseconds_is_refused(bad: Any) -> None:
    with pytest.raises(ValueRefused, match="microseconds since 1970"):
        DatetimeCodec.fit([[0, bad]], {})


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="whole number from 1"):
        DatetimeCodec.fit([[0]], {"step": 0})
