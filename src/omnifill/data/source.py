"""What people have -> chunks of raw cells. Nothing is interpreted here but the file format.

A source can be read again and again, in bounded memory. A cell is None where it is blank.
"""

from __future__ import annotations

import glob
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from omnifill.data import csvfile, folder, jsonl, parquet, textfile
from omnifill.data.builtin import DATA_SETS
from omnifill.data.cells import Chunk, Problem
from omnifill.data.media import as_cells, kind_of_name
from omnifill.data.nested import flatten_chunk
from omnifill.data.values import unfit_text
from omnifill.errors import DataError, unknown_name
from omnifill.files import reason
from omnifill.paths import to_set
from omnifill.settings import DataSettings

CHUNK_ROWS = 8192
MAX_COLUMNS = 2000
"""A record of more fields is no record that can be learned as one sequence."""

KINDS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
"""File ending -> format; every other text file is text."""
REFUSED = {
    ".xlsx": "save the sheet as CSV", ".xls": "save the sheet as CSV", ".ods": "save it as CSV",
    ".pkl": "pickles can run code; save CSV "
    "or Parquet", ".pickle": "pickles can run code; save CSV or Parquet", ".pt": "it is no table",
    ".npy": "save it as CSV or Parquet", ".bz2": "unpack it first", ".xz": "unpack it first",
}  # fmt: skip
A_TEXT = ("text", "a text file")
Reader = Callable[[list[Problem] | None], Iterator[Chunk]]


