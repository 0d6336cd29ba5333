"""Seventeen languages in one model, and poems: the asked language, valid Unicode, the form.

python benchmarks/languages.py --data DIR [--budget 5m] [--quick]
"""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pandas as pd

import harness

PUD = (
    "pud, first 630 of 700 rows: `omnifill train --budget {}`, then 60 sentences of each language "
    "with `omnifill generate --want` and its defaults; judge: py3langid among the seventeen, "
    "beside the 70 real sentences that were held out"
)
POEMS = (
    "tang_train: `omnifill train --budget {}`, then 200 whole records with `omnifill generate`; "
    "regular: all lines of one length and even in number; the real poems are the training file's"
)
LANGUAGES = "en de fr es pt it cs fi ru tr ar hi th id ko zh ja".split()


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--only", choices=["pud", "poems"])
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "30s" if args.quick else args.budget
    if args.only != "poems":
        harness.keep("languages", PUD.format(budget), sentences(args, data, budget), ["pandas"],
                     args.quick)  # fmt: skip
    if args.only != "pud":
        harness.keep("poems", POEMS.format(budget), poems(args, data, budget), ["pandas"],
                     args.quick)  # fmt: skip


def sentences(args, data, budget: str) -> dict:
    """One column a language (the file's second `id`, the identifier, is left out)."""
    table = pd.read_csv(data / "pud/train.csv.gz", header=0, keep_default_na=False,
                        names=["number", *LANGUAGES])[LANGUAGES]  # fmt: skip
    train, held = table.iloc[:630], table.iloc[630:]
    train.to_csv(args.work / "pud.csv", index=False)
    held.to_csv(args.work / "held.csv", index=False)
    run = harness.fresh(args.work / "pud")
    harness.omnifill("train", args.work / "pud.csv", "--out", run, "--budget", budget,
                     "--seed", args.seed)  # fmt: skip
    made = {}
    for name in LANGUAGES:
        out = args.work / "part.csv"
        harness.omnifill("generate", run, "-n", 10 if args.quick else 60, "--want", name,
                         "--format", "csv", out=out)  # fmt: skip
        made[name] = pd.read_csv(out, keep_default_na=False)[name]
    pd.DataFrame(made).to_csv(args.work / "made.csv", index=False)
    return harness.judge(
        args, "text.py", "language", args.work / "made.csv", args.work / "held.csv"
    )


def poems(args, data, budget: str) -> dict:
    source = data / "chinese_poetry/tang_train.jsonl.gz"
    run = harness.fresh(args.work / "poems")
    harness.omnifill("train", source, "--out", run, "--budget", budget, "--seed", args.seed)
    made = args.work / "poems.jsonl"
    harness.omnifill(
        "generate", run, "-n", 20 if args.quick else 200, "--format", "jsonl", out=made
    )
    ours = [json.loads(line)["paragraphs"] for line in made.read_text("utf-8").splitlines()]
    with gzip.open(source, "rt", encoding="utf-8") as file:
        real = [json.loads(line)["paragraphs"] for line in file]
    texts = [_lines(p) for p in ours]
    return {
        "valid_unicode": sum("�" not in "".join(t) for t in texts) / len(texts),
        "regular": sum(map(is_regular, texts)) / len(texts),
        "regular_real": sum(map(is_regular, map(_lines, real))) / len(real),
        "line_lengths": shares(texts),
        "line_lengths_real": shares([_lines(p) for p in real]),
        "overlap_of_line_lengths": overlap(texts, [_lines(p) for p in real]),
    }


def _lines(paragraphs) -> list[str]:
    text = paragraphs if isinstance(paragraphs, str) else "\n".join(paragraphs or [])
    for mark in "，。！？；、,.!?;\n":
        text = text.replace(mark, "\n")
    return [line for line in text.split("\n") if line.strip()]


def is_regular(lines: list[str]) -> bool:
    """All lines of one length, and an even number of them."""
    return len(lines) > 1 and len(lines) % 2 == 0 and len({len(x) for x in lines}) == 1


def lengths(poems: list[list[str]]) -> Counter[int]:
    return Counter(len(x) for p in poems for x in p)


def shares(poems: list[list[str]]) -> dict[str, float]:
    count = lengths(poems)
    return {str(n): c / count.total() for n, c in count.most_common(4)}


def overlap(ours: list[list[str]], real: list[list[str]]) -> float:
    """Shared mass of the two distributions of line lengths."""
    a, b = lengths(ours), lengths(real)
    return sum(min(a[n] / max(1, a.total()), b[n] / b.total()) for n in b)


if __name__ == "__main__":
    main()
