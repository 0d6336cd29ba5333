"""Raw cells in chunks, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass
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

    def where(self, row: int, column: str) -> str:
        """How a message names a cell."""
        return f"{self.file}:{self.lines[row]}, column {column!r}"


@dataclass(frozen=True)
class Problem:
    """Something that `inspect` shows: where, and what."""

    where: str
    what: str
