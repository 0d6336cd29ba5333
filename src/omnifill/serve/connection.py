"""A client's connection: how long it may take to say what it asks, and to take what it is told.

uvicorn waits for both without an end, so that a few thousand clients that say nothing, or read
nothing, would keep everybody else out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from omnifill.serve.limits import Limits


class Connection(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to each wait."""

    def __init__(self, *args: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*args, **named)
        self.limits = limits
        self.asking: asyncio.TimerHandle | None = None
        """Runs while the head of a request is on its way."""
        self.taking: asyncio.TimerHandle | None = None
        """Runs while more waits to be sent than the client takes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; it has something to ask."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that all that waits to be taken is seen
        self.asking = self.loop.call_later(self.limits.arrival, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Some bytes: of a request's head, whose time they do not lengthen, or of a body. What
        still comes of one that has its answer is waited for no longer than for a head."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked()
        elif self.asking is None:
            self.asking = self.loop.call_later(self.limits.arrival, self.transport.abort)

    def pause_writing(self) -> None:
        """The client takes less than it is told."""
        super().pause_writing()
        self._took()
        self._wait_for_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has taken enough that more can be said."""
        super().resume_writing()
        self._took()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._asked()
        self._took()
        super().connection_lost(exc)

    def _wait_for_taking(self, before: int) -> None:
        """End the connection unless less is left by then than there was before."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < before:
                self._wait_for_taking(left)
            else:
                self.transport.abort()

        self.taking = self.loop.call_later(self.limits.taking, look)

    def _asked(self) -> None:
        if self.asking is not None:
            self.asking.cancel()
            self.asking = None

    def _took(self) -> None:
        if self.taking is not None:
            self.taking.cancel()
            self.taking = None
