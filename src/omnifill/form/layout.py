"""Record -> sequence: which field comes when, and the arrays of a batch.

A row is `<bos>` and then the codes of the fields in some order. No tag stands between fields:
each slot is told the field that comes next (see `model.network`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from omnifill.data.shards import Shard
from omnifill.errors import DataError
from omnifill.form.batch import Batch
from omnifill.form.tasks import learned_order, task_order
from omnifill.form.vocabulary import BOS, MISSING, PAD, Vocabulary, ragged
from omnifill.form.windows import Windows
from omnifill.schema import MEDIA
from omnifill.settings import FormSettings, MixSettings
from omnifill.types import Bools, Ints

CHECKED = 8192
"""Records looked at together."""
ASKED = 2.0
"""Times that anything else is the one field told from all others, for each time that a picture or a
sound is: the one slot of a label holds the whole lesson (docs/log.md)."""
THIN = 0.25
"""Share of the records of a canvas that are read without some of their fields."""


@dataclass(frozen=True, eq=False)
class Orders:
    """How n records are laid out."""

    fields: Ints
    """(n, F): the field at each place; -1: the field is absent."""
    wanted: Bools
    """(n, F): whether that place is in the loss."""


def draw_orders(
    missing: Bools, vocabulary: Vocabulary, form: FormSettings, rng: Generator,
    tasks: Ints | None = None,
) -> Orders:  # fmt: skip
    """Orders for training: the mix of the recipe, or its named tasks.

    missing (n, F): which values are blanks. Where one known field is moved last, the blanks are
    left out, as they are when that field is asked for. `tasks` (n,): the task of each record, as
    of `draw_tasks`, if that is settled.
    """
    num, num_fields = missing.shape
    if form.tasks:
        if tasks is None:
            tasks = draw_tasks(missing, vocabulary, form, rng)
        laid, empty = _laid_tasks(vocabulary, form), (tasks < 0)[:, None]
        fields, wanted = laid.fields[tasks], laid.wanted[tasks]
        dropped = rng.random((num, 1)) < form.drop_given
        return Orders(np.where((dropped & ~wanted) | empty, -1, fields), wanted & ~empty)
    fields = np.tile(vocabulary.order, (num, 1))
    if num_fields > 1:
        mix = form.mix or MixSettings()
        shares = np.array([mix.schema_order, mix.random_order, mix.one_last])
        kind = np.asarray(rng.choice(3, num, p=shares / shares.sum()))
        shuffled = rng.permuted(fields, axis=1)
        media = np.array([field.type in MEDIA for field in vocabulary.fields])
        lots = rng.random((num, num_fields)) ** np.where(media, 1.0, 1 / ASKED)
        last = np.where(missing, -1.0, lots).argmax(axis=1)
        moved = one_last(missing, last, vocabulary)
        if mix.partly:
            moved = _partly(moved, rng)
        fields = np.where((kind == 1)[:, None], shuffled, fields)
        fields = np.where((kind == 2)[:, None], moved, fields)
    if vocabulary.canvas and num_fields > 1:
        left_out = np.take_along_axis(_thinned(missing.shape, rng), np.maximum(fields, 0), axis=1)
        fields = np.where(left_out, -1, fields)
    return Orders(fields, np.ones_like(fields, dtype=bool))


def draw_tasks(missing: Bools, vocabulary: Vocabulary, form: FormSettings, rng: Generator) -> Ints:
    """(n,): a named task for each record, by their weights; -1: it serves none.

    A record serves the tasks of which it has something given and something wanted.
    """
    laid = _laid_tasks(vocabulary, form)
    serves = _served(missing, laid.fields, laid.wanted)
    weights = np.cumsum(serves * np.array([t.weight for t in form.tasks]), axis=1)
    picked = (weights <= rng.random((len(missing), 1)) * weights[:, -1:]).sum(axis=1)
    return np.where(serves.any(axis=1), np.minimum(picked, len(form.tasks) - 1), -1)


def sizes_for(shard: Shard, vocabulary: Vocabulary, form: FormSettings, tasks: Ints) -> Ints:
    """(N,): ids of what is laid out of each record of a shard for its task."""
    laid, sizes = _laid_tasks(vocabulary, form), np.zeros(len(shard), np.int64)
    for number, fields in enumerate(laid.fields):
        rows = np.flatnonzero(tasks == number)
        sizes[rows] = shard.lens[rows][:, fields[fields >= 0]].sum(axis=1)
    return sizes


def _laid_tasks(vocabulary: Vocabulary, form: FormSettings) -> Orders:
    """Every named task as a record is laid out for it: (tasks, F)."""
    laid = [learned_order(vocabulary, task) for task in form.tasks]
    return Orders(*(np.stack(part) for part in zip(*laid, strict=True)))


def _served(missing: Bools, fields: Ints, wanted: Bools) -> Bools:
    """(n, tasks): whether a record has any of what a task gives, if that is anything, and any of
    what it wants. fields and wanted (tasks, F)."""
    there = ~missing[:, np.maximum(fields, 0)] & (fields >= 0)  # (n, tasks, F)
    given = ~wanted & (fields >= 0)
    told = (there & given).any(axis=2) | ~given.any(axis=1)
    return np.asarray(told & (there & wanted).any(axis=2))


def check_served(shard: Shard, vocabulary: Vocabulary, form: FormSettings) -> None:
    """DataError for a task that no record serves."""
    laid = [task_order(vocabulary, task) for task in form.tasks]
    if not laid:
        return
    fields, wanted = (np.stack(part) for part in zip(*laid, strict=True))
    lacking = np.ones(len(laid), bool)
    for first in range(0, len(shard), CHECKED):
        which = np.arange(first, min(first + CHECKED, len(shard)))
        lacking &= ~_served(missing_in(shard, which), fields, wanted).any(axis=0)
        if not lacking.any():
            return
    task = form.tasks[int(lacking.argmax())]
    raise DataError(
        f"form.tasks: no training row has anything of what it gives ({', '.join(task.given)}) and "
        f"of what it wants ({', '.join(task.want)}); leave the task out, or give such rows"
    )


def _thinned(shape: tuple[int, ...], rng: Generator) -> Bools:
    """Values to leave out of records of a canvas: where slots are not read from left to right, no
    beginning of a record shows how it looks when some fields are not known at all."""
    share = rng.random((shape[0], 1))
    out = (rng.random((shape[0], 1)) < THIN) & (rng.random(shape) < share)
    out[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = False
    return np.asarray(out)


class Former:
    """Lays out records of shards as batches."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.coords = _coord_table(vocabulary)
        self.weights = np.array([f.weight for f in vocabulary.fields], np.float32)
        self.short = np.array([f.slots is not None for f in vocabulary.fields])

    def records(
        self, shard: Shard, which: Ints, orders: Orders, weighted: bool = True,
        windows: Windows | None = None,
    ) -> Batch:  # fmt: skip
        """Batch of records: which (n,), laid out by `orders`; or of each only what its window
        shows (the windows' own record numbers do not matter here)."""
        parts = _laid(shard, which, orders)
        if windows is not None:
            parts = self._shown(parts, windows)
        lens = parts.size.ravel()
        field = np.repeat(parts.field.ravel(), lens)
        weight = np.repeat(parts.wanted.ravel(), lens).astype(np.float32)
        if weighted:
            weight *= self.weights[field]
        source, slot = ragged(parts.begin.ravel(), lens), ragged(parts.slot.ravel(), lens)
        return self._pad(shard, source, parts.size.sum(axis=1), field, weight, slot)

    def _shown(self, parts: Parts, windows: Windows) -> Parts:
        """The head of each record again, if its window starts later; then what is only looked at;
        then the rest of the window."""
        before = np.cumsum(parts.size, axis=1) - parts.size

        def between(start: Ints, stop: Ints, wanted: bool) -> Parts:
            first, last = (np.clip(edge[:, None] - before, 0, parts.size) for edge in (start, stop))
            return Parts(parts.field, parts.begin + first, last - first, parts.slot + first,
                         parts.wanted & wanted)  # fmt: skip

        nothing, fresh = np.zeros_like(windows.start), windows.start + windows.seen
        head = between(nothing, windows.stop, wanted=False)
        leading = np.logical_and.accumulate((parts.size == 0) | self.short[parts.field], axis=1)
        head.size[~leading | (windows.start == 0)[:, None]] = 0
        shown = [between(windows.start, fresh, False), between(fresh, windows.stop, True)]
        return Parts(*(np.hstack([getattr(p, f.name) for p in (head, *shown)])
                       for f in dataclasses.fields(Parts)))  # fmt: skip

    def _pad(
        self, shard: Shard, source: Ints, sizes: Ints, field: Ints, weight: object, slot: Ints
    ) -> Batch:
        """Flat positions of a shard -> padded rows."""
        num, width = len(sizes), max(1, int(sizes.max(initial=0)))
        at = (np.repeat(np.arange(num), sizes), ragged(np.zeros_like(sizes), sizes))

        def grid(values: object, empty: int, dtype: type) -> torch.Tensor:
            out: np.ndarray[Any, Any] = np.full((num, width), empty, dtype)
            out[at] = values
            return torch.from_numpy(out)

        target = grid(shard.ids[source], PAD, np.int64)
        ids = torch.full_like(target, BOS)
        ids[:, 1:] = target[:, :-1]
        coord = None
        if self.coords is not None:
            cells = np.zeros((num, width, 3), np.int64)
            cells[at] = self.coords[field, np.minimum(slot, self.coords.shape[1] - 1)]
            coord = torch.from_numpy(cells)
        return Batch(
            ids, target, grid(field, 0, np.int64), grid(shard.rows[source], 0, np.int64),
            grid(weight, 0, np.float32), coord,
        )  # fmt: skip


