"""Category: every distinct value seen in training is one code. It knows no order of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.support import (
    check_options,
    damaged,
    no_coords,
    nothing_to_learn,
    one_code_grammar,
    read_json,
    write_json,
)
from omnifill.errors import RecipeError, ValueRefused
from omnifill.types import Grammar, Ints

MAX_VALUES = 20_000
"""More distinct values than this are names or texts, of which one code each learns nothing."""

FILE = "category.json"


class CategoryCodec:
    """str <-> one code, most frequent value first."""

    shared: ClassVar[bool] = False
    slots: int | None = 1

    def __init__(self, values: Sequence[str]) -> None:
        """`values`: the distinct values, by code."""
        self.values = list(values)
        self._code = {value: code for code, value in enumerate(self.values)}

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Count the values; ties of frequency go by name. It has no options."""
        check_options(options, ())
        counts: Counter[str] = Counter()
        for chunk in chunks:
            for value in chunk:
                _check_str(value)
            counts.update(chunk)
            if len(counts) > MAX_VALUES:
                raise RecipeError(
                    f"a category field has more than {MAX_VALUES} different values; make it "
                    "a text field: schema.fields.NAME.type = text (--field NAME:text)"
                )
        if not counts:
            raise nothing_to_learn("category")
        return cls(sorted(counts, key=lambda value: (-counts[value], value)))

    @property
    def size(self) -> int:
        return len(self.values)

    def encode(self, value: Any) -> Ints:
        """str -> (1,). ValueRefused names the nearest known value."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N,) codes, (N,) ones."""
        try:
            codes = [self._code[value] for value in values]
        except (KeyError, TypeError):
            raise self._refusal(values) from None
        return np.array(codes, np.int64), np.ones(len(values), np.int64)

    def decode(self, codes: Ints) -> str:
        """(1,) -> str."""
        return self.values[int(codes[0])]

    def decode_many(self, codes: Ints) -> list[str]:
        """(N, 1) -> N values."""
        return [self.values[code] for code in codes[:, 0].tolist()]

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return no_coords(n)

    def grammar(self) -> Grammar:
        """Any one code, then the end."""
        return one_code_grammar(self.size)

    def describe(self) -> str:
        return f"category: {self.size} values"

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"values": self.values})

    @classmethod
    def load(cls, folder: Path) -> Self:
        values = read_json(folder / FILE).get("values")
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise damaged(folder / FILE, "no list of values")
        if not values or len(set(values)) < len(values):
            raise damaged(folder / FILE, "no values, or a value twice")
        return cls(values)

    def _refusal(self, values: Sequence[Any]) -> ValueRefused:
        """The error for the first value that is not known."""
        for value in values:
            _check_str(value)
            if value not in self._code:
                return self._unseen(value)
        raise AssertionError("called for values that are all known")

    def _unseen(self, value: str) -> ValueRefused:
        near = get_close_matches(value, self.values, n=1, cutoff=0.6)
        first = ", ".join(repr(v) for v in self.values[:5])
        more = f", … ({self.size} in all)" if self.size > 5 else ""
        hint = f"did you mean {near[0]!r}? " if near else ""
        return ValueRefused(f"{value!r} was not seen in training; {hint}known: {first}{more}")


def _check_str(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueRefused(f"a category is a str, not {value!r} ({type(value).__name__})")
