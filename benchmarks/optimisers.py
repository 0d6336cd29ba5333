"""Muon for matrices with AdamW for the rest, beside AdamW for everything: same data, same time.

AdamW runs at three rates (0.001, 0.003, 0.006); Muon at the default alone.

    python benchmarks/optimisers.py --data DIR [--budget 80s] [--quick]
"""

from __future__ import annotations

import json
from pathlib import Path

import harness
import language_model

ADAMW_RATES = (0.001, 0.003, 0.006)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="80s")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "20s" if args.quick else args.budget
    train, valid = language_model.halves(data, args.work)
    sources: dict[str, tuple[Path, list[object]]] = {
        "tinyshakespeare": (train, ["--valid", valid]),
        "adult": (data / "adult/train.csv.gz", []),
    }
    figures: dict[str, dict[str, float]] = {}
    for name, (source, words) in sources.items():
        words = [source, *words, "--budget", budget, "--seed", args.seed]
        figures[name] = {"muon": valid_loss(args.work, words)}
        for rate in ADAMW_RATES:
            settings = ["--set", "train.optim=adamw", "--set", f"train.lr_adamw={rate}"]
            figures[name][f"adamw, rate {rate}"] = valid_loss(args.work, [*words, *settings])
    protocol = (
        f"`omnifill train --budget {budget}` with `train.optim` muon, and adamw at three rates; "
        "the best loss on the validation part, in nats a token"
    )
    harness.keep("optimisers", protocol, figures, quick=args.quick)


def valid_loss(work: Path, words: list[object]) -> float:
    run = harness.fresh(work / "optimiser")
    harness.omnifill("train", *words, "--out", run)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line).get("valid") for line in lines]
    return min(loss for loss in found if loss is not None)


if __name__ == "__main__":
    main()
