"""Raw cells in chunks, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows: raw cells by column, None where blank."""

    columns: dict[str, list[Any]]
    file: str
    lines: list[int]
    """The line each row starts on (the row's number where there are no lines)."""

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def folder(self) -> Path | None:
        """Where paths in its cells go on from; None: from where the program runs."""
        path = Path(self.file)
        if path.is_dir():
            return path
        return path.parent if path.is_file() else None

    def rows(self, kept: Sequence[int]) -> Chunk:
        """Some of the rows."""
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return Chunk(columns, self.file, [self.lines[row] for row in kept])

    def parts(self, most: int) -> Iterator[Chunk]:
        """The chunk in pieces of at most so many rows."""
        if len(self) <= most:
            yield self
            return
        for at in range(0, len(self), most):
            yield self.rows(range(at, min(at + most, len(self))))

    def where(self, row: int, column: str) -> str:
        """How a message names a cell."""
        return f"{self.file}:{self.lines[row]}, column {column!r}"


@dataclass(frozen=True)
class Problem:
    """Something that `inspect` shows: where, and what."""

    where: str
    what: str
