"""Run every recipe as its head says, word for word, and write what came of it to docs/recipes.

    python benchmarks/recipes.py --data DIR [--only poetry] [--quick]

A page holds the head's commands with what they printed, the time of training, and `omnifill
evaluate` of the run on records that were kept aside. A quick run trains for 20 seconds and writes
no page.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import emoji
import harness
import speech
import translation

ROOT = harness.HERE.parent
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
PAGES = ROOT / "docs" / "recipes"
UNPACKED = ("fsdd", "emoji")
"""Archives of files that a table names."""
MOST_LINES, MOST_WIDTH = 30, 400


@dataclass(frozen=True)
class Head:
    """What the comment on top of a recipe says."""

    about: str
    commands: list[str]
    cost: str


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=RECIPES, action="append")
    args = parser.parse_args()
    folder = prepared(args.work / "recipes", harness.need_data(args))
    for name in args.only or RECIPES:
        head = head_of(ROOT / "recipes" / f"{name}.yaml")
        shown, seconds = [], 0.0
        for command in with_evaluation(head.commands):
            said, took = run(command, folder, args.quick)
            seconds += took if " train " in command else 0.0
            shown.append((command, said, sheet_of(command, folder)))
            print(f"$ {command}\n{said}", flush=True)
        if not args.quick:
            write_page(name, head, shown, seconds)


def head_of(path: Path) -> Head:
    """The comment's parts: what it is, the commands, and what they cost."""
    text = path.read_text(encoding="utf-8")
    lines = [line[1:].strip() for line in re.match(r"(?:#.*\n)+", text)[0].splitlines()]
    commands = [line for line in lines if line.startswith("omnifill ")]
    first, last = lines.index(commands[0]), lines.index(commands[-1])
    return Head(" ".join(lines[:first]).strip(), commands, " ".join(lines[last + 1 :]).strip())


def with_evaluation(commands: list[str]) -> list[str]:
    """The commands, and the evaluation of the run where there is none."""
    words = shlex.split(commands[0])
    asked = any(" evaluate " in command for command in commands)
    return (
        commands if asked else [*commands, f"omnifill evaluate {words[words.index('--out') + 1]}"]
    )


def prepared(folder: Path, data: Path) -> Path:
    """A folder where the commands of the heads work: the data sets, the recipes, and two files that
    a person would bring along, and pairs of two languages each."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in [*data.resolve().iterdir(), ROOT / "recipes"]:
        link = folder / source.name
        if link.is_symlink():  # of another checkout
            link.unlink()
        if source.name not in UNPACKED and not link.exists():
            os.symlink(source, link)
    speech.table(data / "fsdd", "train", folder / "fsdd")
    emoji.prepared(data / "emoji", folder / "emoji")
    shutil.copy(data / "emoji" / "emoji72_captions.csv.gz", folder / "emoji")
    with gzip.open(data / "dialogsum" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        talk = json.loads(next(lines))["dialogue"]
    (folder / "talk.txt").write_text(talk, encoding="utf-8")
    rows = pd.read_csv(data / "adult" / "test.csv.gz", dtype=str, keep_default_na=False).head(200)
    rows.loc[::3, "occupation"] = ""
    rows.to_csv(folder / "blanks.csv", index=False)
    translation.written_halves(data / "multi30k", folder)
    return folder


def run(command: str, folder: Path, quick: bool) -> tuple[str, float]:
    """One command -> what it printed, and its wall time in seconds."""
    words = shlex.split(command)[1:]
    if "--out" in words and not Path(words[words.index("--out") + 1]).suffix:
        harness.fresh(folder / words[words.index("--out") + 1])
    words += ["--budget", "20s"] if quick and words[0] == "train" else []
    env = {**os.environ, "OMP_NUM_THREADS": str(harness.THREADS)}
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-m", "omnifill", *words], cwd=folder, env=env,
                            capture_output=True, text=True, check=False)  # fmt: skip
    if result.returncode:
        sys.exit(f"{command} failed:\n{result.stderr}")
    return result.stdout.rstrip(), time.monotonic() - started


def sheet_of(command: str, folder: Path) -> Path | None:
    """The sheet of the pictures that a command made, if it made any."""
    words = shlex.split(command)
    out = folder / words[words.index("--out") + 1] / "sheet.png" if "--out" in words else None
    return out if out is not None and out.exists() and "generate" in words else None


def write_page(
    name: str, head: Head, shown: list[tuple[str, str, Path | None]], seconds: float
) -> None:
    """docs/recipes/NAME.md, and the sheets of pictures beside it."""
    date, commit, versions = harness.made_with()
    packages = ", ".join(f"{k} {v}" for k, v in versions.items())
    recipe = f"[recipes/{name}.yaml](../../recipes/{name}.yaml)"
    parts = [f"# {name}", head.about, head.cost,
             f"{date}, commit {commit}, {packages}; {harness.THREADS} threads; training took "
             f"{seconds:.0f} s; settings in {recipe}."]  # fmt: skip
    PAGES.mkdir(exist_ok=True)
    for number, (command, said, sheet) in enumerate(shown):
        parts.append(f"```\n{command}\n```")
        if said:
            parts.append(f"```\n{shortened(said)}\n```")
        if sheet is not None:
            shutil.copy(sheet, PAGES / f"{name}-{number}.png")
            parts.append(f"![what was made]({name}-{number}.png)")
    (PAGES / f"{name}.md").write_text("\n\n".join(p for p in parts if p) + "\n", encoding="utf-8")


def shortened(text: str) -> str:
    lines = [line if len(line) <= MOST_WIDTH else line[:MOST_WIDTH] + " …"
             for line in text.splitlines()]  # fmt: skip
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], "…"])


if __name__ == "__main__":
    main()
