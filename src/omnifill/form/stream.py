"""The endless, resumable line of training batches.

What comes at (epoch, index) is a pure function of those two numbers and the seed, so that the
position of a run is plain data and a resumed run reads what the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator, default_rng

from omnifill.data.shards import Shard
from omnifill.form.batch import Batch
from omnifill.form.layout import (
    CHECKED,
    Former,
    Orders,
    draw_orders,
    draw_tasks,
    missing_in,
    schema_order,
    sizes_for,
)
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
            rows, plan = self.epoch(epoch)
            for number in range(index, len(plan)):
                rng = default_rng([self.seed, 2, epoch, number])
                after = Position(epoch, number + 1)
                if number + 1 == len(plan):
                    after = Position(epoch + 1, 0)
                yield self.build(rows[plan[number]], rng), after
            epoch, index = epoch + 1, 0

    def epoch(self, number: int) -> tuple[Rows, list[Ints]]:
        """An epoch's rows, and which of them each of its batches has."""
        rng = default_rng([self.seed, 1, number])
        rows = rows_of(self.shard, self.vocabulary, self.form, self.context, rng)
        lens = rows.windows.lens(head_size(self.vocabulary))
        return rows, plan_batches(lens, self.batch_tokens, rng)

    def build(self, rows: Rows, rng: Generator) -> Batch:
        missing = missing_in(self.shard, rows.windows.record)
        orders = draw_orders(missing, self.vocabulary, self.form, rng, rows.tasks)
        batch = self.former.records(self.shard, rows.windows.record, orders, windows=rows.windows)
        return noisy(batch, orders, self.vocabulary, self.form.noise or 0.0, rng)


def noisy(
    batch: Batch, orders: Orders, vocabulary: Vocabulary, most: float, rng: Generator
) -> Batch:
    """Where a picture or sound stands last, some codes before each of its own are others by
    chance, of each row another share, up to `most`.

    Few records are soon known by heart from their first codes, and what is given before them is
    not read any more; with noise it has to be (word dropout: Bowman et al. 2016, arXiv 1511.06349;
    figures in docs/log.md).
    """
    if not most:
        return batch
    backwards = orders.fields[:, ::-1]
    last = np.take_along_axis(backwards, (backwards >= 0).argmax(axis=1)[:, None], axis=1)
    ids, before = batch.ids.numpy().copy(), batch.field.numpy()[:, :-1]
    hit = rng.random(before.shape) < rng.random((len(ids), 1)) * most
    for field in vocabulary.fields:
        if field.noisy:
            others = math.prod(field.axes)
            at = hit & (before == field.index) & (last == field.index)
            at &= (ids[:, 1:] >= field.first) & (ids[:, 1:] < field.first + others)
            ids[:, 1:][at] = field.first + rng.integers(others, size=int(at.sum()))
    return replace(batch, ids=torch.from_numpy(ids))


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows to be laid out."""

    windows: Windows
    tasks: Ints | None
    """(n,): the named task of each; None: there are none."""

    def __getitem__(self, which: Ints) -> Rows:
        tasks = None if self.tasks is None else self.tasks[which]
        return Rows(self.windows[which], tasks)


def rows_of(
    shard: Shard, vocabulary: Vocabulary, form: FormSettings, context: int, rng: Generator | None
) -> Rows:
    """Every record once, as long as it is for its task, and cut where that is longer than the
    context. A stream begins anywhere, so that there the beginnings of later windows count too.
    `rng`: None for rows that are the same each time."""
    seen = 0 if vocabulary.schema.stream else 1
    sizes, tasks = shard.sizes, None
    if form.tasks:
        tasks = tasks_of(shard, vocabulary, form, rng or default_rng(1))
        sizes = sizes_for(shard, vocabulary, form, tasks)
    windows = cut(sizes, context, head_size(vocabulary), seen, rng)
    return Rows(windows, None if tasks is None else tasks[windows.record])


def tasks_of(shard: Shard, vocabulary: Vocabulary, form: FormSettings, rng: Generator) -> Ints:
    """(N,): a named task for every record of a shard; -1: it serves none."""
    parts = [np.zeros(0, np.int64)]
    for first in range(0, len(shard), CHECKED):
        missing = missing_in(shard, np.arange(first, min(first + CHECKED, len(shard))))
        parts.append(draw_tasks(missing, vocabulary, form, rng))
    return np.concatenate(parts)


def epoch_ids(shard: Shard, vocabulary: Vocabulary, form: FormSettings) -> int:
    """About how many ids an epoch lays out."""
    if not form.tasks:
        return int(shard.sizes.sum())
    tasks = tasks_of(shard, vocabulary, form, default_rng(1))
    return int(sizes_for(shard, vocabulary, form, tasks).sum())


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
    every = rows_of(shard, vocabulary, form, context, None)
    lens = every.windows.lens(head_size(vocabulary))
    which = np.arange(len(lens))
    if lens.sum() > limit:
        keep = max(1, int(len(lens) * limit / lens.sum()))
        which = default_rng(0).permutation(len(lens))[:keep]
    batches = [which[batch] for batch in plan_batches(lens[which], batch_tokens, None)]

    def read(rows: Ints, orders: Orders) -> Batch:
        part = every.windows[rows]
        return former.records(shard, part.record, orders, weighted=False, windows=part)

    def drawn(rows: Ints, form: FormSettings, rng: Generator) -> Batch:
        some = every[rows]
        missing = missing_in(shard, some.windows.record)
        return read(rows, draw_orders(missing, vocabulary, form, rng, some.tasks))

    if form.tasks:
        whole = form.model_copy(update={"drop_given": 0.0})
        for number, rows in enumerate(batches):
            yield drawn(rows, whole, default_rng([1, number]))
        return
    for rows in batches:
        yield read(rows, schema_order(len(rows), vocabulary))
    more = min(MOST_ORDERS, LITTLE // max(1, int(lens.sum()))) - 1 if not is_text(vocabulary) else 0
    again = np.tile(which, max(0, more))
    for number, rows in enumerate(plan_batches(lens[again], batch_tokens, None)):
        yield drawn(again[rows], ANY_ORDER, default_rng([0, number]))
