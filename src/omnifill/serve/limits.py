"""All that a server allows, in one table: what is more is refused by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much at once, and how large."""

    rows: int = 8
    """Records or texts that one model writes at once; of guided ones half as many."""
    waiting: int = 64
    """Requests under way in the whole server, those that wait for a row among them."""
    body: int = 8 << 20
    """Bytes of a request."""
    nesting: int = 32
    """Brackets within brackets of a request."""
    names: int = 10_000
    """Commas in all of it: keys and items."""
    records: int = 256
    """Records, texts or pictures that one request asks for or brings."""
    tokens: int = 16_384
    """Most tokens of one text (`max_tokens`)."""
    work: int = 1 << 20
    """Most tokens in all: records × `max_tokens`, over all requests under way."""
    text: int = 200_000
    """Characters of one text that is given."""
    stops: int = 8
    """Stop strings."""
    messages: int = 256
    """Messages of a chat."""
    tops: int = 20
    """Likely tokens that are told beside each chosen one."""
    jobs: int = 1000
    """Jobs that are not over."""
    arrival: float = 30.0
    """Seconds that the head of a request may take to come, and its body."""
    taking: float = 60.0
    """Seconds that a client may leave what it is told untaken."""
    seconds: float = 600.0
    """Time that a request may take, waiting included."""
    headers: int = 64
    """Header lines of a request."""
    rate: int = 0
    """Requests that one key may make a minute; 0: any number."""


LOCAL = ("localhost", "127.0.0.1", "::1")
"""What this machine calls itself."""
RETRY = 1
"""Seconds after which one who was refused may ask again."""
