"""Files of pictures and sounds: what they are by their first bytes, where they may lie, how large.

What a picture or a sound is as a value, `omnifill.data.image` and `omnifill.data.audio` know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from omnifill.errors import ValueRefused
from omnifill.files import reason
from omnifill.types import Sound

Kind = Literal["image", "audio"]

ENDINGS: dict[str, Kind] = {
    ".png": "image", ".jpg": "image", ".jpeg": "image", ".webp": "image",
    ".wav": "audio", ".flac": "audio", ".ogg": "audio",
}  # fmt: skip
"""Endings of names -> what such a file is said to hold; its first bytes say what it does."""
FORMATS: dict[str, Kind] = {
    "PNG": "image", "JPEG": "image", "WEBP": "image", "WAV": "audio", "FLAC": "audio",
    "OGG": "audio",
}  # fmt: skip
"""Formats by first bytes -> what they hold."""
MOST_BYTES = 64 << 20
"""Bytes of the largest file that is read."""
MOST_HELD = 64 << 20
"""Bytes of files that are in memory at once, about, where a source cannot be read piecemeal."""


@dataclass(frozen=True)
class MediaFile:
    """A cell that holds a picture or a sound: what messages call it, and how to get at it."""

    name: str
    load: Callable[[], Any] = field(repr=False, compare=False)
    """-> the bytes of a file; or a picture or a sound itself, in Python's terms."""
    kind: Kind | None = None
    """What it is said to hold; None: its first bytes say."""

    def __str__(self) -> str:
        return self.name


def as_cells(values: Sequence[Any], label: str, first: int) -> list[Any]:
    """Values of a column as cells: pictures, sounds and the bytes of files get a name. Beside them,
    bytes of no known kind are a file too, a broken one. `first`: number of the first row."""
    names = [f"{label}, row {first + i}" for i in range(len(values))]
    cells = [_as_cell(value, name) for value, name in zip(values, names, strict=True)]
    kind = next((cell.kind for cell in cells if isinstance(cell, MediaFile)), None)
    if kind is None:
        return cells
    return [
        MediaFile(name, partial(_itself, cell), kind) if isinstance(cell, bytes) else cell
        for cell, name in zip(cells, names, strict=True)
    ]


def _as_cell(value: Any, name: str) -> Any:
    found: Kind | None = None
    if isinstance(value, bytes):
        found = FORMATS.get(format_of(value) or "")
    elif isinstance(value, Sound):
        found = "audio"
    elif (isinstance(value, np.ndarray) and value.ndim > 1) or type(value).__module__.startswith(
        "PIL."
    ):
        found = "image"
    return value if found is None else MediaFile(name, partial(_itself, value), found)


def _itself(value: Any) -> Any:
    return value


def kind_of_name(name: str) -> Kind | None:
    """What a file of that name is said to hold."""
    return ENDINGS.get(os.path.splitext(name)[1].lower())


def format_of(data: bytes) -> str | None:
    """PNG, JPEG, WEBP, WAV, FLAC or OGG by the first bytes; None: none of them."""
    head = data[:12]
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"WAVE": "WAV"}.get(head[8:12])
    for magic, format_ in (
        (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"fLaC", "FLAC"),
        (b"OggS", "OGG"),
    ):  # fmt: skip
        if head.startswith(magic):
            return format_
    return None


def check_format(data: bytes, allowed: tuple[str, ...], what: str) -> str:
    """The format of a file's bytes; ValueRefused if it is none of the allowed ones."""
    found = format_of(data)
    if found not in allowed:
        listed = ", ".join(allowed[:-1]) + f" or {allowed[-1]}"
        begins = f"begins with {data[:8]!r}" if data else "is empty"
        is_ = f"is a {found} file" if found else begins
        raise ValueRefused(f"is no {what} that can be read (it {is_}); {listed} can")
    return found


def load_cell(cell: Any, folder: Path | None) -> Any:
    """What a cell holds: bytes of a file, or a picture or sound itself.

    A text is a path, from `folder` on and inside it (None: any path). ValueRefused.
    """
    if isinstance(cell, MediaFile):
        return cell.load()
    if isinstance(cell, (str, Path)):
        return read_file(_inside(str(cell), folder))
    return cell


def read_file(path: Path) -> bytes:
    """The bytes of a file that is not too large. ValueRefused."""
    try:
        if not path.is_file():
            raise ValueRefused("there is no such file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ValueRefused(f"cannot be read ({why})") from None
    check_bytes(len(data))
    return data


def check_bytes(num: int) -> None:
    """ValueRefused for a file of more bytes than are read."""
    if num > MOST_BYTES:
        raise ValueRefused(f"has more than {MOST_BYTES >> 20} MiB, and so many are the most")


def _inside(text: str, folder: Path | None) -> Path:
    """The path that a cell names. A table may come from anywhere, so it stays in its folder."""
    if folder is None:
        return Path(text)
    base = os.path.abspath(folder)
    whole = os.path.normpath(os.path.join(base, text))
    try:
        inside = os.path.commonpath([base, whole]) == base
    except ValueError:  # on another drive
        inside = False
    if not inside:
        raise ValueRefused(
            f"points outside of the table's folder ({folder}); put the files below it"
        )
    return Path(whole)
