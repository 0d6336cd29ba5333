"""Opening text files: gzip, byte-order marks, encodings. Never a guess in silence."""

from __future__ import annotations

import codecs
import gzip
import io
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from charset_normalizer import from_bytes

from omnifill.errors import DataError

SAMPLE = 1 << 16
BINARY = {
    b"PAR1": "Parquet", b"PK\x03\x04": "zip or Excel", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG",
    b"%PDF": "PDF", b"RIFF": "WAV or WebP", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"SQLite": "SQLite", b"\x7fELF": "a program",
}  # fmt: skip


def open_binary(path: Path) -> BinaryIO:
    """The file's bytes, unpacked if it is gzip (by its first bytes, not its name)."""
    try:
        raw = path.open("rb")
        head = raw.read(2)
        raw.seek(0)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from None
    if head == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(raw))
    return raw


def open_text(path: Path, encoding: str | None) -> TextIO:
    """Text of a file, line ends as they are. UTF-8, or UTF-16 with a mark, or `encoding`."""
    with open_binary(path) as file:
        try:
            sample = file.read(SAMPLE)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be unpacked ({error})") from None
    if not sample:
        raise DataError(f"{path}: the file is empty")
    for magic, kind in BINARY.items():
        if sample.startswith(magic):
            raise DataError(f"{path}: this is a {kind} file, not text; name it as what it is")
    chosen = _encoding(path, sample, encoding)
    return io.TextIOWrapper(open_binary(path), encoding=chosen, newline="")


def _encoding(path: Path, sample: bytes, wish: str | None) -> str:
    if wish is not None:
        try:
            codecs.lookup(wish)
        except LookupError:
            raise DataError(
                f"--encoding {wish!r}: no such encoding; known are utf-8, utf-16, gb18030, big5, "
                f"shift_jis, cp1252, latin-1, …"
            ) from None
        return wish
    if sample.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\x00" in sample:
        line = sample[: sample.index(b"\x00")].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: holds a NUL byte, so it is not UTF-8 text; if it is UTF-16 without a "
            f"mark, say --encoding utf-16-le"
        )
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError as error:
        line = sample[: error.start].count(b"\n") + 1
        raise DataError(not_utf8(path, line, sample)) from None
    return "utf-8"


def not_utf8(path: Path, line: int, sample: bytes) -> str:
    """The message for text that is not UTF-8, with the best guess at what it is."""
    best = from_bytes(sample).best()
    guess = best.encoding if best is not None else "cp1252"
    return (
        f"{path}:{line}: is not UTF-8 (nor UTF-16 with a mark). Say which encoding it has; the "
        f"best guess is --encoding {guess}"
    )


def undecodable(
    path: Path, line: int, error: UnicodeDecodeError, encoding: str | None
) -> DataError:
    """The error for a byte further on that its encoding does not know."""
    if encoding is None:
        with open_binary(path) as file:
            file.seek(max(0, 0))
            sample = bytes(error.object)[:SAMPLE]
        return DataError(not_utf8(path, line, sample))
    return DataError(f"{path}: near line {line}: is not {encoding} ({error.reason})")
