"""`omnifill batch`: a file of requests, answered into a file, without a server.

The same work as a job of the server, with its database beside the results until they are whole; so
what is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from omnifill.data.sink import check_place
from omnifill.errors import DataError, Interrupted, RequestError
from omnifill.files import reason, write_atomic
from omnifill.progress import Progress
from omnifill.serve.answers import Answers, read
from omnifill.serve.jobs import Worker
from omnifill.serve.limits import Limits
from omnifill.serve.link import Link
from omnifill.serve.parse import parsed
from omnifill.serve.refusals import Refusal
from omnifill.serve.store import Conflict, Store
from omnifill.serve.wire import EngineSettings

LOOK = 0.2
"""Seconds between looks at how far it is."""
OWNER = "batch"


def run_batch(run: Path, file: Path, out: Path, limits: Limits, threads: int) -> int:
    """Answer every line of a file -> how many there were. What was done stays if it is stopped."""
    check_place(out)
    body = read_requests(file, run.resolve().name, limits)
    kept = out.with_name(f"{out.name}.jobs")
    store = Store(f"sqlite:///{kept.resolve()}")
    try:
        number, _ = store.add(body, OWNER, OWNER)
    except Conflict:
        raise RequestError(f"{kept}: holds answers to other requests, which were not finished; go "
                           f"on with those, or remove it") from None  # fmt: skip
    settings = EngineSettings({run.resolve().name: str(run)}, rows=limits.rows, threads=threads)
    try:
        asyncio.run(_work(Link(settings, limits), store, number, limits.rows, len(body)))
        write_atomic(out, store.result(number))
    except KeyboardInterrupt:
        about = store.about(number, OWNER) or {"finished": 0}
        raise Interrupted(f"{about['finished']} of {len(body)} answers are kept in {kept}; the "
                          f"same command goes on") from None  # fmt: skip
    finally:
        store.close()
    for end in ("", "-wal", "-shm"):
        kept.with_name(kept.name + end).unlink(missing_ok=True)
    return len(body)


def read_requests(file: Path, model: str, limits: Limits) -> list[dict[str, Any]]:
    """Requests of a JSON Lines file: bodies of /v1/records, or a path and a body each. DataError
    names the line that is none."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({reason(error)})") from None
    out = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = parsed(line, limits)
        except Refusal as refusal:
            raise DataError(f"{file}, line {number}: {refusal.message}") from None
        if not isinstance(said, dict):
            raise DataError(f"{file}, line {number}: must be an object")
        whole: dict[str, Any] = (
            said if set(said) == {"path", "body"} else {"path": "/v1/records", "body": said}
        )
        if isinstance(whole["body"], dict):
            whole["body"] = {"model": model} | whole["body"]
        try:
            read(whole["path"], whole["body"])
        except Refusal as refusal:
            raise DataError(f"{file}, line {number}: {refusal.message}") from None
        out.append(whole)
    if not out:
        raise DataError(f"{file}: holds no request")
    return out


async def _work(link: Link, store: Store, number: str, side_by_side: int, total: int) -> None:
    await link.start()
    worker = Worker(store, Answers(link).by_path, side_by_side)
    worker.start()
    try:
        with Progress("answering", total, "requests") as progress:
            while True:
                about = await asyncio.to_thread(store.about, number, OWNER)
                assert about is not None, "it was handed in"
                progress.advance(about["finished"] - progress.done)
                if about["state"] == "done":
                    return
                if about["state"] == "failed":
                    raise RequestError(f"it cannot be done: {about['error']}")
                await asyncio.sleep(LOOK)
    finally:
        await worker.stop(close=False)
        await link.stop()
