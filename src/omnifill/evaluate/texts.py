"""Generated texts by themselves: diversity, loops, length. No reference is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from omnifill.evaluate.intervals import Measure, interval

UNSPACED = re.compile("[\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
                      "\U00020000-\U0003ffff]")  # fmt: skip
"""Letters of scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han."""
LOOP = 4
"""Words (or characters) of a run that must not come back at once."""


def text_figures(texts: Sequence[str]) -> dict[str, Measure]:
    """distinct_4 (of texts that long), loops and length; words, or characters where no words
    stand apart."""
    cut = [units(text) for text in texts]
    varied = {"distinct_4": distinct(cut, 4)} if any(len(t) >= 4 for t in cut) else {}
    return varied | {
        "loops": interval(np.array([loops(tokens) for tokens in cut], float)),
        "length": interval(np.array([len(text) for text in texts], float)),
    }


def units(text: str) -> list[str]:
    """Words by white space; the characters of a text that is hardly ever spaced, or mostly in a
    script that sets no spaces."""
    words = text.split()
    spaced = len(text) < 20 * len(words) and 2 * len(UNSPACED.findall(text)) < len(text)
    return words if spaced else list(text)


def distinct(cut: Sequence[Sequence[str]], n: int) -> Measure:
    """Share of the n-grams of all texts together that are different ones (Li et al. 2016)."""
    number: dict[tuple[str, ...], int] = {}
    grams = [
        [number.setdefault(tuple(t[i : i + n]), len(number)) for i in range(len(t) - n + 1)]
        for t in cut
    ]
    coded = [np.array(g, np.int64) for g in grams if g]
    if not coded:
        return interval(np.zeros(0))

    def share(rows: object) -> float:
        together = np.concatenate([coded[i] for i in np.atleast_1d(np.asarray(rows))])
        return len(np.unique(together)) / len(together)

    # A resampled text would count as its own repetition: the spread of halves instead.
    value = share(np.arange(len(coded)))
    rng = np.random.default_rng(0)
    halves = [share(rng.permutation(len(coded))[: max(1, len(coded) // 2)]) for _ in range(40)]
    spread = 1.96 * float(np.std(halves))
    low, high = max(0.0, value - spread), min(1.0, value + spread)
    return {"value": value, "low": low, "high": high, "n": len(coded)}


def loops(tokens: Sequence[str]) -> bool:
    """Whether a run of 1 to `LOOP` words stands three times in a row."""
    for width in range(1, LOOP + 1):
        same = 0
        for place in range(width, len(tokens)):
            same = same + 1 if tokens[place] == tokens[place - width] else 0
            if same >= 2 * width:
                return True
    return False
