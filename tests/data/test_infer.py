"""What a column is taken for."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from omnifill import api
from omnifill.data.infer import infer_schema
from omnifill.data.profile import profile
from omnifill.data.source import open_source
from omnifill.errors import DataError
from omnifill.recipe import from_dict
from omnifill.schema import FieldSpec


def texts(first: int, kinds: int) -> list[str]:
    """200 texts of characters from `first` on."""
    draw = random.Random(0)
    return ["".join(chr(first + draw.randrange(kinds)) for _ in range(60)) for _ in range(200)]


def field(values: list[str], asked: Mapping[str, Any] | None = None) -> FieldSpec:
    recipe = from_dict({"schema": {"fields": {"t": dict(asked or {})}}})
    found = profile(open_source(pd.DataFrame({"t": values}), recipe.data), recipe)
    return infer_schema(found, recipe).fields[0]


def test_a_text_in_signs_is_spelt_in_characters_and_says_so() -> None:
    spec = field(texts(0x4E00, 600))
    assert (spec.type, spec.codec) == ("text", "characters")
    assert "kinds: spelt one by one" in spec.why


@pytest.mark.parametrize(
    "values",
    [
        texts(0x0905, 48),
        texts(0x0410, 64),
        [t + "你好 🍵" * 2 for t in texts(0x61, 26)],
        [t + s[:20] for t, s in zip(texts(0x61, 26), texts(0x4E00, 600), strict=True)],
        texts(0x4E00, 6000),
    ],
    ids=["Hindi", "Russian", "a few signs", "many signs, more letters", "signs met once or twice"],
)
def test_other_texts_are_not(values: list[str]) -> None:
    assert field(values).codec == "bpe"


@pytest.mark.parametrize("asked", [{"codec": "bpe"}, {"options": {"vocabulary": 2000}}])
def test_what_is_asked_for_goes_before(asked: dict[str, Any]) -> None:
    assert field(texts(0x4E00, 600), asked).codec == "bpe"


@pytest.mark.parametrize(
    ("cells", "taken"),
    [
        (["1,5", "2", "-3,25", "?"], True),
        (["0,125", "0,250", "0,375"], True),
        (["1,500", "2,250", "3,125"], False),  # of thousands, perhaps
        (["1,5", "2.5", "3,5"], False),
        (["1,5", "2,5", "three"], False),
        (["1,2,3", "4,5,6", "7,8,9"], False),
    ],
)
def test_a_comma_is_a_decimal_one_where_it_can_be_nothing_else(
    cells: list[str], taken: bool
) -> None:
    spec = field(cells * 2)
    assert (spec.type == "number") == bool(spec.options.get("decimal_comma")) == taken


def test_commas_that_may_be_either_are_shown_and_taken_for_decimals_if_you_say_number() -> None:
    recipe = from_dict({})
    cells = pd.DataFrame({"t": ["1,500", "2,250", "3,125", "4,875"]})
    found = profile(open_source(cells, recipe.data), recipe)
    infer_schema(found, recipe)
    assert any("thousands, or before decimals" in problem.what for problem in found.problems)
    assert field(cells["t"].tolist(), {"type": "number"}).options["decimal_comma"]


def test_decimal_commas_come_back_as_they_went_in(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [f"{rng.randrange(90)},{rng.randrange(10, 99)};{rng.choice('ab')}" for _ in range(60)]
    table, whole = tmp_path / "preise.csv", tmp_path / "whole.csv"
    table.write_text("\n".join(["preis;art", *rows[:-1], ";b"]) + "\n", encoding="utf-8")
    model = api.train(table, tmp_path / "run", steps=5, recipe={"model": {"size": "nano"}})
    made = model.generate(3, given={"preis": "4,25"})
    assert made["preis"].tolist() == [4.25] * 3
    api.fill_file(model, table, whole)
    before, after = (p.read_text(encoding="utf-8").splitlines() for p in (table, whole))
    assert after[:-1] == before[:-1] and re.fullmatch(r"\d+,\d\d;b", after[-1])
    assert api.load(tmp_path / "run").score(pd.DataFrame({"preis": ["4,25"], "art": ["a"]})).size


def test_too_few_rows_are_refused_with_what_could_not_be_read(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 row that can be read \(.*rows.csv:3: 1 cell"):
        api.inspect(table)
