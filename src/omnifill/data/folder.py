"""Folders and archives of pictures or sounds, and idx files, as tables of a row for each file.

The name of the folder that a file lies in becomes its `label`; a `metadata.csv` beside them, which
names files in a column `file_name`, adds more columns. An archive is read where it is: nothing is
unpacked, and names in it are never paths.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from omnifill.data.cells import Chunk, Problem
from omnifill.data.csvfile import find_delimiter
from omnifill.data.media import (
    ENDINGS,
    MOST_BYTES,
    MOST_HELD,
    MediaFile,
    check_bytes,
    kind_of_name,
    read_file,
)
from omnifill.errors import DataError, ValueRefused
from omnifill.files import reason

CHUNK_FILES = 256
METADATA = "metadata.csv"
FILE_COLUMNS = ("file_name", "file")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
BROKEN = (
    OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    NotImplementedError, UnicodeError,
)  # fmt: skip
"""What reading an archive that is cut off or damaged raises."""
Files = Iterator[tuple[str, Callable[[], bytes], int]]
"""(name, how to read it, bytes of it that are in memory already) of every file, in order."""
Walk = Callable[[bool], AbstractContextManager[Files]]
"""Opens what holds them; they can be read as long as it is open. False: only names are wanted."""


@dataclass(frozen=True)
class MediaTable:
    """Files as a table."""

    names: list[str]
    read: Callable[[list[Problem] | None], Iterator[Chunk]]
    types: dict[str, tuple[str, str]]
    """Column -> its type and why, as far as that needs no guess."""
    notes: list[str]


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive that is read."""
    return path.name.lower().endswith(ARCHIVES)


def is_idx(path: Path) -> bool:
    """Whether a file's name is that of an idx file, the format of MNIST."""
    return path.name.lower().removesuffix(".gz").endswith(("-ubyte", ".idx", ".idx3", ".idx4"))


def open_media(path: Path) -> MediaTable:
    """The files of a folder or an archive as a table. DataError if there are none to learn from."""
    if path.is_dir():
        walk: Walk = partial(_walk_folder, path)
    elif path.name.lower().endswith(".zip"):
        walk = partial(_walk_zip, path)
    else:
        walk = partial(_walk_tar, path)
    return _table(path, walk)


def _table(path: Path, walk: Walk) -> MediaTable:
    kinds: dict[str, list[str]] = {}
    metadata: tuple[PurePosixPath, bytes] | None = None
    others: list[str] = []
    with walk(False) as files:
        for name, load, _ in files:
            found = kind_of_name(name)
            if found is not None:
                kinds.setdefault(found, []).append(name)
            elif _is_table(name) and metadata is not None:
                raise DataError(f"{path}: holds more than one {METADATA}; join them into one")
            elif _is_table(name):
                metadata = (PurePosixPath(name).parent, load())
            else:
                others.append(name)
    if not kinds:
        raise DataError(_nothing(path, others))
    if len(kinds) > 1:
        listed = " and ".join(f"{len(v):,} of {k}" for k, v in sorted(kinds.items()))
        raise DataError(
            f"{path}: holds files of two kinds ({listed}); put them in folders of their own, or "
            f"give a table with a column of paths for each"
        )
    kind, names = next(iter(kinds.items()))
    rows = {} if metadata is None else _metadata(path, *metadata, names)
    more = list(next(iter(rows.values()), {}))
    if kind in more:
        raise DataError(f"{path}: {METADATA} has a column {kind!r}, as the files will; rename it")
    labels = {_label(name) for name in names}
    labelled = len(labels) > 1 and "label" not in more
    columns = [kind, *(["label"] if labelled else []), *more]
    types = {kind: (kind, "")}
    if labelled:
        types["label"] = ("category", f"the names of {len(labels)} folders")
    notes = []
    if others:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        verb = "file is no picture" if len(others) == 1 else "files are no pictures"
        notes.append(f"{len(others)} {verb} and no sound{'s' * (len(others) > 1)}: left out are "
                     f"{some}")  # fmt: skip
    without = sum(name not in rows for name in names) if rows else 0
    if without:
        verb = "file does" if without == 1 else "files do"
        notes.append(f"{without} {verb} not stand in {METADATA}: what it would tell is blank")
    return MediaTable(columns, lambda _: _rows(path, walk, kind, columns, rows), types, notes)


