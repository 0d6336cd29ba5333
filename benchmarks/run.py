"""Run every benchmark, one after another: `python benchmarks/run.py --data DIR [--quick]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import harness

SCRIPTS = ["preparation", "filling", "tabular", "language_model", "text_given_label", "likelihood",
           "languages", "optimisers", "aims", "steps", "endless", "cells", "pictures", "speech",
           "emoji", "small_media", "modalities", "translation"]  # fmt: skip


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=SCRIPTS, action="append")
    args = parser.parse_args()
    words = ["--work", str(args.work), "--seed", str(args.seed), "--judges", args.judges]
    if args.peers:
        words += ["--peers", args.peers]
    if args.quick:
        words.append("--quick")
    harness.need_data(args)
    for script in args.only or SCRIPTS:
        print(f"== {script}", flush=True)
        command = [sys.executable, str(Path(__file__).parent / f"{script}.py"),
                   "--data", str(args.data), *words]  # fmt: skip
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
