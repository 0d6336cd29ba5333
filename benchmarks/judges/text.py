"""Judge generated texts: label recovered, language, copied spans, distinct 4-grams.

Runs in an environment of its own (benchmarks/requirements-judges.txt).

    python judges/text.py label TRAIN.csv TEST.csv GENERATED.csv --text text --label domain
    python judges/text.py language GENERATED.csv HELD_OUT.csv
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pandas as pd

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    label = verbs.add_parser("label", help="is the given label recovered from the text?")
    for name in ("train", "test", "generated"):
        label.add_argument(name)
    label.add_argument("--text", required=True)
    label.add_argument("--label", required=True)
    language = verbs.add_parser("language", help="is each column in its own language?")
    language.add_argument("generated")
    language.add_argument("held_out")
    args = parser.parse_args()
    if args.verb == "label":
        frames = [read(p) for p in (args.train, args.test, args.generated)]
        print(json.dumps(judge_label(*frames, args.text, args.label)))
    else:
        print(json.dumps(judge_language(read(args.generated), read(args.held_out))))


def read(path: str) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def judge_label(
    train: pd.DataFrame, test: pd.DataFrame, made: pd.DataFrame, text: str, label: str
) -> Figures:
    """TF-IDF and logistic regression trained on real text read the label back."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    judge = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2),
        LogisticRegression(max_iter=1000, C=10),
    )
    judge.fit(train[text].fillna(""), train[label])
    sample = test.sample(min(len(test), len(made)), random_state=0)
    real, fake = sample[text].fillna("").tolist(), made[text].fillna("").tolist()
    grams = NGrams(train[text].fillna("").tolist())
    return {
        "recovered": float((judge.predict(fake) == made[label]).mean()),
        "recovered_held_out": float((judge.predict(real) == sample[label]).mean()),
        "distinct_4": distinct(fake, 4),
        "distinct_4_held_out": distinct(real, 4),
        "copied_span": grams.spans(fake),
        "copied_span_held_out": grams.spans(real),
        "words": float(np.mean([len(t.split()) for t in fake])),
        "words_held_out": float(np.mean([len(t.split()) for t in real])),
        "texts": len(fake),
    }


def distinct(texts: list[str], n: int) -> float:
    """Share of the word n-grams of all texts together that are different ones."""
    grams = [
        tuple(words[i : i + n])
        for words in (t.split() for t in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / max(1, len(grams))


class NGrams:
    """Finds, exactly up to hash collisions of 64 bits, word spans that stand in a corpus."""

    def __init__(self, texts: list[str]) -> None:
        self.known = {w: i + 1 for i, w in enumerate(sorted({w for t in texts for w in t.split()}))}
        self.corpus = self._flat(texts)

    def _flat(self, texts: list[str]) -> np.ndarray:
        # 0 ends a text, so that no span runs across two; unknown words are 0 too.
        rows = [[self.known.get(w, 0) for w in t.split()] + [0] for t in texts]
        return np.array([w for row in rows for w in row], np.uint64)

    def spans(self, texts: list[str]) -> dict[str, float]:
        """Longest copied span of each text, in words: mean, median, 95th percentile, longest."""
        made = self._flat(texts)
        owner = np.repeat(np.arange(len(texts)), [len(t.split()) + 1 for t in texts])
        best = np.zeros(len(texts), np.int64)
        there, mine = self.corpus.copy(), made.copy()
        n = 1
        while True:
            ok = np.isin(mine, there[there > 0]) & (mine > 0)
            if not ok.any():
                break
            best[np.unique(owner[: len(mine)][ok])] = n
            there, mine = (_longer(h, w, n) for h, w in ((there, self.corpus), (mine, made)))
            n += 1
        return {
            "mean": float(best.mean()), "median": float(np.median(best)),
            "p95": float(np.quantile(best, 0.95)), "longest": int(best.max()),
        }  # fmt: skip


def _longer(hashes: np.ndarray, words: np.ndarray, n: int) -> np.ndarray:
    """Hashes of spans of n words -> of n + 1; 0 where the span would cross an end."""
    left, right = hashes[:-1], words[n:]
    left = left[: len(right)]
    with np.errstate(over="ignore"):
        mixed = left * np.uint64(0x9E3779B97F4A7C15) + right * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> np.uint64(29)
    return np.where((left > 0) & (right > 0), mixed, np.uint64(0))


def judge_language(made: pd.DataFrame, held_out: pd.DataFrame) -> Figures:
    """py3langid, choosing among the columns' own languages."""
    import py3langid

    languages = list(made.columns)
    py3langid.set_languages(languages)

    def right(frame: pd.DataFrame) -> dict[str, float]:
        return {
            name: float(np.mean([py3langid.classify(t)[0] == name for t in frame[name].dropna()]))
            for name in languages
        }

    ours, real = right(made), right(held_out)
    texts = [t for name in languages for t in made[name].dropna()]
    return {
        "language": float(np.mean(list(ours.values()))),
        "language_held_out": float(np.mean(list(real.values()))),
        "by_language": ours,
        "by_language_held_out": real,
        "valid_unicode": float(np.mean(["�" not in t for t in texts])),
        "texts": len(texts),
    }


if __name__ == "__main__":
    main()