def _rows(
    path: Path, walk: Walk, kind: str, columns: list[str], rows: dict[str, dict[str, str | None]]
) -> Iterator[Chunk]:
    done = 0
    by_folder = "label" not in next(iter(rows.values()), {})

    def chunk(some: list[MediaFile]) -> Chunk:
        cells: dict[str, list[Any]] = {}
        for column in columns:
            if column == kind:
                cells[column] = list(some)
            elif column == "label" and by_folder:
                cells[column] = [_label(file.name) for file in some]
            else:
                cells[column] = [rows.get(file.name, {}).get(column) for file in some]
        return Chunk(cells, str(path), list(range(done + 1, done + 1 + len(some))))

    with walk(True) as files:
        some: list[MediaFile] = []
        held = 0
        for name, load, size in files:
            if kind_of_name(name) != kind:
                continue
            some.append(MediaFile(name, load, kind_of_name(name)))
            held += size
            if len(some) == CHUNK_FILES or held >= MOST_HELD:
                yield chunk(some)
                done, held, some = done + len(some), 0, []
        if some:
            yield chunk(some)


def _label(name: str) -> str:
    """The name of the folder that a file lies in."""
    parent = PurePosixPath(name).parent.name
    return parent or "."


def _nothing(path: Path, others: Sequence[str]) -> str:
    idx = [name for name in others if is_idx(Path(name)) and "idx1" not in name]
    if idx:
        return f"{path}: holds idx files; name the one with the pictures: {path / idx[0]}"
    tables = [n for n in others if n.endswith((".csv", ".csv.gz", ".jsonl", ".parquet", ".txt"))]
    if tables and path.is_dir():
        return f"{path}: holds no pictures or sounds; give its tables or texts: {path / tables[0]}"
    return (
        f"{path}: holds no pictures or sounds ({' '.join(ENDINGS)})"
        f"{f', but {others[0]}' if others else ''}"
    )


# --- where files come from -----------------------------------------------------------------


@contextmanager
def _walk_folder(path: Path, read: bool) -> Iterator[Files]:
    yield _in_folder(path)


def _in_folder(path: Path) -> Files:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({reason(error)})")

    for folder, inner, files in os.walk(path, onerror=refuse, followlinks=True):
        if os.path.realpath(folder) in {os.path.realpath(p) for p in Path(folder).parents}:
            raise DataError(f"{folder}: is a link to a folder that holds it; remove it")
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower() != "thumbs.db":
                whole = Path(folder) / name
                yield whole.relative_to(path).as_posix(), partial(read_file, whole), 0


@contextmanager
def _walk_zip(path: Path, read: bool) -> Iterator[Files]:
    with _readable(path), zipfile.ZipFile(path) as archive:
        yield _in_zip(path, archive)


def _in_zip(path: Path, archive: zipfile.ZipFile) -> Files:
    for info in archive.infolist():
        _check_name(path, info.filename)
        if not info.is_dir() and not _is_clutter(info.filename):
            yield info.filename.replace("\\", "/"), partial(_from_zip, archive, info), 0


def _from_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    check_bytes(info.file_size)
    try:
        return archive.read(info)
    except (*BROKEN, RuntimeError, NotImplementedError, ValueError) as error:
        raise ValueRefused(f"cannot be unpacked ({error})") from None


@contextmanager
def _walk_tar(path: Path, read: bool) -> Iterator[Files]:
    with _readable(path), tarfile.open(path, "r:*") as archive:
        yield _in_tar(path, archive, read)


def _in_tar(path: Path, archive: tarfile.TarFile, read: bool) -> Files:
    for member in archive:
        _check_name(path, member.name)
        if member.isfile() and not _is_clutter(member.name):
            asked = read and kind_of_name(member.name) is not None
            loaded = asked or _is_table(member.name)
            load = _from_tar(archive, member) if loaded else _unread
            size = min(member.size, MOST_BYTES) if loaded else 0
            yield member.name.removeprefix("./"), load, size


def _from_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    """Read at once, while the archive stands there: it goes one way."""
    if member.size > MOST_BYTES:
        return partial(_too_large, member.size)
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    return lambda: data


def _is_table(name: str) -> bool:
    return PurePosixPath(name).name == METADATA


def _too_large(size: int) -> bytes:
    check_bytes(size)
    return b""


def _unread() -> bytes:
    raise ValueRefused("is no file that is read")


