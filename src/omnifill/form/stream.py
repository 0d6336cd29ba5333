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
from omnifill.form.layout import Former, Orders, draw_orders, missing_in, schema_order
from omnifill.form.vocabulary import Vocabulary
from omnifill.form.windows import Windows, cut, head_size
from omnifill.settings import FormSettings, MixSettings
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
    """Whether there is one field alone, and it is a text."""
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

    def __call__(self, position: Position) -> Iterator[tuple[Batch, Position]]:
        """Batches from `position` on, each with the position after it; it never ends."""
        epoch, index = position.epoch, position.index
        while True:
            windows, plan = self.epoch(epoch)
            for number in range(index, len(plan)):
                rng = default_rng([self.seed, 2, epoch, number])
                after = Position(epoch, number + 1)
                if number + 1 == len(plan):
                    after = Position(epoch + 1, 0)
                yield self.build(windows[plan[number]], rng), after
            epoch, index = epoch + 1, 0

    def epoch(self, number: int) -> tuple[Windows, list[Ints]]:
        """An epoch's rows, and which of them each of its batches has."""
        rng = default_rng([self.seed, 1, number])
        windows = training_windows(self.shard, self.vocabulary, self.context, rng)
        lens = windows.lens(head_size(self.vocabulary))
        return windows, plan_batches(lens, self.batch_tokens, rng)

    def build(self, windows: Windows, rng: Generator) -> Batch:
        missing = missing_in(self.shard, windows.record)
        orders = draw_orders(missing, self.vocabulary, self.form, rng)
        return self.former.records(self.shard, windows.record, orders, windows=windows)


def training_windows(
    shard: Shard, vocabulary: Vocabulary, context: int, rng: Generator | None
) -> Windows:
    """Every record once, cut where it is longer than the context. A stream begins anywhere, so
    that there the beginnings of later windows count too."""
    seen = 0 if vocabulary.schema.stream else 1
    return cut(shard.sizes, context, head_size(vocabulary), seen, rng)


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


def eval_batches(
    shard: Shard, vocabulary: Vocabulary, form: FormSettings, *, context: int, batch_tokens: int,
    limit: int,
) -> Iterator[Batch]:  # fmt: skip
    """Every record once (or about `limit` ids of them), unweighted: in schema order, or as one of
    the named tasks that it serves.

    Where that is little, each comes in some random orders too: few records say more about a
    model of any fields from any others when they are asked in many ways.
    """
    former = Former(vocabulary)
    windows = training_windows(shard, vocabulary, context, None)
    lens = windows.lens(head_size(vocabulary))
    which = np.arange(len(lens))
    if lens.sum() > limit:
        keep = max(1, int(len(lens) * limit / lens.sum()))
        which = default_rng(0).permutation(len(lens))[:keep]
    batches = [which[batch] for batch in plan_batches(lens[which], batch_tokens, None)]

    def read(rows: Ints, orders: Orders) -> Batch:
        part = windows[rows]
        return former.records(shard, part.record, orders, weighted=False, windows=part)

    if form.tasks:
        whole = form.model_copy(update={"drop_given": 0.0})
        for number, rows in enumerate(batches):
            missing = missing_in(shard, windows.record[rows])
            yield read(rows, draw_orders(missing, vocabulary, whole, default_rng([1, number])))
        return
    for rows in batches:
        yield read(rows, schema_order(len(rows), vocabulary))
    more = min(MOST_ORDERS, LITTLE // max(1, int(lens.sum()))) - 1 if not is_text(vocabulary) else 0
    for number in range(more):
        rng = default_rng([0, number])
        for rows in batches:
            missing = missing_in(shard, windows.record[rows])
            yield read(rows, draw_orders(missing, vocabulary, ANY_ORDER, rng))
