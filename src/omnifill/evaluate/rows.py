"""Generated rows beside real ones: column shapes, pair trends, and can a classifier tell?

Shapes and trends are SDMetrics' two scores (docs.sdv.dev/sdmetrics), computed here since that
package holds pandas below 3. The classifiers are XGBoost's, from the extra `evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.schema import Schema
from omnifill.types import ABSENT, Floats, Ints

Arrays = dict[str, Any]
"""Columns: float64 (numbers, dates; NaN: blank) or int64 codes (categories; -1: blank)."""
MOST_CLASSES = 20
BINS = 10
"""Equal cells of a number that is held against a category."""


def as_arrays(
    schema: Schema, *parts: Mapping[str, Sequence[Any]], texts: bool = False
) -> list[Arrays]:
    """Canonical columns of several tables, coded alike; texts only as values, if asked for."""
    out: list[Arrays] = [{} for _ in parts]
    for spec in schema.fields:
        if any(spec.name not in part for part in parts):
            continue
        columns = [part[spec.name] for part in parts]
        if spec.type in ("number", "datetime"):
            for made, values in zip(out, columns, strict=True):
                made[spec.name] = np.array([np.nan if v is None else v for v in values], float)
            _scale([part[spec.name] for part in out])
        elif spec.type == "category" or texts:
            code: dict[Any, int] = {None: -1, ABSENT: -2}
            for made, values in zip(out, columns, strict=True):
                made[spec.name] = np.array(
                    [code.setdefault(v, len(code) - 2) for v in values], np.int64
                )
    return out


def _scale(columns: Sequence[Floats]) -> None:
    """Bring huge numbers within [-1, 1]: nothing here depends on the unit, squares overflow, and
    trees see single precision, whose numbers end at 3e38."""
    most = max((float(np.nanmax(np.abs(c), initial=0)) for c in columns), default=0.0)
    for column in columns if most > 1e30 else []:
        column /= most


def is_number(values: Any) -> bool:
    return bool(values.dtype.kind == "f")


# --- shapes and trends ---------------------------------------------------------------------


def column_shapes(real: Arrays, made: Arrays) -> dict[str, float]:
    """Each column: 1 - the Kolmogorov-Smirnov distance (numbers), or - the total variation."""
    out = {}
    for name in real:
        if is_number(real[name]):
            out[name] = 1 - ks_distance(real[name], made[name])
        else:
            out[name] = 1 - variation(_shift(real[name]), _shift(made[name]))
    return {name: score for name, score in out.items() if not math.isnan(score)}


def pair_trends(real: Arrays, made: Arrays) -> dict[tuple[str, str], float]:
    """Each pair: 1 - half the difference of Pearson correlations (numbers), else 1 - the total
    variation of the joint table, where a number is cut into ten equal cells of its own range."""
    cells = [{n: _cells(v) if is_number(v) else _shift(v) for n, v in part.items()}
             for part in (real, made)]  # fmt: skip
    out = {}
    for a, b in combinations(real, 2):
        if is_number(real[a]) and is_number(real[b]):
            both = [_correlation(part[a], part[b]) for part in (real, made)]
            out[a, b] = 1 - abs(both[0] - both[1]) / 2
        else:
            width = 1 + max(int(part[b].max(initial=0)) for part in cells)
            joint = [part[a] * width + part[b] for part in cells]
            out[a, b] = 1 - variation(joint[0], joint[1])
    return {pair: score for pair, score in out.items() if not math.isnan(score)}


def ks_distance(real: Floats, made: Floats) -> float:
    """Largest distance of the two distribution functions; blanks are left out."""
    real, made = np.sort(real[~np.isnan(real)]), np.sort(made[~np.isnan(made)])
    if not len(real) or not len(made):
        return math.nan
    at = np.concatenate([real, made])
    ours, theirs = (np.searchsorted(x, at, "right") / len(x) for x in (real, made))
    return float(np.abs(ours - theirs).max())


def variation(real: Ints, made: Ints) -> float:
    """Total variation distance of two samples of codes >= 0."""
    top = max(int(real.max(initial=0)), int(made.max(initial=0)))
    if top > 1 << 22:  # sparse: number the codes that occur
        together = np.unique(np.concatenate([real, made]), return_inverse=True)[1]
        real, made, top = together[: len(real)], together[len(real) :], int(together.max())
    if not len(real) or not len(made):
        return math.nan
    shares = [np.bincount(x, minlength=top + 1) / len(x) for x in (real, made)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _shift(codes: Ints) -> Ints:
    return codes + 2


def _cells(values: Floats) -> Ints:
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.int64)
    low, high = known.min(), known.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    return np.where(np.isnan(values), BINS + 2, np.digitize(values, edges)).astype(np.int64)


def _correlation(a: Floats, b: Floats) -> float:
    there = ~(np.isnan(a) | np.isnan(b))
    a, b = a[there], b[there]
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def quality(real: Arrays, made: Arrays, draws: int = 20) -> dict[str, Measure]:
    """Mean column shape and mean pair trend, with intervals over resampled generated rows."""
    num = len(next(iter(made.values()))) if made else 0
    out = {}
    for name, measure in (("column_shapes", column_shapes), ("pair_trends", pair_trends)):
        if len(made) < (1 if measure is column_shapes else 2):
            continue

        def mean(rows: Ints, measure: Any = measure) -> float:
            scores = measure(real, {n: v[rows] for n, v in made.items()})
            return float(np.mean(list(scores.values()))) if scores else math.nan

        out[name] = interval_of(mean, num, draws, most=1.0)
    return out


# --- classifiers ---------------------------------------------------------------------------


def two_sample(held_out: Arrays, made: Arrays, seed: int = 0) -> Measure:
    """1 - 2 |AUC - 1/2| of a classifier that tells generated from unseen real rows; 1: it cannot.

    Equally many of each; two folds, each judged by the trees grown on the other (classifier
    two-sample test: Lopez-Paz and Oquab 2017, arXiv 1610.06545).
    """
    rng = np.random.default_rng(seed)
    num = min(len(next(iter(part.values()))) for part in (held_out, made))
    chosen = [rng.permutation(len(next(iter(p.values()))))[:num] for p in (held_out, made)]
    both = {n: np.concatenate([held_out[n][chosen[0]], made[n][chosen[1]]]) for n in held_out}
    label = np.repeat([0, 1], num)
    fold = np.concatenate([rng.permutation(num) % 2 for _ in chosen])
    scores = np.zeros(2 * num)
    frame = _features(both)
    for side in (0, 1):
        model = boosted(2)
        model.fit(frame[fold != side], label[fold != side])
        scores[fold == side] = model.predict_proba(frame[fold == side])[:, 1]

    def measure(rows: Ints) -> float:
        folds = [rows[fold[rows] == side] for side in (0, 1)]
        return float(np.mean([1 - 2 * abs(auc(label[f], scores[f]) - 0.5) for f in folds]))

    return interval_of(measure, 2 * num, 200)


def targets(test: Arrays) -> list[str]:
    """Categories that a classifier is asked for: of 2 to `MOST_CLASSES` values, with others."""
    few = [
        n for n, v in test.items()
        if not is_number(v) and 2 <= len(np.unique(v[v >= 0])) <= MOST_CLASSES
    ]  # fmt: skip
    return few if len(test) > 1 else []


def learnt(train: Arrays, test: Arrays, target: str) -> Measure:
    """Accuracy on real rows of a classifier of the category `target` grown on `train`."""
    values = np.unique(train[target][train[target] >= 0])
    if len(values) < 2:  # nothing to tell apart: one answer for all
        right = (test[target][test[target] >= 0] == values[:1]).astype(float)
        return interval(right)
    known = np.isin(test[target], values)
    rows = np.flatnonzero(train[target] >= 0)
    model = boosted(len(values))
    rest = {n: v for n, v in train.items() if n != target}
    # Both parts in one frame, so that categories have the same codes.
    asked = np.flatnonzero(test[target] >= 0)
    frame = _features({n: np.concatenate([train[n][rows], test[n][asked]]) for n in rest})
    model.fit(frame[: len(rows)], np.searchsorted(values, train[target][rows]))
    answers = values[model.predict(frame[len(rows) :]).astype(int)]
    right = ((answers == test[target][asked]) & known[asked]).astype(float)
    return interval(right)


def boosted(num_classes: int) -> Any:
    """XGBoost at the settings that are used throughout."""
    from xgboost import XGBClassifier

    kind = "binary:logistic" if num_classes == 2 else "multi:softprob"
    return XGBClassifier(
        objective=kind, enable_categorical=True, n_estimators=60, max_depth=6,
        learning_rate=0.1, tree_method="hist", n_jobs=2, random_state=0,
    )  # fmt: skip


def _features(arrays: Arrays) -> pd.DataFrame:
    """The rows as a frame, categories as such; XGBoost refuses some names, so there are none."""
    columns = enumerate(pd.Series(values) for values in arrays.values())
    return pd.DataFrame({f"c{i}": c if is_number(c) else c.astype("category") for i, c in columns})


def auc(label: Ints, scores: Floats) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney); ties count half."""
    ones = scores[label == 1]
    zeros = np.sort(scores[label == 0])
    if not len(ones) or not len(zeros):
        return math.nan
    below = np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")
    return float(below.mean() / 2 / len(zeros))
