"""What the files of a model were when it was written: whether they still are.

A CRC is enough to find damage, and several times as fast as a hash; the hash is for people, who
compare models, and for runs of before, which have nothing else.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnifill.errors import RunError
from omnifill.files import reason, write_atomic
from omnifill.state import read_json

FILE = "sums.json"
Bytes = mmap.mmap | bytes


def _sha256(data: Bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _crc32(data: Bytes) -> str:
    return f"{zlib.crc32(data):08x}"


SUMS: dict[str, Callable[[Bytes], str]] = {"crc32": _crc32, "sha256": _sha256}
"""The fastest first."""


def write_sums(folder: Path) -> None:
    """Keep what the files of a model are; the recipe may be edited."""
    names = ["model.safetensors", "config.json", "schema.json"]
    files = [folder / name for name in names]
    files += sorted(p for p in (folder / "codecs").rglob("*") if p.is_file())
    sums = {p.relative_to(folder).as_posix(): {kind: _of(p, kind) for kind in reversed(SUMS)}
            for p in files if p.exists()}  # fmt: skip
    write_atomic(folder / FILE, json.dumps(sums, indent=1).encode())


def check_sums(folder: Path) -> None:
    """RunError for a file that is missing or is not as `write_sums` found it."""
    if not (folder / FILE).exists():
        return  # an older run
    for name, known in read_sums(folder).items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path}: is missing ({_RESTORE}")
        kinds = {"sha256": known} if isinstance(known, str) else known
        kind = next((kind for kind in SUMS if isinstance(kinds, dict) and kind in kinds), None)
        if kind is None:
            raise RunError(f"{folder / FILE}: is damaged (no sum of {name} that is known here)")
        if _of(path, kind) != kinds[kind]:
            raise RunError(f"{path}: is damaged ({_RESTORE}")


def read_sums(folder: Path) -> dict[str, Any]:
    """By the name of each file; nothing of an older run."""
    path = folder / FILE
    sums = read_json(path) if path.exists() else {}
    if not isinstance(sums, dict) or (path.exists() and not sums):
        raise RunError(f"{path}: is damaged (no table of hashes)")
    return sums


_RESTORE = "not as training left it); restore it from a copy, or train again"


def _of(path: Path, kind: str) -> str:
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return SUMS[kind](b"")  # nothing can be mapped
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return SUMS[kind](data)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({reason(error)})") from None
