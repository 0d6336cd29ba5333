"""What was understood of a source, to be read before any time is spent."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnifill.data.cells import Problem
from omnifill.data.clean import read_cells
from omnifill.data.infer import infer_schema
from omnifill.data.profile import ColumnProfile, Profile, profile
from omnifill.data.source import open_source
from omnifill.data.stage import Broken, split_sizes
from omnifill.data.values import media_shape
from omnifill.errors import DataError, RequestError
from omnifill.files import atomic_path
from omnifill.paths import to_set
from omnifill.recipe import Recipe
from omnifill.schema import FieldSpec, Schema

MOST_DRAWN = 100
"""Pictures of a sheet."""
MOST_COUNTED = 200_000
"""Rows that are gone through once more to say how they are split."""


@dataclass(frozen=True)
class Inspection:
    """A source, understood."""

    found: Profile
    schema: Schema
    recipe: Recipe
    problems: list[Problem]
    parts: dict[str, int] | None
    """Rows to train on, to validate and for the test; None: too many to count, or not readable."""


def inspect_data(data: Any, recipe: Recipe) -> Inspection:
    """Read the whole source once and say what each field is and what is odd."""
    problems: list[Problem] = []
    found = profile(open_source(data, recipe.data), recipe, problems)
    schema = infer_schema(found, recipe)
    parts = None
    found.problems.extend(Problem(found.source.label, note) for note in found.source.notes)
    if not found.refused and not schema.stream and found.rows <= MOST_COUNTED:
        broken = Broken(1.0)
        with suppress(DataError):  # a cell that does not fit: training will name it
            parts = split_sizes(found.source, schema, recipe, broken)
        found.problems.extend(_of_broken(broken, recipe))
    return Inspection(found, schema, recipe, found.problems, parts)


def _of_broken(broken: Broken, recipe: Recipe) -> Iterator[Problem]:
    for line in broken.found:
        where, _, what = line.partition(": ")
        yield Problem(where, what)
    if len(broken.found) > recipe.data.broken * broken.rows:
        share = f"{len(broken.found) / broken.rows:.1%}"
        yield Problem("data.broken", f"{share} of the files cannot be read; `train` stops at more "
                      f"than {recipe.data.broken:.1%}")  # fmt: skip


def render(inspection: Inspection) -> str:
    """As text for a terminal."""
    found, schema = inspection.found, inspection.schema
    head = f"{found.source.label}: {found.rows:,} rows, {count(len(schema.fields), 'field')}"
    if schema.stream:
        head = f"{found.source.label}: one text, read as a stream in {found.rows:,} pieces"
    rows = [["field", "type", "blank", "distinct", "why", "examples"]]
    for spec in schema.fields:
        column = found.columns[spec.name]
        distinct = f"{'>' if column.overflow else ''}{len(column.distinct):,}"
        if column.overflow and not column.distinct:
            distinct = "–"  # long texts are not counted
        blanks = f"{_blanks(column, spec):,}"
        examples = " | ".join(_shortened(e.replace("\n", "⏎")) for e in column.examples)
        rows.append([spec.name, spec.type, blanks, distinct, spec.why, examples])
    lines = [head, "", *_aligned(rows), ""]
    lines.append(_split(inspection))
    if found.duplicates:
        verb = "repeats" if found.duplicates == 1 else "repeat"
        lines.append(
            f"{count(found.duplicates, 'row')} {verb} an earlier row (they stay on one side)"
        )
    if found.refused:
        lines.append(
            f"\n{count(found.refused, 'row')} cannot be read, and above only the others count; "
            f"`train` stops there: correct or remove what is named below"
        )
    if inspection.problems:
        lines.append(f"\n{count(len(inspection.problems), 'thing')} to look at:")
        lines.extend(f"  {p.where}: {p.what}" for p in inspection.problems[:40])
        if len(inspection.problems) > 40:
            lines.append(f"  … and {len(inspection.problems) - 40} more (--json lists all)")
    first = schema.fields[0]
    other = "category" if first.type == "text" else "text"
    hint = f"another type: --field {first.name}:{other}"
    if len(schema.fields) > 1:
        hint += f" · leave out: {to_set('data.drop', [first.name])}"
    lines.append(f"\n{hint}")
    return "\n".join(lines)


def draw_sheet(inspection: Inspection, path: Path) -> None:
    """Some of the pictures, from all over the source, as a model would see them. RequestError if
    there are none."""
    from omnifill.data.image import sheet, to_image

    images = [spec for spec in inspection.schema.fields if spec.type == "image"]
    if not images:
        raise RequestError("--sheet draws pictures, and no field holds any")
    spec, every = images[0], max(1, -(-inspection.found.rows // MOST_DRAWN))
    shape, drawn, number = media_shape(spec), [], 0
    for chunk in inspection.found.source.chunks():
        rows = [row for row in range(len(chunk)) if (number + row) % every == 0]
        number += len(chunk)
        some = chunk.rows(rows)
        cells = read_cells(spec, some.columns[spec.name], str, inspection.recipe.data.clean, False,
                           folder=chunk.folder, broken={})  # fmt: skip
        drawn += [to_image(cell, shape) for cell in cells if cell is not None]
    if not drawn:
        raise RequestError("--sheet: none of the pictures can be read")
    with atomic_path(path) as beside:
        sheet(drawn[:MOST_DRAWN], 10).save(beside, "PNG")


def count(num: int, what: str) -> str:
    """'1 row', '2,000 rows'."""
    return f"{num:,} {what}{'' if num == 1 else 's'}"


def _split(inspection: Inspection) -> str:
    split, rows, parts = inspection.recipe.data.split, inspection.found.rows, inspection.parts
    if inspection.schema.stream:
        return (
            f"split: the last {split.test:.0%} for the test, {split.valid:.0%} before it to "
            f"validate"
        )
    by = "" if split.column is None else f" (by column {split.column!r})"
    about = ""
    if parts is None:
        if split.column is not None:
            return f"split: by column {split.column!r}"
        about = "about "
        shares = {"train": 1 - split.valid - split.test, "valid": split.valid, "test": split.test}
        parts = {part: round(rows * share) for part, share in shares.items()}
    return (
        f"split: {about}{parts['train']:,} rows to train on, {parts['valid']:,} to validate, "
        f"{parts['test']:,} kept for the test{by}"
    )


def _blanks(column: ColumnProfile, spec: FieldSpec) -> int:
    return column.blanks + sum(column.marks[mark] for mark in spec.blank_marks)


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """As plain data."""
    found = inspection.found
    fields = {}
    for spec in inspection.schema.fields:
        column = found.columns[spec.name]
        fields[spec.name] = {
            "type": spec.type, "why": spec.why, "blank": _blanks(column, spec),
            "distinct": len(column.distinct), "distinct_is_exact": not column.overflow,
            "examples": column.examples, "options": spec.options,
        }  # fmt: skip
    return {
        "source": found.source.label, "kind": found.source.kind, "rows": found.rows,
        "duplicates": found.duplicates, "stream": inspection.schema.stream, "fields": fields,
        "rows_refused": found.refused, "split": inspection.parts,
        "problems": [asdict(p) for p in inspection.problems],
    }  # fmt: skip


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(width_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell + " " * (w - width_of(cell)) for cell, w in zip(row, widths, strict=True))
        .rstrip()
        for row in rows
    ]  # fmt: skip


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian wide characters take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _shortened(example: str) -> str:
    return example if len(example) <= 25 else f"{example[:24]}…"
