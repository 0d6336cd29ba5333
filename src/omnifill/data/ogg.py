"""Ogg files that are the same bytes each time: their stream gets a number that is not drawn by the
clock (RFC 3533)."""

from __future__ import annotations

import struct
from functools import cache

HEADER = 27
"""Bytes of a page before its table of segments."""
SERIAL, SUM = slice(14, 18), slice(22, 26)


def with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg file of one stream, with another serial number."""
    out, at = bytearray(data), 0
    while at < len(out):
        segments = out[at + HEADER - 1]
        size = HEADER + segments + sum(out[at + HEADER : at + HEADER + segments])
        page = out[at : at + size]
        page[SERIAL] = struct.pack("<I", serial)
        page[SUM] = bytes(4)
        page[SUM] = struct.pack("<I", _checksum(page))
        out[at : at + size] = page
        at += size
    return bytes(out)


@cache
def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


def _checksum(page: bytearray) -> int:
    value, table = 0, _table()
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
    return value
