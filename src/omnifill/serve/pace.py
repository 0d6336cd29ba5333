"""How often clients are told: what many streams are told costs time that the model wants.

A message wakes the server and then a client. Each takes some 0.1 ms of processors that the model
keeps busy, and a thread that is held up holds up the others. A text alone is told of at each token.
Of many at once each is told of less often, several tokens at a time, so that all together stay
below a rate. What nobody reads along is told when it is whole, but for its first piece, which shows
that it has begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

APART = 0.004
"""Seconds between two pieces on average, where several texts are written."""


@dataclass
class Stream:
    """What somebody has not been told yet."""

    streamed: bool
    begun: bool = False
    held: dict[tuple[int, str], Message] = field(default_factory=dict)
    """Row and field -> what is new of it."""


class Pace:
    """Holds pieces back until it is time to tell all streams what is new."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.told = clock, clock()
        self.streams: dict[int, Stream] = {}

    def begin(self, number: int, streamed: bool) -> None:
        """Somebody asks, and reads along or not."""
        self.streams[number] = Stream(streamed)

    def take(self, message: Message) -> list[Message]:
        """What is told at once: the first piece of an answer, and whatever is no piece, with all
        that was held before it. Any other piece is held."""
        stream = self.streams.get(message["id"])
        if stream is None:
            return [message]
        if message["do"] != "piece" or not stream.begun:
            held, stream.held, stream.begun = stream.held, {}, True
            return [*held.values(), message]
        place = message["row"], message["field"]
        stream.held[place] = joined(stream.held.get(place), message)
        return []

    def due(self) -> list[Message]:
        """What has been held for long enough: all of it at once, so that readers are woken
        seldom. Where one text is written nothing waits longer than the step that it comes from."""
        streams = [stream for stream in self.streams.values() if stream.streamed]
        out = [message for stream in streams for message in stream.held.values()]
        now = self.clock()
        if now - self.told < APART * (len(out) - 1):
            return []
        self.told = now
        for stream in streams:
            stream.held = {}
        return out

    def end(self, number: int) -> None:
        """Nobody is told of it any more."""
        self.streams.pop(number, None)


def joined(before: Message | None, new: Message) -> Message:
    """Two pieces of one value as one."""
    if before is None:
        return new
    both = {**before, **new, "text": before["text"] + new["text"]}
    if "tokens" in before:
        both["tokens"] = before["tokens"] + new.get("tokens", [])
    return both
