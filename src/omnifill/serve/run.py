"""Starting and ending the server."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from omnifill.errors import RequestError
from omnifill.files import reason
from omnifill.serve.limits import LOCAL, Limits
from omnifill.serve.wire import EngineSettings
from omnifill.state import check_finished

KEY = "OMNIFILL_API_KEY"
"""Environment variable with one key."""


def named_runs(runs: Sequence[str]) -> dict[str, str]:
    """Name -> path of what is served: PATH, called as its folder, or NAME=PATH."""
    out: dict[str, str] = {}
    for run in runs:
        name, equals, path = run.partition("=")
        if not equals or Path(run).exists():
            name, path = Path(run).resolve().name, run
        if not name:
            raise RequestError(f"{run}: say NAME=PATH, or PATH alone")
        if name in out:
            raise RequestError(f"{run}: two models cannot both be called {name!r}; say "
                               f"NAME=PATH")  # fmt: skip
        check_finished(Path(path))
        out[name] = str(Path(path).resolve())
    return out


def named_adapters(adapters: Sequence[str], models: Mapping[str, str]) -> dict[str, list[str]]:
    """Name -> the model it is beside, and its path: NAME=PATH, beside the first model, or
    NAME=MODEL:PATH."""
    out: dict[str, list[str]] = {}
    for adapter in adapters:
        name, equals, path = adapter.partition("=")
        base, colon, rest = path.partition(":")
        if not colon or base not in models:
            base, rest = next(iter(models)), path
        if not equals or not name or name in models or name in out:
            raise RequestError(
                f"--adapter {adapter}: write it as NAME=PATH, with a name of its own"
            )
        if not Path(rest).is_dir():
            raise RequestError(f"--adapter {adapter}: there is no folder {rest}")
        out[name] = [base, str(Path(rest).resolve())]
    return out


def check_memory(models: Mapping[str, str], most: float | None) -> None:
    """RequestError where the weights alone are more than so many gigabytes."""
    size = sum((Path(path) / "model.safetensors").stat().st_size for path in models.values()) / 1e9
    if most is not None and not 0 < most < float("inf"):
        raise RequestError(f"--memory {most:g}: must be a number of gigabytes above 0")
    if most is not None and size > most:
        raise RequestError(f"--memory {most:g}: the weights alone take {size:.2g} GB; leave some "
                           f"out, or round them: omnifill convert RUN --weights int8")  # fmt: skip


def check_jobs(jobs: str) -> None:
    """RequestError for a file that could not be made once it is needed."""
    folder = Path(jobs).resolve().parent
    if "://" not in jobs and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise RequestError(f"--jobs {jobs}: {folder} is no folder that can be written in; make it, "
                           f"or name another file")  # fmt: skip


def read_keys(file: Path | None) -> list[str]:
    """Keys of a file, one a line, and of the environment. RequestError for one that is none."""
    keys = [os.environ[KEY]] if os.environ.get(KEY) else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = reason(error) if isinstance(error, OSError) else "it is no UTF-8 text"
            raise RequestError(f"--keys: {file} cannot be read ({why})") from None
        keys += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise RequestError(f"--keys: {file} holds no key")
    for key in keys:
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise RequestError("a key must have 16 printable ASCII characters or more, and no "
                               "space")  # fmt: skip
    return keys


def check_place(host: str, keys: Sequence[str]) -> None:
    """RequestError for an address that others reach, where anybody could ask."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host in LOCAL
    if not local and not keys:
        raise RequestError(f"--host {host}: others reach this address, so a key is needed: --keys "
                           f"FILE, or {KEY} in the environment")  # fmt: skip


@contextmanager
def needs_extra() -> Iterator[None]:
    """RequestError where what is imported inside is not installed."""
    try:
        yield
    except ImportError as error:
        raise RequestError(f"this needs the extra `serve`: pip install 'omnifill[serve]' "
                           f"({error.name} is missing)") from None  # fmt: skip


def serve(
    settings: EngineSettings, *, host: str = "127.0.0.1", port: int = 8000,
    keys: Sequence[str] = (), names: Sequence[str] = (), limits: Limits | None = None,
    jobs: str = "omnifill-jobs.sqlite", page: bool = True, say: Any = print,
) -> None:  # fmt: skip
    """Serve models until asked to stop; requests under way are finished first. `names`: hosts that
    it answers to beside its own address; `page`: show one where its extra is installed."""
    with needs_extra():
        from omnifill.serve.app import build_app
        from omnifill.serve.connection import Connection
        from omnifill.serve.front import has_page
        from omnifill.serve.guard import Keys
        from omnifill.serve.link import Link
        from omnifill.serve.server import Server, listen, shown
    check_place(host, keys)
    check_jobs(jobs)
    limits = limits or Limits()
    link = Link(settings, limits)
    hosts = {host, *names} | (set(LOCAL) if host in (*LOCAL, "0.0.0.0", "::") else set())
    url = jobs if "://" in jobs else f"sqlite:///{Path(jobs).resolve()}"
    view = None
    if page and has_page():
        from omnifill.serve.page.mount import Mounted

        view = Mounted(f"http://{shown(_within(host))}:{port}", locked=bool(keys))
    app = build_app(link, keys=Keys.of(keys), hosts=tuple(hosts), jobs=url, page=view,
                    page_wanted=page, go_on=url == jobs or Path(jobs).exists())  # fmt: skip
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    # What the page asks is logged where it comes in.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    server = Server(app, link, host, port, partial(Connection, limits=limits), view, say)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise RequestError(f"{server.where}: cannot be listened at ({reason(error)}); name another "
                           f"--port or --host") from None  # fmt: skip
    with listening, suppress(asyncio.CancelledError):
        asyncio.run(_serve(server, link, listening, view))


def _within(host: str) -> str:
    """Where this machine reaches what listens at `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _until_it_listens() -> None:
    """SIGTERM cancels the task that is under way, as asyncio does on Ctrl-C. An error raised
    wherever the signal happens to come would lose a process that is just being started."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "it is called within one"
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))


async def _serve(server: Any, link: Any, listening: socket.socket, page: Any) -> None:
    """The page is built while the models are loaded; both take seconds."""
    _until_it_listens()
    try:
        if page is None:
            await link.start()
        else:
            await asyncio.gather(link.start(), asyncio.to_thread(page.build))
        await server.serve(sockets=[listening])
    finally:
        await link.stop()
