"""Files that are whole or not there: written beside, flushed to disk, renamed; and whether who
holds one is still there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnifill.errors import DataError

REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EACCES: "permission denied; choose a path that you may use",
    errno.EPERM: "permission denied; choose a path that you may use",
    errno.EROFS: "the disk is read-only; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
    errno.EISDIR: "is a folder, not a file; choose another path",
    errno.ENAMETOOLONG: "the name is too long",
}
"""What the system's commonest refusals mean, and what to do."""


def reason(error: OSError) -> str:
    """Why the system refused a file, in words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error)


def sync_file(path: Path) -> None:
    """Have the operating system put a file's bytes on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """The same for a folder's names; Windows has no such call and does it by itself."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` at the end, unless something failed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        sync_file(beside)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({reason(error)})") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_bytes(data)


def is_alive(process: int) -> bool:
    """Whether a process of that number runs; on Windows, where one cannot ask safely: no."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
