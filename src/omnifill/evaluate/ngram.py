"""An n-gram model of bytes: the baseline that a neural text model has to beat, and a generator.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, "An empirical study of smoothing
techniques for language modeling"), counted exactly with sorted arrays. Bytes make it one model for
every script, and its bits per byte are those of a tokenised model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnifill.codecs.utf8 import utf8_grammar
from omnifill.types import Floats, Ints

BOUNDARY = 256
"""The symbol before and after a text."""
BASE = 257
ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
"""Those tried; the best on validation texts is kept."""
MOST_BYTES = 1 << 24
"""Training texts beyond these are left out: the tables would outgrow memory."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Discounted probabilities of all grams of one length, and what each context leaves over."""

    prob: Floats
    """(U,): the discounted share of each gram within its context."""
    rest: Floats
    """(C,): the share left to shorter contexts; 1 for a context with nothing after it."""


@dataclass(frozen=True, eq=False)
class Level:
    """All different grams of one length k, sorted by (context, last symbol)."""

    keys: Ints
    """(U,): number of the context (a gram of length k - 1) * BASE + last symbol."""
    whole: Smoothed
    """By counts: where k is the order of the model."""
    shorter: Smoothed
    """By the number of different symbols before: where the model is of higher order."""

    def find(self, contexts: Ints, symbols: Ints) -> Ints:
        """Numbers of grams, -1 for those never seen."""
        wanted = contexts * BASE + symbols
        at = np.searchsorted(self.keys, wanted)
        known = (contexts >= 0) & (self.keys[np.minimum(at, len(self.keys) - 1)] == wanted)
        return np.where(known, at, -1)