def _is_clutter(name: str) -> bool:
    """What systems leave in archives: __MACOSX/._photo.png, .DS_Store, Thumbs.db."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or "__MACOSX" in parts or name.lower().endswith("thumbs.db")


def _check_name(path: Path, name: str) -> None:
    """DataError for a name that would lie outside of the archive: it was not made in good faith."""
    plain = PurePosixPath(name.replace("\\", "/"))
    drive = bool(re.match(r"[A-Za-z]:", name))
    if plain.is_absolute() or ".." in plain.parts or drive:
        raise DataError(
            f"{path}: holds a file named {name!r}, outside of the archive; make it anew"
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise DataError(f"{path}: cannot be unpacked to its end ({error})") from None


# --- metadata ------------------------------------------------------------------------------


def _metadata(
    path: Path, base: PurePosixPath, data: bytes, names: Sequence[str]
) -> dict[str, dict[str, str | None]]:
    """File name -> its other cells. Names in the table go on from `base`, where it lies."""
    label = f"{path}, {METADATA}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{label}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        delimiter = find_delimiter(text[: 1 << 14], Path(METADATA))
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{label}: is no CSV file ({error})") from None
    header = [name.strip() for name in lines[0]] if lines else []
    key = next((name for name in FILE_COLUMNS if name in header), None)
    if key is None:
        raise DataError(
            f"{label}: has no column 'file_name' that names the files; its columns: "
            f"{', '.join(header) or 'none'}"
        )
    if len(set(header)) < len(header):
        raise DataError(f"{label}: a column stands twice in the header: {', '.join(header)}")
    known, out = set(names), {}
    for number, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        if len(cells) != len(header):
            cells_ = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
            raise DataError(f"{label}:{number}: {cells_} where the header has {len(header)}")
        row = dict(zip(header, (cell or None for cell in cells), strict=True))
        name = (base / (row.pop(key) or "").replace("\\", "/")).as_posix()
        if name not in known:
            raise DataError(f"{label}:{number}: there is no file {name!r}")
        if name in out:
            raise DataError(f"{label}:{number}: {name!r} has a row already")
        out[name] = row
    return out


# --- idx -----------------------------------------------------------------------------------


def open_idx(path: Path) -> MediaTable:
    """Pictures of an idx file, and the labels that lie beside it."""
    shape = _idx_header(path)
    if len(shape) == 1:
        raise DataError(f"{path}: holds labels; name the file of pictures, such as "
                        f"{_beside(path, 'labels', 'images', 'idx1', 'idx3')}")  # fmt: skip
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise DataError(f"{path}: holds numbers of shape {shape}, no pictures")
    beside = _beside(path, "images", "labels", "idx3", "idx1")
    labels = beside if beside != path and beside.is_file() else None
    types = {"image": ("image", "")}
    names = ["image"]
    if labels is not None:
        if _idx_header(labels)[:1] != shape[:1]:
            raise DataError(f"{labels}: has {_idx_header(labels)[0]:,} labels for {shape[0]:,} "
                            f"pictures in {path.name}")  # fmt: skip
        names.append("label")
        types["label"] = ("category", f"the labels of {labels.name}")

    def read(_: list[Problem] | None) -> Iterator[Chunk]:
        pictures = _idx(path)
        told = None if labels is None else _idx(labels).tolist()
        for at in range(0, len(pictures), 8192):
            some = range(at, min(at + 8192, len(pictures)))
            cells: dict[str, list[Any]] = {
                "image": [
                    MediaFile(f"{path.name} no. {i + 1}", partial(_item, pictures, i), "image")
                    for i in some
                ]
            }  # fmt: skip
            if told is not None:
                cells["label"] = [str(told[i]) for i in some]
            yield Chunk(cells, str(path), [i + 1 for i in some])

    return MediaTable(names, read, types, [])


def _item(pictures: np.ndarray, number: int) -> np.ndarray:
    return np.asarray(pictures[number])


def _beside(path: Path, was: str, now: str, old: str, new: str) -> Path:
    return path.with_name(path.name.replace(was, now).replace(old, new))


def _idx_header(path: Path) -> tuple[int, ...]:
    with _open_idx(path) as file:
        return _shape(path, file)


def _idx(path: Path) -> np.ndarray:
    """The numbers of an idx file of bytes."""
    with _open_idx(path) as file:
        shape = _shape(path, file)
        size = int(np.prod(shape, dtype=np.int64))
        data = file.read(size + 1)
    if len(data) != size:
        more = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path}: should hold {size:,} bytes of shape {shape}, and holds {more}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path: Path, file: Any) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != 8 or not 1 <= head[3] <= 4:
        raise DataError(f"{path}: is no idx file of bytes (it begins with {head!r})")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: is cut off within its header")
    shape: tuple[int, ...] = struct.unpack(f">{head[3]}I", sizes)
    if np.prod(shape, dtype=float) > 1 << 33:
        raise DataError(f"{path}: says to hold numbers of shape {shape}: more than 8 GiB")
    return shape


@contextmanager
def _open_idx(path: Path) -> Iterator[Any]:
    with _readable(path):
        packed = path.name.lower().endswith(".gz")
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file
