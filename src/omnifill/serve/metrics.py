"""Figures of the server for Prometheus."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnifill.serve.link import Link

log = logging.getLogger("omnifill.serve")


class Metrics:
    """What is counted."""

    def __init__(self, link: Link) -> None:
        self.link, own = link, CollectorRegistry()
        self.registry = own
        self.requests = Counter("omnifill_requests", "Requests by path and status.",
                                ["path", "status"], registry=own)  # fmt: skip
        self.seconds = Histogram("omnifill_request_seconds", "Until the first byte of an answer.",
                                 ["path"], registry=own)  # fmt: skip
        self.refused = Counter("omnifill_refusals", "Requests refused because the server is full.",
                               registry=own)  # fmt: skip
        gauges = {
            "omnifill_requests_open": ("Requests under way.", lambda: len(link.open)),
            "omnifill_requests_waiting": ("Of these, waiting for a row.",
                                          lambda: link.stats["waiting"]),
            "omnifill_rows_used": ("Rows that are written now.",
                                   lambda: sum(link.stats["rows"].values())),
            "omnifill_engine_restarts": ("Engines that had to be started again.",
                                         lambda: link.restarts),
        }  # fmt: skip
        for name, (about, read) in gauges.items():
            Gauge(name, about, registry=own).set_function(read)
        for name, about in (
            ("written", "Tokens that were chosen."),
            ("reused", "Tokens of prompts that others had begun with."),
        ):
            gauge = Gauge(f"omnifill_tokens_{name}", about, registry=own)
            gauge.set_function(_told(link, name))
        self.first = Histogram("omnifill_first_token_seconds", "Until something is written.",
                               registry=own)  # fmt: skip
        link.on_first = self.first.observe

    def count(self, path: str, status: int, seconds: float) -> None:
        """An answer has begun."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        if status == 429:
            self.refused.inc()

    def text(self) -> str:
        """As Prometheus reads them."""
        return generate_latest(self.registry).decode()


def _told(link: Link, name: str) -> Callable[[], float]:
    """Reads one of the engine's own figures."""
    return lambda: float(link.stats[name])


class Watch:
    """ASGI middleware: counts requests and gives each an id. What was asked is logged nowhere."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, number, status = time.monotonic(), uuid.uuid4().hex, 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
                self.metrics.count(_path(scope), status, time.monotonic() - started)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            log.info(json.dumps({
                "id": number, "method": scope["method"], "path": _path(scope), "status": status,
                "seconds": round(time.monotonic() - started, 4),
            }))  # fmt: skip


def _path(scope: Scope) -> str:
    """The route's own name, so that figures don't grow with what clients think of."""
    return str(getattr(scope.get("route"), "path", "other"))
