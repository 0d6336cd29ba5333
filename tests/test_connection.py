"""Clients that say nothing, or too much, or take nothing, keep nobody else out."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2
import pytest
import uvicorn

from omnifill.serve.connection import Connection
from omnifill.serve.limits import Limits
from omnifill.serve.server import listen

SHORT = replace(Limits(), arrival=0.4, taking=0.4)
LARGE = 1 << 18
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Answers:
    """An app: a word at /, some thousand bytes at /some, more than any buffer holds at /much, and
    at /once in one piece; and what became of the last but one."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        much = scope["path"] == "/much"
        size = {"/much": LARGE, "/some": 30_000, "/once": 8 * LARGE}.get(scope["path"], 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(400 if much else 1):
                body = b"x" * size
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            if much:
                self.ended.set()


@pytest.fixture(scope="module")
def app() -> Answers:
    return Answers()


@pytest.fixture(scope="module")
def server(app: Answers) -> Iterator[uvicorn.Server]:
    """In a thread, of little patience; the system keeps little of what it says."""
    connection: Any = partial(Connection, limits=SHORT)
    config = uvicorn.Config(app, http=connection, log_level="critical", lifespan="off",
                            timeout_keep_alive=1, h11_max_incomplete_event_size=4096)  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


def all_of(client: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    out = b""
    try:
        while part := client.recv(1 << 16):
            out += part
    except ConnectionResetError:
        pass
    return out


@pytest.mark.parametrize("said", [b"", b"GET", HEAD])
def test_a_request_that_is_never_asked_is_not_waited_for(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(said)
        assert all_of(client) == b""


def test_nor_one_that_is_asked_letter_by_letter(port: int) -> None:
    """Each of them would have waited anew."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        started = time.monotonic()
        with pytest.raises(OSError):
            for letter in HEAD * 100:
                client.sendall(bytes([letter]))
                time.sleep(0.02)
        assert time.monotonic() - started < len(HEAD) * 100 * 0.02


def test_nor_a_second_one(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(HEAD + b"\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.sendall(HEAD)
        assert b"200" not in all_of(client)


def test_who_takes_nothing_is_left(port: int, app: Answers) -> None:
    """What was being told is told no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(HEAD.replace(b"/ ", b"/much ", 1) + b"\r\n")
        assert app.ended.wait(20)
        assert len(all_of(client)) < 400 * LARGE


def small(port: int) -> socket.socket:
    """A client that the system keeps little for."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def test_who_takes_steadily_is_told_all_however_long_it_takes(port: int) -> None:
    with small(port) as client:
        client.sendall(HEAD.replace(b"/ ", b"/once ", 1) + b"Connection: close\r\n\r\n")
        got, started = 0, time.monotonic()
        while part := client.recv(1 << 14):
            got += len(part)
            time.sleep(0.01)
        assert got > 8 * LARGE
        assert time.monotonic() - started > 2 * SHORT.taking


def test_nor_is_it_waited_for_that_the_little_that_is_left_is_taken(
    server: uvicorn.Server, port: int
) -> None:
    """However little: the server has let go of clients that still hold on to it."""
    with ExitStack() as held:
        for _ in range(8):
            client = held.enter_context(small(port))
            client.sendall(HEAD.replace(b"/ ", b"/some ", 1) + b"\r\n")
        deadline = time.monotonic() + 15
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server_state.connections


def test_a_body_that_has_its_answer_is_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(HEAD.replace(b"GET", b"POST") + b"Content-Length: 1000\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.sendall(b"a")
        assert b"200" not in all_of(client)


@pytest.mark.parametrize("said", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 200,  # TLS
    b"x" * 10_000, HEAD + b"A: " + b"b" * 10_000, HEAD + b"A: b\r\n" * 2000,
    b"GET / SPDY\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n",
])  # fmt: skip
def test_what_is_no_request_is_refused(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(said)
        answer = all_of(client)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert httpx2.get(f"http://127.0.0.1:{port}/").text == "x"


def test_what_is_written_is_sent_at_once() -> None:
    """No piece of a stream waits until what was sent before is acknowledged."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken = writer.get_extra_info("socket")
        writer.write(bytes([taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0]))
        writer.close()

    async def asked() -> bytes:
        with listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(met, sock=listening):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                said = await reader.read()
                writer.close()
                return said

    assert asyncio.run(asked()) == b"\x01"