def _coord_table(vocabulary: Vocabulary) -> Ints | None:
    """(F, S, 3) coordinates of every slot of every fixed-slot field, or None if all are zero."""
    if max(vocabulary.coord_sizes) == 1:
        return None
    longest = max(f.slots or 1 for f in vocabulary.fields)
    table = np.zeros((len(vocabulary.fields), longest, 3), np.int64)
    for field in vocabulary.fields:
        if field.slots:
            table[field.index, : field.slots] = field.codec.coords(field.slots)
    return table


@dataclass(frozen=True, eq=False)
class Parts:
    """What each of n rows is put together from, in order. All (n, P)."""

    field: Ints
    begin: Ints
    """Place in the shard of the first id."""
    size: Ints
    slot: Ints
    """Which slot of its value the first id is."""
    wanted: Bools


def _laid(shard: Shard, which: Ints, orders: Orders) -> Parts:
    """Whole records: a part for each field; absent ones have size 0."""
    absent = orders.fields < 0
    index = np.where(absent, 0, orders.fields)
    lens = np.asarray(shard.lens[which], np.int64)  # (n, F)
    starts = shard.starts[which][:, None] + np.cumsum(lens, axis=1) - lens
    begin = np.take_along_axis(starts, index, axis=1)
    return Parts(index, begin, laid_lens(shard, which, orders), np.zeros_like(index), orders.wanted)


