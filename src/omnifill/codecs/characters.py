"""Text as characters: one code for each character of the training part, bytes for any other.

Codes 0-255 are bytes (an ASCII character is its byte); the known characters beyond ASCII come
after them, in order of code point. So every string round-trips, as with BPE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.support import (
    check_options,
    damaged,
    int_option,
    no_coords,
    read_json,
    write_json,
)
from omnifill.codecs.utf8 import TextDecoder, decode_codes, num_bytes, utf8_grammar
from omnifill.types import Grammar, Ints

FILE = "characters.json"
MAX_SIZE = 16384
"""Default limit of codes; the rarest characters beyond it are spelt in bytes."""


class CharacterCodec:
    """str <-> one code per known character, one to four for others."""

    shared: ClassVar[bool] = True
    slots: int | None = None

    def __init__(self, characters: str) -> None:
        """`characters`: those beyond ASCII that have a code, in order of code point."""
        self.characters = characters
        single = [bytes([byte]) for byte in range(256)]
        self.pieces: list[bytes | None] = [*single, *(c.encode("utf-8") for c in characters)]
        self._points = _code_points(characters)

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Option: `vocabulary`, the greatest number of codes, the 256 bytes included."""
        check_options(options, ("vocabulary",))
        limit = int_option(options, "vocabulary", MAX_SIZE, 256, 1 << 20) or MAX_SIZE
        points, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for chunk in chunks:
            new, num = np.unique(_code_points(_joined(chunk)), return_counts=True)
            points, group = np.unique(np.concatenate([points, new]), return_inverse=True)
            counts = np.bincount(group, weights=np.concatenate([counts, num])).astype(np.int64)
        counts, points = counts[points >= 128], points[points >= 128]
        frequent = np.argsort(-counts, kind="stable")[: limit - 256]
        return cls("".join(chr(point) for point in np.sort(points[frequent]).tolist()))

    @property
    def size(self) -> int:
        return len(self.pieces)

    def encode(self, value: Any) -> Ints:
        """str -> (S,). ValueRefused for a lone surrogate."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N texts -> all codes in one line, and the (N,) number of codes of each."""
        text = _joined(values)
        points = _code_points(text)
        code = np.where(points < 128, points, -1)
        if len(self._points):
            at = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
            code = np.where(self._points[at] == points, 256 + at, code)
        width = np.where(code >= 0, 1, 2 + (points >= 0x800) + (points >= 0x10000))
        codes = np.repeat(code, width)
        unknown = "".join(text[i] for i in np.flatnonzero(code < 0).tolist())
        codes[codes < 0] = np.frombuffer(unknown.encode("utf-8"), np.uint8)
        owner = np.repeat(np.arange(len(values)), np.array([len(v) for v in values], np.int64))
        lens = np.bincount(owner, weights=width, minlength=len(values)).astype(np.int64)
        return codes, lens

    def decode(self, codes: Ints) -> str:
        """(S,) -> str."""
        return decode_codes(self.pieces, codes)

    def stream_decoder(self) -> TextDecoder:
        """Fed one code after another, it gives the text as it becomes complete."""
        return TextDecoder(self.pieces)

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return no_coords(n)

    @cached_property
    def _grammar(self) -> Grammar:
        return utf8_grammar(self.pieces)

    def grammar(self) -> Grammar:
        """Characters anywhere between characters; bytes that make valid UTF-8."""
        return self._grammar

    def describe(self) -> str:
        return f"characters: {len(self.characters)} beyond ASCII, 256 bytes"

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"characters": self.characters})

    @classmethod
    def load(cls, folder: Path) -> Self:
        text = read_json(folder / FILE).get("characters")
        if not isinstance(text, str) or sorted(set(text)) != list(text):
            raise damaged(folder / FILE, "no ordered characters")
        if any(ord(c) < 128 or 0xD800 <= ord(c) < 0xE000 for c in text):
            raise damaged(folder / FILE, "characters that have no code of their own")
        return cls(text)


def _code_points(text: str) -> Ints:
    """str -> (number of characters,)."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)


def _joined(texts: Sequence[Any]) -> str:
    """All texts in one; ValueRefused for what is no text."""
    for text in texts:
        num_bytes(text)
    return "".join(texts)
