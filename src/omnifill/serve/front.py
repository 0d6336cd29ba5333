"""Which requests are the page's and which are the API's; what the page may be asked at all.

Gradio brings routes that nobody needs here (a proxy, monitoring, its own API): what is not listed
below does not exist. Nothing here imports Gradio.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

CHINESE = "/zh"
OWN = re.compile(
    r"(?:/zh)?/(?:config|theme\.css|favicon\.ico|(?:svelte|static|assets)/.*"
    r"|gradio_api/(?:queue/(?:join|data)|heartbeat/\w+|upload|upload_progress|cancel|reset/?"
    r"|component_server/?|startup-events|file=(?!\w+:).*|stream/.*))?", re.DOTALL,
)  # fmt: skip


class Page(Protocol):
    """The page as the server sees it."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """What it needs while the server runs."""
        ...

    def leave(self) -> None:
        """The server is asked to go: let nobody hold it up."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def has_page() -> bool:
    """Whether the extra `ui` is installed; found out without importing it."""
    return importlib.util.find_spec("gradio") is not None


def is_of_page(path: str) -> bool:
    """Whether the page answers there."""
    return path == CHINESE or OWN.fullmatch(path) is not None


class Front:
    """ASGI: the page's requests to the page, all others to the API."""

    def __init__(self, api: ASGIApp, page: Page) -> None:
        self.api, self.page = api, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        ours = scope["type"] == "http" and is_of_page(scope["path"])
        await (self.page if ours else self.api)(scope, receive, send)
