"""Numbers: exactness, order, bounds, spikes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill.codecs.cells import Floats, midpoints, tally
from omnifill.codecs.number import NumberCodec
from omnifill.errors import DataError, RecipeError, ValueRefused

finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**53), 2**53)
shapes = st.fixed_dictionaries(
    {}, optional={"cells": st.integers(1, 9), "levels": st.integers(2, 9)}
)
many_floats = st.lists(finite, min_size=1, max_size=60)
many_whole = st.lists(whole | st.integers(-30, 30), min_size=1, max_size=60)


def round_trip(codec: NumberCodec, values: list[Any]) -> list[Any]:
    codes, lens = codec.encode_many(values)
    assert (lens == codec.slots).all()
    return codec.decode_many(codes.reshape(len(values), -1))


def check(codec: NumberCodec, values: list[Any]) -> None:
    """What must hold for any training values."""
    points = codec.cells.points
    assert (points[1:] > points[:-1]).all()
    again = round_trip(codec, values)
    assert codec.low == min(values) and codec.high == max(values)
    assert all(codec.low <= a <= codec.high for a in again)
    in_order = sorted(range(len(values)), key=lambda i: values[i])
    assert all(again[a] <= again[b] for a, b in pairwise(in_order))
    assert round_trip(codec, again) == again
    every = codec._values(points)
    for value, back in zip(values, again, strict=True):  # the nearest point is half a gap away
        nearest = min(every, key=lambda point: abs(point / 2 - value / 2))
        rounding = 2.0**-51 * max(abs(value), abs(nearest)) + 1e-323
        assert abs(back / 2 - value / 2) <= abs(nearest / 2 - value / 2) + rounding


@settings(max_examples=150, deadline=None)
@given(many_floats, shapes)
def test_any_floats(values: list[float], options: dict[str, int]) -> None:
    codec = NumberCodec.fit([values], options)
    check(codec, values)
    assert all(type(value) is float for value in round_trip(codec, values))


@settings(max_examples=150, deadline=None)
@given(many_whole, shapes)
def test_integers_stay_integers(values: list[int], options: dict[str, int]) -> None:
    codec = NumberCodec.fit([values], {"decimals": 0, **options})
    check(codec, values)
    assert all(type(value) is int for value in round_trip(codec, values))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**50), 2**50) | st.integers(-99, 99), min_size=1), st.integers(1, 6))
def test_decimals_keep_their_places(numbers: list[int], decimals: int) -> None:
    values = [number / 10**decimals for number in numbers]
    codec = NumberCodec.fit([values], {"decimals": decimals, "cells": 4, "levels": 50})
    check(codec, values)
    for value in round_trip(codec, values):
        assert value == round(value * 10**decimals) / 10**decimals


@given(many_whole | many_floats)
def test_few_distinct_values_are_exact_in_one_slot(values: list[float]) -> None:
    codec = NumberCodec.fit([values], {"cells": 64})
    assert codec.slots == 1
    assert round_trip(codec, values) == values


def test_a_narrow_cell_of_integers_has_one_code_for_each() -> None:
    values = list(range(0, 2000, 2))
    codec = NumberCodec.fit([values], {"decimals": 0, "cells": 10, "levels": 256})
    assert codec.num_cells == 10 and codec.cells.counts.sum() == 2000 - 10
    assert round_trip(codec, values) == values
    inside = [v + 1 for v in values if v % 200 < 190]
    assert round_trip(codec, inside) == inside


def test_repeated_values_are_spikes_and_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=5000).tolist() + [0.1] * 400 + [-1.0] * 90
    codec = NumberCodec.fit([values], {})
    assert codec.num_cells == 256
    for spike in (0.1, -1.0):
        cell, residual = codec.encode(spike).tolist()
        assert codec.cells.counts[cell] == 1
        assert codec.grammar().allowed[codec.grammar().step[0, cell]].sum() == 1
        assert residual == codec.num_cells
        assert codec.decode(codec.encode(spike)) == spike
        assert codec.encode(np.nextafter(spike, 9.0))[0] >= cell
    assert "2 spikes, 254 cells x 128 levels, floats" in codec.describe()


def test_cells_hold_equal_shares_and_the_error_is_small() -> None:
    values = np.random.default_rng(1).lognormal(8, 3, 20_000).tolist()
    codec = NumberCodec.fit([values], {})
    shares = np.bincount(codec.encode_many(values)[0][::2])
    assert shares.min() > 60 and shares.max() < 100
    errors = np.abs(np.array(round_trip(codec, values)) / np.array(values) - 1)
    assert errors.max() < 0.05 and np.median(errors) < 1e-3
    assert (np.diff(codec.cell_values()) > 0).all()
    middle = codec.cell_values()[int(np.searchsorted(np.cumsum(shares), 10_000))]
    assert abs(middle / np.median(values) - 1) < 0.03


def test_values_outside_the_range_are_counted_and_moved_to_its_ends() -> None:
    codec = NumberCodec.fit([[i / 10 for i in range(1000)]], {"decimals": 1})
    assert codec.clamped([-0.1, 0, 99.9, 100, 1e300, 5]) == 3
    assert round_trip(codec, [-5, 1e308, -1e308]) == [0.0, 99.9, 0.0]
    assert (codec.low, codec.high) == (0.0, 99.9)


def test_zero_has_one_sign() -> None:
    codec = NumberCodec.fit([[-0.0, 1.0, -0.0]], {})
    assert str(codec.decode(codec.encode(-0.0))) == "0.0"
    assert codec.encode(-0.0).tolist() == codec.encode(0).tolist()


@pytest.mark.parametrize("decimals", [None, 0])
def test_values_of_all_sizes(decimals: int | None) -> None:
    exponents = np.linspace(-300, 300, 601)
    values = [*(10.0**exponents).tolist(), *(-(10.0**exponents)).tolist()]
    kept = [v for v in values if decimals is None or abs(v) >= 1]
    codec = NumberCodec.fit([kept], {"decimals": decimals})
    errors = [abs(b / v - 1) for v, b in zip(kept, round_trip(codec, kept), strict=True)]
    assert np.median(errors) < 0.2
    assert isinstance(codec.high, int if decimals == 0 else float)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 10**400, True, "1"])
def test_what_is_no_finite_number_is_refused(bad: Any) -> None:
    codec = NumberCodec.fit([[1, 2.5]], {})
    with pytest.raises(ValueRefused, match=r"number|finite|within"):
        codec.encode(bad)
    with pytest.raises(ValueRefused):
        NumberCodec.fit([[1.0, bad]], {})
    with pytest.raises(ValueRefused):
        codec.clamped([bad])


def test_no_value_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="leave the column out"):
        NumberCodec.fit([], {})


@pytest.mark.parametrize("options", [{"decimals": -1}, {"cells": 0}, {"levels": 1}, {"cells": "9"}])
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"must be a whole number from"):
        NumberCodec.fit([[1]], options)


@given(st.lists(st.lists(st.integers(0, 40).map(float), max_size=30), max_size=8))
def test_a_tally_counts_a_stream(chunks: list[list[float]]) -> None:
    flat = [v for chunk in chunks for v in chunk]
    seen = tally((np.array(chunk, np.float64) for chunk in chunks), limit=50)
    values, counts = np.unique(np.array(flat, np.float64), return_counts=True)
    assert seen.values.tolist() == values.tolist()
    assert seen.counts.tolist() == counts.tolist()


def test_a_tally_of_more_values_than_it_may_hold_keeps_the_shape() -> None:
    rng = np.random.default_rng(2)
    data: Floats = np.concatenate([rng.normal(size=50_000), np.full(20_000, 0.25)])
    rng.shuffle(data)
    seen = tally(np.array_split(data, 30), limit=2000)
    assert len(seen.values) <= 2000 and seen.total == 70_000
    assert seen.values[0] == data.min() and seen.values[-1] == data.max()
    assert seen.counts[seen.values == 0.25] == 20_000
    share = np.cumsum(seen.counts)[np.searchsorted(seen.values, 1.0) - 1] / seen.total
    assert abs(share - (data < 1.0).mean()) < 2e-3


@given(st.sets(finite | st.floats(-1e-320, 1e-320), min_size=2))
def test_a_middle_lies_between_its_points(values: set[float]) -> None:
    points = np.unique(np.array(sorted(values)))
    middles = midpoints(points)
    assert (points[:-1] <= middles).all() and (middles < points[1:]).all()
