"""Generated texts against the real ones of the same records: BLEU, chrF, ROUGE-L.

Only where a record's other fields foretell its text: a translation, a summary, a description of
data. There the text is written greedily from all other fields of an unseen record. Beside it
stands the text of a training record picked at random. From the extra `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.evaluate.evaluation import Columns
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.evaluate.texts import units
from omnifill.form.encode import without_unknown
from omnifill.generate.filters import Sampling
from omnifill.generate.tables import fill_columns

MOST = 100
"""Texts that are written."""
DRAWS = 40


def has_reference(run: LoadedRun, name: str) -> bool:
    """Whether a text is foretold by others: there is another text, of more than a title or a
    number, or a task asks for it."""
    texts = [field for field in run.vocabulary.fields if field.slots is None]
    asked = any(name in task.want and task.given for task in run.recipe.form.tasks)
    return (len(texts) > 1 and not run.recipe.form.windows) or asked


def answered(run: LoadedRun, name: str, held_out: Columns) -> tuple[list[str], list[str]]:
    """(real texts, texts written from the other fields of their records), at most `MOST`."""
    tasks = [task for task in run.recipe.form.tasks if name in task.want]
    given = tasks[0].given if tasks else [n for n in held_out if n != name]
    rows = [i for i, text in enumerate(held_out[name]) if text][:MOST]
    known = {n: [held_out[n][i] for i in rows] for n in given if n in held_out}
    asked, _ = without_unknown(run.vocabulary, {**known, name: [None] * len(rows)})
    made = fill_columns(run, asked, draw=False, seed=0, sampling=Sampling(), only=[name])[name]
    return [held_out[name][i] for i in rows], [made[i] or "" for i in range(len(rows))]


def likeness(real: Sequence[str], made: Sequence[str]) -> dict[str, Measure]:
    """bleu, chrf (0 to 100, sacrebleu) and rouge_l (F1, torchmetrics) of pairs of texts."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    spaced = sum(len(units(t)) == len(t.split()) for t in real) > len(real) / 2
    scores = {"bleu": BLEU(tokenize="13a" if spaced else "char"), "chrf": CHRF()}
    out = {}
    for name, metric in scores.items():

        def of(rows: np.ndarray, metric: BLEU | CHRF = metric) -> float:
            some = [made[i] for i in rows.tolist()]
            return float(metric.corpus_score(some, [[real[i] for i in rows.tolist()]]).score)

        out[name] = interval_of(of, len(real), DRAWS)
    return out | {"rouge_l": interval(rouge_l(real, made))}


def rouge_l(real: Sequence[str], made: Sequence[str]) -> np.ndarray:
    """(n,): F1 of the longest common subsequence of words, or of characters where none stand
    apart (Lin 2004)."""
    from torchmetrics.functional.text.rouge import rouge_score

    scores = [
        rouge_score(ours, [truth], rouge_keys="rougeL", normalizer=str, tokenizer=units)
        for truth, ours in zip(real, made, strict=True)
    ]
    return np.array([float(score["rougeL_fmeasure"]) for score in scores])
