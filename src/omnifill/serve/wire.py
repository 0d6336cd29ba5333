"""Messages between the server and its engine: lists of them in JSON, each with its length before
it, and nothing else; and lines for clients.

Nothing that comes over it is ever unpickled or imported.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO


@dataclass(frozen=True)
class EngineSettings:
    """What an engine's process is started with."""

    models: dict[str, str]
    """Name -> run folder."""
    adapters: dict[str, list[str]] = field(default_factory=dict)
    """Name -> the name of a model, and the folder of an adapter beside its weights."""
    rows: int = 8
    exact: bool = False
    threads: int = 1
    memory: float | None = None
    """Gigabytes that models may take; None: any number."""


def engine_environment() -> dict[str, str]:
    """What an engine's process is started with beside its settings.

    Threads of GNU OpenMP that wait for work leave the processor after some 0.1 ms (this many looks)
    instead of several: the process that speaks HTTP runs there meanwhile, or else in the place of
    one that works. What the user says of it holds.
    """
    return {"GOMP_SPINCOUNT": "10000"} | os.environ


HEAD = struct.Struct("<I")
MOST = 1 << 28
"""Bytes of a frame: pictures and sounds are in it."""
LARGE = 1 << 20
"""Bytes of a frame of several messages."""


ENDS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}
"""Letters that some readers take for the end of a line."""
ENCODER = json.JSONEncoder(ensure_ascii=False)


def as_line(body: dict[str, Any]) -> str:
    """JSON that is one line however lines are told apart."""
    return ENCODER.encode(body).translate(ENDS)


def packed(*messages: dict[str, Any]) -> bytes:
    """Messages as they go over the wire: as many in a frame as make little of one, since each frame
    costs who reads it some time."""
    out, parts, size = bytearray(), list[bytes](), 0
    for message in messages:
        text = json.dumps(message, ensure_ascii=False, default=_told)
        data = text.encode("utf-8", "surrogatepass")
        if parts and size + len(data) > LARGE:
            out += _frame(parts)
            parts, size = [], 0
        parts.append(data)
        size += len(data) + 1
    return bytes(out + _frame(parts)) if parts else b""


def _frame(parts: list[bytes]) -> bytes:
    data = b"[" + b",".join(parts) + b"]"
    return HEAD.pack(len(data)) + data


def unpacked(data: bytes) -> list[dict[str, Any]]:
    """What stands behind the length."""
    messages: list[dict[str, Any]] = json.loads(data)
    return messages


def size_of(head: bytes) -> int:
    """Bytes that follow the head. ValueError if nobody of ours wrote it."""
    (size,) = HEAD.unpack(head)
    if size > MOST:
        raise ValueError(f"a message of {size:,} bytes")
    return int(size)


def messages(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """All messages up to the end of a stream."""
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        yield from unpacked(stream.read(size_of(head)))


async def received(stream: asyncio.StreamReader) -> list[dict[str, Any]]:
    """The messages of the next frame. asyncio.IncompleteReadError at the end."""
    head = await stream.readexactly(HEAD.size)
    return unpacked(await stream.readexactly(size_of(head)))


def _told(value: Any) -> Any:
    """Bytes of pictures and sounds; numbers of other libraries."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing for the wire")
