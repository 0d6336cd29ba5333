"""English to German on multi30k, and a pair of languages that was never seen together.

    python benchmarks/translation.py --data DIR [--zero-shot] [--budget 60m] [--trained DIR]

BLEU of the published protocol (lower-cased, tokenised), and sacreBLEU (13a, cased) and chrF beside
it. With `--zero-shot`, a model learns (en, de) rows of one half of the training part and (de, fr)
rows of the other, and translates en -> fr at once; beside it go the way over German with the same
model, and a model that was trained on (en, fr) rows of as many sentences. `--trained` judges runs
that the same commands left in a folder: translation, or zero-shot and direct.
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
    parser.add_argument("--budget", help="of each training; default: the recipe's")
    parser.add_argument("--zero-shot", action="store_true")
    parser.add_argument("--trained", type=Path, help="folder of runs to judge")
    args = parser.parse_args()
    folder = harness.need_data(args) / "multi30k"
    args.budget = "30s" if args.quick else args.budget or ("20m" if args.zero_shot else "60m")
    figures = zero_shot(args, folder) if args.zero_shot else direct(args, folder)
    name = "zero-shot-translation" if args.zero_shot else "translation"
    protocol = (
        f"`omnifill train --recipe recipes/… --budget {args.budget}`, then `omnifill fill --beams "
        "5` of test_2016_flickr; BLEU lower-cased, tokenised by Moses' rules; sacreBLEU 13a cased; "
        "chrF2" + "; trained before, and judged now" * (args.trained is not None)
    )
    harness.keep(name, protocol, figures, quick=args.quick)


def trained(args, name: str, recipe: str, *words: object) -> Path:
    """A run of a recipe."""
    if args.trained is not None:
        return args.trained / name
    run = harness.fresh(args.work / name)
    harness.omnifill("train", *words, "--recipe", RECIPES / recipe, "--budget", args.budget,
                     "--out", run, "--seed", args.seed)  # fmt: skip
    return run


def lines(folder: Path, part: str, language: str) -> list[str]:
    text = gzip.open(folder / f"{part}.{language}.gz", "rt", encoding="utf-8").read()
    return text.rstrip("\n").split("\n")


def direct(args, folder: Path) -> dict[str, Any]:
    files = [folder / f"train.{language}.gz" for language in ("en", "de")]
    run = trained(args, "translation", "translation.yaml", *files)
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


def zero_shot(args, folder: Path) -> dict[str, Any]:
    paths = written_halves(folder, args.work)
    run = trained(args, "zero-shot", "zero_shot_translation.yaml", paths["en_de"], paths["de_fr"])
    same = trained(args, "direct", "translation.yaml", paths["en_fr"], "--given", "en", "--want",
                   "fr", "--field", "en:text", "--field", "fr:text")  # fmt: skip
    at_once = translated(args, run, folder, "en", "fr")
    over = translated(args, run, folder, "en", "de")
    german = pd.read_csv(args.work / "filled.csv", keep_default_na=False)["de"].tolist()
    pivot = translated(args, run, folder, "de", "fr", german)
    best = translated(args, same, folder, "en", "fr")
    share = at_once["bleu_lower_tokenised"] / best["bleu_lower_tokenised"]
    return {"zero_shot": at_once, "share_of_direct": share, "pivot": pivot, "en_de": over,
            "direct": best}  # fmt: skip


def written_halves(folder: Path, out: Path) -> dict[str, Path]:
    """Pairs of the first half of the training part, and other pairs of the second."""
    en, de, fr = (lines(folder, "train", language) for language in ("en", "de", "fr"))
    half = len(en) // 2
    pairs = {
        "en_de": [{"en": a, "de": b} for a, b in zip(en[:half], de[:half], strict=True)],
        "de_fr": [{"de": a, "fr": b} for a, b in zip(de[half:], fr[half:], strict=True)],
        "en_fr": [{"en": a, "fr": b} for a, b in zip(en[half:], fr[half:], strict=True)],
    }
    paths = {name: out / f"{name}.jsonl" for name in pairs}
    for name, rows in pairs.items():
        paths[name].write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return paths


if __name__ == "__main__":
    main()
