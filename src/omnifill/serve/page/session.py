"""What one visitor has under way, and how it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any


class Running:
    """At most one request of each visitor; a new one ends the one before."""

    def __init__(self) -> None:
        self.stops: dict[str, asyncio.Event] = {}

    def begin(self, who: str) -> asyncio.Event:
        """-> what is set when it is to end."""
        self.stop(who)
        self.stops[who] = asyncio.Event()
        return self.stops[who]

    def end(self, who: str, stop: asyncio.Event) -> None:
        """It is over."""
        if self.stops.get(who) is stop:
            del self.stops[who]

    def stop(self, who: str) -> None:
        """End what a visitor has under way."""
        if who in self.stops:
            self.stops[who].set()

    def stop_all(self) -> None:
        """The server is asked to go."""
        for stop in self.stops.values():
            stop.set()


async def until(
    events: AsyncGenerator[dict[str, Any], None], stop: asyncio.Event
) -> AsyncIterator[dict[str, Any]]:
    """Events until there are no more or somebody stops them; their connection is then closed."""
    stopped = asyncio.ensure_future(stop.wait())
    coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or coming.result() is None:
                return
            yield coming.result()
    finally:
        for task in (coming, stopped):
            task.cancel()
        await asyncio.gather(coming, stopped, return_exceptions=True)
        await events.aclose()
