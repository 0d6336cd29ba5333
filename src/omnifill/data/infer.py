"""What each column is: counted in one pass over the source, decided by rules that say why."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omnifill.data.cells import Chunk, Problem
from omnifill.data.source import Source
from omnifill.data.values import FORMATS, MARKS, NUMBER, parse_datetime, parse_number
from omnifill.errors import DataError, RecipeError, unknown_name
from omnifill.progress import Progress
from omnifill.recipe import FieldSettings, Recipe
from omnifill.schema import DEFAULT_CODECS, FieldSpec, Schema

MOST_DISTINCT = 20_000
"""Distinct values that are counted one by one; beyond that a column is simply varied."""
OFFSET = re.compile(r"(?:Z|[+-]\d\d:?\d\d)\s*$")
MOST_DIGITS = 15
"""Significant digits that every double keeps."""
BESIDE_TEXT = 3.0
"""Weight of a field that is no text, where others are (docs/log.md)."""
SIGNS = 500
"""Characters of a writing in signs: more than any alphabet or abugida has (docs/log.md)."""
OFTEN = 5
"""Times that such a character is met, on average."""
MIN_ROWS = 2
"""Rows below which nothing can be learned."""
CATEGORY_SHARE, CATEGORY_FEW, CATEGORY_MOST, CATEGORY_LENGTH = 0.2, 50, 2000, 60


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

    def add(self, chunk: Chunk) -> None:
        """Look at a chunk's cells."""
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
            self._number(number, text)
        elif isinstance(cell, str) and text.strip().lower() in MARKS:
            self.marks[text.strip()] += count
        else:
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


STEPS = {
    "microsecond": 1, "millisecond": 1000, "second": 10**6, "minute": 60 * 10**6,
    "day": 86_400 * 10**6,
}  # fmt: skip


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


def infer_schema(found: Profile, recipe: Recipe) -> Schema:
    """The type of every column, with the reason; overrides of the recipe win.

    Problems that need no decision are added to `found.problems`.
    """
    asked = recipe.schema_.fields
    for name in asked:
        if name not in found.columns:
            raise RecipeError(f"schema.fields: {unknown_name('field', name, found.columns)}")
    if found.rows < MIN_ROWS and not found.source.stream:
        raise DataError(
            f"{found.source.label}: {found.rows} row; at least {MIN_ROWS} are needed to learn from"
        )
    split = recipe.data.split.column
    specs, left_out = [], [*recipe.data.drop, *([split] if split is not None else [])]
    for column in found.columns.values():
        if column.name in asked:
            specs.append(_spec(column, found, recipe))
            continue
        if column.num == column.blanks:
            found.problems.append(Problem(column.name, "every cell is blank; it is left out"))
            left_out.append(column.name)
        else:
            specs.append(_spec(column, found, recipe))
    if not any(column.visible for column in found.columns.values()):
        raise DataError(f"{found.source.label}: is blank throughout; there is nothing to learn")
    specs = [_weighed(spec, specs, asked) for spec in specs]
    return Schema(fields=tuple(specs), stream=found.source.stream, left_out=tuple(left_out))


def _spec(column: ColumnProfile, found: Profile, recipe: Recipe) -> FieldSpec:
    asked = recipe.schema_.fields.get(column.name)
    kind, why = guess_type(column, found)
    if asked is not None and asked.type is not None:
        if asked.codec is None and asked.type not in DEFAULT_CODECS:
            raise RecipeError(
                f"schema.fields.{column.name}.type: "
                + unknown_name("type", asked.type, DEFAULT_CODECS)
            )
        kind, why = asked.type, "as you said"
        if kind == "number":
            found.problems.extend(column.odd)
    else:
        found.problems.extend(_suspicions(column, kind, found.rows))
    codec = asked.codec if asked else None
    if codec is None and kind == "text" and column.in_signs and not (asked and asked.options):
        codec, why = "characters", f"{why}, of {len(column.signs)} kinds: spelt one by one"
    codec = codec or DEFAULT_CODECS[kind]
    marks = tuple(column.marks) if kind in ("number", "datetime") else ()
    return FieldSpec(
        name=column.name, type=kind, codec=codec, why=why,
        optional=column.blanks > 0 or bool(marks), blank_marks=marks,
        weight=(asked.weight if asked else None) or 1.0,
        max_tokens=asked.max_tokens if asked else None,
        join=recipe.data.join if column.kinds["list"] else None, native=_native(column, kind),
        options={**_options(column, kind), **(asked.options if asked else {})},
    )  # fmt: skip


def _weighed(
    spec: FieldSpec, specs: Sequence[FieldSpec], asked: Mapping[str, FieldSettings]
) -> FieldSpec:
    """Beside a text, which has many tokens to each of theirs, other fields count for more."""
    said = spec.name in asked and asked[spec.name].weight is not None
    if said or spec.type == "text" or all(other.type != "text" for other in specs):
        return spec
    return spec.model_copy(update={"weight": BESIDE_TEXT})


