"""Promises that every codec keeps, whatever its field type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill.codecs.table import CODECS, load_codec
from omnifill.errors import RecipeError, RunError, ValueRefused
from omnifill.types import Codec, Grammar, Ints

RNG = np.random.default_rng(5)
TEXTS = ["the cat sat on the mat", "Ünïcode, 你好世界", "", "🙂 the end\n", "cat and mat " * 20]
SKEWED = np.round(RNG.lognormal(3, 2, 3000), 2).tolist() + [0.0] * 500 + [9.99] * 400
DAYS = [int(d) * 86_400_000_000 for d in RNG.integers(-900, 20_000, 2000)]

FITTED: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "bpe": ("bpe", TEXTS, {"vocabulary": 280}),
    "characters": ("characters", TEXTS, {}),
    "characters in bytes": ("characters", TEXTS, {"vocabulary": 256}),
    "category": ("category", ["a", "b", "a", "", "c d", "你"], {}),
    "floats": ("number", SKEWED, {}),
    "cents": ("number", SKEWED, {"decimals": 2}),
    "few cells": ("number", SKEWED, {"decimals": 2, "cells": 5, "levels": 7}),
    "integers": ("number", RNG.integers(-400, 900, 2000).tolist(), {"decimals": 0}),
    "few integers": ("number", [3, 1, 4, 1, 5], {"decimals": 0}),
    "one number": ("number", [7.5] * 9, {}),
    "days": ("datetime", DAYS, {"step": 86_400_000_000}),
    "moments": ("datetime", [d + 12_345 for d in DAYS], {}),
    "pixels": (
        "pixels",
        [bytes(RNG.choice([0, 9, 255], 12).tolist()) for _ in range(20)],
        {"height": 4, "width": 3, "mode": "L"},
    ),
    "squares of pixels": (
        "pixels",
        [bytes(RNG.choice([0, 9, 255], 24).tolist()) for _ in range(20)],
        {"height": 4, "width": 6, "mode": "L", "stride": 2},
    ),
    "one day": ("datetime", [0], {"step": 86_400_000_000}),
}


def fitted(case: str) -> tuple[Codec, list[Any]]:
    name, values, options = FITTED[case]
    half = len(values) // 2
    return load_codec(name).fit([values[:half], values[half:]], options), values


CASES: dict[str, tuple[Codec, list[Any]]] = {case: fitted(case) for case in FITTED}
each_case = pytest.mark.parametrize("case", CASES)


def accepts(grammar: Grammar, codes: Ints) -> bool:
    state = 0
    for code in codes.tolist():
        if not grammar.allowed[state, code]:
            return False
        state = int(grammar.step[state, code])
    return bool(grammar.allowed[state, -1])


def walk(grammar: Grammar, rng: np.random.Generator, limit: int) -> Ints:
    """A random sequence that the grammar accepts: any way at first, then the shortest way out."""
    codes: list[int] = []
    state = 0
    while True:
        allowed = grammar.allowed[state].copy()
        if len(codes) >= limit:
            if allowed[-1]:
                return np.array(codes, np.int64)
            nearer = grammar.min_left[grammar.step[state]] < grammar.min_left[state]
            allowed[:-1] &= nearer
        choice = int(rng.choice(np.flatnonzero(allowed)))
        if choice == len(allowed) - 1:
            return np.array(codes, np.int64)
        codes.append(choice)
        state = int(grammar.step[state, choice])


def fewest_codes(grammar: Grammar, state: int) -> int:
    """Breadth first, as slowly and plainly as can be."""
    front, depth = {state}, 0
    while not any(grammar.allowed[s, -1] for s in front):
        front = {int(grammar.step[s, c]) for s in front for c in np.flatnonzero(grammar.allowed[s])}
        depth += 1
        assert depth <= len(grammar.allowed), "no way to an end"
    return depth


@each_case
def test_what_is_encoded_is_accepted_and_comes_back_the_same_way(case: str) -> None:
    codec, values = CASES[case]
    grammar = codec.grammar()
    for value in values[:200]:
        codes = codec.encode(value)
        assert codes.dtype == np.int64
        assert codec.slots is None or len(codes) == codec.slots
        assert accepts(grammar, codes)
        again = codec.decode(codes)
        np.testing.assert_array_equal(codec.encode(again), codes)


@each_case
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(0, 12))
def test_whatever_the_grammar_accepts_decodes(case: str, seed: int, limit: int) -> None:
    codec, values = CASES[case]
    codes = walk(codec.grammar(), np.random.default_rng(seed), limit)
    value = codec.decode(codes)
    assert type(value) is type(values[0])
    if not codec.shared:  # texts may be spelt in several ways, other values in one
        np.testing.assert_array_equal(codec.encode(value), codes)


@each_case
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(0, 12))
def test_what_settles_a_value_says_all_of_it(case: str, seed: int, limit: int) -> None:
    grammar = CASES[case][0].grammar()
    codes = walk(grammar, np.random.default_rng(seed), limit)
    settled = [bool(grammar.settled[state]) for state in [*grammar.states(codes)]]
    assert settled == sorted(settled), "it stays settled"
    told = max(1, settled.index(True)) if True in settled else len(codes)
    if len(codes):
        np.testing.assert_array_equal(grammar.whole(codes[:told]), codes)
    for state in np.flatnonzero(grammar.settled).tolist():
        assert grammar.allowed[state].sum() == 1


@each_case
def test_all_states_know_their_shortest_way_to_an_end(case: str) -> None:
    grammar = CASES[case][0].grammar()
    assert grammar.allowed.shape == (len(grammar.step), CASES[case][0].size + 1)
    assert grammar.step.min() >= 0
    assert grammar.step.max() < len(grammar.step)
    for state in range(len(grammar.allowed)):
        assert grammar.min_left[state] == fewest_codes(grammar, state)


@each_case
def test_many_are_encoded_as_one_by_one(case: str) -> None:
    codec, values = CASES[case]
    for part in (values, values[:1], values[:0]):
        codes, lens = codec.encode_many(part)
        alone = [codec.encode(value) for value in part]
        assert lens.tolist() == [len(one) for one in alone]
        assert codes.dtype == lens.dtype == np.int64
        np.testing.assert_array_equal(codes, np.concatenate([np.zeros(0, np.int64), *alone]))


@each_case
def test_a_loaded_codec_is_the_saved_one(case: str, tmp_path: Path) -> None:
    codec, values = CASES[case]
    for folder in (tmp_path / "new" / "folder", tmp_path / "other"):
        codec.save(folder)
    again = type(codec).load(tmp_path / "new" / "folder")
    assert (again.size, again.slots) == (codec.size, codec.slots)
    np.testing.assert_array_equal(again.encode_many(values)[0], codec.encode_many(values)[0])
    np.testing.assert_array_equal(again.grammar().allowed, codec.grammar().allowed)
    np.testing.assert_array_equal(again.grammar().step, codec.grammar().step)
    for file in (tmp_path / "other").iterdir():
        assert file.read_bytes() == (tmp_path / "new" / "folder" / file.name).read_bytes()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other(file: Path) -> None:
    file.write_bytes(b'{"of": "another program"}')


def noise(file: Path) -> None:
    file.write_bytes(bytes(range(255, -1, -1)) * 9)


def emptied_list(file: Path) -> None:
    file.write_bytes(b"[]")


@pytest.mark.parametrize("case", ["bpe", "characters", "category", "cents", "days"])
@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, other, noise, emptied_list])
def test_a_damaged_file_is_named(case: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    codec = CASES[case][0]
    codec.save(tmp_path)
    for file in list(tmp_path.iterdir()):
        whole = file.read_bytes()
        damage(file)
        with pytest.raises(RunError) as error:
            type(codec).load(tmp_path)
        assert str(file) in str(error.value)
        file.write_bytes(whole)


@each_case
def test_codes_of_plain_fields_have_no_coordinates(case: str) -> None:
    coords = CASES[case][0].coords(3)
    assert coords.shape == (3, 3)
    assert not coords.any() or "pixels" in case


@each_case
def test_fitting_does_not_depend_on_the_chunks(case: str, tmp_path: Path) -> None:
    name, values, options = FITTED[case]
    codec = load_codec(name).fit(iter([[], values, []]), options)
    codec.save(tmp_path / "a")
    CASES[case][0].save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("name", CODECS)
def test_an_unknown_option_is_refused_with_the_near_one(name: str) -> None:
    with pytest.raises(RecipeError, match=r"schema\.fields\.NAME\.options\.vocabluary"):
        load_codec(name).fit([["a"]], {"vocabluary": 300})
    if name in ("number", "datetime"):
        with pytest.raises(RecipeError, match="did you mean 'cells'"):
            load_codec(name).fit([[1]], {"cell": 3})


@each_case
def test_a_value_of_another_type_is_refused(case: str) -> None:
    codec, values = CASES[case]
    wrong: list[Any] = [None, b"bytes", ["list"], {}, True]
    wrong += [3, 2.5] if isinstance(values[0], str) else ["3"]
    for value in wrong:
        with pytest.raises(ValueRefused):
            codec.encode(value)
        with pytest.raises(ValueRefused):
            codec.encode_many([values[0], value])
        with pytest.raises(ValueRefused):
            type(codec).fit([[values[0], value]], FITTED[case][2])
