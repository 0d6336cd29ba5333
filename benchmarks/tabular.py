"""Synthetic rows of a table: SDMetrics, XGBoost trained on them, copies, speed.

    python benchmarks/tabular.py --data DIR [--budget 2m] [--peers PYTHON] [--quick]

Beside ours stand plain baselines: columns drawn independently of each other, training rows drawn
again (perfect but for being copies), and a Gaussian copula. With `--peers`, CTGAN and
mostlyai-engine train for as long as ours did, in the same run.
"""

from __future__ import annotations

import json

import pandas as pd

import harness

PEERS = ("ctgan", "mostlyai")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--train", default="adult/train.csv.gz")
    parser.add_argument("--test", default="adult/test.csv.gz")
    parser.add_argument("--target", default="income")
    args = parser.parse_args()
    data = harness.need_data(args)
    train = pd.read_csv(data / args.train, keep_default_na=False)
    num = 2000 if args.quick else len(train)
    run, made = harness.fresh(args.work / "tabular"), args.work / "made.csv"
    budget = "20s" if args.quick else args.budget
    seconds = harness.omnifill("train", data / args.train, "--out", run, "--budget", budget,
                               "--seed", args.seed)  # fmt: skip
    spent = harness.omnifill("generate", run, "-n", num, "--format", "csv", out=made)
    told = args.work / "evaluation.json"
    evaluating = harness.omnifill("evaluate", run, data / args.test, "--json", out=told)
    measured = json.loads(told.read_text(encoding="utf-8"))

    shuffled = train.apply(lambda c: c.sample(frac=1, random_state=args.seed + len(c.name)).values)
    shuffled.head(num).to_csv(args.work / "independent.csv", index=False)
    again = train.sample(num, replace=True, random_state=args.seed)
    again.to_csv(args.work / "again.csv", index=False)

    files = {"ours": made, "independent": args.work / "independent.csv",
             "resampled": args.work / "again.csv"}  # fmt: skip
    took = {}
    pythons = {"copula": args.judges} | ({n: args.peers for n in PEERS} if args.peers else {})
    for name, python in pythons.items():
        files[name] = args.work / f"{name}.csv"
        took[name] = harness.peer(python, "tabular.py", name, data / args.train, files[name],
                                  "--rows", num, "--seconds", seconds,
                                  "--seed", args.seed)  # fmt: skip
    figures = {
        "train_seconds": seconds, "generate_seconds": spent, "rows_per_second": num / spent,
        "evaluate_seconds": evaluating, "two_sample": measured["rows"]["two_sample"],
        "two_sample_resampled": measured["baselines"]["resampled"]["rows"]["two_sample"],
    }  # fmt: skip
    for name, file in files.items():
        judged = harness.judge(
            args, "tabular.py", data / args.train, data / args.test, file, "--target", args.target
        )
        figures[name] = took.get(name, {}) | judged
    protocol = (
        f"`omnifill train {args.train} --budget {budget}`, then `omnifill generate -n {num}` "
        "(whole commands timed, start of Python included); judged against the training rows "
        "(shapes, trends) and the published test rows (AUC, and 1 - 2 |AUC - 1/2| of XGBoost that "
        "tells them from generated ones, by `omnifill evaluate`); CTGAN for as many epochs as fit "
        "into the same time, mostlyai-engine's TabularARGN told of it"
    )
    harness.keep("tabular", protocol, figures, ["pandas"], args.quick)


if __name__ == "__main__":
    main()
