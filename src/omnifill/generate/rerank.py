"""Of several candidates, the one that most of the others agree with.

Minimum Bayes risk (Kumar and Byrne 2004; as self-consistency, Wang et al. 2022, arXiv 2203.11171):
the candidates stand for what the model believes, and the kept one has the greatest mean likeness to
them. Likeness of texts is chrF (Popović 2015; sacrebleu, from the extra `evaluate`).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError
from omnifill.generate.filters import Sampling
from omnifill.generate.turns import pause
from omnifill.progress import Progress

MOST = 64


def check_rerank(run: LoadedRun, want: Sequence[str], num: int, sampling: Sampling) -> None:
    """RequestError where there is nothing to choose from, or nothing to choose by."""
    if not 1 <= num <= MOST:
        raise RequestError(f"rerank = {num}: must be from 1 to {MOST}")
    if not any(run.vocabulary[name].slots is None for name in want):
        raise RequestError("rerank: compares texts, and no text is wanted")
    if sampling.temperature == 0 or sampling.beams > 1:
        raise RequestError(
            "rerank: needs candidates that differ: leave out temperature 0 and beams"
        )
    if importlib.util.find_spec("sacrebleu") is None:
        raise RequestError("rerank: compares by chrF: pip install 'omnifill[evaluate]'")


def agreed(run: LoadedRun, columns: Mapping[str, Sequence[Any]], num: int) -> list[int]:
    """Columns of num candidates a record, one after another -> rows of the chosen ones."""
    texts = [name for name in columns if run.vocabulary[name].slots is None]
    rows = list(zip(*(columns[name] for name in texts), strict=True))
    chosen = []
    with Progress("re-ranking", len(rows) // num, "records") as progress:
        for first in range(0, len(rows), num):
            shown = ["\n".join(text or "" for text in row) for row in rows[first : first + num]]
            chosen.append(first + most_agreed(shown))
            progress.advance(1)
    return chosen


def most_agreed(texts: Sequence[str]) -> int:
    """Place of the text with the greatest mean chrF to all of them; the first of equals."""
    from sacrebleu.metrics.chrf import CHRF

    counts = Counter(texts)  # the same text twice counts twice, and is compared once
    metric = CHRF()
    score = dict[str, float]()
    for text in counts:
        score[text] = sum(
            times * metric.sentence_score(text, [other]).score for other, times in counts.items()
        )
        pause()
    return max(range(len(texts)), key=lambda i: (score[texts[i]], -i))
