"""Rows, parsed, cleaned and split, on disk: one Arrow file a part, read back column by column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from omnifill.data.cells import Chunk
from omnifill.data.clean import AS_TEXT, Repeats, read_cells
from omnifill.data.source import Source
from omnifill.data.split import PARTS, part_of, stream_parts
from omnifill.data.values import media_shape
from omnifill.errors import DataError, RunError
from omnifill.files import atomic_path, reason, write_atomic
from omnifill.progress import Progress
from omnifill.recipe import Recipe
from omnifill.schema import MEDIA, FieldSpec, Schema
from omnifill.settings import SplitSettings

ENOUGH = 200
"""Broken files at which reading may stop before its end."""
SHOWN = 5
"""Broken files that one message names."""
CHUNK_ROWS, AT_ONCE = 8192, 64 << 20
"""Rows of a chunk, and bytes of its pictures and sounds, at most."""
STREAM_SHARDS = 400
"""A stream's pieces are cut again so that there are about this many to share out."""


@dataclass(frozen=True)
class Staged:
    """Canonical rows on disk."""

    folder: Path
    rows: dict[str, int]
    notes: list[str]

    def values(self, part: str, name: str) -> Values:
        """The values of one field of a part, without blanks."""
        return Values(self.folder / f"{part}.arrow", name)

    def chunks(
        self, part: str, names: list[str] | None = None, size: int = CHUNK_ROWS
    ) -> Iterator[dict[str, list[Any]]]:
        """Columns of a part, chunk by chunk (memory-mapped)."""
        path = self.folder / f"{part}.arrow"
        try:
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file)
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    if names is not None:
                        batch = batch.select(names)
                    for start in range(0, len(batch), size):
                        yield batch.slice(start, size).to_pydict()
        except (pa.ArrowException, OSError) as error:
            raise RunError(f"{path}: staged rows are damaged or missing ({error})") from None


