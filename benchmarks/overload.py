"""What a server does when it is asked too much, left, and killed.

    python benchmarks/overload.py [--clients 512 --leaving 1000 --pairs 10000 --jobs 2000] [--quick]

One small model on eight rows. 512 clients at once: each request ends in one documented way. Clients
that leave at random moments: all rows and places are free at the end. Streams beside whole answers:
equal bytes. Jobs under kill -9, kept in SQLite and, with --database URL, in another: none lost,
none doubled, every result with its hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

import harness

KILLS = 50
REQUESTS = 3
"""Of each job."""
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--clients", type=int, default=512)
    parser.add_argument("--leaving", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--only", choices=("clients", "leaving", "pairs", "jobs"))
    parser.add_argument("--database", help="URL of an empty database for jobs, beside SQLite")
    args = parser.parse_args()
    if args.quick:
        args.clients, args.leaving, args.pairs, args.jobs = 64, 20, 20, 20
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder))
        figures: dict[str, Any] = {}
        tests = {"clients": many, "leaving": left, "pairs": streamed}
        for name, test in tests.items():
            if args.only in (None, name):
                with Server(run, str(Path(folder) / f"{name}.sqlite")) as server:
                    figures[name] = asyncio.run(test(server, args))
                    print(name, json.dumps(figures[name]), flush=True)
        if args.only in (None, "jobs"):
            places = {"jobs": str(Path(folder) / "jobs.sqlite")}
            if args.database:
                places[f"jobs, {args.database.partition(':')[0]}"] = args.database
            for name, place in places.items():
                figures[name] = killed(run, place, args)
                print(name, json.dumps(figures[name]), flush=True)
    protocol = (
        f"a text model of 0.1 million weights, 8 rows, 64 places; {args.clients} clients at once; "
        f"{args.leaving} that leave at random moments; {args.pairs} pairs of a stream and a whole "
        f"answer; {args.jobs} jobs of {REQUESTS} requests under {KILLS} kills"
    )
    harness.keep("overload", protocol, figures, quick=args.quick)


def trained(folder: Path) -> Path:
    """A small model of texts in several scripts, whose texts hardly end by themselves."""
    from omnifill import api

    book = folder / "book.txt"
    book.write_text("rain 春 and दूध 🍵 sun ماء warm " * 500, encoding="utf-8")
    api.train(book, folder / "run", steps=30, recipe={"model": {"dim": 48, "layers": 2}})
    return folder / "run"


class Server:
    """A server in a process of its own."""

    def __init__(self, run: Path, jobs: str) -> None:
        self.run, self.jobs = run, jobs

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.where = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "omnifill", "serve", f"m={self.run}", "--port", str(port),
                   "--rows", "8", "--waiting", "64", "--threads", "1", "--jobs",
                   self.jobs]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.where}/ready").status_code == 200:
                    return
            assert self.process.poll() is None, "it did not start"
            time.sleep(0.1)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def megabytes(self) -> float:
        """What it and its engine have in memory."""
        pids = [self.process.pid]
        children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children")
        pids += [int(pid) for pid in children.read_text().split()]
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def figures(self) -> dict[str, float]:
        lines = httpx2.get(f"{self.where}/metrics").text.splitlines()
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in lines if line[0] != "#")}  # fmt: skip

    def at_rest(self) -> bool:
        """Whether nothing is under way any more, after some seconds at most."""
        for _ in range(100):
            told = self.figures()
            if told["omnifill_rows_used"] == told["omnifill_requests_open"] == 0:
                return True
            time.sleep(0.1)
        return False


def body(seed: int, most: int = 32, **more: Any) -> dict[str, Any]:
    usual = {"model": "m", "prompt": "rain", "seed": seed, "max_tokens": most, "min_p": 0}
    return usual | more


async def many(server: Server, args: Any) -> dict[str, Any]:
    """All at once, three times over: what each gets, and how soon who is refused hears it. Then as
    many who ask again when they are told to, and one of a process of its own, whose wait is not
    that of hundreds who are served by the same loop: how soon it hears that the server is full."""
    ends: Counter[str] = Counter()
    refused: list[float] = []
    asked_again: Counter[str] = Counter()
    memory = []

    async def client(seed: int) -> None:
        started = time.monotonic()
        end = await posted(server.where, body(seed))
        ends[end] += 1
        if end == "429":
            refused.append(time.monotonic() - started)

    async def patient(seed: int) -> None:
        await asyncio.sleep(seed % 1000 / 1000)
        link = await connected(server.where)
        for _ in range(5):
            while True:
                status, wait = await answered(link, server.where, body(seed))
                asked_again[status] += 1
                if status != "429":
                    break
                await asyncio.sleep(wait + seed % 1000 / 1000)
        link[1].close()

    for round_ in range(3):
        await asyncio.gather(*(client(round_ * 10_000 + i) for i in range(args.clients)))
        memory.append(server.megabytes())
    probe = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--probe", server.where, stdout=subprocess.PIPE
    )
    await asyncio.gather(*(patient(50_000 + i) for i in range(args.clients)))
    probe.terminate()
    assert probe.stdout is not None
    heard = [float(line) for line in (await probe.stdout.read()).split()]
    memory.append(server.megabytes())
    return {
        **{f"ended {end}": num for end, num in sorted(ends.items())},
        "refused_at_once_p99_seconds": p99(refused),
        **{f"patient: ended {end}": num for end, num in sorted(asked_again.items())},
        "while_full / refusals": len(heard), "while_full / p99_seconds": p99(heard),
        "while_full / p50_seconds": sorted(heard)[len(heard) // 2] if heard else 0.0,
        "megabytes_after_first_round": memory[0], "megabytes_after_last_round": memory[-1],
        "at_rest": server.at_rest(),
    }  # fmt: skip


async def posted(where: str, wish: dict[str, Any]) -> str:
    """How a request over a connection of its own ends: the status of a whole answer, or else."""
    try:
        reader, writer = link = await connected(where)
        status, _ = await answered(link, where, wish, "Connection: close")
        more = await reader.read()
    except OSError as error:
        return type(error).__name__
    writer.close()
    return "more than one answer" if more else status


async def connected(where: str) -> Link:
    """A connection to a server."""
    host, port = where.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def answered(
    link: Link, where: str, wish: dict[str, Any], *headers: str
) -> tuple[str, float]:
    """The status of an answer that came as a whole, and after how many seconds to ask again. By
    hand: a library's connections to hundreds are slower than the server."""
    reader, writer = link
    writer.write(harness.completion(where, wish, *headers))
    try:
        top = await reader.readuntil(b"\r\n\r\n")
        told = {k.lower(): v for k, v in re.findall(rb"\r\n([^:]+): *([^\r]+)", top)}
        await reader.readexactly(int(told[b"content-length"]))
    except (asyncio.IncompleteReadError, OSError) as error:
        return type(error).__name__, 0.0
    return top[9:12].decode(), float(told.get(b"retry-after", 0))


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * (len(seconds) - 1))] if seconds else 0.0


