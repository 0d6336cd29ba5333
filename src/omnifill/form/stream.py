"""The endless, resumable line of training batches.

What comes at (epoch, index) is a pure function of those two numbers and the seed, so that the
position of a run is plain data and a resumed run reads what the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from omnifill.data.shards import Shard
from omnifill.form.batch import Batch
from omnifill.form.layout import Former, draw_orders, missing_in, schema_order
from omnifill.form.vocabulary import Vocabulary
from omnifill.recipe import FormSettings, MixSettings
from omnifill.types import Ints

POOL = 64
"""Rows are sorted by length within pools of this many batches, to pad little."""
LITTLE, MOST_ORDERS = 8192, 16
"""A validation part of fewer ids is read in several orders, up to this many."""
ANY_ORDER = FormSettings(mix=MixSettings(schema_order=0, random_order=1, one_last=0))


@dataclass(frozen=True)
class Position:
    """Where a run stands in its data: the next batch is number `index` of epoch `epoch`."""

    epoch: int = 0
    index: int = 0


def is_text(vocabulary: Vocabulary) -> bool:
    """One text field alone: documents are cut into windows. Otherwise rows are whole records."""
    return len(vocabulary.fields) == 1 and vocabulary.fields[0].slots is None


class BatchStream:
    """Training batches of one part."""

    def __init__(
        self, shard: Shard, vocabulary: Vocabulary, form: FormSettings, *,
        batch_tokens: int, context: int, seed: int,
    ) -> None:  # fmt: skip
        self.shard, self.vocabulary, self.form = shard, vocabulary, form
        self.batch_tokens, self.context, self.seed = batch_tokens, context, seed
        self.former = Former(vocabulary)
        self.text = is_text(vocabulary)

    def __call__(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches from `position` on, each with the position after it; it never ends."""
        epoch, index = position.epoch, position.index
        while True:
            starts, lens, plan = self.epoch(epoch)
            for number in range(index, len(plan)):
                rng = default_rng([self.seed, 2, epoch, number])
                after = Position(epoch, number + 1)
                if number + 1 == len(plan):
                    after = Position(epoch + 1, 0)
                yield self.build(starts, lens, plan[number], rng), after
            epoch, index = epoch + 1, 0

    def epoch(self, number: int) -> tuple[Ints, Ints, list[Ints]]:
        """Starts and lengths of an epoch's rows, and the rows of each of its batches."""
        rng = default_rng([self.seed, 1, number])
        if self.text:
            starts, lens = cut_windows(self.shard, self.context, rng)
        else:
            starts, lens = self.shard.starts, self.shard.sizes
        return starts, lens, plan_batches(lens, self.batch_tokens, rng)

    def build(self, starts: Ints, lens: Ints, which: Ints, rng: Generator) -> Batch:
        if self.text:
            return self.former.pieces(self.shard, starts[which], lens[which])
        missing = missing_in(self.shard, which)
        orders = draw_orders(missing, self.vocabulary, self.form, rng)
        return self.former.records(self.shard, which, orders)


def cut_windows(shard: Shard, context: int, rng: Generator | None) -> tuple[Ints, Ints]:
    """Every document in pieces of at most `context` ids -> starts and lengths.

    A document longer than that starts with a piece of random length, so that the cuts differ
    from epoch to epoch (None: no shift).
    """
    starts, lens = [], []
    sizes, offsets = shard.sizes, shard.starts
    short = sizes <= context
    starts.append(offsets[short])
    lens.append(sizes[short])
    for document in np.flatnonzero(~short):
        begin, size = int(offsets[document]), int(sizes[document])
        shift = int(rng.integers(1, context + 1)) if rng is not None else context
        cuts = np.unique(np.concatenate([[0], np.arange(shift, size, context), [size]]))
        starts.append(begin + cuts[:-1])
        lens.append(np.diff(cuts))
    return np.concatenate(starts), np.concatenate(lens)


def plan_batches(lens: Ints, batch_tokens: int, rng: Generator | None) -> list[Ints]:
    """Groups of rows of like length, each of about `batch_tokens` slots with its padding."""
    order = np.arange(len(lens)) if rng is None else rng.permutation(len(lens))
    order = order[lens[order] > 0]
    if len(order) == 0:
        return []
    per_pool = max(1, int(POOL * batch_tokens / max(1.0, float(lens[order].mean()))))
    batches: list[Ints] = []
    for at in range(0, len(order), per_pool):
        pool = order[at : at + per_pool]
        pool = pool[np.argsort(lens[pool], kind="stable")]
        sizes = lens[pool]
        begin = 0
        while begin < len(pool):
            # Rows are sorted: a guess from the shortest row, then a cut by the widest.
            end = min(len(pool), begin + max(1, batch_tokens // int(sizes[begin])))
            end = min(end, begin + max(1, batch_tokens // int(sizes[end - 1])))
            batches.append(pool[begin:end])
            begin = end
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def eval_batches(shard: Shard, vocabulary: Vocabulary, *, context: int, batch_tokens: int,
                 limit: int) -> Iterator[Batch]:  # fmt: skip
    """Every record once (or about `limit` ids of them), in schema order, unweighted.

    Where that is little, each comes in some random orders too: few records say more about a
    model of any fields from any others when they are asked in many ways.
    """
    former = Former(vocabulary)
    text = is_text(vocabulary)
    starts, lens = cut_windows(shard, context, None) if text else (shard.starts, shard.sizes)
    which = np.arange(len(lens))
    if lens.sum() > limit:
        keep = max(1, int(len(lens) * limit / lens.sum()))
        which = default_rng(0).permutation(len(lens))[:keep]
    batches = [which[batch] for batch in plan_batches(lens[which], batch_tokens, None)]
    for rows in batches:
        if text:
            yield former.pieces(shard, starts[rows], lens[rows])
        else:
            yield former.records(shard, rows, schema_order(len(rows), vocabulary), weighted=False)
    more = 0 if text else min(MOST_ORDERS, LITTLE // max(1, int(lens.sum()))) - 1
    for number in range(more):
        rng = default_rng([0, number])
        for rows in batches:
            orders = draw_orders(missing_in(shard, rows), vocabulary, ANY_ORDER, rng)
            yield former.records(shard, rows, orders, weighted=False)
