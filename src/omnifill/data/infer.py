"""What each column is: decided by rules that say why, from what one pass over the source saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from omnifill.data.cells import Problem
from omnifill.data.profile import ColumnProfile, Profile
from omnifill.errors import DataError, RecipeError, unknown_name
from omnifill.paths import to_set
from omnifill.recipe import Recipe
from omnifill.schema import DEFAULT_CODECS, MEDIA, FieldSpec, Schema
from omnifill.settings import FieldSettings

MOST_DIGITS = 15
"""Significant digits that every double keeps."""
BESIDE_TEXT = 3.0
BESIDE_MEDIA = 10.0
"""Weights of a field of few slots where others are texts, and where they are pictures or sounds
(docs/log.md)."""
MIN_ROWS = 2
"""Rows below which nothing can be learned."""
CATEGORY_SHARE, CATEGORY_FEW, CATEGORY_MOST, CATEGORY_LENGTH = 0.2, 50, 2000, 60
STEPS = {
    "microsecond": 1, "millisecond": 1000, "second": 10**6, "minute": 60 * 10**6,
    "day": 86_400 * 10**6,
}  # fmt: skip


def infer_schema(found: Profile, recipe: Recipe) -> Schema:
    """The type of every column, with the reason; overrides of the recipe win.

    Problems that need no decision are added to `found.problems`.
    """
    asked = recipe.schema_.fields
    for name in asked:
        if name not in found.columns:
            raise RecipeError(f"schema.fields: {unknown_name('field', name, found.columns)}")
    if found.rows < MIN_ROWS and not found.source.stream:
        unread = (
            ""
            if not found.refused
            else f" that can be read ({found.problems[0].where}: {found.problems[0].what})"
        )
        raise DataError(
            f"{found.source.label}: {found.rows} row{unread}; at least "
            f"{MIN_ROWS} are needed to learn from"
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
    if asked is not None and asked.type is not None and asked.type not in MEDIA:
        column.media.none = True  # names that end like those of pictures, then
    kind, why = guess_type(column, found)
    if asked is not None and asked.type is not None:
        if asked.codec is None and asked.type not in DEFAULT_CODECS:
            raise RecipeError(
                f"schema.fields.{column.name}.type: "
                + unknown_name("type", asked.type, DEFAULT_CODECS)
            )
        kind, why = asked.type, "as you said"
        if kind == "number" and not column.decimal_comma:
            found.problems.extend(column.odd)
    else:
        found.problems.extend(_suspicions(column, kind, found.rows))
    codec = asked.codec if asked else None
    if codec is None and kind == "text" and column.in_signs and not (asked and asked.options):
        codec, why = "characters", f"{why}, of {len(column.signs)} kinds: spelt one by one"
    codec = codec or DEFAULT_CODECS[kind]
    marks = tuple(column.marks) if kind in ("number", "datetime") else ()
    options = {**_options(column, kind), **(asked.options if asked else {})}
    if kind == column.media.found:
        why += column.media.changed(options)
    if asked and asked.max_tokens and kind in DEFAULT_CODECS and kind != "text":
        raise RecipeError(f"schema.fields.{column.name}.max_tokens: is for texts, and this is "
                          f"a field of type {kind}; leave it out")  # fmt: skip
    return FieldSpec(
        name=column.name, type=kind, codec=codec, why=why,
        optional=column.blanks > 0 or bool(marks), blank_marks=marks,
        weight=(asked.weight if asked else None) or 1.0,
        max_tokens=asked.max_tokens if asked else None,
        join=recipe.data.join if column.kinds["list"] else None, native=_native(column, kind),
        options=options,
    )  # fmt: skip


def _weighed(
    spec: FieldSpec, specs: Sequence[FieldSpec], asked: Mapping[str, FieldSettings]
) -> FieldSpec:
    """Beside what has many codes to each of theirs, other fields count for more."""
    said = spec.name in asked and asked[spec.name].weight is not None
    types = {other.type for other in specs}
    if said or spec.type == "text" or spec.type in MEDIA or types.isdisjoint({"text", *MEDIA}):
        return spec
    weight = BESIDE_TEXT if types.isdisjoint(MEDIA) else BESIDE_MEDIA
    return spec.model_copy(update={"weight": weight})


def guess_type(column: ColumnProfile, found: Profile) -> tuple[str, str]:
    """(type, reason)."""
    distinct = len(column.distinct) - len(column.marks)
    if column.media.found is not None:
        return column.media.found, column.media.why(column.name)
    if column.name in found.source.types:
        return found.source.types[column.name]
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
    if column.decimal_comma and column.sure:
        span = f"from {column.low:g} to {column.high:g}".replace(".", ",")
        return "number", f"decimal numbers with a comma, {span}"
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
                           f"{to_set('data.drop', [name])} leaves it out"))  # fmt: skip
    if kind in ("text", "category") and column.decimal_comma:
        out.append(Problem(name, "numbers with a comma: of thousands, or before decimals? --field "
                           f"{name}:number takes it for decimals"))  # fmt: skip
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
    if kind == column.media.found:
        return column.media.options()
    if kind == "number":
        decimals = 0 if column.whole and not column.kinds["float"] else column.decimals
        kept = decimals is None and 0 < column.digits <= MOST_DIGITS
        comma = {"decimal_comma": True} if column.decimal_comma else {}
        return {"decimals": decimals} | ({"digits": column.digits} if kept else {}) | comma
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
