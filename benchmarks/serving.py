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
import socket
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


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--ids", type=int, default=50257)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--asked", type=int, default=4, help="requests of each client")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.width, args.clients, args.asked = 2, 128, [1, 4], 2
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        decoding.made(args, folder / "hf")
        servers = commands(args, folder)
        for label, (command, model) in servers.items():
            with serving(command) as where:
                asyncio.run(asked(where, model, 1, 1, 0))  # to warm up
                for clients in args.clients:
                    found = asyncio.run(asked(where, model, clients, args.asked, args.seed))
                    figures.setdefault(f"{clients} clients", {})[label] = found
                    print(clients, label, json.dumps(found), flush=True)
        for clients in args.clients:
            alone = engine_alone(args, folder / "run", clients)
            figures[f"{clients} clients"]["omnifill, engine alone"] = alone
    for part in figures.values():
        theirs = [v["tokens_per_second"] for k, v in part.items() if k.startswith("transformers")]
        ours, alone = (
            part[name]["tokens_per_second"] for name in ("omnifill", "omnifill, engine alone")
        )
        part["times_transformers"] = ours / max(theirs)
        part["http_overhead"] = 1 - ours / alone
    protocol = (
        f"GPT-2 of {args.layers} layers of width {args.width}, random weights, fp32, "
        f"{harness.THREADS} threads; completions as streams, prompts of 8 to 96 words, answers of "
        f"16 to 64 tokens, {args.asked} one after another of each client; servers in turns; "
        f"`times_transformers`: beside its better one; `http_overhead`: what is lacking beside the "
        f"engine alone"
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
    import httpx2

    chance = random.Random(seed)
    bodies = [[body(model, chance) for _ in range(num)] for _ in range(clients)]
    firsts: list[float] = []
    tokens = 0

    async def client(http: Any, mine: list[dict[str, Any]]) -> None:
        nonlocal tokens
        for one in mine:
            started, first, told = time.monotonic(), 0.0, 0
            async with http.stream("POST", f"{where}/v1/completions", json=one) as got:
                assert got.status_code == 200, await got.aread()
                async for line in got.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    piece = json.loads(line[6:])
                    if piece.get("choices") and not first:
                        first = time.monotonic() - started
                    if piece.get("usage"):
                        told = piece["usage"]["completion_tokens"]
            firsts.append(first)
            tokens += told or one["max_tokens"]

    async with httpx2.AsyncClient(timeout=600) as http:
        started = time.monotonic()
        await asyncio.gather(*(client(http, mine) for mine in bodies))
        spent = time.monotonic() - started
    firsts.sort()
    return {
        "tokens_per_second": tokens / spent, "tokens": tokens,
        "first_token_p50": firsts[len(firsts) // 2],
        "first_token_p95": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
    }  # fmt: skip


def engine_alone(args: Any, run: Path, clients: int) -> dict[str, float]:
    """The same requests through the engine's pipe, with nothing before it."""
    from omnifill.serve.wire import EngineSettings, messages, packed

    settings = EngineSettings({"gpt": str(run)}, rows=max(args.clients), threads=harness.THREADS)
    chance = random.Random(args.seed)
    bodies = [[body("gpt", chance) for _ in range(args.asked)] for _ in range(clients)]
    command = [sys.executable, "-m", "omnifill.serve.engine", json.dumps(vars(settings))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    told, owners, tokens, number = messages(process.stdout), {}, 0, 0

    def ask(mine: list[dict[str, Any]]) -> None:
        nonlocal number
        one, number = mine.pop(0), number + 1
        owners[number] = mine
        wish = {"prompt": one["prompt"], "max_tokens": one["max_tokens"], "num": 1, "seed": 0,
                "sampling": {"temperature": 0}}  # fmt: skip
        process.stdin.write(packed({"id": number, "do": "generate", "model": "gpt", "wish": wish}))
        process.stdin.flush()

    def until(over: str) -> dict[str, Any]:
        found = next(m for m in told if m["do"] in (over, "error", "fault", "failed"))
        assert found["do"] == over, found
        return found

    until("ready")
    ask([body("gpt", chance)])  # to warm up
    until("end")
    started = time.monotonic()
    for mine in bodies:
        ask(mine)
    left = clients
    while left:
        found = until("end")
        tokens += found["completion_tokens"]
        mine = owners.pop(found["id"])
        if mine:
            ask(mine)
        else:
            left -= 1
    spent = time.monotonic() - started
    process.stdin.close()
    process.wait(60)
    return {"tokens_per_second": tokens / spent, "tokens": tokens}


def body(model: str, chance: random.Random) -> dict[str, Any]:
    words = [chance.choice(WORDS) for _ in range(chance.randint(8, 96))]
    return {"model": model, "prompt": " ".join(words), "max_tokens": chance.randint(16, 64),
            "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip


if __name__ == "__main__":
    main()
