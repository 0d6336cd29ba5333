"""Datetime: a number of steps since 1970. It knows no calendar, no spelling and no time zone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.number import NumberCodec
from omnifill.codecs.support import check_options, damaged, int_option, read_json, write_json
from omnifill.errors import ValueRefused
from omnifill.types import Floats, Grammar, Ints

FILE = "datetime.json"
LARGEST = 1 << 62
"""Microseconds: far beyond the year 9999."""

READER_OPTIONS = ("format", "time_zone")
"""Options of a datetime field that are for reading and writing it, not for its codes."""


class DatetimeCodec:
    """int microseconds since 1970-01-01 <-> the codes of a number of steps."""

    shared: ClassVar[bool] = False

    def __init__(self, number: NumberCodec, step: int) -> None:
        """`number`: codec of value // step; `step`: microseconds."""
        self.number = number
        self.step = step

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Options: `step`, microseconds of which all values are multiples (a day: 86400000000);
        `cells` and `levels` as for numbers."""
        check_options(options, ("step", "cells", "levels", *READER_OPTIONS))
        step = int_option(options, "step", 1, 1, LARGEST)
        assert step is not None, "the option has a default"
        passed = {k: v for k, v in options.items() if k in ("cells", "levels")}

        def steps() -> Iterator[Any]:
            for chunk in chunks:
                yield _steps(chunk, step)

        return cls(NumberCodec.fit(steps(), {"decimals": 0, **passed}), step)

    @property
    def size(self) -> int:
        return self.number.size

    @property
    def slots(self) -> int | None:
        return self.number.slots

    @property
    def num_cells(self) -> int:
        return self.number.num_cells

    @property
    def low(self) -> int:
        """The earliest value of the training part, in microseconds."""
        return int(self.number.low) * self.step

    @property
    def high(self) -> int:
        """The latest value of the training part, in microseconds."""
        return int(self.number.high) * self.step

    def clamped(self, values: Sequence[Any]) -> int:
        """How many of the values lie outside [low, high] and would be moved to its ends."""
        return self.number.clamped(self._steps(values))

    def encode(self, value: Any) -> Ints:
        """int microseconds -> (slots,): the nearest time that the field can represent."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N * slots,) codes, and (N,) numbers of codes."""
        return self.number.encode_many(self._steps(values))

    def decode(self, codes: Ints) -> int:
        """(slots,) -> microseconds, a multiple of the step."""
        return int(self.number.decode(codes)) * self.step

    def decode_many(self, codes: Ints) -> list[int]:
        """(N, slots) -> N values in microseconds."""
        return [int(n) * self.step for n in self.number.decode_many(codes)]

    def cell_values(self) -> Floats:
        """(C,): the middle of every cell in microseconds, increasing."""
        return np.asarray(self.number.cell_values() * self.step)

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return self.number.coords(n)

    def grammar(self) -> Grammar:
        return self.number.grammar()

    def describe(self) -> str:
        shape = self.number.describe().removeprefix("number: ").removesuffix(", 0 decimals")
        return f"datetime: {shape}, steps of {_duration(self.step)}"

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"step": self.step})
        self.number.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        step = read_json(folder / FILE).get("step")
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= LARGEST:
            raise damaged(folder / FILE, "no step")
        return cls(NumberCodec.load(folder), step)

    def _steps(self, values: Sequence[Any]) -> Any:
        return _steps(values, self.step)


def _steps(values: Sequence[Any], step: int) -> Any:
    """N times in microseconds -> (N,) whole steps, rounded down."""
    for kind in set(map(type, values)):
        if issubclass(kind, bool) or not issubclass(kind, int | np.integer):
            odd = next(v for v in values if type(v) is kind)
            raise ValueRefused(
                f"a datetime is an int of microseconds since 1970, not {odd!r} ({kind.__name__})"
            )
    ends = (min(values), max(values)) if len(values) else ()
    for odd in ends:
        if abs(int(odd)) > LARGEST:
            raise ValueRefused(f"{odd} microseconds since 1970 is no date that can be written")
    return np.array(values, np.int64) // step


def _duration(step: int) -> str:
    units = {86_400_000_000: "day", 3_600_000_000: "hour", 60_000_000: "minute", 1_000_000: "s"}
    for size, name in units.items():
        if step % size == 0:
            return f"{step // size} {name}"
    return f"{step} µs"
