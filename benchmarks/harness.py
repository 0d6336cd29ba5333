"""What the benchmarks share: running the command line, data sets, and keeping results.

Figures are quality and ratios of one run on one quiet machine; a result names versions,
protocol and date, and no machine.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
THREADS = int(os.environ.get("BENCH_THREADS", "2"))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes."""
    out = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--data", type=Path, default=os.environ.get("OMNIFILL_DATA"),
                     help="folder of the data sets (or $OMNIFILL_DATA)")  # fmt: skip
    out.add_argument("--quick", action="store_true", help="a smaller run, to see that it works")
    out.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder")
    out.add_argument("--seed", type=int, default=0)
    out.add_argument("--judges", default=os.environ.get("OMNIFILL_JUDGES", sys.executable),
                     help="Python that has benchmarks/requirements-judges.txt")  # fmt: skip
    out.add_argument("--peers", default=os.environ.get("OMNIFILL_PEERS"),
                     help="Python that has benchmarks/requirements-peers.txt")  # fmt: skip
    return out


def training_options(out: argparse.ArgumentParser, budget: str, *objectives: str) -> None:
    """Arguments of a benchmark of one trained run: how it is trained, or which one is judged."""
    out.add_argument("--objective", default="causal", choices=objectives)
    out.add_argument("--budget", default=budget)
    out.add_argument("--set", action="append", default=[], help="settings of the recipe")
    out.add_argument("--trained", type=Path, help="a run to judge, instead of training one")


def trained(args: argparse.Namespace, name: str, budget: str, *words: object) -> tuple[Path, float]:
    """The run that is asked for, trained unless it is there; and the seconds that it took."""
    if args.trained is not None:
        return args.trained, 0.0
    run = fresh(args.work / name)
    sets = [word for item in args.set for word in ("--set", item)]
    return run, omnifill("train", *words, "--out", run, "--budget", budget, "--seed", args.seed,
                         *sets)  # fmt: skip


def need_data(args: argparse.Namespace) -> Path:
    """The data folder, or a clear end."""
    if args.data is None or not Path(args.data).is_dir():
        sys.exit("name the folder of the data sets: --data DIR, or OMNIFILL_DATA=DIR")
    args.work.mkdir(parents=True, exist_ok=True)
    return Path(args.data)


def omnifill(*words: object, out: Path | None = None) -> float:
    """Run one command with two threads -> its wall time in seconds; its output goes to `out`."""
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    command = [sys.executable, "-m", "omnifill", *map(str, words)]
    print("$ omnifill", *words[:2], "…", file=sys.stderr, flush=True)
    started = time.monotonic()
    result = subprocess.run(command, env=env, capture_output=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr.decode()}")
    if out is not None:
        out.write_bytes(result.stdout)
    return time.monotonic() - started


def judge(args: argparse.Namespace, script: str, *words: object) -> dict[str, Any]:
    """Run a judge in its own environment -> its figures."""
    return _figures([args.judges, str(HERE / "judges" / script), *map(str, words)])


def peer(python: str, script: str, *words: object) -> dict[str, Any]:
    """Run a peer in its own environment, with as many threads as ours -> its figures."""
    print("$", script, *words[:1], "…", file=sys.stderr, flush=True)
    return _figures([python, str(HERE / "peers" / script), *map(str, words)])


def _figures(command: list[str]) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr}")
    figures: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return figures


def beside_ngram(evaluation: Path, text: str) -> dict[str, float]:
    """Bits per byte of ours and of the n-gram baseline in `evaluate --json`, and how far below."""
    found = json.loads(evaluation.read_text(encoding="utf-8"))
    ours, theirs = (
        part["fields"][text]["bits_per_byte"]["value"]
        for part in (found, found["baselines"]["ngram"])
    )
    return {"bits_per_byte": ours, "bits_per_byte_ngram": theirs, "below_ngram": 1 - ours / theirs}


def byte_tokenizer(size: int = 256) -> Any:
    """A tokenizer whose tokens are the 256 bytes, and words that no text is read as, so that
    whatever a network of `size` ids writes is some text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"Ġw{i}" for i in range(len(letters), size))]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fresh(folder: Path) -> Path:
    """A path where nothing is."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    return folder


def keep(
    name: str, protocol: str, figures: Mapping[str, Any], packages: Sequence[str] = (),
    quick: bool = False,
) -> None:  # fmt: skip
    """Write results/NAME.json and NAME.md (not for a quick run), and print the figures."""
    print(json.dumps(figures, indent=1))
    if quick:
        return
    date, commit, versions = made_with(packages)
    whole = {"date": date, "commit": commit, "protocol": protocol, "threads": THREADS,
             "versions": versions, "figures": figures}  # fmt: skip
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {name}", "", f"{date}, commit {commit}. {protocol}", ""]
    lines += [", ".join(f"{k} {v}" for k, v in versions.items()) + f"; {THREADS} threads.", ""]
    lines += ["| figure | value |", "|---|---|"]
    lines += [f"| {key} | {_shown(value)} |" for key, value in flat(figures)]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def kept(name: str, protocol: str) -> dict[str, Any]:
    """The figures that a stopped run of this commit and protocol has left; else none."""
    path = HERE / "results" / f"{name}.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    same = (found["commit"], found["protocol"]) == (made_with()[1], protocol)
    figures: dict[str, Any] = found["figures"] if same else {}
    return figures


def made_with(packages: Sequence[str] = ()) -> tuple[str, str, dict[str, str]]:
    """Date, commit and versions that a result names."""
    versions = {"python": platform.python_version()}
    for package in ("omnifill", "torch", "numpy", *packages):
        versions[package] = importlib.metadata.version(package)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    return datetime.date.today().isoformat(), commit, versions


def flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested figures as (path, value)."""
    out: list[tuple[str, Any]] = []
    for key, value in figures.items():
        path = f"{prefix}{key}"
        out += flat(value, f"{path} / ") if isinstance(value, Mapping) else [(path, value)]
    return out


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def completion(where: str, wish: dict[str, Any], *headers: str) -> bytes:
    """A question to /v1/completions of a server, as it goes over a socket. By hand, since clients
    of a library take much of the processors that they share with the server."""
    data = json.dumps(wish).encode()
    head = ["POST /v1/completions HTTP/1.1", f"Host: {where.removeprefix('http://')}",
            "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]  # fmt: skip
    return "\r\n".join([*head, "", ""]).encode() + data
