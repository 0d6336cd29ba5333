"""The server: every route, and what each makes of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from omnifill import __version__
from omnifill.serve.answers import Answers, refusal_of
from omnifill.serve.document import describe
from omnifill.serve.events import Events, going, has_left, left, too_late, watch
from omnifill.serve.front import Front, Page, is_of_page
from omnifill.serve.guard import Guard, Keys
from omnifill.serve.jobs import JobRoutes
from omnifill.serve.link import Link
from omnifill.serve.login import Login
from omnifill.serve.metrics import Metrics, Watch
from omnifill.serve.plain import add_absent
from omnifill.serve.protocol import (
    Chat,
    Completion,
    Detokenize,
    Embedding,
    Pictures,
    Records,
    Said,
    Scored,
    Speech,
    Tokenize,
)
from omnifill.serve.refusals import Refusal

T = TypeVar("T")
log = logging.getLogger("omnifill.serve")


def build_app(
    link: Link, *, keys: Keys | None = None, hosts: tuple[str, ...] = ("localhost",),
    jobs: str = "sqlite://", go_on: bool = False, page: Page | None = None,
    page_wanted: bool = True,
) -> Watch:  # fmt: skip
    """The whole server around an engine. `jobs`: the database of long work; `go_on`: with what is
    in it, at once; `page_wanted`: where there is no `page`, `/` says how to get one."""
    answers = Answers(link)
    work = JobRoutes(jobs, answers, link.limits.jobs, max(1, link.limits.rows // 2))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not link.models:
            await link.start()
        try:
            if go_on:
                await work.opened()
            async with page.running() if page else nullcontext():
                yield
        finally:
            await work.stop()
            await link.stop()

    # What is asked is nobody's log's: where somebody traces, exceptions are left out.
    app = FastAPI(title="Omnifill", version=__version__, lifespan=lifespan, docs_url=None,
                  redoc_url=None, telemetry={"logs": False})  # fmt: skip
    metrics = Metrics(link)
    Routes(link, answers, metrics).add(app)
    work.add(app)
    keys = keys or Keys()
    Login(keys).add(app)
    if page is None:
        add_absent(app, page_wanted)
    _answer_errors(app)
    describe(app, lambda: list(link.models))
    guard = Guard(app if page is None else Front(app, page), keys, hosts, link.limits,
                  open_paths=("/login",), uncounted=is_of_page, full=link.full)  # fmt: skip
    return Watch(guard, metrics)


class Routes:
    """The server's routes."""

    def __init__(self, link: Link, answers: Answers, metrics: Metrics) -> None:
        self.link, self.limits = link, link.limits
        self.answers, self.metrics = answers, metrics

    def add(self, app: FastAPI) -> None:
        """Say which path is whose."""
        app.get("/health")(self.health)
        app.get("/ready")(self.ready)
        app.get("/metrics")(self.told_metrics)
        app.get("/v1/models")(self.models)
        app.get("/v1/models/{name}")(self.model)
        app.get("/v1/models/{name}/schema")(self.schema)
        app.post("/v1/completions")(self.completions)
        app.post("/v1/chat/completions")(self.chats)
        app.post("/v1/records")(self.records)
        app.post("/v1/records/score")(self.score)
        app.post("/v1/embeddings")(self.embeddings)
        app.post("/v1/images/generations")(self.images)
        app.post("/v1/audio/speech")(self.speech)
        app.post("/tokenize")(self.tokenize)
        app.post("/detokenize")(self.detokenize)
        app.get("/tokenizer_info")(self.tokenizer_info)

    # --- about the server -----------------------------------------------------------------

    async def health(self) -> dict[str, str]:
        """The process is there."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, str]:
        """It takes requests."""
        if not self.link.ready:
            raise Refusal(503, "the engine is starting, or the server is going", code="not_ready")
        return {"status": "ready"}

    async def told_metrics(self) -> PlainTextResponse:
        """Figures for Prometheus."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self) -> dict[str, Any]:
        """The models that can be asked."""
        return {"object": "list", "data": [_as_model(about) for about in self.link.models.values()]}

    async def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        return _as_model(self.answers.about(name))

    async def schema(self, name: str) -> dict[str, Any]:
        """Its fields, and what can be asked of it."""
        return {k: v for k, v in self.answers.about(name).items() if k != "name"} | {"id": name}

    # --- what is asked of the engine ------------------------------------------------------

    async def completions(self, said: Completion, request: Request) -> Response:
        """Texts that go on from a prompt."""
        return await self._told(said, request)

    async def chats(self, said: Chat, request: Request) -> Response:
        """Answers in a conversation."""
        return await self._told(said, request)

    async def records(self, said: Records, request: Request) -> Response:
        """Records: some fields given, others generated."""
        return await self._told(said, request)

    async def score(self, said: Scored, request: Request) -> Response:
        """How likely records are, whole and field by field, in nats."""
        return await self._whole(said, request)

    async def embeddings(self, said: Embedding, request: Request) -> Response:
        """A vector for each text or record."""
        return await self._whole(said, request)

    async def images(self, said: Pictures, request: Request) -> Response:
        """Pictures from a text."""
        return await self._whole(said, request)

    async def speech(self, said: Speech, request: Request) -> Response:
        """A sound from a text."""
        sound = await self._within(request, self.answers.speech(said))
        return Response(sound, media_type=f"audio/{said.response_format}")

    async def tokenize(self, said: Tokenize, request: Request) -> Response:
        """A text's token ids."""
        return await self._whole(said, request)

    async def detokenize(self, said: Detokenize, request: Request) -> Response:
        """The text of token ids."""
        return await self._whole(said, request)

    async def tokenizer_info(self, request: Request, model: str | None = None) -> Response:
        """A model's control tokens and chat template, as other programs look for them."""
        return JSONResponse(await self._within(request, self.answers.tokenizer(model)))

    # --- what they share ------------------------------------------------------------------

    async def _told(self, said: Completion | Chat | Records, request: Request) -> Response:
        return await (self._streamed if said.stream else self._whole)(said, request)

    async def _whole(self, said: Said, request: Request) -> Response:
        return JSONResponse(await self._within(request, self.answers.whole(said)))

    async def _within(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """Wait no longer than allowed, nor for a client that has left, nor once the server goes."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(left(request))
        ending = asyncio.Event()
        gone = asyncio.ensure_future(ending.wait())
        self.link.visitors.add(ending.set)
        try:
            await asyncio.wait({doing, leaving, gone}, timeout=self.limits.seconds,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            if doing.done():
                return doing.result()
            if leaving.done():
                raise has_left()
            if gone.done():
                raise going()
            raise too_late(self.limits.seconds)
        finally:
            self.link.visitors.discard(ending.set)
            for task in (doing, leaving, gone):
                task.cancel()
            await asyncio.gather(doing, leaving, gone, return_exceptions=True)

    async def _streamed(
        self, said: Completion | Chat | Records, request: Request
    ) -> Response:  # fmt: skip
        """Server-sent events; what is wrong from the beginning is told by the status."""
        questions, work = self.answers.questions(said)
        stack = AsyncExitStack()
        try:
            asked = self.link.asked(*questions, work=work, streamed=True)
            answer = await stack.enter_async_context(asked)
            watch(stack, answer, request, self.link)
            first = await answer.next()
        except BaseException:
            await stack.aclose()
            raise
        return Events(stack, self.answers.pieces(said, answer, first))


def _as_model(about: dict[str, Any]) -> dict[str, Any]:
    return {"id": about["name"], "object": "model", "created": 0, "owned_by": "omnifill",
            "max_model_len": about["context"]}  # fmt: skip


def _methods(app: FastAPI, path: str) -> list[str]:
    """What can be asked of a path."""
    found = [r for r in app.routes if isinstance(r, Route) and r.path_regex.match(path)]
    return sorted({method for route in found for method in route.methods or ()})


def _answer_errors(app: FastAPI) -> None:
    """Every error has one shape, and none tells of what is inside."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> JSONResponse:
        refusal = refusal_of(error.errors())
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not (kind.startswith("application/") and kind.endswith(("/json", "+json"))):
            refusal = Refusal(400, "the body is read as JSON where its header says so: "
                              "Content-Type: application/json", param="body")  # fmt: skip
        return JSONResponse(refusal.body, refusal.status)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        refusal = Refusal(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the router tells the methods of one of the path's routes
            headers["Allow"] = ", ".join(_methods(app, request.url.path))
        return JSONResponse(refusal.body, refusal.status, headers)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s: %s", request.method, request.url.path, type(error).__name__)
        refusal = Refusal(500, "a fault of the server; its log says more", code="fault")
        return JSONResponse(refusal.body, refusal.status)
