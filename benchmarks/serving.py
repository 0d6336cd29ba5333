"""How fast a server writes for many at once, beside `transformers serve`.

    python benchmarks/serving.py [--layers 12 --width 768] [--clients 1 8 32] [--quick]

A GPT-2 of the given shape with random weights, which both servers read from the same folder, each
in its turn and in as many threads, that of `transformers` with and without continuous batching.
Clients ask for completions as streams, of prompts and answers of mixed lengths, the next as soon as
one is done; told are tokens a second of all, and how long they wait for the first. Our engine is
asked the same without HTTP, through the pipe by which the server asks it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import decoding
import harness

WORDS = decoding.PROMPT.split()
READY = 300
"""Seconds that a server has to start."""
WARM = 1_000_000
"""Seed of a first request, which nothing is measured of."""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--ids", type=int, default=50257)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--asked", type=int, default=4, help="requests of each client")
    parser.add_argument("--rounds", type=int, default=3, help="turns of server and engine alone")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.width, args.clients, args.asked, args.rounds = 2, 128, [1, 4], 2, 1
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        decoding.made(args, folder / "hf")
        servers = commands(args, folder)
        command, model = servers.pop("omnifill")
        with serving(command) as where, Engine(args, folder / "run") as engine:
            asyncio.run(asked(where, model, 1, 1, WARM))  # to warm up
            for clients in args.clients:
                figures[f"{clients} clients"] = ours(args, where, model, engine, clients)
        for label, (command, model) in servers.items():
            with serving(command) as where:
                asyncio.run(asked(where, model, 1, 1, WARM))
                for clients in args.clients:
                    found = asyncio.run(asked(where, model, clients, args.asked, args.seed))
                    figures[f"{clients} clients"][label] = found
                    print(clients, label, json.dumps(found), flush=True)
    for part in figures.values():
        theirs = [v["tokens_per_second"] for k, v in part.items() if k.startswith("transformers")]
        part["times_transformers"] = part["omnifill"]["tokens_per_second"] / max(theirs)
    protocol = (
        f"GPT-2 of {args.layers} layers of width {args.width}, random weights, fp32, "
        f"{harness.THREADS} threads; completions as streams, prompts of 8 to 96 words, answers of "
        f"16 to 64 tokens, {args.asked} one after another of each client; servers in turns; "
        f"`times_transformers`: beside its better one; `http_overhead`: what is lacking beside the "
        f"engine alone, server and engine in turns, the median of {args.rounds} of them"
    )
    harness.keep(f"serving-{args.layers}x{args.width}", protocol, figures, quick=args.quick)


def commands(args: Any, folder: Path) -> dict[str, tuple[list[str], str]]:
    """Each server's command, where PORT stands for its port, and what it calls the model."""
    from omnifill import api

    api.import_checkpoint(folder / "hf", folder / "run")
    theirs = [sys.executable, "-c", "from transformers.cli.transformers import main; main()",
              "serve", str(folder / "hf"), "--port", "PORT", "--dtype", "float32", "--device",
              "cpu"]  # fmt: skip
    rows = str(max(args.clients))
    ours = [sys.executable, "-m", "omnifill", "serve", f"gpt={folder / 'run'}", "--port", "PORT",
            "--rows", rows, "--threads", str(harness.THREADS)]  # fmt: skip
    return {
        "omnifill": (ours, "gpt"),
        "transformers": (theirs, str(folder / "hf")),
        "transformers, continuous batching": ([*theirs, "--continuous-batching"],
                                              str(folder / "hf")),
    }  # fmt: skip


