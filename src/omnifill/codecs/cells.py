"""Which numbers a number field can represent, grouped into cells. Pure arithmetic on arrays.

A cell is a *spike* (one value) or a run of neighbouring values with its own points. All points
of all cells form one strictly increasing line, so encoding is the search for the nearest point.
It knows no codes and no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from omnifill.types import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Cells:
    """P points in C cells, in increasing order."""

    points: Floats
    """(P,), strictly increasing."""
    counts: Ints
    """(C,): how many of the points belong to each cell; at least one."""


@dataclass(frozen=True, eq=False)
class Tally:
    """Distinct numbers, increasing, and how often each was seen."""

    values: Floats
    counts: Ints

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def regrouped(self, values: Floats) -> Tally:
        """The same counts under other values (non-decreasing), equal ones made one."""
        distinct, group = np.unique(values, return_inverse=True)
        counts = np.bincount(group, weights=self.counts, minlength=len(distinct))
        return Tally(distinct, counts.astype(np.int64))


def tally(chunks: Iterable[Floats], limit: int = 1 << 20) -> Tally:
    """Count a stream in bounded memory: at most about `limit` distinct numbers are kept.

    Beyond that, rare neighbours are counted as one; the least, the greatest and all frequent
    numbers stay exact.
    """
    seen = Tally(np.zeros(0), np.zeros(0, np.int64))
    waiting: list[Floats] = []
    num_waiting = 0
    for chunk in chunks:
        waiting.append(chunk)
        num_waiting += len(chunk)
        if num_waiting >= max(limit // 2, 1):
            seen = _thin(_merge(seen, waiting), limit)
            waiting, num_waiting = [], 0
    return _thin(_merge(seen, waiting), limit)


def _merge(seen: Tally, chunks: list[Floats]) -> Tally:
    values, counts = np.unique(np.concatenate([np.zeros(0), *chunks]), return_counts=True)
    both = np.concatenate([seen.values, values])
    return Tally(both, np.concatenate([seen.counts, counts.astype(np.int64)])).regrouped(both)


def _thin(seen: Tally, limit: int) -> Tally:
    """Halve the rare values until at most `limit` are left."""
    while len(seen.values) > limit:
        keep = seen.counts * (limit / 4) >= seen.total
        keep[[0, -1]] = True
        rare = np.flatnonzero(~keep)
        if len(rare) < 2:
            break
        pairs = rare[: len(rare) // 2 * 2].reshape(-1, 2)
        values = seen.values.copy()
        # Every other pair moves down, the others up, so that the whole does not drift.
        values[pairs[0::2, 1]] = values[pairs[0::2, 0]]
        values[pairs[1::2, 0]] = values[pairs[1::2, 1]]
        seen = seen.regrouped(values)
    return seen


def default_cells(num_values: int) -> int:
    """How many cells so many training values can fill: a power of two, 16 to 256."""
    return _power_of_two(2 * np.sqrt(max(num_values, 1)), 16, 256)


def default_levels(num_values: int, num_cells: int) -> int:
    """How many points a cell gets: a power of two, 16 to 256, about 4 points for each value."""
    return _power_of_two(4 * num_values / num_cells, 16, 256)


def _power_of_two(target: float, low: int, high: int) -> int:
    return int(np.clip(2 ** np.ceil(np.log2(max(target, 1.0))), low, high))


def build_cells(seen: Tally, num_cells: int, num_levels: int, whole: bool) -> Cells:
    """At most `num_cells` cells of at most `num_levels` points each.

    `whole`: the values are whole numbers, and so are the points; a cell that spans no more than
    `num_levels` of them has a point at each. Every cell's least and greatest training value are
    points, so no point lies outside the training range.
    """
    values = seen.values
    if len(values) <= num_cells:
        return Cells(values, np.ones(len(values), np.int64))
    starts = _cell_starts(seen, num_cells)
    ends = np.append(starts[1:], len(values))
    cells = [
        _points(values[start:end], num_levels, whole)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return Cells(np.concatenate(cells), np.array([len(cell) for cell in cells], np.int64))


def _cell_starts(seen: Tally, num_cells: int) -> Ints:
    """The index of the first distinct value of each cell."""
    spikes = _spikes(seen, num_cells)
    # A run is a spike, or the values between two spikes.
    edge = np.ones(len(spikes), bool)
    edge[1:] = spikes[1:] | spikes[:-1]
    starts = np.flatnonzero(edge)
    ends = np.append(starts[1:], len(spikes))
    mass = np.add.reduceat(seen.counts, starts).astype(np.float64)
    mass[spikes[starts]] = 0.0
    shares = _shares(mass, ends - starts, num_cells)
    cuts = [
        start + _equal_cuts(seen.counts[start:end], share)
        for start, end, share in zip(starts.tolist(), ends.tolist(), shares.tolist(), strict=True)
    ]
    return np.concatenate(cuts)


def _spikes(seen: Tally, num_cells: int) -> Bools:
    """(U,): which values hold a cell's mass alone, as many as leave a cell for each gap."""
    threshold = seen.total / num_cells
    while True:
        spikes = seen.counts >= threshold
        gaps = np.flatnonzero(~spikes)
        num_runs = int(spikes.sum()) + (1 + int((np.diff(gaps) > 1).sum()) if len(gaps) else 0)
        if num_runs <= num_cells:
            return spikes
        threshold *= 2


