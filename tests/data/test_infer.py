"""What a column is taken for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from omnifill.data.infer import infer_schema, profile
from omnifill.data.source import open_source
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
