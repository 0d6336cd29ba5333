"""Categories: their order, and values never seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnifill.codecs.category import MAX_VALUES, CategoryCodec
from omnifill.errors import DataError, RecipeError, ValueRefused


def test_values_are_ordered_by_frequency_then_by_name() -> None:
    codec = CategoryCodec.fit([["b", "c", "a"], ["c", "b", "c", "d"]], {})
    assert codec.values == ["c", "b", "a", "d"]


@given(st.lists(st.text(), min_size=1, max_size=20))
def test_every_value_comes_back(values: list[str]) -> None:
    codec = CategoryCodec.fit([values], {})
    codes, lens = codec.encode_many(values)
    assert codec.decode_many(codes[:, None]) == values
    assert lens.tolist() == [1] * len(values)
    assert codec.size == len(set(values))


def test_a_value_never_seen_is_refused_with_the_nearest() -> None:
    codec = CategoryCodec.fit([["Male", "Female", "Female"]], {})
    with pytest.raises(ValueRefused, match=r"'Femael' was not seen .* did you mean 'Female'"):
        codec.encode("Femael")
    with pytest.raises(ValueRefused, match=r"known: 'Female', 'Male'$"):
        codec.encode_many(["Male", "zebra"])


def test_a_long_list_of_known_values_is_cut() -> None:
    codec = CategoryCodec.fit([[f"name {i}" for i in range(30)]], {})
    with pytest.raises(ValueRefused, match=r"… \(30 in all\)"):
        codec.encode("?")


def test_too_many_values_ask_for_text() -> None:
    values = [str(i) for i in range(MAX_VALUES)]
    assert CategoryCodec.fit([values], {}).size == MAX_VALUES
    with pytest.raises(RecipeError, match=r"type = text"):
        CategoryCodec.fit([values, ["one more"]], {})


def test_no_value_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="every cell is blank; leave the column out"):
        CategoryCodec.fit([[]], {})
