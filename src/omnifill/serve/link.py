"""The engine's process as the server sees it: asked over a pipe, answered piece by piece."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from omnifill.bounded import APART
from omnifill.errors import RunError
from omnifill.serve.limits import RETRY, Limits
from omnifill.serve.opener import Opener
from omnifill.serve.protocol import FIELDS
from omnifill.serve.refusals import Refusal
from omnifill.serve.wire import EngineSettings, engine_environment, packed, received

log = logging.getLogger("omnifill.serve")
GRACE = 5.0
"""Seconds that the engine has to leave by itself."""


@dataclass
class Answer:
    """What came of a request so far: of one question or of several."""

    numbers: list[int]
    told: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    since: float = field(default_factory=time.monotonic)
    began: bool = False
    """Whether something has been written."""
    lost: bool = False
    """Whether the engine that was asked is gone."""
    over: set[int] = field(default_factory=set)
    """Questions of which the engine has nothing more to say."""
    stopped: Refusal | None = None

    def stop(self, why: Refusal) -> None:
        """Wait no longer: who does is told why."""
        self.stopped = why
        self.told.put_nowait({})

    async def next(self) -> dict[str, Any]:
        """What comes next, with the number of its question as `part`. Refusal if that is an
        error, or if it was stopped."""
        message = await self.told.get()
        if self.stopped is not None:
            raise self.stopped
        if message["do"] in ("end", "error", "fault"):
            self.over.add(message["id"])
        if message["do"] == "error":
            raise Refusal.of(message["message"], FIELDS)
        if message["do"] == "fault":
            raise Refusal(500, "the engine failed; the server's log says why", code="fault")
        return message | {"part": self.numbers.index(message["id"])}

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        """All that comes, until all questions are answered."""
        while len(self.over) < len(self.numbers):
            yield await self.next()


class Link:
    """One engine, and what it is asked."""

    def __init__(self, settings: EngineSettings, limits: Limits) -> None:
        self.settings, self.limits = settings, limits
        self.models: dict[str, dict[str, Any]] = {}
        self.media: dict[str, dict[str, Any]] = {}
        """Model -> its fields of pictures and sounds, with type and options."""
        self.opener = Opener()
        self.open: dict[int, Answer] = {}
        self.stats: dict[str, Any] = {
            "waiting": 0,
            "tasks": 0,
            "rows": {},
            "written": 0,
            "reused": 0,
        }
        self.work = 0
        """Tokens that requests under way may take."""
        self.visitors: set[Callable[[], None]] = set()
        """Of each request that a client waits for, what ends it when the server goes."""
        self.restarts = 0
        self.on_first: Callable[[float], None] = lambda seconds: None
        """Told how long it took until something of a request was written."""
        self._number = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def ready(self) -> bool:
        """Whether requests can be taken."""
        return bool(self.models) and self._process is not None and not self._leaving

    async def start(self) -> None:
        """Load the models. RunError for one that cannot be."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "omnifill.serve.engine", json.dumps(asdict(self.settings)),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=engine_environment(),
            **APART,
        )  # fmt: skip
        self._process = process
        first = next(iter(await self._received(process)), None)
        if first is None or first["do"] != "ready":
            await process.wait()
            self._process = None
            raise RunError("the engine did not start" if first is None else first["message"])
        self.models = {about["name"]: about for about in first["models"]}
        self.media = first["media"]
        self._reader = asyncio.create_task(self._read(process))

    async def stop(self) -> None:
        """End the process, and leave none behind."""
        self._leaving = True
        await self.opener.stop()
        if (process := self._process) is None:
            return
        with suppress(OSError):
            assert process.stdin is not None, "it was opened with a pipe"
            process.stdin.close()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
        finally:  # also where this, too, is cut short
            if process.returncode is None:
                process.kill()
                await process.wait()
        if self._reader is not None:
            self._reader.cancel()

    def give_up(self) -> None:
        """The server goes now: whoever still waits is told so."""
        for end in list(self.visitors):
            end()

    def full(self, num: int = 1, work: int = 0) -> Refusal | None:
        """What is said where there is no room for so many prompts and tokens."""
        if len(self.open) + num > self.limits.waiting:
            has = f"{len(self.open)} requests"
        elif self.work + work > self.limits.work:
            has = f"requests for {self.work:,} tokens of {self.limits.work:,}"
        else:
            return None
        return Refusal(429, f"the server has {has} under way and takes no more now; try again",
                       retry=RETRY, code="full")  # fmt: skip

    @asynccontextmanager
    async def asked(
        self, *messages: dict[str, Any], work: int = 0, streamed: bool = False
    ) -> AsyncIterator[Answer]:
        """Ask the engine; who leaves before the end frees all that the request has. `work`: tokens
        that it may take; `streamed`: somebody reads along. Refusal where there is no room."""
        if not self.ready:
            raise Refusal(503, "the server is starting, or going", retry=RETRY, code="not_ready")
        if len(messages) > self.limits.waiting or work > self.limits.work:
            raise Refusal(400, f"{len(messages)} prompts and {work:,} tokens (answers × "
                          f"max_tokens); the server takes {self.limits.waiting} prompts and "
                          f"{self.limits.work:,} tokens at most; ask for "
                          f"less at once", code="too_much")  # fmt: skip
        if refusal := self.full(len(messages), work):
            raise refusal
        numbers = [self._number + i + 1 for i in range(len(messages))]
        self._number += len(messages)
        answer = Answer(numbers)
        self.open |= dict.fromkeys(numbers, answer)
        self.work += work
        sent: set[int] = set()
        try:
            for number, message in zip(numbers, messages, strict=True):
                media = self.media.get(message["model"], {})
                opened = await self.opener.opened(message, media) if media else message
                if not answer.lost:  # or else the next engine would write for nobody
                    self._send(opened | {"id": number, "streamed": streamed})
                    sent.add(number)
            yield answer
        finally:
            self.work -= work
            for number in numbers:
                self.open.pop(number, None)
                if number in sent - answer.over:
                    self._send({"id": number, "do": "cancel"})

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(OSError, RuntimeError):  # it is gone; whoever waits is told so
            assert self._process is not None and self._process.stdin is not None
            self._process.stdin.write(packed(message))

    async def _received(self, process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
        """The next messages; none: there are no more."""
        assert process.stdout is not None, "it was opened with a pipe"
        try:
            return await received(process.stdout)
        except (asyncio.IncompleteReadError, ConnectionError):
            return []

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        while messages := await self._received(process):
            for message in messages:
                self._take(message)
        for number, answer in self.open.items():
            answer.lost = True
            answer.told.put_nowait({"id": number, "do": "fault"})
        self._process = None
        status = await process.wait()
        if not self._leaving:
            log.error("the engine has ended with status %d; another one is started", status)
            self.restarts += 1
            with suppress(RunError):
                await self.start()

    def _take(self, message: dict[str, Any]) -> None:
        if message["do"] == "stats":
            self.stats = message
        elif (answer := self.open.get(message["id"])) is not None:
            if message["do"] == "piece" and not answer.began:
                answer.began = True
                self.on_first(time.monotonic() - answer.since)
            answer.told.put_nowait(message)
