"""Texts on request: is the asked label recovered, is anything copied, is it diverse?

And the other direction: the label given the text, beside logistic regression on TF-IDF.

    python benchmarks/text_given_label.py --data DIR [--budget 10m] [--quick]
"""

from __future__ import annotations

import json

import pandas as pd

import harness


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--train", default="ag_news/train.csv.gz")
    parser.add_argument("--test", default="ag_news/test.csv.gz")
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="domain")
    parser.add_argument("--each", type=int, default=300, help="texts for each label")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget, each = ("30s", 20) if args.quick else (args.budget, args.each)
    run = harness.fresh(args.work / "text")
    seconds = harness.omnifill("train", data / args.train, "--out", run, "--budget", budget,
                               "--seed", args.seed)  # fmt: skip
    labels = sorted(pd.read_csv(data / args.train)[args.label].unique())
    parts, spent = [], 0.0
    for label in labels:
        out = args.work / "part.csv"
        spent += harness.omnifill("generate", run, "-n", each, "--given", f"{args.label}={label}",
                                  "--format", "csv", out=out)  # fmt: skip
        parts.append(pd.read_csv(out, keep_default_na=False))
    made = args.work / "made.csv"
    pd.concat(parts).to_csv(made, index=False)
    harness.omnifill("evaluate", run, data / args.test, "--json", out=args.work / "evaluation.json")
    measured = json.loads((args.work / "evaluation.json").read_text())["fields"]
    figures = {
        "train_seconds": seconds,
        "texts_per_second": each * len(labels) / spent,
        "label_given_text": measured[args.label],
        "text": measured[args.text],
        **harness.beside_ngram(args.work / "evaluation.json", args.text),
        **harness.judge(args, "text.py", "label", data / args.train, data / args.test, made,
                        "--text", args.text, "--label", args.label),
    }  # fmt: skip
    protocol = (
        f"`omnifill train {args.train} --budget {budget}`, then {each} texts for each of "
        f"{len(labels)} labels with `omnifill generate --given` and its defaults; judge: logistic "
        "regression on TF-IDF (1-2-grams) trained on the real training part; spans in words"
    )
    harness.keep("text-given-label", protocol, figures, ["pandas"], args.quick)


if __name__ == "__main__":
    main()