def guess_type(column: ColumnProfile, found: Profile) -> tuple[str, str]:
    """(type, reason)."""
    distinct = len(column.distinct) - len(column.marks)
    if found.source.kind in ("text", "aligned"):
        return "text", "a text file"
    if column.kinds["bool"] and column.kinds["bool"] == column.values:
        return "category", "true or false"
    if column.kinds["moment"] and column.kinds["moment"] == column.values:
        mixed = " in different time zones: they come out in UTC" if len(column.zones) > 1 else ""
        return "datetime", f"dates{mixed}"
    if column.numbers and column.numbers == column.values:
        if distinct <= 2 and column.whole and found.rows > 20:
            return "category", f"only {distinct} distinct numbers: a code"
        kind = "whole numbers" if column.whole else "decimal numbers"
        return "number", f"{kind} from {column.low:g} to {column.high:g}"
    if column.formats and column.numbers == 0:
        note = ""
        if _is_ambiguous(column.formats):
            note = " (day and month cannot be told apart in these cells)"
        if "%z" in column.formats[0] and len(column.zones) > 1:
            note = " (in different time zones: they come out in UTC)"
        return "datetime", f"dates written as {column.formats[0]}{note}"
    cells, distinct = column.num - column.blanks, len(column.distinct)  # a mark is a value here
    few = max(CATEGORY_FEW, min(CATEGORY_MOST, CATEGORY_SHARE * max(cells, 1)))
    repeats = distinct <= 0.5 * cells or distinct <= 2
    if not column.overflow and distinct <= few and repeats and column.longest <= CATEGORY_LENGTH:
        return "category", f"{distinct} distinct values in {cells} cells"
    varied = f"{'over ' if column.overflow else ''}{distinct} distinct values"
    if column.overflow and not distinct:
        varied = "long values"
    return "text", f"{varied}, about {column.characters / max(cells, 1):.0f} characters"


def _is_ambiguous(formats: list[str]) -> bool:
    day_first = any(f.startswith(("%d/%m", "%d-%m")) for f in formats)
    return day_first and any(f.startswith(("%m/%d", "%m-%d")) for f in formats)


def _suspicions(column: ColumnProfile, kind: str, rows: int) -> list[Problem]:
    out = []
    distinct = len(column.distinct)
    name = column.name
    if distinct == 1 and not column.overflow and column.blanks == 0 and rows > 2:
        out.append(Problem(name, f"is constant ({column.examples[0][:40]!r}); nothing to learn"))
    whole = kind == "number" and column.whole
    if rows > 20 and distinct == rows and (whole or (kind == "text" and column.longest <= 24)):
        out.append(Problem(name, "every value is distinct: an identifier? "
                           f"--set 'data.drop=[{name}]' leaves it out"))  # fmt: skip
    if kind in ("text", "category") and column.numbers > 0.9 * column.values and column.odd:
        share = column.numbers / column.values
        out.append(Problem(name, f"{share:.0%} of the cells are numbers, but not "
                           f"{column.odd[0].where}: {column.odd[0].what}"))  # fmt: skip
    for mark, count in column.marks.items():
        if kind in ("number", "datetime"):
            out.append(Problem(name, f"{mark!r} in {count} cells is read as a blank"))
        elif not mark:
            what = f"{count} cells hold nothing but white space: a value here, not a blank"
            out.append(Problem(name, what))
        else:
            what = f"{mark!r} in {count} cells is a value here; empty the cells if it means a blank"
            out.append(Problem(name, what))
    return out


Native = Literal["str", "int", "float", "bool", "datetime", "date"]


def _native(column: ColumnProfile, kind: str) -> Native:
    if kind == "number":
        return "int" if column.whole and not column.kinds["float"] else "float"
    kinds = {k for k in column.kinds if k != "moment"}
    if kind == "datetime":
        if kinds <= {"Timestamp", "datetime"} and kinds:
            return "datetime"
        return "date" if kinds == {"date"} else "str"
    if kinds == {"bool"}:
        return "bool"
    if kinds == {"int"}:
        return "int"
    return "float" if kinds == {"float"} else "str"


def _options(column: ColumnProfile, kind: str) -> dict[str, Any]:
    if kind == "number":
        decimals = 0 if column.whole and not column.kinds["float"] else column.decimals
        kept = decimals is None and 0 < column.digits <= MOST_DIGITS
        return {"decimals": decimals} | ({"digits": column.digits} if kept else {})
    if kind == "datetime":
        return _datetime_options(column)
    return {}


def _datetime_options(column: ColumnProfile) -> dict[str, Any]:
    if column.kinds["moment"]:
        finest = min(column.step_parts, key=lambda part: STEPS[part])
        return {"step": STEPS[finest]} | _zone(column)
    if not column.formats:
        return {"step": STEPS["microsecond"]}
    format_ = column.formats[0]
    finest = (
        "microsecond" if "%f" in format_ else "second" if "%S" in format_
        else "minute" if "%M" in format_ else "day"
    )  # fmt: skip
    zone = _zone(column) if "%z" in format_ else {}
    return {"format": format_, "step": STEPS[finest]} | zone


def _zone(column: ColumnProfile) -> dict[str, Any]:
    """The time zone that values are given back in, if all were in one; else it is UTC."""
    zones = sorted(str(zone).strip() for zone in column.zones - {None})
    return {"time_zone": zones[0]} if len(zones) == 1 and len(column.zones) == 1 else {}
