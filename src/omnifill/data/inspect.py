"""What was understood of a source, to be read before any time is spent."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from omnifill.data.cells import Problem
from omnifill.data.infer import ColumnProfile, Profile, infer_schema, profile
from omnifill.data.source import open_source
from omnifill.recipe import Recipe
from omnifill.schema import FieldSpec, Schema


@dataclass(frozen=True)
class Inspection:
    """A source, understood."""

    found: Profile
    schema: Schema
    recipe: Recipe
    problems: list[Problem]


def inspect_data(data: Any, recipe: Recipe) -> Inspection:
    """Read the whole source once and say what each field is and what is odd."""
    problems: list[Problem] = []
    found = profile(open_source(data, recipe.data), recipe, problems)
    schema = infer_schema(found, recipe)
    return Inspection(found, schema, recipe, found.problems)


def render(inspection: Inspection) -> str:
    """As text for a terminal."""
    found, schema = inspection.found, inspection.schema
    head = f"{found.source.label}: {found.rows:,} rows, {len(schema.fields)} fields"
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
    split = inspection.recipe.data.split
    if split.column is not None:
        lines.append(f"split: by column {split.column!r}")
    else:
        shares = (1 - split.valid - split.test, split.valid, split.test)
        counts = [f"{round(found.rows * s):,}" for s in shares]
        lines.append(
            "split: about {} rows to train on, {} to validate, {} kept for the test".format(*counts)
            if not schema.stream
            else f"split: the last {split.test:.0%} for the test, {split.valid:.0%} before it to "
            f"validate"
        )
    if found.duplicates:
        lines.append(f"{found.duplicates:,} rows repeat an earlier row (they stay on one side)")
    if inspection.problems:
        lines.append(f"\n{len(inspection.problems)} things to look at:")
        lines.extend(f"  {p.where}: {p.what}" for p in inspection.problems[:40])
        if len(inspection.problems) > 40:
            lines.append(f"  … and {len(inspection.problems) - 40} more (--json lists all)")
    name = schema.fields[0].name
    lines.append(f"\nanother type: --field {name}:text · leave out: --set 'data.drop=[{name}]'")
    return "\n".join(lines)


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