def rows_at_once(schema: Schema) -> int:
    """Rows that are in memory together: fewer where values are large."""
    sizes = [int(media_shape(f).size) for f in schema.fields if f.type in MEDIA]
    return max(16, min(CHUNK_ROWS, AT_ONCE // max(1, sum(sizes))))


class Broken:
    """Files that cannot be read: their rows are left out, as long as they are few."""

    def __init__(self, most: float) -> None:
        """`most`: the share of rows above which to stop."""
        self.most, self.rows = most, 0
        self.found: list[str] = []

    def add(self, found: Sequence[str]) -> None:
        self.found.extend(found)
        self.rows += len(found)

    def check(self, rows: int, *, end: bool = False) -> None:
        """Count `rows` more that can be read. DataError if too many cannot."""
        self.rows += rows
        most = self.most * self.rows
        # Before the end only far too many count: broken files may all stand in one folder.
        too_many = len(self.found) > most if end else len(self.found) > max(ENOUGH, 20 * most)
        if too_many:
            some = "".join(f"\n  {line}" for line in self.found[:SHOWN])
            more = len(self.found) - SHOWN
            raise DataError(
                f"{len(self.found)} of {self.rows:,} files cannot be read, and data.broken = "
                f"{self.most:g} is the largest share that is left out (--set data.broken=N for "
                f"more):{some}"
                + (f"\n  … and {more} more (`omnifill inspect` lists them)" if more > 0 else "")
            )

    def notes(self) -> list[str]:
        """What a user is told of them at the end."""
        self.check(0, end=True)
        if not self.found:
            return []
        some = "; ".join(self.found[:SHOWN]) + ("; …" if len(self.found) > SHOWN else "")
        verb = "row is" if len(self.found) == 1 else "rows are"
        return [f"{len(self.found)} {verb} left out, whose files cannot be read: {some}"]


class Values(Sequence[Any]):
    """The values of one field of a part, without blanks, on disk: any of them at any time."""

    def __init__(self, path: Path, name: str) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        self.column = pa.chunked_array(
            [batch.column(name) for batch in batches], reader.schema.field(name).type
        )
        self.rows = np.flatnonzero(self.column.is_valid().to_numpy())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.column[int(self.rows[number])].as_py()


def arrow_schema(schema: Schema) -> pa.Schema:
    """How canonical values are stored."""
    return pa.schema([(f.name, _arrow_type(f)) for f in schema.fields])


def _arrow_type(field: FieldSpec) -> pa.DataType:
    if field.type == "number":
        return pa.int64() if field.options.get("decimals") == 0 else pa.float64()
    if field.type == "datetime":
        return pa.int64()
    if field.type in MEDIA:
        return pa.large_binary()
    return pa.large_string()


def open_staged(folder: Path) -> Staged:
    """What `stage` wrote."""
    try:
        state = json.loads((folder / "staged.json").read_text(encoding="utf-8"))
        return Staged(folder, state["rows"], state["notes"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: staged rows are damaged or missing ({error})") from None


def stage(
    source: Source, schema: Schema, recipe: Recipe, folder: Path, valid: Source | None = None
) -> Staged:
    """Parse, clean and split every row of the source into `folder`. DataError names bad cells."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = dict.fromkeys(PARTS, 0)
    notes: list[str] = list(source.notes)
    broken = Broken(recipe.data.broken)
    arrow = arrow_schema(schema)
    with ExitStack() as stack:
        writers = {}
        for part in PARTS:
            path = stack.enter_context(atomic_path(folder / f"{part}.arrow"))
            sink = stack.enter_context(pa.OSFile(str(path), "wb"))
            writers[part] = stack.enter_context(pa.ipc.new_file(sink, arrow))
        parts = _split_rows(source, schema, recipe, notes, valid is not None, broken)
        seen = Repeats("exact") if valid is not None else None
        with Progress("preparing rows", None, "rows") as progress:
            for part, columns in parts:
                num = _write(writers[part], arrow, part, columns, rows)
                progress.advance(num)
                if seen is not None:
                    seen.add(columns)
            if valid is not None and seen is not None:
                shared = 0
                for columns, _ in _clean_chunks(valid, schema, recipe, broken):
                    _write(writers["valid"], arrow, "valid", columns, rows)
                    shared += seen.shared(columns)
                if shared:
                    notes.append(
                        f"{shared} of the {rows['valid']} validation rows stand in the training "
                        f"part too: what is learned by heart looks good on them"
                    )
    notes.extend(broken.notes())
    if rows["train"] == 0:
        counts = ", ".join(f"{part} {num}" for part, num in rows.items())
        raise DataError(
            f"{source.label}: no row is left to train on ({counts}). Rows that are alike stay on "
            f"one side; give more that differ, or set data.split.valid and .test to 0"
        )
    write_atomic(folder / "staged.json", json.dumps({"rows": rows, "notes": notes}).encode())
    return Staged(folder, rows, notes)


def split_sizes(source: Source, schema: Schema, recipe: Recipe, broken: Broken) -> dict[str, int]:
    """How many rows each part will have; files that cannot be read go to `broken`. DataError names
    a bad cell."""
    rows = dict.fromkeys(PARTS, 0)
    has_valid = recipe.data.split.valid_file is not None
    for part, columns in _split_rows(source, schema, recipe, [], has_valid, broken):
        rows[part] += len(next(iter(columns.values())))
    return rows


def _write(
    writer: Any, arrow: pa.Schema, part: str, columns: dict[str, list[Any]], rows: dict[str, int]
) -> int:
    num = len(next(iter(columns.values())))
    if num:
        try:
            writer.write_batch(pa.record_batch(
                [pa.array(columns[f.name], f.type) for f in arrow], schema=arrow
            ))  # fmt: skip
        except OSError as error:
            raise DataError(f"prepared rows cannot be written ({reason(error)})") from None
        rows[part] += num
    return num


def _clean_chunks(
    source: Source, schema: Schema, recipe: Recipe, broken: Broken
) -> Iterator[tuple[dict[str, list[Any]], Chunk]]:
    """Canonical, cleaned columns of every chunk, without the rows of broken files."""
    missing = [f.name for f in schema.fields if f.name not in source.names]
    if missing:
        raise DataError(f"{source.label}: has no column {missing[0]!r}, which the schema names")
    most = rows_at_once(schema)
    for chunk in (part for whole in source.chunks() for part in whole.parts(most)):
        bad: dict[int, str] = {}
        columns = {
            f.name: read_cells(
                f, chunk.columns[f.name], partial(chunk.where, column=f.name), recipe.data.clean,
                schema.stream, AS_TEXT, chunk.folder, bad,
            )
            for f in schema.fields
        }  # fmt: skip
        if bad:
            kept = [row for row in range(len(chunk)) if row not in bad]
            broken.add([f"{chunk.file}:{chunk.lines[row]}: {why}" for row, why in bad.items()])
            columns = {name: [cells[row] for row in kept] for name, cells in columns.items()}
            chunk = chunk.rows(kept)
        broken.check(len(chunk))
        yield columns, chunk


def _split_rows(
    source: Source, schema: Schema, recipe: Recipe, notes: list[str], has_valid: bool,
    broken: Broken,
) -> Iterator[tuple[str, dict[str, list[Any]]]]:  # fmt: skip
    """(part, columns) in the order of the source."""
    settings = recipe.data.split
    if has_valid:
        settings = settings.model_copy(update={"valid": 0.0, "test": 0.0})
    if schema.stream:
        yield from _split_stream(source, schema, recipe, broken, settings)
        return
    how = recipe.data.clean.duplicates
    repeats = Repeats(how) if how != "keep" else None
    dropped = 0
    for columns, chunk in _clean_chunks(source, schema, recipe, broken):
        rows = list(zip(*columns.values(), strict=True))
        if settings.column is not None:
            parts = [_named_part(chunk, i, settings.column) for i in range(len(rows))]
        else:
            parts = [part_of(row, settings) for row in rows]
        if repeats is not None:
            keep = [not repeats.is_repeat(row) for row in rows]
            dropped += len(keep) - sum(keep)
            parts = [p if k else "" for p, k in zip(parts, keep, strict=True)]
        for part in PARTS:
            picked = [i for i, p in enumerate(parts) if p == part]
            if picked:
                yield part, {n: [v[i] for i in picked] for n, v in columns.items()}
    if dropped:
        notes.append(f"{dropped} repeated rows were left out (data.clean.duplicates)")


def _named_part(chunk: Chunk, row: int, column: str) -> str:
    value = str(chunk.columns[column][row]).strip().lower()
    part = {"validation": "valid", "val": "valid", "dev": "valid"}.get(value, value)
    if part not in PARTS:
        raise DataError(
            f"{chunk.where(row, column)}: {value!r} names no part; allowed are train, valid, test"
        )
    return part


def _split_stream(
    source: Source, schema: Schema, recipe: Recipe, broken: Broken, settings: SplitSettings
) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    name = schema.fields[0].name
    total = sum(len(text) for chunk in source.chunks() for text in chunk.columns["text"])
    goal = max(256, min(1 << 16, total // STREAM_SHARDS))

    def pieces() -> Iterator[str]:
        for columns, _ in _clean_chunks(source, schema, recipe, broken):
            for text in columns[name]:
                yield from cut_lines(text, goal)

    parts = stream_parts([len(piece) for piece in pieces()], settings)
    waiting: list[str] = []
    now = "train"
    for part, piece in zip(parts, pieces(), strict=True):
        if part != now or len(waiting) == 64:
            if waiting:
                yield now, {name: waiting}
            now, waiting = part, []
        waiting.append(piece)
    if waiting:
        yield now, {name: waiting}


def cut_lines(text: str, goal: int) -> Iterator[str]:
    """Pieces of about `goal` characters, cut behind line ends (or anywhere in a long line)."""
    start = 0
    while start < len(text):
        end = start + goal
        found = text.find("\n", end)
        end = found + 1 if 0 <= found < end + 4 * goal else end
        if len(text) - end < goal // 2:
            end = len(text)
        yield text[start:end]
        start = end
