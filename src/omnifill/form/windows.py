"""How a record longer than the context is read: in windows, in training and when it is scored.

A window opens with the record's head, the fields of few slots that stand before its first text, so
that every piece of a long text is told what it belongs to; then comes a piece of the rest. A record
that fits is one window. Slots that were in an earlier window may be looked at again, uncounted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from omnifill.form.vocabulary import Vocabulary
from omnifill.types import Ints


@dataclass(frozen=True, eq=False)
class Windows:
    """n windows, each of one record as it is laid out. All (n,)."""

    record: Ints
    start: Ints
    stop: Ints
    """Slots start … stop of the record; where start > 0, its head comes before them."""
    seen: Ints
    """How many of those slots are only looked at."""

    def __getitem__(self, which: Ints) -> Windows:
        return Windows(self.record[which], self.start[which], self.stop[which], self.seen[which])

    def lens(self, head: int) -> Ints:
        """(n,): slots of each window, its head included."""
        return self.stop - self.start + head * (self.start > 0)


def head_size(vocabulary: Vocabulary) -> int:
    """Slots of the longest head: all fields but texts."""
    return sum(field.slots or 0 for field in vocabulary.fields)


def cut(sizes: Ints, context: int, head: int, seen: int, rng: Generator | None) -> Windows:
    """Windows of at most `context` slots in which every slot comes once.

    A long record starts with a window of random length, so that the cuts differ from epoch to
    epoch (None: no shift). `seen`: first slots of a later window that do not count, for nothing is
    known before them and they would be taken for the beginning of a text.
    """
    parts = [_whole(sizes, context)]
    for record in np.flatnonzero(sizes > context).tolist():
        first = context if rng is None else int(rng.integers(head + 1, context + 1))
        size = int(sizes[record])
        edges = np.concatenate([[0], np.arange(first, size, context - head), [size]])
        parts.append(_windows(record, edges[:-1], edges[1:], np.minimum(edges[:-1], seen)))
    return _joined(parts)


def overlapping(sizes: Ints, context: int, head: int, most: int | None = None) -> Windows:
    """Windows for scoring: every slot counts once, with at least half a window before it.

    `most`: of each record only so many of the first windows.
    """
    parts = [_whole(sizes, context)]
    half = max(1, (context - head) // 2)
    for record in np.flatnonzero(sizes > context).tolist():
        size = int(sizes[record])
        edges = np.concatenate([[0], np.arange(context, size, context - head - half), [size]])
        edges = edges[: most + 1 if most else None]
        back = np.minimum(edges[:-1], half)
        parts.append(_windows(record, edges[:-1] - back, edges[1:], back))
    return _joined(parts)


def last_ones(sizes: Ints, context: int, head: int) -> Windows:
    """The last window of every record, in order: what stands before its last field."""
    start = np.where(sizes > context, sizes - (context - head), 0)
    return Windows(np.arange(len(sizes)), start, sizes, np.zeros_like(sizes))


def _whole(sizes: Ints, context: int) -> Windows:
    fits = np.flatnonzero(sizes <= context)
    return _windows(fits, np.zeros_like(fits), sizes[fits], np.zeros_like(fits))


def _windows(record: Ints | int, start: Ints, stop: Ints, seen: Ints) -> Windows:
    return Windows(np.broadcast_to(np.asarray(record), start.shape), start, stop, seen)


def _joined(parts: list[Windows]) -> Windows:
    return Windows(*(
        np.concatenate([np.asarray(getattr(part, name), np.int64) for part in parts])
        for name in ("record", "start", "stop", "seen")
    ))  # fmt: skip
