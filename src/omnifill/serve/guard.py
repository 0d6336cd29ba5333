"""What every request passes before anything of it is read: who asks, of whom, and how much.

One gate for all routes, the page's own among them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnifill.serve.limits import Limits
from omnifill.serve.parse import parsed
from omnifill.serve.refusals import Refusal

COOKIE = "omnifill_session"
JOBS = "/v1/jobs"
"""What begins so is kept, not asked of a model at once."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass
class Keys:
    """Who may ask."""

    hashes: list[bytes] = field(default_factory=list)
    """SHA-256 of each key; none: everybody on this machine."""

    @classmethod
    def of(cls, keys: Sequence[str]) -> Keys:
        return cls([hashlib.sha256(key.encode()).digest() for key in keys])

    def known(self, said: str) -> str | None:
        """Who that is; None: nobody. It takes as long whatever is said."""
        digest, found = hashlib.sha256(said.encode("utf-8", "surrogateescape")).digest(), None
        for own in self.hashes:
            if hmac.compare_digest(digest, own):
                found = own.hex()[:32]
        return found


class Guard:
    """ASGI middleware around the whole server."""

    def __init__(
        self, app: ASGIApp, keys: Keys, hosts: Sequence[str], limits: Limits,
        open_paths: Sequence[str] = (), uncounted: Callable[[str], bool] = lambda path: False,
        full: Callable[[], Refusal | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`hosts`: names that the server answers to; `open_paths`: those that ask for no key;
        `uncounted`: those that no rate is kept for, as the files of a page, whose questions are
        counted where they reach the API; `full`: what questions to models are told where there is
        no room, before anything is read of them."""
        self.app, self.keys, self.hosts, self.limits = app, keys, set(hosts), limits
        self.open_paths, self.uncounted, self.full = set(open_paths), uncounted, full
        self.asked: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            if scope["type"] != "http":
                raise Refusal(400, "this server speaks HTTP alone")
            headers = Headers(scope=scope)
            self._check_host(headers)
            if len(scope["headers"]) > self.limits.headers:
                raise Refusal(431, f"more than {self.limits.headers} headers")
            if self.keys.hashes and scope["path"] not in self.open_paths:
                scope["omnifill.owner"] = who = self._who(headers)
                self._check_rate(who, scope["path"])
            elif self.limits.rate:
                self._check_rate("everybody", scope["path"])
            asks = scope["method"] == "POST" and scope["path"].startswith("/v1/")
            if asks and not scope["path"].startswith(JOBS) and (refusal := self.full()):
                raise refusal
            receive = await self._body(scope, headers, receive)
        except Refusal as refusal:
            if scope["type"] == "http":
                await _answer(refusal, scope)(scope, receive, send)
            return
        await self.app(scope, receive, _with_headers(send))

    def _check_host(self, headers: Headers) -> None:
        """Against names of other sites that point here (DNS rebinding)."""
        host = headers.get("host", "")
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name.strip("[]").lower() not in self.hosts:
            raise Refusal(400, "the Host header is none that this server answers to; name it with "
                          "--allow-host", param="host")  # fmt: skip

    def _who(self, headers: Headers) -> str:
        kind, _, said = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            said = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        who = self.keys.known(said.strip())
        if who is None:
            raise Refusal(401, "say your key: Authorization: Bearer …", code="invalid_api_key")
        return who

    def _check_rate(self, who: str, path: str) -> None:
        if not self.limits.rate or self.uncounted(path):
            return
        now, times = time.monotonic(), self.asked.setdefault(who, deque())
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= self.limits.rate:
            wait = int(60 - (now - times[0])) + 1
            raise Refusal(429, f"more than {self.limits.rate} requests a minute", retry=wait,
                          code="rate_limit_exceeded")  # fmt: skip
        times.append(now)

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Read the whole body, as long as it is no longer than allowed."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        told = headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > self.limits.body:
            raise Refusal(413, f"more than {self.limits.body:,} bytes")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(400, "Content-Encoding: bodies are read as they are, not compressed",
                          param="Content-Encoding")  # fmt: skip
        try:
            async with asyncio.timeout(self.limits.arrival):
                body = await _whole(receive, self.limits.body)
        except TimeoutError:
            raise Refusal(408, f"the body takes more than {self.limits.arrival:g} seconds to come",
                          code="slow") from None  # fmt: skip
        if body is None:  # who asked has left
            return receive
        kind = headers.get("content-type", "").lower()
        if body and (not kind or "json" in kind or body.lstrip()[:1] in (b"{", b"[")):
            parsed(body, self.limits)
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


def _answer(refusal: Refusal, scope: Scope) -> Response:
    """A program is told; a person without a key is brought to where one is asked for."""
    wants = Headers(scope=scope).get("accept", "")
    if refusal.status == 401 and scope["method"] == "GET" and "text/html" in wants:
        return RedirectResponse("/login", 303, HEADERS)
    return JSONResponse(refusal.body, refusal.status, refusal.headers | HEADERS)


async def _whole(receive: Receive, most: int) -> bytes | None:
    """A body of at most so many bytes; None if nobody waits any more."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refusal(413, f"more than {most:,} bytes")
        more = message.get("more_body", False)
    return b"".join(parts)


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped
