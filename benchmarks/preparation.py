"""From a large table to memory-mapped shards: rows per second and peak memory.

    python benchmarks/preparation.py [--rows 2000000] [--quick]

The table is made: 12 columns (4 categories, 4 integers, 2 decimals, a date, a short text).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

import harness

MEASURE = """
import resource, sys
from omnifill.cli import main
sys.argv = ["omnifill", *sys.argv[1:]]
try:
    main()
finally:
    print("peak_kb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    args = parser.parse_args()
    rows = 50_000 if args.quick else args.rows
    args.work.mkdir(parents=True, exist_ok=True)
    table = args.work / "large.csv"
    make(table, rows, args.seed)
    run = harness.fresh(args.work / "large")
    command = [sys.executable, "-c", MEASURE, "train", str(table), "--out", str(run),
               "--steps", "1", "--set", "model.size=nano"]  # fmt: skip
    started = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if result.returncode:
        sys.exit(result.stderr)
    peak = int(result.stderr.split("peak_kb")[1].split()[0]) / 1024
    figures = {"rows": rows, "columns": 12, "megabytes": table.stat().st_size / 1e6,
               "seconds": seconds, "rows_per_second": rows / seconds, "peak_mib": peak}  # fmt: skip
    protocol = "`omnifill train large.csv --steps 1` (inference, staging, codecs, encoding, a step)"
    harness.keep("preparation", protocol, figures, [], args.quick)


def make(path: Path, rows: int, seed: int) -> None:
    """Write the table piece by piece."""
    rng = np.random.default_rng(seed)
    words = np.array("alpha beta gamma delta epsilon zeta eta theta iota kappa".split())
    for first in range(0, rows, 100_000):
        num = min(100_000, rows - first)
        when = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**8, num), unit="s")
        frame = pd.DataFrame({
            **{f"kind_{i}": rng.choice(words[: 3 + i], num) for i in range(4)},
            "count": rng.poisson(3, num), "age": rng.integers(18, 90, num),
            "code": rng.integers(0, 10**6, num), "year": rng.integers(1990, 2025, num),
            "price": rng.lognormal(3, 1, num).round(2), "share": rng.random(num).round(4),
            "when": when, "note": [" ".join(w) for w in rng.choice(words, (num, 3))],
        })  # fmt: skip
        frame.to_csv(path, mode="a" if first else "w", header=first == 0, index=False)


if __name__ == "__main__":
    main()
