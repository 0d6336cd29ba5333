"""Nested values become flat columns: dictionaries by dots, lists of strings by a separator."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from omnifill.data.cells import Chunk
from omnifill.data.media import MediaFile
from omnifill.errors import DataError, unknown_name
from omnifill.paths import to_set
from omnifill.settings import DataSettings

INNER = " | "
"""Joins the strings of a list within a list."""
PLAIN = (str, int, float, bool, datetime.date, datetime.datetime)


def flatten_chunk(chunk: Chunk, settings: DataSettings) -> Chunk:
    """The chunk with only plain cells; DataError names what is nested otherwise."""
    if settings.explode is not None:
        chunk = _explode(chunk, settings.explode)
    if not any(isinstance(c, (dict, list, tuple)) or not _plain(c)
               for cells in chunk.columns.values() for c in cells):  # fmt: skip
        return chunk
    columns: dict[str, list[Any]] = {}
    for name, cells in chunk.columns.items():
        if name in settings.drop:
            columns[name] = [None] * len(chunk)
            continue
        for row, cell in enumerate(cells):
            for path, value in _flat(name, cell, settings, chunk, row):
                columns.setdefault(path, [None] * len(chunk))[row] = value
        if name not in columns and all(c is None for c in cells):
            columns[name] = list(cells)
    return Chunk(columns, chunk.file, chunk.lines)


def _plain(cell: Any) -> bool:
    return cell is None or isinstance(cell, (*PLAIN, MediaFile))


def _flat(
    name: str, cell: Any, settings: DataSettings, chunk: Chunk, row: int
) -> list[tuple[str, Any]]:
    if name in settings.drop:
        return [(name, None)]
    if isinstance(cell, dict):
        return [
            item for key, value in cell.items()
            for item in _flat(f"{name}.{key}", value, settings, chunk, row)
        ]  # fmt: skip
    if isinstance(cell, (list, tuple)):
        items = [_inner(item) for item in cell]
        if all(isinstance(item, str) for item in items):
            return [(name, settings.join.join(items) if items else None)]
        kind = next(type(item).__name__ for item in items if not isinstance(item, str))
        raise DataError(
            f"{chunk.where(row, name)}: a list that holds a {kind}; lists of strings are "
            f"joined, others need a decision: --set data.explode={name} makes a row of each "
            f"element, {to_set('data.drop', [name])} leaves the column out"
        )
    if not _plain(cell):
        if hasattr(cell, "isoformat") or getattr(cell, "size", 0) == 1 or hasattr(cell, "as_tuple"):
            return [(name, _scalar(cell))]
        kind = type(cell).__name__
        example = base64.b64encode(cell[:6]).decode() if isinstance(cell, bytes) else str(cell)[:20]
        raise DataError(
            f"{chunk.where(row, name)}: a {kind} ({example}…) is no text, number or date; leave "
            f"the column out: {to_set('data.drop', [name])}"
        )
    return [(name, cell)]


def _inner(item: Any) -> Any:
    """An element of a list; a list of strings within it becomes one, as in a list of triples."""
    if isinstance(item, (list, tuple)) and all(isinstance(part, str) for part in item):
        return INNER.join(item)
    return item


def _scalar(cell: Any) -> Any:
    """numpy scalars and decimals as Python numbers."""
    if hasattr(cell, "item"):
        return cell.item()
    return str(cell)


def _explode(chunk: Chunk, name: str) -> Chunk:
    """One row for each element of a list column."""
    if name not in chunk.columns:
        raise DataError(f"data.explode: {unknown_name('column', name, chunk.columns)}")
    counts = [len(c) if isinstance(c, list) else 1 for c in chunk.columns[name]]
    columns: dict[str, list[Any]] = {}
    for key, cells in chunk.columns.items():
        if key == name:
            columns[key] = [
                e for c in cells for e in (c if isinstance(c, list) else [c])
            ]  # fmt: skip
        else:
            columns[key] = [c for c, n in zip(cells, counts, strict=True) for _ in range(n)]
    lines = [line for line, n in zip(chunk.lines, counts, strict=True) for _ in range(n)]
    return Chunk(columns, chunk.file, lines)