def _shares(mass: Floats, room: Ints, num_cells: int) -> Ints:
    """Cells for each run: one at least, `room` at most, the rest by mass."""
    shares = np.ones(len(mass), np.int64)
    left = num_cells - len(mass)
    while left > 0:
        weight = np.where(shares < room, mass, 0.0)
        if weight.sum() <= 0:
            break
        wanted = weight / weight.sum() * left
        more = np.minimum(np.floor(wanted).astype(np.int64), room - shares)
        if more.sum() == 0:  # fewer cells are left than runs: the largest remainders first
            order = np.argsort(-wanted, kind="stable")
            order = order[weight[order] > 0][:left]
            more[order] = 1
        shares += more
        left -= int(more.sum())
    return shares


def _equal_cuts(counts: Ints, num_cells: int) -> Ints:
    """(num_cells,): where cells of about equal mass start; each holds a value at least."""
    below = np.cumsum(counts) - counts / 2
    ideal = np.searchsorted(below, np.arange(num_cells) * (counts.sum() / num_cells))
    order = np.arange(num_cells)
    cuts = np.maximum.accumulate(np.maximum(ideal - order, 0)) + order
    cuts = np.minimum(cuts, len(counts) - num_cells + order)
    cuts[0] = 0
    return np.asarray(cuts, np.int64)


def _points(values: Floats, num_levels: int, whole: bool) -> Floats:
    """The points of one cell with these distinct training values."""
    low, high = values[0], values[-1]
    if len(values) == 1:
        return values
    if whole and high - low < num_levels:
        return np.unique(low + np.arange(int(high - low) + 1))  # unique: beyond 2^53 some coincide
    # Half by value and half by rank: even spacing where values are even, and in a long tail
    # enough points near the values that are there.
    rank = np.linspace(0.0, 1.0, len(values))
    place = (_fraction(values) + rank) / 2
    points = _interpolate(np.linspace(0.0, 1.0, num_levels), place, values)
    if whole:
        points = np.rint(points)
    points = np.clip(points, low, high)
    points[0], points[-1] = low, high
    return np.unique(points) + 0.0  # + 0.0: there is no -0.0


def _fraction(values: Floats) -> Floats:
    """Increasing values -> 0 … 1, without overflow or underflow of the span."""
    with np.errstate(over="ignore"):
        span = values[-1] - values[0]
    if np.isfinite(span):
        return np.asarray((values - values[0]) / span)
    return np.asarray((values / 2 - values[0] / 2) / (values[-1] / 2 - values[0] / 2))


def _interpolate(at: Floats, place: Floats, values: Floats) -> Floats:
    """np.interp without slopes, which overflow for values of very different sizes."""
    left = np.clip(np.searchsorted(place, at, side="right") - 1, 0, len(place) - 2)
    t = np.clip((at - place[left]) / (place[left + 1] - place[left]), 0.0, 1.0)
    mixed = values[left] * (1 - t) + values[left + 1] * t
    return np.asarray(np.clip(mixed, values[left], values[left + 1]))


def midpoints(points: Floats) -> Floats:
    """(P - 1,): where the nearest point changes: left <= middle < right, overflow or not."""
    left, right = points[:-1], points[1:]
    with np.errstate(over="ignore"):
        gap = right - left
    middle = np.where(np.isfinite(gap), left + gap / 2, left / 2 + right / 2)
    return np.asarray(np.where((middle >= right) | (middle < left), left, middle))
