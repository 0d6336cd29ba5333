"""The plain models that every figure stands beside, so that a bad one cannot look good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError, unknown_name
from omnifill.evaluate.evaluation import Columns, size
from omnifill.evaluate.ngram import Ngram
from omnifill.evaluate.template import Template
from omnifill.generate import requests, wishes


class TextBaseline(Protocol):
    """A model of texts that is no neural network."""

    def generate(self, num: int, seed: int) -> list[str]: ...


TEXT_BASELINES = ("ngram", "template")


def text_baseline(name: str, train: Sequence[str], valid: Sequence[str]) -> TextBaseline:
    """Learn a text baseline by its name; RequestError for an unknown one."""
    if name not in TEXT_BASELINES:
        raise RequestError(f"--baseline: {unknown_name('baseline', name, TEXT_BASELINES)}")
    return Ngram.fit(train, valid) if name == "ngram" else Template.fit(train)


def generate_baseline(
    run: LoadedRun, name: str, num: int, train: Columns, valid: Columns, *,
    given: Mapping[str, Any], seed: int,
) -> pd.DataFrame:  # fmt: skip
    """`num` records whose texts are a baseline's, learned from the training rows where the given
    values stand; all other fields are drawn from those rows, each by itself."""
    request = wishes.build(run, wishes.Wish(num, given, seed=seed))
    if request.part is not None:
        raise RequestError("a baseline knows nothing in part; leave out what is kept (--keep)")
    texts = [n for n in request.want if run.vocabulary[n].slots is None]
    if not texts:
        raise RequestError("--baseline makes texts, and this run has no text to make")
    train, valid = (_where(part, request.given) for part in (train, valid))
    if not size(train):
        raise RequestError(f"--baseline: no training row has {dict(given)}")
    columns = independent({n: train[n] for n in request.want}, num, seed)
    for text in texts:
        known = [[t for t in part[text] if t] for part in (train, valid)]
        columns[text] = list(text_baseline(name, *known).generate(num, seed))
    return requests.as_frame(run, columns | {n: [v] * num for n, v in request.given.items()})


def _where(columns: Columns, given: Mapping[str, Any]) -> Columns:
    """The rows that have the given values."""
    rows = [i for i in range(size(columns)) if all(columns[n][i] == v for n, v in given.items())]
    return {name: [values[i] for i in rows] for name, values in columns.items()}


def resampled(train: Columns, num: int, seed: int) -> dict[str, list[Any]]:
    """Training rows drawn with replacement: perfect shapes, and nothing but copies."""
    rows = np.random.default_rng(seed).integers(0, size(train), num)
    return {name: [values[i] for i in rows] for name, values in train.items()}


def independent(train: Columns, num: int, seed: int) -> dict[str, list[Any]]:
    """Each column drawn by itself: perfect shapes, and nothing that hangs together."""
    rng = np.random.default_rng(seed)
    return {
        name: [values[i] for i in rng.integers(0, len(values), num)]
        for name, values in train.items()
    }
