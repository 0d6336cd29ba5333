"""uvicorn's server with an end of its own: what it says when it starts, and whom it waits for when
it is asked to go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from omnifill.serve.front import Page
from omnifill.serve.link import Link

GRACE = 30
"""Seconds that requests under way have when the server is asked to go."""
TOLD = 2
"""Seconds that clients have to take what those are told that are not over by then."""
KEPT = 75
"""Seconds that a connection is kept on which nothing is asked: longer than clients keep it, whose
next question would else come just when it is closed."""


class Server(uvicorn.Server):
    """Goes when it is asked to, as a command that has done its work."""

    def __init__(
        self, app: Any, link: Link, host: str, port: int, connection: Any, page: Page | None,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`connection`: how it speaks HTTP; `say`: tells who started it what becomes of it."""
        super().__init__(uvicorn.Config(
            app, host=host, port=port, http=connection, ws="none",
            log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=GRACE + 2 * TOLD, timeout_keep_alive=KEPT,
            h11_max_incomplete_event_size=16384,
        ))  # fmt: skip
        self.link, self.page, self.say = link, page, say
        self.where = f"http://{shown(host)}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """It takes requests from now on."""
        await super().startup(sockets)
        if self.started:
            what = "the API" if self.page is None else "a page and the API"
            names = ", ".join(self.link.models)
            self.say(f"serving {names} at {self.where} ({what}); Ctrl-C ends it")

    def handle_exit(self, sig: int, frame: Any) -> None:
        """It is asked to go; once more, and it waits for nobody."""
        self.force_exit = self.should_exit
        if self.link.open and not self.should_exit:
            self.say(f"{len(self.link.open)} requests have {GRACE} s to end; asked again, they end "
                     f"now")  # fmt: skip
        self.should_exit = True
        if self.page is not None:
            self.page.leave()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End requests; who is not done in time is told so, and then cut off."""
        later = asyncio.get_running_loop().call_later
        timers = [later(GRACE, self.link.give_up), later(GRACE + TOLD, self._cut)]
        try:
            await super().shutdown(sockets)
        finally:
            for timer in timers:
                timer.cancel()
        if self.force_exit:  # all is put away all the same
            self.link.give_up()
            if tasks := list(self.server_state.tasks):
                await asyncio.wait(tasks, timeout=TOLD)
            await self.lifespan.shutdown()

    def _cut(self) -> None:
        for open_ in list(self.server_state.connections):
            if open_.transport is not None:
                open_.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. OSError.

    It says that it is TCP's, which `create_server` leaves open: asyncio turns delays off for such
    alone, and otherwise the first piece of a stream waits some 40 ms behind the head.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    plain = socket.create_server((host, port), family=family, backlog=2048)
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=plain.detach())


def shown(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host