@dataclass(frozen=True, eq=False)
class Source:
    """A table, a text or aligned texts, ready to be read."""

    label: str
    """How messages call it."""
    kind: str
    """csv, jsonl, parquet, frame, text, aligned or media."""
    names: list[str]
    read: Reader
    stream: bool = False
    """One text kept as a single stream: rows are pieces of it."""
    delimiter: str = ","
    types: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Column -> its type and why, where that needs no guess."""
    notes: Sequence[str] = ()
    """What a user should know of how it is read."""
    line_end: str = "\n"

    def chunks(self, problems: list[Problem] | None = None) -> Iterator[Chunk]:
        """Chunks of rows. Bad rows raise DataError; given a list, they go there and are left out.

        DataError if there is no row at all.
        """
        empty = True
        try:
            for chunk in self.read(problems):
                if len(chunk):
                    empty = False
                    yield chunk
        except OSError as error:
            raise DataError(f"{self.label}: cannot be read to its end ({reason(error)})") from None
        except (EOFError, zlib.error) as error:
            raise DataError(f"{self.label}: cannot be read to its end ({error})") from None
        if empty:
            raise DataError(f"{self.label}: there are no rows (nothing after the header, or "
                            f"nothing that data.where finds?)")  # fmt: skip

    def place(self, name: str, row: int) -> str:
        """How a message calls a cell, by file and line; reads up to it. Rows count from 0."""
        for chunk in self.chunks():
            if row < len(chunk):
                return chunk.where(row, name)
            row -= len(chunk)
        raise IndexError(f"{self.label} has no row {row}")


def open_source(
    data: str | Path | Sequence[str | Path] | pd.DataFrame, settings: DataSettings
) -> Source:
    """A source for a path, several, a glob, a built-in data set or a DataFrame."""
    if isinstance(data, pd.DataFrame):
        return _shaped(_frame_source(data, "DataFrame"), settings)
    if isinstance(data, (str, Path)) and str(data) in DATA_SETS:
        return _shaped(_frame_source(DATA_SETS[str(data)](), str(data)), settings)
    try:
        paths = _expand(data)
        if settings.union and len(paths) > 1:
            return _shaped(_union(paths, settings), settings)
        return _shaped(_file_source(paths, settings), settings)
    except OSError as error:
        raise DataError(f"{error.filename or data}: cannot be read ({reason(error)})") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{data}: cannot be unpacked ({error})") from None


def later(settings: DataSettings, encoding: str | None = None) -> DataSettings:
    """How tables are read that come after training: a column left out then may be there or not."""
    changes: dict[str, Any] = {"drop": [], "where": {}}
    if encoding is not None:
        changes["encoding"] = encoding
    return settings.model_copy(update=changes)


def _union(paths: list[Path], settings: DataSettings) -> Source:
    """Files of any kinds one after another; columns that one lacks are blank in its rows.

    A condition on a column is asked of the rows of files that have it.
    """
    alone = settings.model_copy(update={"drop": [], "where": {}})
    parts = [_shaped(_file_source([path], alone), alone) for path in paths]
    stream = next((part for part in parts if part.stream), None)
    if stream is not None:
        raise DataError(f"{stream.label}: is one text, read as a stream, and no set of records; "
                        f"say --set data.documents=paragraphs or lines")  # fmt: skip
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    readers = [
        _where(part.chunks, {n: x for n, x in settings.where.items() if n in part.names})
        for part in parts
    ]

    def read(problems: list[Problem] | None) -> Iterator[Chunk]:
        for reader in readers:
            for chunk in reader(problems):
                columns = {n: chunk.columns.get(n, [None] * len(chunk)) for n in names}
                yield Chunk(columns, chunk.file, chunk.lines)

    label = f"{paths[0]} and {len(paths) - 1} more"
    types: dict[str, tuple[str, str]] = {}
    for name in names:
        kinds = {part.types.get(name) for part in parts if name in part.names}
        kind = kinds.pop()
        if kind is not None and not kinds:  # all that have it say the same
            types[name] = kind
    notes = [f"{part.label}: {note}" for part in parts for note in part.notes]
    return Source(label, "union", names, read, types=types, notes=notes)


def _file_source(paths: list[Path], settings: DataSettings) -> Source:
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise DataError(
            f"files of different kinds cannot be one table: {', '.join(sorted(kinds))}; give "
            f"files of one kind, or say that each is a data set: --set data.union=true"
        )
    kind = kinds.pop()
    if kind == "media":
        return _media_source(paths)
    label = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if kind == "text":
        return _text_source(paths, settings, label)
    if kind == "csv":
        dialects = [csvfile.open_csv(path, settings) for path in paths]
        names = _same_names(paths, [d.names for d in dialects])
        return Source(
            label, kind, names, lambda p: _join(csvfile.read_csv(d, p) for d in dialects),
            delimiter=dialects[0].delimiter, line_end=dialects[0].line_end,
        )  # fmt: skip
    if kind == "json":
        raise DataError(
            f"{label}: a .json file is one value; write one JSON object a line (.jsonl)"
        )
    module = {"jsonl": jsonl, "parquet": parquet}[kind]
    found = [module.names_of(path, settings) for path in paths]
    names = (
        list(dict.fromkeys(n for some in found for n in some))
        if kind == "jsonl"
        else (_same_names(paths, found))
    )
    return Source(
        label, kind, names,
        lambda problems: _join(module.read(p, names, settings, problems) for p in paths),
    )  # fmt: skip


def _media_source(paths: list[Path]) -> Source:
    if len(paths) > 1:
        raise DataError(
            f"{paths[0]} and {len(paths) - 1} more: pictures and sounds are read from one folder, "
            f"archive or idx file; put them below one folder, whose folders' names become labels"
        )
    open_ = folder.open_idx if folder.is_idx(paths[0]) else folder.open_media
    table = open_(paths[0])
    return Source(
        str(paths[0]), "media", table.names, table.read, types=table.types, notes=table.notes
    )


def _join(parts: Iterator[Iterator[Chunk]]) -> Iterator[Chunk]:
    for part in parts:
        yield from part


def _text_source(paths: list[Path], settings: DataSettings, label: str) -> Source:
    fields = textfile.aligned_fields(paths)
    if fields is not None:
        return Source(
            label, "aligned", fields,
            lambda _: textfile.read_aligned(paths, fields, settings.encoding),
            types=dict.fromkeys(fields, A_TEXT),
        )  # fmt: skip
    stream = settings.documents == "stream"
    return Source(
        label, "text", ["text"],
        lambda _: _join(textfile.read_text(p, settings) for p in paths), stream=stream,
        types={"text": A_TEXT},
    )  # fmt: skip


def _expand(data: str | Path | Sequence[str | Path]) -> list[Path]:
    items: list[Any] = list(data) if isinstance(data, (list, tuple)) else [data]
    if not items:
        raise DataError("no data was given")
    for item in items:
        if not isinstance(item, (str, Path)):
            raise DataError(
                f"data of type {type(item).__name__}: give a path, a list of paths, or a pandas "
                f"DataFrame (pd.DataFrame(…) makes one of most things)"
            )
    paths: list[Path] = []
    for item in items:
        path = Path(item)
        if path.is_file() or path.is_dir():
            paths.append(path)
        elif path.exists():
            raise DataError(f"{path}: is no regular file, and data are read more than once; save "
                            f"it as a file first")  # fmt: skip
        elif found := [Path(f) for f in sorted(glob.glob(str(item))) if Path(f).is_file()]:
            paths.extend(found)
        else:
            raise DataError(_no_such_file(path))
    return paths


def _no_such_file(path: Path) -> str:
    if str(path).startswith("builtin:"):
        return unknown_name("data set", str(path), DATA_SETS)
    try:
        there = [p.name for p in path.parent.iterdir()]
    except OSError:
        return f"{path}: there is no such file (nor a folder {path.parent} that can be read)"
    near = get_close_matches(path.name, there, n=1)
    return f"{path}: there is no such file" + (f"; did you mean {near[0]!r}?" if near else "")


def _kind(path: Path) -> str:
    if path.is_dir() or folder.is_archive(path) or folder.is_idx(path):
        return "media"
    if kind_of_name(path.name):
        raise DataError(f"{path}: is one file, of which nothing can be learned; give the folder "
                        f"that holds all of them: {path.parent}")  # fmt: skip
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes = suffixes[:-1]
    last = suffixes[-1] if suffixes else ""
    if last in REFUSED:
        raise DataError(f"{path}: {last} files are not read; {REFUSED[last]}")
    return KINDS.get(last, "text")


def _same_names(paths: list[Path], found: list[list[str]]) -> list[str]:
    for path, names in zip(paths, found, strict=True):
        if names != found[0]:
            odd = sorted(set(names) ^ set(found[0]))
            raise DataError(
                f"{path}: its columns differ from those of {paths[0]} "
                f"({', '.join(odd) or 'order'}); if each file is a data set: --set data.union=true"
            )
    return found[0]


def _frame_source(frame: pd.DataFrame, label: str) -> Source:
    names = [str(n) for n in frame.columns]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DataError(f"{label}: column {name!r} stands twice; rename one of them")

    def read(_: list[Problem] | None) -> Iterator[Chunk]:
        for start in range(0, len(frame), CHUNK_ROWS):
            part = frame.iloc[start : start + CHUNK_ROWS]
            lines = list(range(start + 1, start + 1 + len(part)))
            columns = {}
            for i, name in enumerate(names):
                cells = [None if _is_blank(v) else v for v in part.iloc[:, i].tolist()]
                columns[name] = as_cells(cells, label, start + 1)
            yield Chunk(columns, label, lines)

    return Source(label, "frame", names, read)


def _is_blank(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and value != value


# --- the settings that apply to every format ------------------------------------------------


def _shaped(source: Source, settings: DataSettings) -> Source:
    """Rename, flatten, explode and drop, as the settings say; check the names."""
    names, read, types = source.names, source.read, source.types
    if settings.columns is not None:
        if len(settings.columns) != len(names):
            raise DataError(
                f"{source.label}: data.columns names {len(settings.columns)} columns, but there "
                f"are {len(names)}: {', '.join(names[:20])}"
            )
        types = {new: types[old] for old, new in zip(names, settings.columns, strict=True)
                 if old in types}  # fmt: skip
        names, read = list(settings.columns), _renamed(read, settings.columns)
    _check_names(source.label, names)
    if source.kind in ("jsonl", "parquet", "frame"):
        first = list(islice(Source(source.label, source.kind, names, read).chunks(), 4))
        shaped = [flatten_chunk(chunk, settings) for chunk in first]
        names = list(dict.fromkeys(n for chunk in shaped for n in chunk.columns))
        read = _flattened(read, names, settings)
    elif settings.explode is not None and source.kind != "union":
        raise DataError(f"data.explode: {source.kind} files hold no lists")
    for name in settings.where:
        if name not in names:
            raise DataError(f"data.where: {unknown_name('column', name, names)}")
    if source.kind != "union":
        read = _where(read, settings.where)
    for name in settings.drop:
        if name not in names:
            raise DataError(f"data.drop: {unknown_name('column', name, names)}")
    kept = [n for n in names if n not in settings.drop]
    if not kept:
        raise DataError(f"{source.label}: no column is left")
    for name in kept:
        if unfit_text(name):
            raise DataError(f"{source.label}: column {name!a}: {unfit_text(name)}")
    if len(kept) > MAX_COLUMNS:
        raise DataError(
            f"{source.label}: {len(kept):,} columns; at most {MAX_COLUMNS:,} can be learned "
            f"together. Leave some out: --set data.drop=[a,b], or give a file with fewer"
        )
    return Source(
        source.label, source.kind, kept, _picked(read, kept), source.stream, source.delimiter,
        types, source.notes, source.line_end,
    )  # fmt: skip


def _check_names(label: str, names: list[str]) -> None:
    twice = [n for i, n in enumerate(names) if n in names[:i]]
    blank = [i for i, n in enumerate(names) if not n.strip()]
    if twice and twice[0].strip():
        wrong = f"column {twice[0]!r} stands twice in the header; every column needs its own name"
    elif blank:
        wrong = f"column {blank[0] + 1} has no name in the header"
    else:
        return
    new: list[str] = []
    for i, name in enumerate(names):
        name = name if name.strip() else f"column_{i + 1}"
        while name in new or (name != names[i] and name in names):
            name += f"_{i + 1}"
        new.append(name)
    raise DataError(f"{label}: {wrong}. Name them all by position: {to_set('data.columns', new)}")


def _renamed(read: Reader, names: Sequence[str]) -> Reader:
    def renamed(problems: list[Problem] | None) -> Iterator[Chunk]:
        for chunk in read(problems):
            columns = dict(zip(names, chunk.columns.values(), strict=True))
            yield Chunk(columns, chunk.file, chunk.lines)

    return renamed


def _flattened(read: Reader, names: list[str], settings: DataSettings) -> Reader:
    def flattened(problems: list[Problem] | None) -> Iterator[Chunk]:
        for chunk in read(problems):
            flat = flatten_chunk(chunk, settings)
            for name in flat.columns:
                if name not in names:
                    raise DataError(
                        f"{chunk.file}: key {name!r} first appears after row {chunk.lines[0]}; "
                        f"leave it out (--set data.drop=[…]) or put a row that has it first"
                    )
            columns = {n: flat.columns.get(n, [None] * len(flat)) for n in names}
            yield Chunk(columns, flat.file, flat.lines)

    return flattened


def _where(read: Reader, conditions: Mapping[str, str]) -> Reader:
    """The rows in which every column's pattern is found; blanks hold nothing."""
    if not conditions:
        return read
    patterns = {name: re.compile(pattern) for name, pattern in conditions.items()}

    def kept(problems: list[Problem] | None) -> Iterator[Chunk]:
        for chunk in read(problems):
            rows = [
                row for row in range(len(chunk))
                if all(cell is not None and pattern.search(str(cell))
                       for name, pattern in patterns.items()
                       for cell in (chunk.columns[name][row],))
            ]  # fmt: skip
            columns = {n: [cells[i] for i in rows] for n, cells in chunk.columns.items()}
            yield Chunk(columns, chunk.file, [chunk.lines[i] for i in rows])

    return kept


def _picked(read: Reader, names: list[str]) -> Reader:
    def picked(problems: list[Problem] | None) -> Iterator[Chunk]:
        for chunk in read(problems):
            yield Chunk({n: chunk.columns[n] for n in names}, chunk.file, chunk.lines)

    return picked
