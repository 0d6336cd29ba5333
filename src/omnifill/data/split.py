"""Which part a row belongs to: train, valid or test.

By the hash of the row's values, so that a row's part never changes when others are added and
equal rows stay on one side. A stream has no rows: its last pieces are the test part, those
before them the validation part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from omnifill.settings import SplitSettings

PARTS = ("train", "valid", "test")


def part_of(row: Sequence[Any], settings: SplitSettings) -> str:
    """The part of a row of canonical values in schema order."""
    text = "\x1f".join("" if v is None else _as_text(v) for v in row)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < settings.test:
        return "test"
    return "valid" if share < settings.test + settings.valid else "train"


def _as_text(value: Any) -> str:
    return hashlib.blake2b(value).hexdigest() if isinstance(value, bytes) else str(value)


def stream_parts(sizes: Sequence[int], settings: SplitSettings) -> list[str]:
    """The part of every piece of a stream: the last shares of it, by length."""
    total, at = sum(sizes), 0
    out = []
    for size in sizes:
        middle = (at + size / 2) / max(total, 1)
        if middle > 1 - settings.test:
            out.append("test")
        elif middle > 1 - settings.test - settings.valid:
            out.append("valid")
        else:
            out.append("train")
        at += size
    return out
