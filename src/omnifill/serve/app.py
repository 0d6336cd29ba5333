"""The server: every route, and what each makes of a request."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from omnifill import __version__
from omnifill.errors import unknown_name
from omnifill.serve import records as media
from omnifill.serve.document import describe
from omnifill.serve.guard import Guard, Keys
from omnifill.serve.limits import Limits
from omnifill.serve.link import Answer, Link
from omnifill.serve.metrics import Metrics, Watch
from omnifill.serve.protocol import (
    Chat,
    Completion,
    Detokenize,
    Embedding,
    Pictures,
    Records,
    Scored,
    Speech,
    Tokenize,
)
from omnifill.serve.refusals import Refusal
from omnifill.serve.text import Chats, Completions, Texts

T = TypeVar("T")
log = logging.getLogger("omnifill.serve")
DONE = b"data: [DONE]\n\n"


def build_app(
    link: Link, *, keys: Keys | None = None, hosts: tuple[str, ...] = ("localhost",),
    limits: Limits | None = None, started: float | None = None,
) -> Watch:  # fmt: skip
    """The whole server around an engine."""
    limits = limits or link.limits

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not link.models:
            await link.start()
        try:
            yield
        finally:
            await link.stop()

    app = FastAPI(
        title="Omnifill", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
    )  # fmt: skip
    metrics = Metrics(link)
    Routes(app, link, limits, metrics).add()
    _answer_errors(app)
    describe(app, lambda: list(link.models))
    return Watch(Guard(app, keys or Keys(), hosts, limits), metrics)


class Routes:
    """The server's routes."""

    def __init__(self, app: FastAPI, link: Link, limits: Limits, metrics: Metrics) -> None:
        self.app, self.link, self.limits, self.metrics = app, link, limits, metrics

    def add(self) -> None:
        """Say which path is whose."""
        get, post = self.app.get, self.app.post
        get("/health")(self.health)
        get("/ready")(self.ready)
        get("/metrics")(self.told_metrics)
        get("/v1/models")(self.models)
        get("/v1/models/{name}")(self.model)
        get("/v1/models/{name}/schema")(self.schema)
        post("/v1/completions")(self.completions)
        post("/v1/chat/completions")(self.chats)
        post("/v1/embeddings")(self.embeddings)
        post("/v1/images/generations")(self.images)
        post("/v1/audio/speech")(self.speech)
        post("/v1/records")(self.records)
        post("/v1/records/score")(self.score)
        post("/tokenize")(self.tokenize)
        post("/detokenize")(self.detokenize)

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
        return _as_model(self._about(name, 404))

    async def schema(self, name: str) -> dict[str, Any]:
        """Its fields, and what can be asked of it."""
        return {k: v for k, v in self._about(name, 404).items() if k != "name"} | {"id": name}

    # --- texts ----------------------------------------------------------------------------

    async def completions(self, said: Completion, request: Request) -> Response:
        """Texts that go on from a prompt."""
        return await self._texts(Completions(said, self._about(said.model)), request)

    async def chats(self, said: Chat, request: Request) -> Response:
        """Answers in a conversation."""
        about = self._about(said.model)
        if not about["chats"]:
            raise Refusal(400, f"model {said.model!r} has no chat template: it is none of an "
                          "imported checkpoint; ask /v1/completions", param="model")  # fmt: skip
        return await self._texts(Chats(said, about), request)

    async def _texts(self, texts: Texts, request: Request) -> Response:
        questions = texts.questions()
        if not texts.said.stream:
            async with self.link.asked(*questions, work=texts.work) as answer:
                return JSONResponse(await self._within(request, texts.whole(answer)))
        return await self._streamed(request, questions, texts.work, texts.streamed)

    # --- records and media ----------------------------------------------------------------

    async def records(self, said: Records, request: Request) -> Response:
        """Records: some fields given, others generated."""
        about = self._about(said.model)
        question, work = media.records_question(said), said.n * said.max_tokens
        if not said.stream:
            async with self.link.asked(question, work=work) as answer:
                made = media.whole_records(said, about, answer)
                return JSONResponse(await self._within(request, made))

        def events(answer: Answer, first: dict[str, Any]) -> AsyncIterator[Any]:
            return media.streamed_records(said, about, answer, first)

        return await self._streamed(request, [question], work, events)

    async def score(self, said: Scored, request: Request) -> dict[str, Any]:
        """How likely records are, whole and field by field, in nats."""
        self._about(said.model)
        found = await self._once(request, {"do": "score", "model": said.model,
                                           "records": said.records})  # fmt: skip
        return {"object": "list", "model": said.model, "data": found["scores"]}

    async def images(self, said: Pictures, request: Request) -> dict[str, Any]:
        """Pictures from a text."""
        question = media.pictures_question(said, self._about(said.model))
        async with self.link.asked(question, work=said.n) as answer:
            return await self._within(request, media.pictures(answer))

    async def speech(self, said: Speech, request: Request) -> Response:
        """A sound from a text."""
        question = media.speech_question(said, self._about(said.model))
        async with self.link.asked(question) as answer:
            sound = await self._within(request, media.speech(answer))
        return Response(sound, media_type=f"audio/{said.response_format}")

    # --- texts as numbers -----------------------------------------------------------------

    async def embeddings(self, said: Embedding, request: Request) -> dict[str, Any]:
        """A vector for each text or record."""
        self._about(said.model)
        inputs = [said.input] if isinstance(said.input, str) else list(said.input)
        kinds = {isinstance(one, str) for one in inputs}
        if len(kinds) > 1:
            raise Refusal(400, "input: texts or records, not both at once", param="input")
        found = await self._once(request, {"do": "embed", "model": said.model, "inputs": inputs})
        shown = [_shown(vector, said.encoding_format) for vector in found["vectors"]]
        return {
            "object": "list", "model": said.model,
            "data": [{"object": "embedding", "index": i, "embedding": one}
                     for i, one in enumerate(shown)],
            "usage": {"prompt_tokens": found["tokens"], "total_tokens": found["tokens"]},
        }  # fmt: skip

    async def tokenize(self, said: Tokenize, request: Request) -> dict[str, Any]:
        """A text's token ids."""
        about = self._about(said.model)
        found = await self._once(request, {"do": "tokenize", "model": said.model,
                                           "text": said.prompt})  # fmt: skip
        return {"tokens": found["ids"], "count": len(found["ids"]),
                "max_model_len": about["context"]}  # fmt: skip

    async def detokenize(self, said: Detokenize, request: Request) -> dict[str, Any]:
        """The text of token ids."""
        self._about(said.model)
        found = await self._once(request, {"do": "detokenize", "model": said.model,
                                           "ids": said.tokens})  # fmt: skip
        return {"prompt": found["text"]}

    # --- what they share ------------------------------------------------------------------

    def _about(self, name: str, status: int = 404) -> dict[str, Any]:
        if name not in self.link.models:
            raise Refusal(status, unknown_name("model", name, self.link.models), param="model",
                          code="model_not_found")  # fmt: skip
        return self.link.models[name]

    async def _once(self, request: Request, question: dict[str, Any]) -> dict[str, Any]:
        """A question with one answer."""
        async with self.link.asked(question) as answer:
            return await self._within(request, answer.next())

    async def _within(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """Wait no longer than allowed, nor for a client that has left."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({doing, leaving}, timeout=self.limits.seconds,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            if doing.done():
                return doing.result()
            if leaving.done():
                raise Refusal(408, "the client has left", code="client_left")
            raise _too_late(self.limits)
        finally:
            for task in (doing, leaving):
                task.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)

    async def _streamed(
        self, request: Request, questions: list[dict[str, Any]], work: int,
        events: Callable[[Answer, dict[str, Any]], AsyncIterator[Any]],
    ) -> Response:  # fmt: skip
        """Server-sent events; what is wrong from the beginning is told by the status."""
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self.link.asked(*questions, work=work))
            first = await self._within(request, answer.next())
        except BaseException:
            await stack.aclose()
            raise
        lines = self._lines(stack, events(answer, first), request)
        return StreamingResponse(lines, media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store"})  # fmt: skip

    async def _lines(
        self, stack: AsyncExitStack, events: AsyncIterator[Any], request: Request
    ) -> AsyncIterator[bytes]:
        end = asyncio.get_running_loop().time() + self.limits.seconds
        leaving = asyncio.ensure_future(_left(request))
        coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with stack:
            try:
                while True:
                    coming = asyncio.ensure_future(anext(events))
                    left = end - asyncio.get_running_loop().time()
                    await asyncio.wait({coming, leaving}, timeout=max(0.0, left),
                                       return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                    if not coming.done() and leaving.done():
                        return
                    if not coming.done():
                        raise _too_late(self.limits)
                    yield as_event(coming.result())
            except StopAsyncIteration:
                pass
            except Refusal as refusal:
                yield as_event(refusal.body)
            finally:
                leaving.cancel()
                coming.cancel()
            yield DONE


def as_event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


async def _left(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_late(limits: Limits) -> Refusal:
    return Refusal(408, f"it takes more than {limits.seconds:g} seconds", code="deadline")


def _as_model(about: dict[str, Any]) -> dict[str, Any]:
    return {"id": about["name"], "object": "model", "created": 0, "owned_by": "omnifill",
            "max_model_len": about["context"]}  # fmt: skip


def _shown(vector: list[float], form: str) -> list[float] | str:
    """base64: little-endian float32, as the API has it."""
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _answer_errors(app: FastAPI) -> None:
    """Every error has one shape, and none tells of what is inside."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def unreadable(_: Request, error: RequestValidationError) -> JSONResponse:
        refusal = as_refusal(error)
        return JSONResponse(refusal.body, refusal.status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        refusal = Refusal(error.status_code, str(error.detail))
        return JSONResponse(refusal.body, refusal.status, error.headers)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s: %s", request.method, request.url.path, type(error).__name__)
        refusal = Refusal(500, "a fault of the server; its log says more", code="fault")
        return JSONResponse(refusal.body, refusal.status)


def as_refusal(error: RequestValidationError) -> Refusal:
    """The first thing that is wrong with a request, by the name of its field."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    name = ".".join(part for part in place if "[" not in part and "-" not in part) or "body"
    if first["type"] == "extra_forbidden":
        return Refusal(400, f"{name}: unknown, and would have no effect", param=name)
    return Refusal(400, f"{name}: {first['msg'][:300]}", param=name)
