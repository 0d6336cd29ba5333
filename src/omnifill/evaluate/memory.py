"""What generated records have in common with the training part: copies, spans, distances.

Each is to be read beside the same figure of held-out real records: real rows repeat one another
too. A copy alarm, and no claim about privacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnifill.types import Bools, Floats, Ints

LONGEST = 4096
"""Bytes: longer copied spans are reported as this long."""
PIECE, BEGINNING = 4, 2000
"""Characters of the pieces by which texts are compared, and of the texts that are looked at."""
MOST_BYTES = 1 << 24
"""Training text beyond this is not searched."""


def copied_rows(rows: Mapping[str, Sequence[Any]], train: Mapping[str, Sequence[Any]]) -> Bools:
    """(n,): which rows stand in the training part, all cells alike."""
    names = list(rows)
    seen = set(zip(*(train[name] for name in names), strict=True))
    return np.array([row in seen for row in zip(*rows.values(), strict=True)], bool)


def nearest(rows: Mapping[str, Any], train: Mapping[str, Any]) -> tuple[Floats, Ints]:
    """(n,) and (n,): distance to the closest training row, as the mean over the columns, and
    which one that is.

    Columns are arrays: codes of categories (int: 0 if equal, else 1), or numbers (float: their
    difference in ranks of the training part, from 0 to 1; NaN, a blank, is 1 from any number), or
    texts (object: see `texts_apart`).
    """
    num = len(next(iter(rows.values())))
    size = len(next(iter(train.values())))
    scaled = [_ranks(rows[n], train[n]) for n in rows]
    apart, which = np.full(num, np.inf), np.zeros(num, np.int64)
    step = max(1, (1 << 22) // max(size, 1))
    for first in range(0, num, step):
        total = np.zeros((min(step, num - first), size), np.float32)
        for ours, theirs in scaled:
            part = ours[first : first + step, None]
            if part.dtype.kind == "f":
                total += np.nan_to_num(np.abs(part - theirs), nan=1.0)
                total -= np.isnan(part) & np.isnan(theirs)
            elif part.dtype == object:
                total += texts_apart(part[:, 0].tolist(), theirs.tolist())
            else:
                total += part != theirs
        apart[first : first + step] = total.min(axis=1) / len(scaled)
        which[first : first + step] = total.argmin(axis=1)
    return apart, which


def texts_apart(ours: Sequence[Any], theirs: Sequence[Any]) -> Floats:
    """(n, N): from 0, all pieces of `PIECE` characters in common, to 1, none (Jaccard distance)."""
    mine = [_pieces(text) for text in ours]
    out = np.zeros((len(mine), len(theirs)))
    for column, text in enumerate(theirs):
        pieces = _pieces(text)
        for row, own in enumerate(mine):
            shared = len(own & pieces)
            either = len(own) + len(pieces) - shared
            out[row, column] = 1 - shared / either if either else 0
    return out


def _pieces(text: Any) -> set[str]:
    """Of the beginning of a text; a blank has none."""
    if not isinstance(text, str):
        return set()
    text = text[:BEGINNING]
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def _ranks(ours: Any, theirs: Any) -> tuple[Any, Any]:
    if ours.dtype.kind != "f":
        return ours, theirs
    known = np.sort(theirs[~np.isnan(theirs)])

    def rank(values: Floats) -> Any:
        low = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
        share = low / (2 * max(len(known), 1))
        return np.where(np.isnan(values), np.nan, share).astype(np.float32)

    return rank(ours), rank(theirs)


class Spans:
    """A suffix array of the training texts, which finds the longest copied span of a text."""

    def __init__(self, train: Sequence[str]) -> None:
        coded = [text.encode() + b"\xff" for text in train]  # no byte of UTF-8: spans end there
        self.data = np.frombuffer(b"".join(coded)[:MOST_BYTES], np.uint8)

    def longest(self, texts: Sequence[str]) -> list[str]:
        """For each text, the longest piece of it that stands in a training text; exact up to
        `LONGEST` bytes, and up to half a character at either end."""
        coded = [text.encode() for text in texts]
        ours = np.frombuffer(b"\xfe".join([*coded, b""]), np.uint8)
        both = np.concatenate([self.data, ours])
        order = suffix_array(both)
        match = np.zeros(len(both), np.int64)
        ours_in_order = order >= len(self.data)
        for turned in (False, True):
            walk = order[::-1] if turned else order
            mine = ours_in_order[::-1] if turned else ours_in_order
            # The nearest training suffix before each of ours, in sorted order.
            at = np.maximum.accumulate(np.where(mine, -1, np.arange(len(walk))))
            pairs = mine & (at >= 0)
            a, b = walk[pairs], walk[at[pairs]]
            match[a] = np.maximum(match[a], common_prefix(both, a, b))
        out, first = [], len(self.data)
        for data in coded:
            lens = match[first : first + len(data)]
            best = int(lens.argmax()) if len(lens) else 0
            size = int(lens[best]) if len(lens) else 0
            out.append(data[best : best + size].decode("utf-8", "ignore"))
            first += len(data) + 1
        return out


def suffix_array(data: Any, deep: int = LONGEST) -> Ints:
    """(n,) places of `data` (bytes), sorted by what follows, as far as `deep` bytes.

    Prefix doubling (Manber and Myers 1993), from eight bytes on.
    """
    num = len(data)
    padded = np.concatenate([data, np.zeros(8, np.uint8)]).astype(np.uint64)
    key = np.zeros(num, np.uint64)
    for place in range(8):
        key = (key << np.uint64(8)) | padded[place : place + num]
    order = np.argsort(key, kind="stable")
    rank = _dense(key, order)
    width = 8
    while width < deep and rank.max(initial=0) + 1 < num:
        after = np.full(num, -1, np.int64)
        after[: max(0, num - width)] = rank[width:]
        both = rank * (num + 1) + after + 1
        order = np.argsort(both, kind="stable")
        rank = _dense(both, order)
        width *= 2
    return order


def _dense(key: Any, order: Ints) -> Ints:
    """Ranks without gaps: equal keys share one."""
    in_order = key[order]
    rank = np.zeros(len(order), np.int64)
    rank[order] = np.cumsum(np.concatenate([[False], in_order[1:] != in_order[:-1]])[: len(order)])
    return rank


def common_prefix(data: Any, a: Ints, b: Ints) -> Ints:
    """(m,): how many bytes from each `a` on are those from `b` on, at most `LONGEST`."""
    size = np.zeros(len(a), np.int64)
    open_ = np.arange(len(a))
    for step in range(LONGEST):
        left, right = a[open_] + step, b[open_] + step
        inside = (left < len(data)) & (right < len(data))
        open_, left, right = open_[inside], left[inside], right[inside]
        open_ = open_[data[left] == data[right]]
        if not len(open_):
            break
        size[open_] += 1
    return size
