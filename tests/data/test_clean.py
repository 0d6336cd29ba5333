"""Cleaning changes what was asked for and nothing else, in every script."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnifill.data.clean import Repeats, build_cleaner, fold_white_space, strip_html
from omnifill.data.infer import infer_schema
from omnifill.data.profile import profile
from omnifill.data.source import open_source
from omnifill.data.stage import stage
from omnifill.recipe import from_dict
from omnifill.schema import FieldSpec
from omnifill.settings import CleanSettings

TEXT = FieldSpec(name="t", type="text", codec="bpe")
KEPT = [
    "你好，世界。", "مرحبا بالعالم", "नमस्ते दुनिया", "👩‍👩‍👧 🍵", "def f(x):\n\tif 1:\n    y",
    "ไทย", "İstanbul",
]  # fmt: skip


@pytest.mark.parametrize("text", KEPT)
def test_the_default_leaves_every_script_and_code_alone(text: str) -> None:
    clean = build_cleaner(TEXT, CleanSettings(), stream=False)
    assert clean is not None and clean(text) == text


def test_white_space_is_folded_between_words_and_kept_at_the_start_of_lines() -> None:
    assert fold_white_space("  a  b \r\n    c\t\td  \n") == "a b\n    c d"


@given(st.text())
def test_folding_white_space_twice_is_folding_it_once(text: str) -> None:
    once = fold_white_space(text)
    assert fold_white_space(once) == once


def test_what_is_asked_for_is_done() -> None:
    settings = CleanSettings(lower=True, html=True)
    clean = build_cleaner(TEXT, settings, stream=False)
    assert clean is not None and clean("<p>Ça &amp; <b>LÀ</b></p><script>x</script>") == "ça & là"
    assert strip_html("a < b") == "a < b"
    composed = build_cleaner(TEXT, CleanSettings(), stream=False)
    assert composed is not None and composed("e\u0301") == "é"


def test_a_stream_keeps_its_white_space() -> None:
    clean = build_cleaner(TEXT, CleanSettings(), stream=True)
    assert clean is not None and clean("a  b \n") == "a  b \n"


@pytest.mark.parametrize("text", [" ", "\t \n", "\u3000"])
def test_cleaning_never_empties_a_value(text: str) -> None:
    clean = build_cleaner(TEXT, CleanSettings(html=True), stream=False)
    assert clean is not None and clean(text) == text


def test_white_space_alone_is_a_blank_among_numbers_and_a_value_among_words() -> None:
    table = pd.DataFrame({"n": ["1", " ", "3.5", "2"] * 5, "w": ["a", "b", "  ", "a"] * 5})
    source = open_source(table, from_dict({}).data)
    found = profile(source, from_dict({}))
    schema = infer_schema(found, from_dict({}))
    assert schema["n"].type == "number" and schema["n"].optional
    assert schema["w"].type == "category" and not schema["w"].optional
    said = {p.where: p.what for p in found.problems}
    assert said["n"] == "'' in 5 cells is read as a blank"
    assert "nothing but white space" in said["w"]


def test_exact_repeats_are_left_out_and_counted(tmp_path: Path) -> None:
    recipe = from_dict({"data": {"clean": {"duplicates": "exact"}}})
    table = pd.DataFrame({"a": ["x", "y", "x", "z"] * 10, "n": [1, 2, 1, 3] * 10})
    source = open_source(table, recipe.data)
    staged = stage(source, infer_schema(profile(source, recipe), recipe), recipe, tmp_path)
    assert sum(staged.rows.values()) == 3
    assert staged.notes == ["37 repeated rows were left out (data.clean.duplicates)"]


def test_near_repeats_are_found_and_others_are_not() -> None:
    pytest.importorskip("rensa")
    long = "the quick brown fox jumps over the lazy dog and runs far away into the dark wood"
    repeats = Repeats("near")
    assert not repeats.is_repeat([long, 1])
    assert repeats.is_repeat([long + ".", 1])
    assert not repeats.is_repeat(["quite another sentence about the price of tea in winter", 1])
    assert repeats.is_repeat([long, 1])
