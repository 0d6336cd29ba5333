"""Bits per byte of unseen texts, beside Kneser-Ney n-grams of the order that suits them best.

python benchmarks/likelihood.py --data DIR [--budget 10m] [--quick]
"""

from __future__ import annotations

import harness


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--train", default="brown/train.jsonl.gz")
    parser.add_argument("--test", default="brown/test.jsonl.gz")
    parser.add_argument("--text", default="text")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "30s" if args.quick else args.budget
    run = harness.fresh(args.work / "likelihood")
    seconds = harness.omnifill("train", data / args.train, "--out", run, "--budget", budget,
                               "--seed", args.seed)  # fmt: skip
    spent = harness.omnifill("evaluate", run, data / args.test, "--json",
                             out=args.work / "evaluation.json")  # fmt: skip
    figures = {
        "train_seconds": seconds,
        "evaluate_seconds": spent,
        **harness.beside_ngram(args.work / "evaluation.json", args.text),
    }
    name = args.train.partition("/")[0]
    protocol = (
        f"`omnifill train {args.train} --budget {budget}`, then `omnifill evaluate` on "
        f"{args.test}; Kneser-Ney over bytes, interpolated and modified, its order chosen on the "
        "validation part"
    )
    harness.keep(f"likelihood-{name}", protocol, figures, quick=args.quick)


if __name__ == "__main__":
    main()
