"""Number: a cell and, if it is not a spike, a residual inside it.

Codes 0 … C-1 are the cells in increasing order of value, C … C+R-1 the residuals, increasing
too; so codes compare as values do, and a median can be read off cumulated probabilities. When
every cell is a spike, a value is one code. With `decimals` = d all values are multiples of
10^-d and come back as such. It does not know how a number is spelt in a file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.cells import (
    Cells,
    build_cells,
    default_cells,
    default_levels,
    midpoints,
    tally,
)
from omnifill.codecs.support import (
    check_options,
    damaged,
    int_option,
    no_coords,
    nothing_to_learn,
    one_code_grammar,
)
from omnifill.errors import ValueRefused
from omnifill.types import Floats, Grammar, Ints

FILE = "number.npz"
MAX_DECIMALS = 15


class NumberCodec:
    """int or float <-> a cell code, and a residual code unless every cell is a spike."""

    shared: ClassVar[bool] = False

    def __init__(self, cells: Cells, decimals: int | None) -> None:
        """`cells`: points in units of 10^-decimals (of 1 if None)."""
        self.cells = cells
        self.decimals = decimals
        self._scale = 10.0 ** (decimals or 0)
        self._cell_of_point = np.repeat(np.arange(len(cells.counts)), cells.counts)
        self._first = np.cumsum(cells.counts) - cells.counts  # (C,): each cell's first point
        self._middles = midpoints(cells.points)

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Options: `decimals` (None: floats as they are), `cells`, `levels` (each at most 4096;
        by default chosen from the number of values)."""
        check_options(options, ("decimals", "cells", "levels", "digits", "decimal_comma"))
        decimals = int_option(options, "decimals", None, 0, MAX_DECIMALS)
        num_cells = int_option(options, "cells", None, 1, 4096)
        num_levels = int_option(options, "levels", None, 2, 4096)
        seen = tally(to_floats(chunk) for chunk in chunks)
        if not seen.total:
            raise nothing_to_learn("number")
        if decimals is not None:
            seen = seen.regrouped(_scaled(seen.values, decimals))
        num_cells = num_cells or default_cells(seen.total)
        num_levels = num_levels or default_levels(seen.total, num_cells)
        return cls(build_cells(seen, num_cells, num_levels, decimals is not None), decimals)

    @property
    def num_cells(self) -> int:
        return len(self.cells.counts)

    @property
    def num_levels(self) -> int:
        """How many residual codes there are; 0 if every cell is a spike."""
        most = int(self.cells.counts.max())
        return 0 if most == 1 else most

    @property
    def size(self) -> int:
        return self.num_cells + self.num_levels

    @property
    def slots(self) -> int | None:
        return 2 if self.num_levels else 1

    @property
    def low(self) -> int | float:
        """The least value of the training part; given values below it become it."""
        return self._values(self.cells.points[:1])[0]

    @property
    def high(self) -> int | float:
        """The greatest value of the training part; given values above it become it."""
        return self._values(self.cells.points[-1:])[0]

    def clamped(self, values: Sequence[Any]) -> int:
        """How many of the values lie outside [low, high] and would be moved to its ends."""
        keys = self._keys(values)
        return int(((keys < self.cells.points[0]) | (keys > self.cells.points[-1])).sum())

    def encode(self, value: Any) -> Ints:
        """int or float -> (slots,): the nearest value that the field can represent."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N * slots,) codes, and (N,) numbers of codes, all `slots`."""
        point = np.searchsorted(self._middles, self._keys(values), side="left")
        cell = self._cell_of_point[point]
        lens = np.full(len(cell), self.slots, np.int64)
        if not self.num_levels:
            return cell, lens
        residual = self.num_cells + point - self._first[cell]
        return np.stack([cell, residual], axis=1).reshape(-1), lens

    def decode(self, codes: Ints) -> int | float:
        """(slots,) -> int if `decimals` is 0, else float."""
        return self.decode_many(np.asarray(codes)[None, :])[0]

    def decode_many(self, codes: Ints) -> list[int | float]:
        """(N, slots) -> N values."""
        point = self._first[codes[:, 0]]
        if self.num_levels:
            point = point + codes[:, 1] - self.num_cells
        return self._values(self.cells.points[point])

    def cell_values(self) -> Floats:
        """(C,): the middle value of every cell, increasing."""
        return np.asarray(self.cells.points[self._first + self.cells.counts // 2] / self._scale)

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return no_coords(n)

    def grammar(self) -> Grammar:
        """A cell, then one of as many residuals as that cell has points, then the end."""
        if not self.num_levels:
            return one_code_grammar(self.size)
        kinds = np.unique(self.cells.counts)  # one state for each number of residuals
        end = len(kinds) + 1
        allowed = np.zeros((end + 1, self.size + 1), bool)
        step = np.full((end + 1, self.size), end, np.int64)
        allowed[0, : self.num_cells] = True
        step[0, : self.num_cells] = 1 + np.searchsorted(kinds, self.cells.counts)
        for state, kind in enumerate(kinds.tolist(), start=1):
            allowed[state, self.num_cells : self.num_cells + kind] = True
        allowed[end, -1] = True
        return Grammar(allowed, step)

    def describe(self) -> str:
        spikes = int((self.cells.counts == 1).sum())
        places = "floats" if self.decimals is None else f"{self.decimals} decimals"
        if not self.num_levels:
            return f"number: {spikes} spikes, {places}"
        wide = f"{self.num_cells - spikes} cells x {self.num_levels} levels"
        return f"number: {spikes} spikes, {wide}, {places}"

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        places = np.array([] if self.decimals is None else [self.decimals], np.int64)
        np.savez_compressed(
            folder / FILE, points=self.cells.points, counts=self.cells.counts, decimals=places
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        path = folder / FILE
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                points, counts, places = file["points"], file["counts"], file["decimals"]
                decimals = int(places[0]) if len(places) else None
        except OSError as error:
            raise damaged(path, error.strerror or str(error)) from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(path, str(error)) from None
        _check_loaded(path, points, counts, decimals)
        return cls(Cells(points, counts), decimals)

    def _keys(self, values: Sequence[Any]) -> Floats:
        keys = to_floats(values)
        return keys if self.decimals is None else _scaled(keys, self.decimals)

    def _values(self, points: Floats) -> list[int | float]:
        if self.decimals == 0:
            return [int(point) for point in points.tolist()]
        # The division of two exact doubles gives the double nearest to the decimal number.
        return list((points / self._scale).tolist())


def to_floats(values: Sequence[Any]) -> Floats:
    """N finite numbers -> (N,), with no -0.0. ValueRefused for anything else, bool included."""
    for kind in set(map(type, values)):
        if issubclass(kind, bool) or not issubclass(kind, int | float | np.integer | np.floating):
            odd = next(v for v in values if type(v) is kind)
            raise ValueRefused(f"a number is an int or a float, not {odd!r} ({kind.__name__})")
    try:
        out = np.array(values, np.float64)
    except OverflowError:
        raise ValueRefused("a number must lie within ±1.79e308") from None
    if not np.isfinite(out).all():
        odd = out[~np.isfinite(out)][0]
        raise ValueRefused(f"{odd} is not a finite number; leave the cell blank if it is unknown")
    return np.asarray(out + 0.0)


def _scaled(values: Floats, decimals: int) -> Floats:
    """Values -> the nearest whole numbers of 10^-decimals, kept within a double's range."""
    with np.errstate(over="ignore"):
        keys = np.rint(values * 10.0**decimals)
    largest = np.finfo(np.float64).max
    return np.asarray(np.clip(keys, -largest, largest) + 0.0)


def _check_loaded(path: Path, points: Any, counts: Any, decimals: int | None) -> None:
    """RunError unless the arrays are those of a codec."""
    good = (
        points.dtype == np.float64
        and counts.dtype == np.int64
        and points.ndim == counts.ndim == 1
        and len(counts) > 0
        and bool((counts > 0).all())
        and int(counts.sum()) == len(points)
        and bool(np.isfinite(points).all())
        and bool((points[1:] > points[:-1]).all())
        and (decimals is None or 0 <= decimals <= MAX_DECIMALS)
    )
    if not good:
        raise damaged(path, "its arrays are not those of a number codec")
