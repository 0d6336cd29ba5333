"""English to German on multi30k, and a pair of languages that was never seen together.

    python benchmarks/translation.py --data DIR [--budget 60m] [--zero-shot | --run RUN] [--quick]

BLEU of the published protocol (lower-cased, tokenised), and sacreBLEU (13a, cased) and chrF beside
it. `--run` judges a run that the recipe was trained to before. With `--zero-shot`, a model learns
(en, de) rows of one half of the training part and (de, fr) rows of the other, and translates
en -> fr at once; beside it go the way over German with the same model, and a model that was trained
on (en, fr) rows of as many sentences.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd

import harness

RECIPES = harness.HERE.parent / "recipes"


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="60m")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--zero-shot", action="store_true")
    way.add_argument("--run", type=Path)
    args = parser.parse_args()
    folder = harness.need_data(args) / "multi30k"
    budget = "30s" if args.quick else args.budget
    if args.zero_shot:
        figures, name = zero_shot(args, folder, budget), "zero-shot-translation"
    else:
        figures, name = direct(args, folder, budget), "translation"
    protocol = (
        f"`omnifill train --recipe recipes/… --budget {budget}`, then `omnifill fill --beams 5` of "
        "test_2016_flickr; BLEU lower-cased, tokenised by Moses' rules; sacreBLEU 13a cased; chrF2"
    )
    harness.keep(name, protocol, figures, quick=args.quick)


def lines(folder: Path, part: str, language: str) -> list[str]:
    text = gzip.open(folder / f"{part}.{language}.gz", "rt", encoding="utf-8").read()
    return text.rstrip("\n").split("\n")


def direct(args, folder: Path, budget: str) -> dict[str, Any]:
    run = args.run or harness.fresh(args.work / "translation")
    if args.run is None:
        harness.omnifill("train", folder / "train.en.gz", folder / "train.de.gz", "--recipe",
                         RECIPES / "translation.yaml", "--budget", budget, "--out", run,
                         "--seed", args.seed)  # fmt: skip
    return {"weights": weights(run), **translated(args, run, folder, "en", "de")}


def weights(run: Path) -> int:
    from omnifill import api

    return sum(p.numel() for p in api.load(run).run.network.parameters())


def translated(args, run: Path, folder: Path, given: str, want: str,
               source: list[str] | None = None) -> dict[str, Any]:  # fmt: skip
    """BLEU of one direction on the test part."""
    texts = source or lines(folder, "test_2016_flickr", given)
    blanks, filled = args.work / "blanks.csv", args.work / "filled.csv"
    pd.DataFrame({given: texts, want: None}).to_csv(blanks, index=False)
    seconds = harness.omnifill("fill", run, blanks, "--beams", 5, "--out", filled)
    made, real = args.work / "made.txt", args.work / "real.txt"
    answers = pd.read_csv(filled, keep_default_na=False)[want].tolist()
    made.write_text("\n".join(a.replace("\n", " ") for a in answers) + "\n", encoding="utf-8")
    real.write_text("\n".join(lines(folder, "test_2016_flickr", want)) + "\n", encoding="utf-8")
    return {
        "fill_seconds": seconds,
        **harness.judge(args, "translation.py", made, real, "--language", want),
    }


def zero_shot(args, folder: Path, budget: str) -> dict[str, Any]:
    en, de, fr = (lines(folder, "train", language) for language in ("en", "de", "fr"))
    half = len(en) // 2
    pairs = {
        "en_de": [{"en": a, "de": b} for a, b in zip(en[:half], de[:half], strict=True)],
        "de_fr": [{"de": a, "fr": b} for a, b in zip(de[half:], fr[half:], strict=True)],
        "en_fr": [{"en": a, "fr": b} for a, b in zip(en[half:], fr[half:], strict=True)],
    }
    paths = {}
    for name, rows in pairs.items():
        paths[name] = args.work / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    run = harness.fresh(args.work / "zero-shot")
    harness.omnifill("train", paths["en_de"], paths["de_fr"], "--recipe",
                     harness.HERE / "zero_shot_translation.yaml", "--budget", budget, "--out", run,
                     "--seed", args.seed)  # fmt: skip
    at_once = translated(args, run, folder, "en", "fr")
    over = translated(args, run, folder, "en", "de")
    german = pd.read_csv(args.work / "filled.csv", keep_default_na=False)["de"].tolist()
    pivot = translated(args, run, folder, "de", "fr", german)
    same = harness.fresh(args.work / "direct")
    harness.omnifill("train", paths["en_fr"], "--given", "en", "--want", "fr", "--budget", budget,
                     "--set", "objective.name=seq2seq", "--set", "model.dropout=0.2", "--set",
                     "form.drop_given=0", "--field", "en:text", "--field", "fr:text", "--out", same,
                     "--seed", args.seed)  # fmt: skip
    return {"zero_shot": at_once, "en_de": over, "pivot": pivot,
            "direct": translated(args, same, folder, "en", "fr")}  # fmt: skip


if __name__ == "__main__":
    main()
