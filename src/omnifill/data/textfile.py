"""Plain text files, as one stream or as documents; and aligned files, joined line by line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

from omnifill.data.cells import Chunk
from omnifill.data.reading import open_text, undecodable
from omnifill.errors import DataError
from omnifill.settings import DataSettings

PIECE = 1 << 16
"""Characters of a piece of a stream, about."""
CHUNK_ROWS = 4096


def _lines(path: Path, encoding: str | None) -> Iterator[str]:
    """Lines with their ends as they are."""
    number = 0
    with open_text(path, encoding) as file:
        try:
            for number, line in enumerate(file, 1):
                if "\x00" in line:
                    raise DataError(f"{path}:{number}: holds a NUL byte; remove it")
                yield line
        except UnicodeError as error:
            raise undecodable(path, number + 1, error, encoding) from None


def read_text(path: Path, settings: DataSettings) -> Iterator[Chunk]:
    """Rows of one field `text`, cut as `settings.documents` says."""
    cut = {"stream": _pieces, "paragraphs": _paragraphs, "lines": _single}[settings.documents]
    texts: list[str] = []
    lines: list[int] = []
    size = 0
    for line, text in cut(path, settings.encoding):
        texts.append(text)
        lines.append(line)
        size += len(text)
        if len(texts) == CHUNK_ROWS or size > 16 * PIECE:
            yield Chunk({"text": list(texts)}, str(path), lines)
            texts, lines, size = [], [], 0
    if texts:
        yield Chunk({"text": list(texts)}, str(path), lines)


def _pieces(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Pieces of about 64 K characters, cut behind line ends; together they are the whole text."""
    parts: list[str] = []
    start, size = 1, 0
    for number, line in enumerate(_lines(path, encoding), 1):
        while len(line) > 2 * PIECE:  # a file without line ends still comes in pieces
            yield start, "".join(parts) + line[:PIECE]
            line, parts, size, start = line[PIECE:], [], 0, number
        parts.append(line)
        size += len(line)
        if size >= PIECE:
            yield start, "".join(parts)
            start, parts, size = number + 1, [], 0
    if parts:
        yield start, "".join(parts)


def _paragraphs(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Texts between blank lines."""
    parts: list[str] = []
    start = 1
    for number, line in enumerate(_lines(path, encoding), 1):
        if line.strip():
            if not parts:
                start = number
            parts.append(line)
        elif parts:
            yield start, "".join(parts).rstrip("\r\n")
            parts = []
    if parts:
        yield start, "".join(parts).rstrip("\r\n")


def _single(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Every line that is not blank."""
    for number, line in enumerate(_lines(path, encoding), 1):
        if line.strip():
            yield number, line.rstrip("\r\n")


def aligned_fields(paths: list[Path]) -> list[str] | None:
    """`train.en.gz train.de.gz` -> ['en', 'de']; None if the names are not of that form."""
    if len(paths) < 2:
        return None
    names = [p.name.removesuffix(".gz").removesuffix(".txt").split(".") for p in paths]
    stems = {tuple(n[:-1]) for n in names}
    fields = [n[-1] for n in names]
    if len(stems) != 1 or not next(iter(stems)) or len(set(fields)) != len(fields):
        return None
    return fields


def read_aligned(paths: list[Path], fields: list[str], encoding: str | None) -> Iterator[Chunk]:
    """Line n of every file is row n; a blank line is a blank cell."""
    label = " + ".join(str(p) for p in paths)
    with ExitStack() as stack:
        files = [_lines(p, encoding) for p in paths]
        for file in files:
            stack.callback(file.close)  # type: ignore[attr-defined]
        rows: list[tuple[str | None, ...]] = []
        done = 0
        for number, row in enumerate(zip_longest(*files), 1):
            short = [str(p) for p, line in zip(paths, row, strict=True) if line is None]
            if short:
                raise DataError(
                    f"{', '.join(short)}: ends after line {number - 1}, but the other files go "
                    f"on; aligned files have equally many lines"
                )
            rows.append(tuple(line.rstrip("\r\n") or None for line in row))
            if len(rows) == CHUNK_ROWS:
                yield _aligned_chunk(rows, fields, label, done)
                done, rows = done + len(rows), []
        if rows:
            yield _aligned_chunk(rows, fields, label, done)


def _aligned_chunk(
    rows: list[tuple[str | None, ...]], fields: list[str], label: str, done: int
) -> Chunk:
    columns = {f: list(c) for f, c in zip(fields, zip(*rows, strict=True), strict=True)}
    return Chunk(columns, label, list(range(done + 1, done + 1 + len(rows))))
