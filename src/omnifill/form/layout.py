"""Record -> sequence: which field comes when, and the arrays of a batch.

A row is `<bos>` and then the codes of the fields in some order. No tag stands between fields:
each slot is told the field that comes next (see `model.network`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from omnifill.data.shards import Shard
from omnifill.errors import RecipeError, unknown_name
from omnifill.form.batch import Batch
from omnifill.form.vocabulary import BOS, MISSING, PAD, Vocabulary, ragged
from omnifill.recipe import FormSettings, MixSettings, Task
from omnifill.types import Bools, Ints


@dataclass(frozen=True, eq=False)
class Orders:
    """How n records are laid out."""

    fields: Ints
    """(n, F): the field at each place; -1: the field is absent."""
    wanted: Bools
    """(n, F): whether that place is in the loss."""


def draw_orders(
    missing: Bools, vocabulary: Vocabulary, form: FormSettings, rng: Generator
) -> Orders:
    """Orders for training: the mix of the recipe, or its named tasks.

    missing (n, F): which values are blanks. Where one known field is moved last, the blanks are
    left out, as they are when that field is asked for.
    """
    num, num_fields = missing.shape
    if form.tasks:
        weights = np.array([t.weight for t in form.tasks])
        picked = rng.choice(len(form.tasks), num, p=weights / weights.sum())
        laid = [_task_order(vocabulary, task) for task in form.tasks]
        return Orders(
            np.stack([f for f, _ in laid])[picked], np.stack([w for _, w in laid])[picked]
        )
    fields = np.tile(vocabulary.order, (num, 1))
    if num_fields > 1:
        mix = form.mix or MixSettings()
        shares = np.array([mix.schema_order, mix.random_order, mix.one_last])
        kind = np.asarray(rng.choice(3, num, p=shares / shares.sum()))
        shuffled = rng.permuted(fields, axis=1)
        last = np.where(missing, -1.0, rng.random((num, num_fields))).argmax(axis=1)
        moved = one_last(missing, last, vocabulary)
        fields = np.where((kind == 1)[:, None], shuffled, fields)
        fields = np.where((kind == 2)[:, None], moved, fields)
    return Orders(fields, np.ones_like(fields, dtype=bool))


def _task_order(vocabulary: Vocabulary, task: Task) -> tuple[Ints, Bools]:
    names = [*task.given, *task.want]
    fields = np.full(len(vocabulary.fields), -1, np.int64)
    wanted = np.zeros(len(fields), bool)
    fields[: len(names)] = [vocabulary[name].index for name in names]
    wanted[len(task.given) : len(names)] = True
    return fields, wanted


def check_tasks(vocabulary: Vocabulary, form: FormSettings) -> None:
    """RecipeError for a task that names no field of the schema."""
    names = vocabulary.schema.names
    for task in form.tasks:
        for name in [*task.given, *task.want]:
            if name not in names:
                raise RecipeError("form.tasks: " + unknown_name("field", name, names))


class Former:
    """Lays out records of shards as batches."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.coords = _coord_table(vocabulary)
        self.weights = np.array([f.weight for f in vocabulary.fields], np.float32)

    def records(self, shard: Shard, which: Ints, orders: Orders, weighted: bool = True) -> Batch:
        """Batch of whole records: which (n,), laid out by `orders`."""
        lens = np.asarray(shard.lens[which], np.int64)  # (n, F)
        field_start = shard.starts[which][:, None] + np.cumsum(lens, axis=1) - lens
        absent = orders.fields < 0
        index = np.where(absent, 0, orders.fields)
        part_lens = np.where(absent, 0, np.take_along_axis(lens, index, axis=1))
        part_start = np.take_along_axis(field_start, index, axis=1)
        flat_lens = part_lens.ravel()
        source = ragged(part_start.ravel(), flat_lens)
        field = np.repeat(index.ravel(), flat_lens)
        weight = np.repeat(orders.wanted.ravel(), flat_lens).astype(np.float32)
        if weighted:
            weight *= self.weights[field]
        slot = ragged(np.zeros_like(flat_lens), flat_lens)
        return self._pad(shard, source, part_lens.sum(axis=1), field, weight, slot)

    def pieces(self, shard: Shard, starts: Ints, lens: Ints) -> Batch:
        """Batch of pieces of a text: ids starts (n,) … starts + lens of the shard."""
        source = ragged(starts, lens)
        field = np.zeros_like(source)
        weight = np.ones(len(source), np.float32)
        return self._pad(shard, source, lens, field, weight, np.zeros_like(source))

    def _pad(
        self, shard: Shard, source: Ints, sizes: Ints, field: Ints, weight: object, slot: Ints
    ) -> Batch:
        """Flat positions of a shard -> padded rows."""
        num, width = len(sizes), int(sizes.max()) if len(sizes) else 0
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


def schema_order(num: int, vocabulary: Vocabulary) -> Orders:
    """Schema order (texts last), everything in the loss: what `score` uses."""
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
