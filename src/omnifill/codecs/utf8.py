"""Codes that stand for bytes of UTF-8: which may follow which, and what they spell.

Both text codecs give every code a *piece*: its bytes, or None for a code that is never used.
This file knows pieces, and no tokenizer.
"""

from __future__ import annotations

from codecs import getincrementaldecoder, utf_8_decode
from collections.abc import Sequence

import numpy as np

from omnifill.errors import ValueRefused
from omnifill.types import Grammar, Ints

NUM_STATES = 8
"""States of a UTF-8 decoder: 0 between characters; 1, 2, 3 that many continuation bytes to come;
4-7 after E0, ED, F0, F4, whose next byte is restricted (no overlong form, no surrogate, nothing
beyond U+10FFFF)."""

_DEAD = NUM_STATES


def _byte_table() -> Ints:
    """(9, 256): the state after a byte; the last state is dead."""
    table = np.full((NUM_STATES + 1, 256), _DEAD, np.int64)
    table[0, 0x00:0x80] = 0
    table[0, 0xC2:0xE0] = 1
    table[0, 0xE0:0xF0] = 2
    table[0, 0xF0:0xF5] = 3
    for lead, state in ((0xE0, 4), (0xED, 5), (0xF0, 6), (0xF4, 7)):
        table[0, lead] = state
    for state in (1, 2, 3):
        table[state, 0x80:0xC0] = state - 1
    table[4, 0xA0:0xC0] = 1
    table[5, 0x80:0xA0] = 1
    table[6, 0x90:0xC0] = 2
    table[7, 0x80:0x90] = 2
    return table


def utf8_grammar(pieces: Sequence[bytes | None]) -> Grammar:
    """The automaton of all code sequences that spell valid UTF-8; the end is between characters.

    All 256 single bytes should be among the pieces, so that no state is a dead end.
    """
    table = _byte_table()
    lens = np.array([len(piece or b"") for piece in pieces], np.int64)
    state = np.repeat(np.arange(NUM_STATES)[:, None], len(pieces), axis=1)
    flat = np.frombuffer(b"".join(piece or b"" for piece in pieces), np.uint8)
    first = np.cumsum(lens) - lens
    for place in range(int(lens.max(initial=0))):
        longer = np.flatnonzero(lens > place)
        state[:, longer] = table[state[:, longer], flat[first[longer] + place]]
    state[:, lens == 0] = _DEAD
    alive = state != _DEAD
    end = np.arange(NUM_STATES)[:, None] == 0
    return Grammar(np.concatenate([alive, end], axis=1), np.where(alive, state, 0))


class TextDecoder:
    """Codes one at a time -> text as soon as characters are complete.

    The pieces of text joined are what `decode_codes` gives for all codes at once.
    """

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = pieces
        # The grammar allows no invalid bytes; "replace" is for codes that were not under it.
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, code: int) -> str:
        """The characters that this code completes; often one, sometimes none."""
        return self._decoder.decode(self._pieces[code] or b"")

    def close(self) -> str:
        """What is left behind the last code: a character in part, which is not shown."""
        return ""


def decode_codes(pieces: Sequence[bytes | None], codes: Ints) -> str:
    """(S,) -> str. A character left incomplete at the end (a cut value) is not shown."""
    data = b"".join(pieces[code] or b"" for code in codes.tolist())
    return utf_8_decode(data, "replace", False)[0]


def num_bytes(text: object) -> int:
    """Length in UTF-8. ValueRefused for what is no text: another type, a lone surrogate."""
    if not isinstance(text, str):
        raise ValueRefused(f"a text is a str, not {text!r} ({type(text).__name__})")
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ValueRefused(
            f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, as character "
            f"{error.start + 1}: half of a pair, which no Unicode text may hold; "
            "remove it, or replace it by U+FFFD"
        ) from None
