"""Opening text files: gzip, byte-order marks, encodings. Never a guess in silence."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from omnifill.errors import DataError
from omnifill.files import reason

SAMPLE = 1 << 16
FEW_ACCENTS = 50
ACCENTS = "àáâãäåæçèéêëìíîïñòóôõöøùúûüýßÀÁÂÄÅÆÇÈÉÊËÍÎÑÓÔÖØÙÚÜ€‘’“”–—…°£§«»".encode("cp1252")
BINARY = {
    b"PAR1": "Parquet", b"PK\x03\x04": "zip or Excel", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG",
    b"%PDF": "PDF", b"RIFF": "WAV or WebP", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"SQLite": "SQLite", b"\x7fELF": "a program",
}  # fmt: skip


def open_binary(path: Path) -> BinaryIO:
    """The file's bytes, unpacked if it is gzip (by its first bytes, not its name)."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({reason(error)})") from None


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
            io.TextIOWrapper(io.BytesIO(), encoding=wish)  # refuses codecs that are not of text
            codecs.getincrementaldecoder(wish)().decode(sample)
        except (LookupError, ValueError) as error:
            if isinstance(error, UnicodeError):
                raise undecodable(path, 1, error, wish) from None
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
    from charset_normalizer import from_bytes  # a quarter of a second, which few files need

    best = from_bytes(sample).best()
    guess = best.encoding if best is not None and not _is_western(sample) else "cp1252"
    words = [w for w in sample.decode(guess, "replace").split() if not w.isascii()][:3]
    return (
        f"{path}:{line}: is not UTF-8 (nor UTF-16 with a mark). Say which encoding it has; the "
        f"best guess is --encoding {guess}, which reads {' '.join(words)[:60]!r}; if that is "
        f"wrong, try cp1252 (western), cp1250 (central Europe), cp1251 (Cyrillic), "
        f"gb18030 or shift_jis"
    )


def _is_western(sample: bytes) -> bool:
    """Whether little is not ASCII, and that stands alone inside words, as accents do: too little
    for statistics to tell one code page from another."""
    runs = re.findall(rb"[\x80-\xff]+", sample)
    alone = sum(len(run) == 1 for run in runs) >= 0.7 * len(runs)
    few = len(runs) < FEW_ACCENTS and all(len(run) <= 2 for run in runs)
    return few and alone and all(byte in ACCENTS for run in runs for byte in run)


def undecodable(path: Path, line: int, error: UnicodeError, encoding: str | None) -> DataError:
    """The error for bytes that their encoding does not know.

    `line`: the first line that was not read; the decoder may be some lines ahead of the reader.
    """
    if not isinstance(error, UnicodeDecodeError):  # UTF-16 without its mark
        return DataError(f"{path}: is not {encoding} ({error}); utf-16-le or utf-16-be need none")
    line += error.object[: error.start].count(b"\n")
    if encoding is None:
        return DataError(not_utf8(path, line, bytes(error.object)))
    return DataError(
        f"{path}:{line}: is not {encoding} ({error.reason}); name the encoding that the file has, "
        f"or leave --encoding out to be told the best guess"
    )