def probe(where: str) -> None:
    """Ask again and again for more than there are places, and print how long it took to be
    refused."""
    with httpx2.Client(timeout=60) as http:
        for seed in range(10**9):
            started = time.monotonic()
            got = http.post(f"{where}/v1/completions", json=body(seed, prompt=["rain"] * 40))
            if got.status_code == 429:
                print(time.monotonic() - started, flush=True)
            time.sleep(0.05)


async def left(server: Server, args: Any) -> dict[str, Any]:
    """Streams and whole answers that are left after a random time."""
    chance, before = random.Random(args.seed), server.megabytes()
    async with httpx2.AsyncClient(timeout=600) as http:

        async def leave(seed: int) -> None:
            asked = body(seed, 4000, n=chance.randint(1, 2), stream=chance.random() < 0.5)
            post = http.post(f"{server.where}/v1/completions", json=asked)
            with contextlib.suppress(TimeoutError, httpx2.TransportError):
                await asyncio.wait_for(post, chance.uniform(0.001, 1.0))

        for first in range(0, args.leaving, 20):
            some = range(first, min(first + 20, args.leaving))
            await asyncio.gather(*(leave(i) for i in some))
    return {"left": args.leaving, "at_rest": server.at_rest(), "megabytes_before": before,
            "megabytes_after": server.megabytes()}  # fmt: skip


