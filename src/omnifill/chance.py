"""Chance as a pure function of numbers, so that a row draws the same alone and in any batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnifill.types import Floats, Ints


def uniforms(seed: int, rows: Ints, slot: Ints) -> Floats:
    """Numbers in [0, 1) for (row, slot) pairs: SplitMix64 of the three (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = _mix(np.full(np.broadcast(rows, slot).shape, seed, np.uint64) + _GOLDEN)
        x = _mix(x + np.asarray(rows).astype(np.uint64) * np.uint64(0xD1342543DE82EF95))
        x = _mix(x + np.asarray(slot).astype(np.uint64) * _GOLDEN)
    out: Floats = (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