def laid_lens(shard: Shard, which: Ints, orders: Orders) -> Ints:
    """(n, F): ids of the field at each place; 0 where it is absent."""
    absent = orders.fields < 0
    lens = np.asarray(shard.lens[which], np.int64)
    return np.where(absent, 0, np.take_along_axis(lens, np.where(absent, 0, orders.fields), axis=1))


def schema_order(num: int, vocabulary: Vocabulary) -> Orders:
    """Schema order (what is long last), everything in the loss: what `score` uses."""
    fields = np.tile(vocabulary.order, (num, 1))
    return Orders(fields, np.ones_like(fields, dtype=bool))


def one_last(missing: Bools, last: Ints, vocabulary: Vocabulary) -> Ints:
    """(n, F) fields: the known ones in schema order, then field last (n,), then -1."""
    rank = missing * 2.0
    rank[np.arange(len(last)), last] = 1.0
    rank = rank[:, vocabulary.order]
    # A stable sort keeps schema order among equals.
    places = np.argsort(rank, axis=1, kind="stable")
    absent = np.take_along_axis(rank, places, axis=1) == 2
    return np.where(absent, -1, vocabulary.order[places])


def _partly(fields: Ints, rng: Generator) -> Ints:
    """(n, F) fields, -1 at the end: the last one, and some of those before it, as many as they may
    be."""
    place, before = np.arange(fields.shape[1]), (fields >= 0).sum(axis=1, keepdims=True) - 1
    most = rng.integers(1, np.maximum(before, 1), endpoint=True)
    lots = np.where(place < before, rng.random(fields.shape), 2.0)
    drawn = lots.argsort(axis=1).argsort(axis=1)  # the number that each has drawn
    return np.where((place < before) & (drawn >= most), -1, fields)


def ask_one(missing: Bools, wanted: int, vocabulary: Vocabulary) -> Orders:
    """Known fields given, in schema order, then one wanted field, alone in the loss."""
    fields = one_last(missing, np.full(len(missing), wanted), vocabulary)
    return Orders(fields, fields == wanted)


def missing_in(shard: Shard, which: Ints) -> Bools:
    """(n, F): which values of the records are <missing>, or absent."""
    lens = np.asarray(shard.lens[which], np.int64)
    starts = shard.starts[which][:, None] + np.cumsum(lens, axis=1) - lens
    absent = lens == 0
    first = np.asarray(shard.ids[np.where(absent, 0, starts)])
    out: Bools = absent | (first == MISSING)
    return out