async def streamed(server: Server, args: Any) -> dict[str, Any]:
    """Each answer as a stream and at once."""
    same = 0
    stops = [None, "sun", ["春", "ماء"]]
    places = asyncio.Semaphore(16)
    async with httpx2.AsyncClient(timeout=600) as http:

        async def pair(seed: int) -> None:
            nonlocal same
            async with places:
                asked = body(seed, 4 + seed % 13, stop=stops[seed % 3])
                url = f"{server.where}/v1/completions"
                whole = (await http.post(url, json=asked)).json()["choices"][0]
                text, over, ends = "", None, 0
                async with http.stream("POST", url, json=asked | {"stream": True}) as got:
                    raw = b"".join([part async for part in got.aiter_raw()])
                for line in raw.decode("utf-8").splitlines():  # which refuses what is none
                    if line == "data: [DONE]":
                        ends += 1
                    elif line:
                        (choice,) = json.loads(line.removeprefix("data: "))["choices"]
                        text, over = text + choice["text"], choice["finish_reason"] or over
                same += (text, over, ends) == (whole["text"], whole["finish_reason"], 1)

        await asyncio.gather(*(pair(seed) for seed in range(args.pairs)))
    return {"pairs": args.pairs, "equal": same}


def killed(run: Path, jobs: str, args: Any) -> dict[str, Any]:
    """Jobs handed in while the server is killed again and again."""
    chance, server = random.Random(args.seed), Server(run, jobs)
    kills = KILLS if args.jobs >= 1000 else 5
    server.start()
    ids: dict[int, str] = {}
    again = 0
    number = 0
    next_kill = time.monotonic() + chance.uniform(1, 4)
    while number < args.jobs or kills:
        if kills and time.monotonic() > next_kill:
            server.process.kill()
            server.process.wait()
            server.start()
            kills -= 1
            next_kill = time.monotonic() + chance.uniform(0.5, 4)
        if number >= args.jobs:
            time.sleep(0.05)
            continue
        asked = {"requests": [
            {"path": "/v1/completions", "body": body(number * REQUESTS + i, 6)}
            for i in range(REQUESTS)
        ]}  # fmt: skip
        try:
            got = httpx2.post(f"{server.where}/v1/jobs", json=asked, timeout=30,
                              headers={"Idempotency-Key": f"job {number}"})  # fmt: skip
        except httpx2.TransportError:
            again += 1
            continue
        if got.status_code == 429:
            time.sleep(0.2)
            continue
        ids[number] = got.json()["id"]
        number += 1
    states, whole = Counter[str](), 0
    for id_ in ids.values():
        while (about := httpx2.get(f"{server.where}/v1/jobs/{id_}").json())["state"] in (
            "queued", "running",
        ):  # fmt: skip
            time.sleep(0.05)
        states[about["state"]] += 1
        if about["state"] == "done":
            got = httpx2.get(f"{server.where}/v1/jobs/{id_}/result")
            lines = [json.loads(line)["index"] for line in got.text.splitlines()]
            right = hashlib.sha256(got.content).hexdigest() == about["sha256"]
            whole += right and lines == list(range(REQUESTS))
    server.__exit__()
    return {"jobs": len(ids), "different_ids": len(set(ids.values())), "asked_again": again,
            **{f"ended {state}": num for state, num in states.items()},
            "whole_results": whole}  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(sys.argv[2])
    else:
        main()