class Ngram:
    """A model of order `order`: each byte given the `order - 1` before it."""

    def __init__(self, levels: Sequence[Level], order: int) -> None:
        self.levels, self.order = list(levels[:order]), order

    @classmethod
    def fit(cls, train: Sequence[str], valid: Sequence[str]) -> Ngram:
        """Count `train`; the order is the best on `valid` (the lowest if there is none).

        High orders are only tried on small data, where they still fit in memory.
        """
        train = _first_bytes(train, MOST_BYTES)
        size = sum(len(t.encode()) for t in train)
        orders = [n for n in ORDERS if n <= 8 or size <= MOST_BYTES // 4]
        levels = count(train, max(orders))
        nats = sweep(levels, _first_bytes(valid, 1 << 20)).sum(axis=1)
        return cls(levels, min(orders, key=lambda n: float(nats[n - 1])))

    def nats(self, texts: Sequence[str]) -> Floats:
        """(N,): negative log-likelihood of each text and its end."""
        nats: Floats = sweep(self.levels, texts)[-1]
        return nats

    def generate(self, num: int, seed: int, most_bytes: int = 2000) -> list[str]:
        """`num` texts of at most `most_bytes`, always valid UTF-8."""
        rng = np.random.default_rng(seed)
        grammar = utf8_grammar([bytes([b]) for b in range(256)])
        state = np.zeros(num, np.int64)
        contexts = self._start(num)
        made = np.full((num, most_bytes), BOUNDARY)
        alive = np.ones(num, bool)
        for step in range(most_bytes):
            prob = self._next(contexts) * grammar.allowed[state]
            chosen = _draw(prob, rng)
            alive &= chosen != BOUNDARY
            if not alive.any():
                break
            made[alive, step] = chosen[alive]
            state[alive] = grammar.step[state[alive], chosen[alive]]
            contexts = self._pushed(contexts, chosen)
        return [bytes(row[row != BOUNDARY].tolist()).decode("utf-8", "ignore") for row in made]

    def _start(self, num: int) -> list[Ints]:
        """Numbers of the contexts of length 0, 1, … before a text."""
        contexts = [np.zeros(num, np.int64)]
        for level in self.levels[:-1]:
            contexts.append(level.find(contexts[-1], np.full(num, BOUNDARY)))
        return contexts

    def _pushed(self, contexts: list[Ints], symbols: Ints) -> list[Ints]:
        longer = [
            level.find(context, symbols)
            for level, context in zip(self.levels[:-1], contexts, strict=False)
        ]
        return [contexts[0], *longer]

    def _next(self, contexts: list[Ints]) -> Floats:
        """(B, 257): the distribution of the next symbol."""
        prob = np.full((len(contexts[0]), BASE), 1 / BASE)
        for place, (level, context) in enumerate(zip(self.levels, contexts, strict=True)):
            table = level.whole if place == self.order - 1 else level.shorter
            known = np.flatnonzero(context >= 0)
            first = np.searchsorted(level.keys, context[known] * BASE)
            size = np.searchsorted(level.keys, (context[known] + 1) * BASE) - first
            gram = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(size.sum())
            prob[known] *= table.rest[context[known]][:, None]
            prob[np.repeat(known, size), level.keys[gram] % BASE] += table.prob[gram]
        return prob


def count(texts: Sequence[str], order: int) -> list[Level]:
    """Grams of length 1 to `order` of all texts, with both smoothings of each."""
    stream, scored = _stream(texts, order)
    grams: list[tuple[Ints, Ints, Ints]] = []
    """(keys, counts, where each was first seen) of every length."""
    numbers: list[Ints] = []
    context = np.zeros(len(stream), np.int64)
    for _ in range(order):
        keys, first, number = np.unique(
            context * BASE + stream, return_index=True, return_inverse=True
        )
        grams.append((keys, np.bincount(number[scored], minlength=len(keys)), first))
        numbers.append(number)
        context = np.concatenate([number[:1], number[:-1]])
    levels, num_contexts = [], 1
    for k, (keys, counts, _) in enumerate(grams):
        kinds = counts
        if k + 1 < order:
            # How many different symbols stand before a gram: the longer grams that end in it.
            _, longer, seen = grams[k + 1]
            kinds = np.bincount(numbers[k][seen[longer > 0]], minlength=len(keys))
        levels.append(
            Level(keys, _smoothed(keys, counts, num_contexts), _smoothed(keys, kinds, num_contexts))
        )
        num_contexts = len(keys)
    return levels


def _smoothed(keys: Ints, counts: Ints, num_contexts: int) -> Smoothed:
    """Counts of grams, each less its discount, as shares of their context."""
    kinds = np.minimum(counts, 3)
    discount = _discounts(np.bincount(counts[counts < 5], minlength=5))[kinds]
    context = keys // BASE
    total = np.bincount(context, counts, num_contexts)
    held_back = np.bincount(context, discount, num_contexts)
    safe = np.maximum(total, 1)
    return Smoothed((counts - discount) / safe[context], np.where(total > 0, held_back / safe, 1.0))


def _discounts(num: Ints) -> Floats:
    """num[c]: how many grams were counted c times -> (4,): what to take off counts 0, 1, 2, 3+."""
    one, two, three, four = (max(float(x), 0.5) for x in num[1:5])
    y = one / (one + 2 * two)
    best = [1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three]
    return np.array([0.0, *(min(max(d, 0.1), 0.95 * c) for c, d in enumerate(best, 1))])


def sweep(levels: Sequence[Level], texts: Sequence[str]) -> Floats:
    """(orders, N): nats of each text and its end, by the model of every order at once."""
    num = len(texts)
    out = np.zeros((len(levels), num))
    if not num:
        return out
    stream, scored = _stream(texts, len(levels))
    text = np.repeat(np.arange(num), [len(t.encode()) + 1 for t in texts])
    context = np.zeros(len(stream), np.int64)
    below = np.full(len(scored), 1 / BASE)
    for k, level in enumerate(levels):
        number = level.find(context, stream)
        prob = {}
        for name, table in (("whole", level.whole), ("shorter", level.shorter)):
            known, gram = context[scored], number[scored]
            rest = np.where(known >= 0, table.rest[np.maximum(known, 0)], 1.0)
            own = np.where(gram >= 0, table.prob[np.maximum(gram, 0)], 0.0)
            prob[name] = own + rest * below
        out[k] = np.bincount(text, -np.log(prob["whole"]), num)
        below = prob["shorter"]
        context = np.concatenate([number[:1], number[:-1]])
    return out


def _stream(texts: Sequence[str], order: int) -> tuple[Ints, Ints]:
    """All texts one after another, each behind a full context of boundaries and with one at its
    end -> (symbols, places of bytes and ends)."""
    coded = [t.encode() for t in texts]
    lens = np.array([len(c) for c in coded], np.int64)
    ahead = max(1, order - 1)
    starts = np.cumsum(lens + ahead + 1) - lens - 1
    stream = np.full(int((lens + ahead + 1).sum()), BOUNDARY, np.int64)
    places = np.arange(int((lens + 1).sum()))
    firsts = np.cumsum(lens + 1) - lens - 1
    scored = places + np.repeat(starts - firsts, lens + 1)
    ends = np.zeros(len(places), bool)
    ends[firsts + lens] = True
    stream[scored[~ends]] = np.frombuffer(b"".join(coded), np.uint8)
    return stream, scored


def _draw(prob: Floats, rng: np.random.Generator) -> Ints:
    """One column of each row, in proportion."""
    edges = np.cumsum(prob, axis=1)
    dice = rng.random(len(prob)) * edges[:, -1]
    chosen: Ints = np.minimum((edges <= dice[:, None]).sum(axis=1), prob.shape[1] - 1)
    return chosen


def _first_bytes(texts: Sequence[str], most: int) -> list[str]:
    """The first texts, as many as fit; of a single long one, its beginning."""
    out: list[str] = []
    left = most
    for text in texts:
        size = len(text.encode())
        if size > left:
            if not out:
                out.append(text.encode()[:most].decode("utf-8", "ignore"))
            break
        out.append(text)
        left -= size
    return out
