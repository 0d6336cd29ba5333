"""Long work: many requests handed in at once, done one after another beside those that wait.

A server that is killed goes on where it was when it is back; parts that are there are not made
again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response

from omnifill.errors import RequestError
from omnifill.serve.answers import Answers, read
from omnifill.serve.protocol import Jobs
from omnifill.serve.refusals import Refusal
from omnifill.serve.store import LEASE, Conflict, Held, Store
from omnifill.serve.wire import as_line

log = logging.getLogger("omnifill.serve")
IDLE = 0.5
"""Seconds between looks for work."""
AGAIN = 0.2
"""Seconds after which a part is asked again where the server is full."""
Do = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""A path and a body -> the answer. Refusal."""


class Worker:
    """Works at jobs until it is told to leave."""

    def __init__(self, store: Store, do: Do, side_by_side: int) -> None:
        """`side_by_side`: parts of a job that are asked at once."""
        self.store, self.do, self.num = store, do, side_by_side
        self.woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self, close: bool = True) -> None:
        """Give back what it holds, and close the database unless somebody else needs it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if close:
            await asyncio.to_thread(self.store.close)

    async def _work(self) -> None:
        while True:
            try:
                held = await asyncio.to_thread(self.store.claim)
                if held is not None:
                    await self._do(held)
                    continue
            except Exception as error:  # a database that is away comes back
                log.error("jobs: %s", type(error).__name__)
            self.woken.clear()
            try:
                await asyncio.wait_for(self.woken.wait(), IDLE)
            except TimeoutError:
                pass

    async def _do(self, held: Held) -> None:
        living = asyncio.create_task(self._live(held))
        todo = [i for i in range(len(held.body)) if i not in held.done]
        places = asyncio.Semaphore(self.num)
        parts = [asyncio.create_task(self._part(held, i, places)) for i in todo]
        all_parts: asyncio.Future[list[bool]] = asyncio.gather(*parts)
        try:
            both: set[asyncio.Future[Any]] = {all_parts, living}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if all_parts.done() and all(all_parts.result()):
                await asyncio.to_thread(self.store.finish, held)
        except asyncio.CancelledError:
            await _through(asyncio.to_thread(self.store.leave, held))
            raise
        except Exception as error:
            log.error("job %s: %s", held.id, type(error).__name__)
            await asyncio.to_thread(self.store.fail, held, "a fault of the server")
        finally:
            living.cancel()
            all_parts.cancel()
            await asyncio.gather(living, all_parts, return_exceptions=True)

    async def _part(self, held: Held, number: int, places: asyncio.Semaphore) -> bool:
        """Make one part and keep it; whether the job is still ours."""
        asked = held.body[number]
        async with places:
            while True:
                try:
                    answer = {"status": 200, "body": await self.do(asked["path"], asked["body"])}
                    break
                except Refusal as refusal:
                    if refusal.status not in (429, 503):
                        answer = {"status": refusal.status, "body": refusal.body}
                        break
                    await asyncio.sleep(AGAIN)
            line = as_line({"index": number, **answer})
            return await asyncio.to_thread(self.store.put, held, number, line)

    async def _live(self, held: Held) -> None:
        """As long as it works it says so; who has lost the job stops."""
        while await asyncio.to_thread(self.store.keep, held):
            await asyncio.sleep(LEASE / 4)


async def _through(work: Awaitable[Any]) -> None:
    """To its end, though all around is cancelled."""
    await asyncio.shield(asyncio.ensure_future(work))


class JobRoutes:
    """What clients say and hear of long work."""

    def __init__(self, url: str, answers: Answers, waiting: int, side_by_side: int) -> None:
        """`url`: of the database, which is opened when it is first needed; `waiting`: jobs that are
        not over, at most."""
        self.url, self.answers = url, answers
        self.waiting, self.num = waiting, side_by_side
        self.worker: Worker | None = None

    def add(self, app: FastAPI) -> None:
        """Say which path is whose."""
        app.post("/v1/jobs", status_code=202)(self.create)
        app.get("/v1/jobs")(self.listed)
        app.get("/v1/jobs/{id}")(self.about)
        app.get("/v1/jobs/{id}/result")(self.result)
        app.post("/v1/jobs/{id}/cancel")(self.cancel)
        app.delete("/v1/jobs/{id}")(self.remove)

    async def opened(self) -> Worker:
        """The worker, and with it the database."""
        if self.worker is None:
            try:
                store = await asyncio.to_thread(Store, self.url)
            except RequestError as error:
                log.error("%s", error)
                raise Refusal(503, "jobs cannot be kept now; the server's log says why",
                              code="jobs") from None  # fmt: skip
            if self.worker is None:  # nobody was faster
                self.worker = Worker(store, self.answers.by_path, self.num)
                self.worker.start()
        return self.worker

    async def stop(self) -> None:
        if self.worker is not None:
            await self.worker.stop()

    async def create(
        self, said: Jobs, request: Request,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    ) -> Response:  # fmt: skip
        """Hand in requests that nobody waits for. The same `Idempotency-Key` again brings the job
        that is there."""
        for number, one in enumerate(said.requests):
            try:
                read(one.path, one.body)
            except Refusal as refusal:
                where = f"requests.{number}.{refusal.param or 'path'}"
                said_of = refusal.message.removeprefix(f"{refusal.param}: ")
                raise Refusal(400, f"{where}: {said_of}", param=where) from None
        worker = await self.opened()
        if await asyncio.to_thread(worker.store.waiting) >= self.waiting:
            raise Refusal(429, f"{self.waiting} jobs are waiting; try again", retry=10, code="full")
        body = [one.model_dump() for one in said.requests]
        try:
            id, new = await asyncio.to_thread(
                worker.store.add, body, owner_of(request), idempotency_key
            )
        except Conflict:
            raise Refusal(409, "this Idempotency-Key came with another body before",
                          param="Idempotency-Key", code="conflict") from None  # fmt: skip
        worker.woken.set()
        return JSONResponse(await self._known(id, request), 202 if new else 200)

    async def listed(self, request: Request) -> dict[str, Any]:
        """The newest hundred."""
        worker = await self.opened()
        rows = await asyncio.to_thread(worker.store.listed, owner_of(request), 100)
        return {"object": "list", "data": rows}

    async def about(self, id: str, request: Request) -> dict[str, Any]:
        """How far a job is."""
        return await self._known(id, request)

    async def result(self, id: str, request: Request) -> Response:
        """What came of it: a line of JSON for each request, in order."""
        about = await self._known(id, request)
        if about["state"] != "done":
            raise Refusal(409, f"the job is {about['state']}", code="not_done")
        worker = await self.opened()
        data = await asyncio.to_thread(worker.store.result, id)
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise Refusal(500, "the result is damaged; hand the job in again", code="damaged")
        return Response(data, media_type="application/jsonl",
                        headers={"X-Content-SHA256": about["sha256"]})  # fmt: skip

    async def cancel(self, id: str, request: Request) -> dict[str, Any]:
        """End a job; one that is over stays as it is."""
        worker = await self.opened()
        await asyncio.to_thread(worker.store.cancel, id, owner_of(request))
        return await self._known(id, request)

    async def remove(self, id: str, request: Request) -> dict[str, Any]:
        """Forget a job that is over, with its result and its `Idempotency-Key`."""
        about = await self._known(id, request)
        worker = await self.opened()
        if not await asyncio.to_thread(worker.store.remove, id, owner_of(request)):
            raise Refusal(409, f"the job is {about['state']}; cancel it first", code="not_done")
        return about

    async def _known(self, id: str, request: Request) -> dict[str, Any]:
        worker = await self.opened()
        about = await asyncio.to_thread(worker.store.about, id, owner_of(request))
        if about is None:
            raise Refusal(404, "there is no such job", param="id", code="job_not_found")
        return about


def owner_of(request: Request) -> str:
    """Whose jobs these are: each key sees its own."""
    return str(request.scope.get("omnifill.owner", "everybody"))
