"""The page within the server: its two languages, what its documents may do, and its end.

Gradio is imported when the page is built and not before.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnifill.serve.front import CHINESE
from omnifill.serve.page.session import Running
from omnifill.serve.page.words import CODES, Language
from omnifill.serve.plain import is_chinese
from omnifill.serve.refusals import Refusal

log = logging.getLogger("omnifill.serve")

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio's scripts are in its document, and its canvas compiles shaders; nothing comes from
elsewhere."""
SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1",
            "GRADIO_SSR_MODE": "False", "GRADIO_MCP_SERVER": "False"}  # fmt: skip
FOREIGN = re.compile(
    rb"""<link[^>]*href="https?:[^>]*>|<script[^>]*src="https?:[^>]*>\s*</script>"""
    rb"""|<meta\s[^>]*(?:og:|twitter:)[^>]*>|<link[^>]*rel="manifest"[^>]*>"""
)
"""What would ask another machine, or tells of Gradio's own site."""
PLACES: list[tuple[Language, str]] = [("zh", CHINESE), ("en", "/")]
"""The longer path first: a mount at / takes all that comes to it."""
AWAKE, ASLEEP = 0.02, 0.5
"""Seconds between looks at what was clicked: while a page is shown, and while none is."""


class Mounted:
    """The page in English at `/` and in Chinese at `/zh/`. Built at last: it takes seconds."""

    def __init__(self, where: str, locked: bool) -> None:
        """`where`: the server's own address, at which the page asks the API; `locked`: visitors
        have logged in, and can log out."""
        self.where, self.locked, self.running_now = where, locked, Running()
        self.inner: ASGIApp | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.open: set[asyncio.Task[None]] = set()
        self.queues: list[Any] = []
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        """What visitors bring; gone with the process, if the server never starts."""

    def build(self) -> None:
        """Import Gradio and draw the page."""
        self.folder = tempfile.TemporaryDirectory(prefix="omnifill-page-",
                                                  ignore_cleanup_errors=True)  # fmt: skip
        os.environ.update(SETTINGS | {"GRADIO_TEMP_DIR": self.folder.name})
        from omnifill.serve.page.build import mount

        self.inner = inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.queues = [mount(inner, language, path, self.where, self.locked, self.running_now)
                       for language, path in PLACES]  # fmt: skip
        for queue in self.queues:
            queue.progress_update_sleep_when_free = ASLEEP  # there is none here
        self._look()
        self.lifespan = inner.router.lifespan_context

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Gradio's queue runs as long as the server; files that visitors brought go with it."""
        self.loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            assert self.folder is not None, "the page is built before it runs"
            stack.callback(self.folder.cleanup)
            await stack.enter_async_context(self.lifespan(self.inner))
            warming = asyncio.ensure_future(self._warm())
            yield
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)

    async def _warm(self) -> None:
        """Show each language once to nobody: the first view takes seconds more than the next."""
        import httpx

        assert self.inner is not None, "the page is built before it is asked"
        transport = httpx.ASGITransport(app=self.inner)
        async with httpx.AsyncClient(transport=transport, base_url=self.where) as http:
            for path in ("/", f"{CHINESE}/"):
                await http.get(path)

    def leave(self) -> None:
        """Cut the connections that pages hold open as long as they are shown. From any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        self.running_now.stop_all()
        for task in self.open:
            task.cancel()

    def _look(self) -> None:
        """Gradio looks every millisecond whether somebody clicked: 2,000 times a second for two
        pages, on a processor that the model wants. A page that is shown holds a request open."""
        for queue in self.queues:
            queue.sleep_when_free = AWAKE if self.open else ASLEEP

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the page."""
        headers = Headers(scope=scope)
        if scope["path"] == CHINESE or (scope["path"] == "/" and _wants_chinese(scope, headers)):
            query = scope["query_string"].decode("latin-1")
            where = f"{CHINESE}/" + (f"?{query}" if query else "")
            await RedirectResponse(where, 307)(scope, receive, send)
            return
        language: Language = "zh" if scope["path"].startswith(f"{CHINESE}/") else "en"
        assert self.inner is not None, "the page is built before it is asked"
        sender = _Sender(send, language)
        task = asyncio.ensure_future(self.inner(scope, receive, sender))
        self.open.add(task)
        self._look()
        try:
            await asyncio.wait({task})
        finally:
            self.open.discard(task)
            self._look()
            task.cancel()
        error = None if task.cancelled() else task.exception()
        if error is None and not sender.failed:
            if task.cancelled():
                await sender.finish()
            return
        log.error("the page: %s: %s", scope["method"], type(error).__name__ if error else 500)
        if sender.begun:
            await sender.finish()
        else:
            refusal = Refusal(400, "this is nothing that the page asks")
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:  # a full disk
                refusal = Refusal(500, "a fault of the server; its log says more", code="fault")
            await JSONResponse(refusal.body, refusal.status)(scope, receive, send)


def _wants_chinese(scope: Scope, headers: Headers) -> bool:
    """The browser's own language, as long as nobody has chosen one."""
    chosen = parse_qs(scope["query_string"].decode("latin-1")).get("lang")
    return not chosen and is_chinese(headers.get("accept-language", ""))


class _Sender:
    """Makes Gradio's answers ours: our policy, no other site let in, documents that name none."""

    def __init__(self, send: Send, language: Language) -> None:
        self.send, self.language = send, language
        self.start: Any = None
        self.body = b""
        self.begun = self.over = self.failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Gradio fails at what its own page would never ask; why is nobody's business.
            self.failed = message["status"] >= 500
            headers = MutableHeaders(scope=message)
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]
            headers["Content-Security-Policy"] = POLICY
            if headers.get("content-type", "").startswith("text/html"):
                headers["Cache-Control"] = "no-store"
                self.start = message
                return
        if self.failed:
            return
        if message["type"] == "http.response.body":
            self.over = not message.get("more_body", False)
            if self.start is not None:
                self.body += message.get("body", b"")
                if not self.over:
                    return
                body = own_document(self.body, self.language)
                MutableHeaders(scope=self.start)["content-length"] = str(len(body))
                await self.send(self.start)
                message = {"type": "http.response.body", "body": body}
        self.begun = True
        await self.send(message)

    async def finish(self) -> None:
        """Nothing more comes."""
        if self.begun and not self.over:
            await self.send({"type": "http.response.body", "body": b""})


def own_document(body: bytes, language: Language) -> bytes:
    """Gradio's document without what names other sites, and in the language of the page: the words
    of its own parts follow the browser's, so the document says which that is."""
    code = CODES[language]
    script = (f"<script>for(const [k,v] of [['language','{code}'],['languages',['{code}']]])"
              f"Object.defineProperty(navigator,k,{{get:()=>v}})</script>")  # fmt: skip
    body = FOREIGN.sub(b"", body).replace(b'lang="en"', f'lang="{code}"'.encode(), 1)
    return body.replace(b"<head>", b"<head>" + script.encode(), 1)
