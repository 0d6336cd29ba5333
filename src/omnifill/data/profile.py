"""What one pass over a source saw of its columns."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from omnifill.data.cells import Chunk, Problem
from omnifill.data.gallery import MediaProfile
from omnifill.data.source import Source
from omnifill.data.values import (
    COMMA,
    FORMATS,
    MARKS,
    NUMBER,
    parse_datetime,
    parse_number,
    with_point,
)
from omnifill.errors import RecipeError, unknown_name
from omnifill.progress import Progress
from omnifill.recipe import Recipe

MOST_DISTINCT = 20_000
"""Distinct values that are counted one by one; beyond that a column is simply varied."""
OFFSET = re.compile(r"(?:Z|[+-]\d\d:?\d\d)\s*$")
SIGNS = 500
"""Characters of a writing in signs: more than any alphabet or abugida has (docs/log.md)."""
OFTEN = 5
"""Times that such a character is met, on average."""


@dataclass
class ColumnProfile:
    """What one pass saw of a column."""

    name: str
    num: int = 0
    blanks: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Python types of the cells."""
    distinct: Counter[str] = field(default_factory=Counter)
    overflow: bool = False
    """More distinct values than are counted."""
    numbers: int = 0
    commas: int = 0
    """Numbers such as 1,5."""
    points: bool = False
    """Whether there are numbers such as 1.5."""
    sure: bool = False
    """Whether one of those with a comma cannot be one of thousands."""
    whole: bool = True
    decimals: int | None = 0
    digits: int = 0
    """Most significant digits of a number with a point."""
    zones: set[str | None] = field(default_factory=set)
    """Time zones of dates, as they are written."""
    low: float = math.inf
    high: float = -math.inf
    formats: list[str] | None = None
    """Datetime formats that fit every cell so far; None: no cell yet."""
    step_parts: set[str] = field(default_factory=set)
    visible: bool = False
    """Whether any cell holds more than white space."""
    longest: int = 0
    characters: int = 0
    beyond: int = 0
    """Bytes of UTF-8 beyond one for each character."""
    signs: set[str] = field(default_factory=set)
    """Distinct characters of cells that are not ASCII alone."""
    odd: list[Problem] = field(default_factory=list)
    """Where the first cells that are no numbers stand."""
    examples: list[str] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)
    media: MediaProfile = field(default_factory=MediaProfile)

    def add(self, chunk: Chunk) -> None:
        """Look at a chunk's cells."""
        self.media.add(chunk, self.name)
        cells = chunk.columns[self.name]
        self.num += len(cells)
        counts: dict[Any, int] = Counter(
            cells if _hashable(cells) else [c if c.__hash__ else str(c) for c in cells]
        )
        self.blanks += counts.pop(None, 0)
        for cell, count in counts.items():
            self._look(chunk, cell, count)

    def _look(self, chunk: Chunk, cell: Any, count: int) -> None:
        self.kinds[type(cell).__name__] += count
        text = cell if isinstance(cell, str) else str(cell)
        self.visible = self.visible or not text.isspace()
        self.longest = max(self.longest, len(text))
        self.characters += len(text) * count
        if not text.isascii():
            self.beyond += (len(text.encode("utf-8", "surrogatepass")) - len(text)) * count
            self.signs.update(text)
        if len(self.examples) < 3 and text not in self.examples:
            self.examples.append(text)
        seen = text in self.distinct
        if len(text) <= 200 and (seen or len(self.distinct) < MOST_DISTINCT):
            self.distinct[text] += count
        else:
            self.overflow = True
        number = _as_number(cell)
        if number is not None:
            self.numbers += count
            self.points = self.points or isinstance(number, float)
            self._number(number, text)
        elif isinstance(cell, str) and text.strip().lower() in MARKS:
            self.marks[text.strip()] += count
        else:
            if comma := COMMA.fullmatch(text.strip()):
                self.commas += count
                self.sure = self.sure or len(comma[2]) != 3 or comma[1].strip("+-") == "0"
                self._number(float(with_point(text)), with_point(text))
            if len(self.odd) < 5:
                row = chunk.columns[self.name].index(cell)
                what = f"{text[:40]!r} is no number"
                self.odd.append(Problem(chunk.where(row, self.name), what))
            self._date(cell, text, count)

    def _number(self, number: int | float, text: str) -> None:
        self.low, self.high = min(self.low, number), max(self.high, number)
        if isinstance(number, float) and self.decimals is not None:
            self.whole = False
            places = decimal_places(number, text)
            self.decimals = None if places is None else max(self.decimals, places)
        if isinstance(number, float):
            self.digits = max(self.digits, significant(text))

    def _date(self, cell: Any, text: str, count: int) -> None:
        if isinstance(cell, (datetime.date, datetime.datetime)):
            self.kinds["moment"] += count
            self.step_parts.add(_finest(cell))
            zone = cell.tzinfo if isinstance(cell, datetime.datetime) else None
            self.zones.add(None if zone is None else str(zone))
            return
        if self.formats == [] or len(text) > 40:
            self.formats = []
            return
        formats = list(FORMATS) if self.formats is None else self.formats
        self.formats = [f for f in formats if parse_datetime(text, f) is not None]
        offset = OFFSET.search(text)
        self.zones.add(offset[0] if offset else None)

    @property
    def in_signs(self) -> bool:
        """Whether it is written in signs (as Chinese is) more than in letters: characters of more
        than two bytes on average, and more kinds of them than a small vocabulary of BPE holds,
        which would spell most of them in pieces; and each is met often enough to be learned."""
        often = self.characters > OFTEN * len(self.signs)
        return often and self.beyond > self.characters and len(self.signs) > SIGNS

    @property
    def decimal_comma(self) -> bool:
        """Whether its numbers are written with a decimal comma, or may be."""
        return self.commas > 0 and not self.points and self.numbers + self.commas == self.values

    @property
    def values(self) -> int:
        """Cells that are neither blank nor, in numbers and dates, a mark for it."""
        return self.num - self.blanks - sum(self.marks.values())


def decimal_places(number: float, text: str) -> int | None:
    """Digits behind the point; None where there are too many to keep exactly."""
    if "e" in text.lower() or not NUMBER.fullmatch(text.strip()):
        return None
    places = len(text.strip().partition(".")[2])
    if places > 9:
        return None
    # A fraction that float arithmetic made (0.30000000000000004) is no decimal number.
    return places if abs(number) * 10**places < 2**50 else None


def significant(text: str) -> int:
    """Digits of a number that count, as it is written: 3 for -0.0120 and 1.20e-8."""
    mantissa = text.strip().lower().partition("e")[0]
    return len(mantissa.replace(".", "").lstrip("+-0"))


def _hashable(cells: list[Any]) -> bool:
    return all(c is None or c.__hash__ is not None for c in cells[:64])


def _as_number(cell: Any) -> int | float | None:
    if isinstance(cell, bool):
        return None
    if isinstance(cell, (int, float)):
        return cell if math.isfinite(cell) and abs(cell) <= 1e300 else None
    return parse_number(cell) if isinstance(cell, str) else None


def _finest(moment: datetime.date) -> str:
    if not isinstance(moment, datetime.datetime):
        return "day"
    if moment.microsecond:
        return "millisecond" if moment.microsecond % 1000 == 0 else "microsecond"
    if moment.second:
        return "second"
    return "minute" if moment.hour or moment.minute else "day"


@dataclass
class Profile:
    """What one pass saw of a source."""

    source: Source
    columns: dict[str, ColumnProfile]
    rows: int = 0
    duplicates: int = 0
    """Rows that repeat an earlier row."""
    refused: int = 0
    """Rows that cannot be read, and that training would stop at."""
    problems: list[Problem] = field(default_factory=list)


def profile(source: Source, recipe: Recipe, problems: list[Problem] | None = None) -> Profile:
    """One pass over the source. With a list of problems, bad rows go there instead of raising."""
    split = recipe.data.split.column
    if split is not None and split not in source.names:
        raise RecipeError(f"data.split.column: {unknown_name('column', split, source.names)}")
    columns = {n: ColumnProfile(n) for n in source.names if n != split}
    out = Profile(source, columns)
    seen: set[bytes] = set()
    with Progress(f"reading {source.label}", None, "rows") as progress:
        for chunk in source.chunks(problems):
            for column in columns.values():
                column.add(chunk)
            if not source.stream:
                for row in zip(*chunk.columns.values(), strict=True):
                    key = hashlib.blake2b(repr(row).encode("utf-8", "replace"), digest_size=8)
                    out.duplicates += key.digest() in seen
                    if len(seen) < 5_000_000:  # bounds memory; beyond it repeats go uncounted
                        seen.add(key.digest())
            out.rows += len(chunk)
            progress.advance(len(chunk))
    if problems is not None:
        out.problems.extend(problems)
        out.refused = len(problems)
    return out
