"""A figure is a value, its 95 % interval and the number of samples behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from omnifill.types import Floats

Measure = dict[str, float | int]
"""value, low, high, n."""
DRAWS = 500
"""Resamples behind an interval."""


def interval(samples: Floats) -> Measure:
    """Mean of independent samples with a 95 % bootstrap interval."""
    return interval_of(lambda i: float(samples[i].mean()), len(samples))


def interval_of(
    measure: Callable[[Any], float], num: int, draws: int = DRAWS, most: float = math.inf
) -> Measure:
    """A measure of resampled rows: its value on all, and the 2.5 % and 97.5 % of resamples.

    Of few `draws`, whose own tails say little, the spread makes a normal interval, up to the `most`
    that the measure can be.
    """
    if num == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    rng = np.random.default_rng(0)
    drawn = [measure(rng.integers(0, num, num)) for _ in range(draws)]
    value = measure(np.arange(num))
    if draws >= 200:
        low, high = np.quantile(drawn, [0.025, 0.975])
    else:
        low, high = np.minimum(value + np.array([-1.96, 1.96]) * np.std(drawn), most)
    # A measure that has a bound, such as |AUC - 1/2|, is drawn away from it by resampling.
    ends = float(min(low, value)), float(max(high, value))
    return {"value": value, "low": ends[0], "high": ends[1], "n": num}
