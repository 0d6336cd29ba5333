"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnifill.data.cells import Chunk, Problem
from omnifill.data.reading import open_text, undecodable
from omnifill.errors import DataError
from omnifill.settings import DataSettings

CHUNK_ROWS = 4096
LOOKED_AT = 2000
"""Lines whose keys make the columns."""


def names_of(path: Path, settings: DataSettings) -> list[str]:
    """Keys of the first lines, in order of appearance."""
    names: dict[str, None] = {}
    for number, (_, row) in enumerate(_objects(path, settings.encoding, [])):
        names |= dict.fromkeys(row)
        if number >= LOOKED_AT:
            break
    return list(names)


def read(
    path: Path, names: list[str], settings: DataSettings, problems: list[Problem] | None
) -> Iterator[Chunk]:
    """Chunks of rows; a line that is no object raises DataError, or goes to `problems`."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for line, row in _objects(path, settings.encoding, problems):
        new = [key for key in row if key not in names]
        if new:
            raise DataError(
                f"{path}:{line}: key {new[0]!r} does not stand in the first {LOOKED_AT} lines; "
                f"move such a line to the front"
            )
        rows.append(row)
        lines.append(line)
        if len(rows) == CHUNK_ROWS:
            yield Chunk({n: [r.get(n) for r in rows] for n in names}, str(path), lines)
            rows, lines = [], []
    if rows:
        yield Chunk({n: [r.get(n) for r in rows] for n in names}, str(path), lines)


def _objects(
    path: Path, encoding: str | None, problems: list[Problem] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with open_text(path, encoding) as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_no_twin)
                    if not isinstance(row, dict):
                        raise ValueError(f"a {type(row).__name__}, not an object {{…}}")
                except (ValueError, RecursionError) as error:
                    if problems is None:
                        raise DataError(
                            f"{path}:{number}: is no JSON object ({error}); every line is one "
                            f'object such as {{"name": "value"}}'
                        ) from None
                    problems.append(Problem(f"{path}:{number}", f"is no JSON object ({error})"))
                    continue
                yield number, row
        except UnicodeError as error:
            raise undecodable(path, number + 1, error, encoding) from None


def _no_constant(name: str) -> None:
    """NaN and Infinity are not JSON; NaN is how some tools write a blank."""
    if name == "NaN":
        return None
    raise ValueError(f"{name} is not JSON")


def _no_twin(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError if it has a key twice, of which JSON would keep the last."""
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return out
