"""How strongly two columns hang together, from 0 (not at all) to 1, whatever their types."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np

from omnifill.evaluate.rows import Arrays, is_number
from omnifill.types import Floats, Ints

SURE = 4.0
"""Standard deviations beyond which chance is ruled out."""


def associations(columns: Arrays) -> dict[tuple[str, str], float]:
    """Two numbers: the absolute Pearson correlation. A number and a category: the correlation
    ratio. Two categories: Cramér's V with its bias taken off (Bergsma 2013)."""
    out = {}
    for a, b in combinations(columns, 2):
        x, y = columns[a], columns[b]
        if is_number(x) and is_number(y):
            out[a, b] = _pearson(x, y)
        elif is_number(x) or is_number(y):
            out[a, b] = _ratio(y, x) if is_number(x) else _ratio(x, y)
        else:
            out[a, b] = _cramer(x, y)
    return {pair: score for pair, score in out.items() if not math.isnan(score)}


def hang_together(x: Any, y: Any) -> bool:
    """Whether two columns are surely not independent: their chi-squared lies beyond `SURE`
    standard deviations of what independence gives. Numbers are cut into tenths."""
    counts = _table(*(_tenths(v) if is_number(v) else v for v in (x, y)))
    free = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return bool(free > 0 and _chi2(counts) > free + SURE * math.sqrt(2 * free))


def _tenths(values: Floats) -> Ints:
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.int64)
    edges = np.unique(np.quantile(known, np.arange(0.1, 1, 0.1)))
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, "right"))


def _table(x: Ints, y: Ints) -> Ints:
    """Counts of the pairs of values."""
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    rows, cols = int(x.max(initial=0)) + 1, int(y.max(initial=0)) + 1
    return np.bincount(x * cols + y, minlength=rows * cols).reshape(rows, cols)


def _chi2(counts: Ints) -> float:
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def _pearson(x: Floats, y: Floats) -> float:
    there = ~(np.isnan(x) | np.isnan(y))
    x, y = x[there], y[there]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return math.nan
    return abs(float(np.corrcoef(x, y)[0, 1]))


def _ratio(codes: Ints, values: Floats) -> float:
    """Root of the share of a number's variance that lies between the categories."""
    there = ~np.isnan(values)
    codes, values = np.unique(codes[there], return_inverse=True)[1], values[there]
    if len(values) < 2 or values.std() == 0:
        return math.nan
    num = np.bincount(codes)
    means = np.bincount(codes, weights=values) / num
    between = (num * (means - values.mean()) ** 2).sum()
    return math.sqrt(min(1.0, float(between / ((values - values.mean()) ** 2).sum())))


def _cramer(x: Ints, y: Ints) -> float:
    counts = _table(x, y)
    (rows, cols), num = counts.shape, len(x)
    if min(rows, cols) < 2 or num < 2:
        return math.nan
    share = max(0.0, _chi2(counts) / num - (rows - 1) * (cols - 1) / (num - 1))
    least = min(rows - (rows - 1) ** 2 / (num - 1), cols - (cols - 1) ** 2 / (num - 1)) - 1
    return min(1.0, math.sqrt(share / least)) if least > 0 else math.nan