@contextmanager
def serving(command: list[str]) -> Any:
    """A server in a process of its own -> its address."""
    import httpx2

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(port) if word == "PORT" else word for word in command]
    environment = os.environ | {"OMP_NUM_THREADS": str(harness.THREADS), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as work, (Path(work) / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, cwd=work, stdout=log, stderr=log)
        try:
            where, end = f"http://127.0.0.1:{port}", time.monotonic() + READY
            while True:
                try:
                    if httpx2.get(f"{where}/health").status_code == 200:
                        break
                except httpx2.TransportError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit((Path(work) / "log").read_text()) from None
                time.sleep(0.2)
            yield where
        finally:
            process.terminate()
            process.wait(60)


async def asked(where: str, model: str, clients: int, num: int, seed: int) -> dict[str, float]:
    """What so many clients see, each with `num` requests one after another."""
    chance = random.Random(seed)
    bodies = [[body(model, chance) for _ in range(num)] for _ in range(clients)]
    firsts: list[float] = []
    tokens = 0

    async def client(mine: list[dict[str, Any]]) -> None:
        nonlocal tokens
        async with Client(where) as http:
            for one in mine:
                first, told = await http.streamed(one)
                firsts.append(first)
                tokens += told

    started = time.monotonic()
    await asyncio.gather(*map(client, bodies))
    spent = time.monotonic() - started
    firsts.sort()
    return {
        "tokens_per_second": tokens / spent, "tokens": tokens,
        "first_token_p50": firsts[len(firsts) // 2],
        "first_token_p95": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
    }  # fmt: skip


class Client:
    """Asks for one stream after another over one connection. It reads bytes as they come and looks
    into the last alone: clients are on the same processors as the server, where they should count
    little."""

    def __init__(self, where: str) -> None:
        self.where = where

    async def __aenter__(self) -> Client:
        host, port = self.where.removeprefix("http://").split(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def streamed(self, wish: dict[str, Any]) -> tuple[float, int]:
        """Seconds until the first piece, and tokens in all."""
        started, first, got = time.monotonic(), 0.0, bytearray()
        self.writer.write(harness.completion(self.where, wish))
        while not got.endswith(b"\r\n0\r\n\r\n"):  # the last of the parts of an answer
            part = await self.reader.read(1 << 16)
            assert part, bytes(got[-2000:])
            got += part
            if not first and b'"choices"' in got:
                first = time.monotonic() - started
        assert got.startswith(b"HTTP/1.1 200"), bytes(got[:2000])
        told = re.findall(rb'"completion_tokens":\s*(\d+)', got)
        return first, int(told[-1]) if told else wish["max_tokens"]


def ours(args: Any, where: str, model: str, engine: Engine, clients: int) -> dict[str, Any]:
    """Server and engine in turns: of each the median, and what HTTP costs. Each turn has prompts of
    its own, since what prompts begin with is kept."""
    served, alone, lacking = [], [], []
    for seed in range(args.seed, args.seed + args.rounds):
        served.append(asyncio.run(asked(where, model, clients, args.asked, seed)))
        alone.append(engine.asked(clients, args.asked, seed))
        lacking.append(1 - served[-1]["tokens_per_second"] / alone[-1]["tokens_per_second"])
        print(clients, json.dumps(served[-1]), json.dumps(alone[-1]), lacking[-1], flush=True)
    return {"omnifill": medians(served), "omnifill, engine alone": medians(alone),
            "http_overhead": statistics.median(lacking), "http_overheads": lacking}  # fmt: skip


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


class Engine:
    """Our engine without HTTP: asked through the pipe by which the server asks it."""

    def __init__(self, args: Any, run: Path) -> None:
        from omnifill.serve.wire import EngineSettings, engine_environment, messages

        rows = max(args.clients)
        settings = EngineSettings({"gpt": str(run)}, rows=rows, threads=harness.THREADS)
        command = [sys.executable, "-m", "omnifill.serve.engine", json.dumps(vars(settings))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=engine_environment())  # fmt: skip
        self.told, self.number = messages(self.process.stdout), 0

    def __enter__(self) -> Engine:
        self.until("ready")
        self.asked(1, 1, WARM)  # to warm up
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def until(self, over: str) -> dict[str, Any]:
        found = next(m for m in self.told if m["do"] in (over, "error", "fault", "failed"))
        assert found["do"] == over, found
        return found

    def ask(self, one: dict[str, Any]) -> int:
        from omnifill.serve.wire import packed

        self.number += 1
        wish = {"prompt": one["prompt"], "max_tokens": one["max_tokens"], "num": 1, "seed": 0,
                "sampling": {"temperature": 0}}  # fmt: skip
        self.process.stdin.write(packed({"id": self.number, "do": "generate", "model": "gpt",
                                         "wish": wish, "streamed": True}))  # fmt: skip
        self.process.stdin.flush()
        return self.number

    def asked(self, clients: int, num: int, seed: int) -> dict[str, float]:
        """The requests that `asked` makes of a server."""
        chance = random.Random(seed)
        bodies = [[body("gpt", chance) for _ in range(num)] for _ in range(clients)]
        tokens, started = 0, time.monotonic()
        owners = {self.ask(mine.pop(0)): mine for mine in bodies}
        while owners:
            found = self.until("end")
            tokens += found["completion_tokens"]
            if mine := owners.pop(found["id"]):
                owners[self.ask(mine.pop(0))] = mine
        return {"tokens_per_second": tokens / (time.monotonic() - started), "tokens": tokens}


def body(model: str, chance: random.Random) -> dict[str, Any]:
    words = [chance.choice(WORDS) for _ in range(chance.randint(8, 96))]
    return {"model": model, "prompt": " ".join(words), "max_tokens": chance.randint(16, 64),
            "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip


if __name__ == "__main__":
    main()
