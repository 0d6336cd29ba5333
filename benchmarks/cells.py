"""The nine cells, three backbones by three objectives: each trains, is evaluated, generates, fills.

python benchmarks/cells.py --data DIR [--budget 5m] [--only tinyshakespeare] [--quick]

Each cell is kept as soon as it is done; the same command goes on where an earlier one of the same
commit was stopped.
"""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pandas as pd

import harness

BACKBONES = ("transformer", "rnn", "cnn")
OBJECTIVES = ("causal", "masked", "seq2seq")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--only", choices=("tinyshakespeare", "ag_news"))
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "20s" if args.quick else args.budget
    text = gzip.open(data / "tinyshakespeare/input.txt.gz", "rt", encoding="utf-8").read()
    cut = int(0.9 * len(text))
    train, valid = args.work / "train.txt", args.work / "valid.txt"
    train.write_text(text[:cut], encoding="utf-8")
    valid.write_text(text[cut:], encoding="utf-8")
    measures = {
        "tinyshakespeare": lambda cell: stream(args.work, train, valid, cell),
        "ag_news": lambda cell: table(args.work, data / "ag_news", cell),
    }
    protocol = (
        f"`omnifill train --budget {budget}` for each cell on tinyshakespeare (first 90 % / last "
        "10 %) and on ag_news, then `omnifill evaluate` on the rest; nats and bits of masked cells "
        "are a bound; generated and filled records are counted valid"
    )
    figures = {} if args.quick else harness.kept("cells", protocol)
    for name in [args.only] if args.only else measures:
        done = figures.setdefault(name, {})
        for objective, backbone in itertools.product(OBJECTIVES, BACKBONES):
            if f"{backbone} x {objective}" in done:
                continue
            cell = ["--set", f"model.backbone={backbone}", "--set", f"objective.name={objective}",
                    "--budget", budget, "--seed", args.seed]  # fmt: skip
            done[f"{backbone} x {objective}"] = measures[name](cell)
            harness.keep("cells", protocol, figures, quick=args.quick)


def stream(work: Path, train: Path, valid: Path, cell: list[object]) -> dict[str, float]:
    run, found = harness.fresh(work / "cell"), work / "evaluation.json"
    seconds = harness.omnifill("train", train, "--valid", valid, "--out", run, *cell)
    harness.omnifill("evaluate", run, valid, "--json", out=found)
    spent = harness.omnifill("generate", run, "-n", 8, "--prompt", "ROMEO:", "--max-tokens", 64,
                             "--format", "jsonl", out=work / "made.jsonl")  # fmt: skip
    made = (work / "made.jsonl").read_text(encoding="utf-8").splitlines()
    measures = json.loads(found.read_text(encoding="utf-8"))["fields"]["text"]
    return {
        "train_seconds": seconds,
        "nats_per_character": measures["nats_per_character"]["value"],
        "generate_seconds": spent,
        "generated": sum(json.loads(line)["text"].startswith("ROMEO:") for line in made),
    }


def table(work: Path, folder: Path, cell: list[object]) -> dict[str, float]:
    run, found = harness.fresh(work / "cell"), work / "evaluation.json"
    seconds = harness.omnifill("train", folder / "train.csv.gz", "--out", run, *cell)
    spent = harness.omnifill("evaluate", run, folder / "test.csv.gz", "--json", out=found)
    fields = json.loads(found.read_text(encoding="utf-8"))["fields"]
    blanked, filled = work / "blanked.csv", work / "filled.csv"
    some = pd.read_csv(folder / "test.csv.gz").head(200)
    some.assign(domain=None).to_csv(blanked, index=False)
    harness.omnifill("fill", run, blanked, "--out", filled)
    return {
        "train_seconds": seconds,
        "evaluate_seconds": spent,
        "bits_per_byte": fields["text"]["bits_per_byte"]["value"],
        "distinct_4": fields["text"]["distinct_4"]["value"],
        "label_accuracy": fields["domain"]["accuracy"]["value"],
        "filled": int(pd.read_csv(filled)["domain"].notna().sum()),
    }


if __name__ == "__main__":
    main()
