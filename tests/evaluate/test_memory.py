"""Copies are found exactly: rows, spans and distances."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill.evaluate.memory import Spans, copied_rows, nearest, suffix_array


def slow_longest(train: list[str], text: str) -> int:
    pieces = (text[i:j].encode() for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    joined = [t.encode() for t in train]
    return max((len(p) for p in pieces if any(p in t for t in joined)), default=0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("ab\x00é", max_size=30), min_size=1, max_size=5),
    st.lists(st.text("ab\x00é", max_size=20), min_size=1, max_size=4),
)
def test_the_longest_copied_span_is_exact(train: list[str], texts: list[str]) -> None:
    found = Spans(train).longest(texts)
    for text, span in zip(texts, found, strict=True):
        assert span in text and any(span in t for t in train)
        # A span may begin or end within a character of which only a part is alike.
        assert len(span.encode()) >= slow_longest(train, text) - 3


def test_a_long_copy_among_other_words_is_named() -> None:
    train = ["the quick brown fox jumps over the lazy dog", "汉字很有意思吗"]
    found = Spans(train).longest(["a quick brown fox ran", "xyz", "他说汉字很有意思"])
    assert found[0] == " quick brown fox " and found[2] == "汉字很有意思"


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_suffixes_are_sorted(data: bytes) -> None:
    order = suffix_array(np.frombuffer(data, np.uint8))
    assert sorted(order.tolist()) == list(range(len(data)))
    suffixes = [data[i:].rstrip(b"\x00") for i in order.tolist()]
    assert suffixes == sorted(suffixes)


def test_copied_rows_are_those_with_all_cells_alike() -> None:
    train = {"a": [1, 2, None], "b": ["x", "y", "z"]}
    assert copied_rows({"a": [1, 2, None], "b": ["x", "x", "z"]}, train).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_distance_is_nought_for_a_copy_and_grows_with_what_differs() -> None:
    train = {"n": np.array([1.0, 2.0, 3.0, np.nan]), "c": np.array([0, 1, 1, -1])}
    rows = {"n": np.array([2.0, 2.5, np.nan, np.nan]), "c": np.array([1, 0, -1, 0])}
    apart, which = nearest(rows, train)
    copy, off, blank, half = apart.tolist()
    assert copy == blank == 0 < off and half == 0.5
    assert which[0] == 1 and which[2] == 3


def test_of_texts_that_all_differ_the_one_that_shares_most_is_closest() -> None:
    train = {
        "t": np.array(["oil prices rise", "the rain in Spain", None, "山高月小水落石出"], object),
        "c": np.array([0, 0, 1, 1]),
    }
    rows = {
        "t": np.array(["the rain in Rome", "oil prices rose", "山高月小", "zz", None], object),
        "c": np.array([0, 0, 1, 0, 1]),
    }
    apart, which = nearest(rows, train)
    assert which.tolist()[:3] == [1, 0, 3] and which[4] == 2 and apart[4] == 0
    assert 0 < apart[0] < apart[3] == 0.5 and apart[2] == np.float32(0.4)
