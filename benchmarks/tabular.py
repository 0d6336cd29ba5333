"""Synthetic rows of a table: SDMetrics, XGBoost trained on them, copies, speed.

    python benchmarks/tabular.py --data DIR [--budget 2m] [--quick]

Beside ours stand two dumb baselines: columns drawn independently of each other, and training
rows drawn again (perfect but for being copies).
"""

from __future__ import annotations

import pandas as pd

import harness


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

    shuffled = train.apply(lambda c: c.sample(frac=1, random_state=args.seed + len(c.name)).values)
    shuffled.head(num).to_csv(args.work / "independent.csv", index=False)
    again = train.sample(num, replace=True, random_state=args.seed)
    again.to_csv(args.work / "again.csv", index=False)

    figures = {"train_seconds": seconds, "generate_seconds": spent, "rows_per_second": num / spent}
    for name, file in (("ours", made), ("independent", args.work / "independent.csv"),
                       ("resampled", args.work / "again.csv")):  # fmt: skip
        figures[name] = harness.judge(
            args, "tabular.py", data / args.train, data / args.test, file, "--target", args.target
        )
    protocol = (
        f"`omnifill train {args.train} --budget {budget}`, then `omnifill generate -n {num}` "
        "(whole commands timed, start of Python included); judged against the training rows "
        "(shapes, trends) and the published test rows (AUC)"
    )
    harness.keep("tabular", protocol, figures, ["pandas"], args.quick)


if __name__ == "__main__":
    main()
