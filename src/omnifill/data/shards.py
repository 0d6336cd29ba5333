"""Encoded records on disk: memory-mapped, so that a part may be larger than memory.

A part is a folder of plain `.npy` files, all records one after another in schema order:
`ids` (total,) the ids, `rows` (total,) what was allowed at each (see `form.vocabulary`), and
`lens` (N, F) how many ids each field of each record has. What the ids mean is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnifill.errors import DataError, RunError
from omnifill.files import reason
from omnifill.types import Ints

NAMES = ("ids", "rows", "lens")


@dataclass(frozen=True, eq=False)
class Shard:
    """The encoded records of one part (train, valid or test)."""

    ids: NDArray[Any]
    rows: NDArray[Any]
    lens: NDArray[Any]

    def __len__(self) -> int:
        return len(self.lens)

    @cached_property
    def sizes(self) -> Ints:
        """(N,): the number of ids of each record."""
        sizes: Ints = self.lens.sum(axis=1, dtype=np.int64)
        return sizes

    @cached_property
    def starts(self) -> Ints:
        """(N,): where each record starts."""
        return np.cumsum(self.sizes) - self.sizes


class ShardWriter:
    """Appends chunks of records; nothing is kept in memory."""

    def __init__(self, folder: Path, num_fields: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.num_fields = num_fields
        self.files: dict[str, BinaryIO] = {
            name: (folder / f"{name}.raw").open("wb") for name in NAMES
        }
        self.num_records = 0
        self.num_ids = 0

    def add(self, ids: Ints, rows: Ints, lens: Ints) -> None:
        """One chunk: ids and rows (total,), lens (n, F)."""
        for name, values in zip(NAMES, (ids, rows, lens), strict=True):
            self.files[name].write(np.ascontiguousarray(values, np.int32).tobytes())
        self.num_records += len(lens)
        self.num_ids += len(ids)

    def add_piece(self, ids: Ints, rows: Ints) -> None:
        """Part of one long record, which `end_record` closes."""
        for name, values in zip(NAMES[:2], (ids, rows), strict=True):
            self.files[name].write(np.ascontiguousarray(values, np.int32).tobytes())
        self.num_ids += len(ids)

    def end_record(self) -> None:
        """All pieces so far are one record of one field."""
        if self.num_ids:
            self.files["lens"].write(np.array([[self.num_ids]], np.int32).tobytes())
            self.num_records += 1

    def close(self) -> None:
        """Finish: the raw files become `.npy` files."""
        shapes = {
            "ids": (self.num_ids,), "rows": (self.num_ids,),
            "lens": (self.num_records, self.num_fields),
        }  # fmt: skip
        for name, file in self.files.items():
            file.close()
            raw = self.folder / f"{name}.raw"
            target = self.folder / f"{name}.npy.part"
            with target.open("wb") as out, raw.open("rb") as data:
                header = {"descr": "<i4", "fortran_order": False, "shape": shapes[name]}
                np.lib.format.write_array_header_1_0(out, header)
                while block := data.read(1 << 22):
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            target.replace(self.folder / f"{name}.npy")
            raw.unlink()


@contextmanager
def write_shard(folder: Path, num_fields: int) -> Iterator[ShardWriter]:
    """A writer that is closed only if nothing went wrong."""
    writer = ShardWriter(folder, num_fields)
    try:
        yield writer
        writer.close()
    except BaseException as error:
        for file in writer.files.values():
            with suppress(OSError):  # a full disk refuses the last bytes once more
                file.close()
        if isinstance(error, OSError):
            raise DataError(f"{folder}: cannot be written ({reason(error)})") from error
        raise


def open_shard(folder: Path) -> Shard:
    """Memory-map a part."""
    try:
        ids, rows, lens = (_open(folder / f"{name}.npy") for name in NAMES)
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: encoded records are damaged or missing ({error})") from None
    return Shard(ids, rows, lens)


def _open(path: Path) -> NDArray[Any]:
    """Memory-map an array, or read it if it is empty (a map cannot be)."""
    array: NDArray[Any]
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except ValueError:
        array = np.load(path, allow_pickle=False)
    return array
