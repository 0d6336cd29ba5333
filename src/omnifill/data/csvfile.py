"""CSV and TSV by the standard library's reader: exact line numbers, quotes, multi-line cells."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from omnifill.data.cells import Chunk, Problem
from omnifill.data.reading import open_text, undecodable
from omnifill.data.values import LONGEST
from omnifill.errors import DataError
from omnifill.settings import DataSettings

DELIMITERS = ",;\t|"
CHUNK_ROWS = 8192
SAMPLE = 1 << 14
"""Characters in which the delimiter is looked for."""
SHOWN = 5
"""Bad rows that one message names."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose dialect and header are known."""

    path: Path
    names: list[str]
    delimiter: str
    encoding: str | None
    line_end: str
    """Of its header."""


def open_csv(path: Path, settings: DataSettings) -> CsvFile:
    """Find the delimiter and read the header."""
    with open_text(path, settings.encoding) as file:
        try:
            sample = file.read(SAMPLE)
        except UnicodeError as error:
            raise undecodable(path, 1, error, settings.encoding) from None
    if not sample.strip():
        raise DataError(f"{path}: the file is empty")
    delimiter = settings.delimiter or find_delimiter(sample, path)
    if len(delimiter) != 1:
        raise DataError(f"data.delimiter = {delimiter!r}: must be one character")
    with open_text(path, settings.encoding) as file:
        names = next(_rows(file, path, delimiter, settings.encoding))[1]
    line_end = "\r\n" if sample.partition("\n")[0].endswith("\r") else "\n"
    return CsvFile(path, [n.strip() for n in names], delimiter, settings.encoding, line_end)


def find_delimiter(sample: str, path: Path) -> str:
    """The delimiter that cuts the first rows into equally many cells, the more the better."""
    if path.name.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        return "\t"
    lines = sample.splitlines(keepends=True)
    whole = lines[:-1] if len(sample) == SAMPLE and len(lines) > 1 else lines
    best, most = ",", (0.0, 1)
    for delimiter in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(whole[:200], delimiter=delimiter) if row]
        except csv.Error:
            continue
        if not widths or widths[0] == 1:
            continue
        share = sum(w == widths[0] for w in widths) / len(widths)
        if (round(share, 1), widths[0]) > most:
            best, most = delimiter, (round(share, 1), widths[0])
    return best


def _rows(
    file: TextIO, path: Path, delimiter: str, encoding: str | None
) -> Iterator[tuple[int, list[str]]]:
    """(line it starts on, cells) of every row that is not wholly empty."""
    csv.field_size_limit(LONGEST)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                for cell in row:
                    if "\x00" in cell:
                        raise DataError(f"{path}:{line}: holds a NUL byte; remove it")
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(_explained(path, line, str(error))) from None
    except UnicodeError as error:
        raise undecodable(path, reader.line_num + 1, error, encoding) from None


def _explained(path: Path, line: int, error: str) -> str:
    if "field larger" in error:
        return (
            f"{path}:{line}: a cell of more than {LONGEST:,} characters; is a "
            f'closing quote (") missing? Longer texts go into text files of their own'
        )
    if "unexpected end" in error:
        return f'{path}:{line}: a quote (") is opened here and never closed'
    return f"{path}:{line}: is not valid CSV ({error}); quotes inside a cell are written twice"


def read_csv(source: CsvFile, problems: list[Problem] | None) -> Iterator[Chunk]:
    """Chunks of rows; ragged rows raise DataError, or go to `problems` and are left out."""
    width = len(source.names)
    bad: list[tuple[int, int]] = []
    with open_text(source.path, source.encoding) as file:
        rows = _rows(file, source.path, source.delimiter, source.encoding)
        next(rows)
        lines: list[int] = []
        kept: list[list[str]] = []
        for line, row in rows:
            if len(row) != width:
                if width > 1 and len(row) == 1 and not row[0].strip():
                    continue  # a line of nothing but blanks
                bad.append((line, len(row)))
                if problems is not None:
                    problems.append(Problem(f"{source.path}:{line}", _ragged(len(row), width)))
                elif len(bad) == SHOWN:
                    break
                continue
            lines.append(line)
            kept.append(row)
            if len(kept) == CHUNK_ROWS:
                yield _chunk(source, kept, lines)
                kept, lines = [], []
        if bad and problems is None:
            raise DataError(_ragged_message(source, bad, width))
        if kept:
            yield _chunk(source, kept, lines)


def _ragged(found: int, width: int) -> str:
    return f"{_cells(found)} where the header has {width}"


def _cells(num: int) -> str:
    return f"{num} cell{'s' if num != 1 else ''}"


def _ragged_message(source: CsvFile, bad: list[tuple[int, int]], width: int) -> str:
    more = [f"line {line} ({_cells(found)})" for line, found in bad[1:]]
    tail = f"; also {', '.join(more)}" if more else ""
    return (
        f"{source.path}:{bad[0][0]}: {_ragged(bad[0][1], width)}{tail}. Mend the rows (a cell "
        f"that holds {source.delimiter!r} needs quotes); `omnifill inspect` lists all of them"
    )


def _chunk(source: CsvFile, rows: list[list[str]], lines: list[int]) -> Chunk:
    columns = {
        # By position: names may still stand twice here, which the caller refuses.
        (name if name not in source.names[:i] else f"{name}\x00{i}"): [c or None for c in cells]
        for i, (name, cells) in enumerate(zip(source.names, zip(*rows, strict=True), strict=True))
    }
    return Chunk(columns, str(source.path), lines)
