"""An answer as server-sent events, until it is over, late, or nobody is there to read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from omnifill.serve.link import Answer, Link
from omnifill.serve.refusals import Refusal
from omnifill.serve.wire import as_line

DONE = b"data: [DONE]\n\n"


class Events(StreamingResponse):
    """Pieces as they come, and one `[DONE]` behind them.

    A client that leaves is looked for by `watch` alone: starlette would start two tasks for each
    answer to do so, and might end one between two pieces without its `stack`.
    """

    def __init__(self, stack: AsyncExitStack, pieces: AsyncIterator[dict[str, Any]]) -> None:
        """`stack`: what is given back at the end, whatever comes."""
        super().__init__(self._lines(pieces), media_type="text/event-stream",
                         headers={"Cache-Control": "no-store"})  # fmt: skip
        self.stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the client."""
        async with self.stack:
            await self.stream_response(send)

    async def _lines(self, pieces: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces:
                yield as_event(piece)
        except Refusal as refusal:
            yield as_event(refusal.body)
        yield DONE


def watch(stack: AsyncExitStack, answer: Answer, request: Request, link: Link) -> None:
    """Stop an answer once it takes too long, its client has left, or the server goes. One timer and
    one task for all of it: there are hundreds of pieces a second."""

    def leave() -> None:
        answer.stop(going())

    link.visitors.add(leave)
    stack.callback(link.visitors.discard, leave)
    seconds = link.limits.seconds
    late = asyncio.get_running_loop().call_later(seconds, answer.stop, too_late(seconds))
    stack.callback(late.cancel)
    leaving = asyncio.ensure_future(left(request))
    leaving.add_done_callback(lambda _: answer.stop(has_left()))
    stack.callback(leaving.cancel)


def as_event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {as_line(body)}\n\n".encode()


async def left(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def has_left() -> Refusal:
    """What nobody reads any more."""
    return Refusal(408, "the client has left", code="client_left")


def going() -> Refusal:
    """The server was asked to go some time ago."""
    return Refusal(503, "the server goes, and this has taken too long", code="going")


def too_late(seconds: float) -> Refusal:
    """It takes longer than that."""
    return Refusal(408, f"it takes more than {seconds:g} seconds", code="deadline")
