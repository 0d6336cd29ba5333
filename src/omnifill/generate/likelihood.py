"""How likely records are, and from that, how likely each value of a category is.

A category is asked for in two ways. Directly: after everything that is known. And by Bayes' rule:
how likely is the whole record with each of the values in it? The second speaks from schema order,
which most runs train most, and is better alone in tables of short values. Beside texts, pictures
and sounds the two err in different places, and the mean of their log-probabilities is right more
often, and better calibrated, than either (a product of experts, Hinton 2002; figures in
docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.form.batch import Batch
from omnifill.form.layout import Former, Orders, ask_one, laid_lens, missing_in, schema_order
from omnifill.form.stream import plan_batches
from omnifill.form.tasks import silent_in, task_order, wanted_fields
from omnifill.form.vocabulary import CODE_COLUMN, FieldIds
from omnifill.form.windows import Windows, head_size, last_ones, overlapping
from omnifill.generate.given import encoded
from omnifill.generate.turns import pause
from omnifill.progress import Progress
from omnifill.settings import MixSettings
from omnifill.types import ABSENT, Bools, Floats, Ints

SLOTS = 2048
"""Of records, or windows of them, that are read at once: more are no faster, and others wait."""
MOST_VALUES = 32
NEAR = 4.0
"""Bayes' rule reads a record for each value: for the likeliest ones by the direct answer, that many
at most, and within so many nats of the first."""
BESIDE_TEXT, BESIDE_MEDIA = 0.5, 0.3
"""How much Bayes' rule counts beside a text, and beside a picture or sound, whose many codes are
surer of themselves than they are right (docs/log.md)."""
MOST_WINDOWS = 4
"""Windows of a long record that Bayes' rule reads: its beginning."""


@torch.no_grad()
def field_nats(
    run: LoadedRun, shard: Shard, orders: Orders, which: Ints, most: int | None = None
) -> Floats:
    """(n, F): negative log-likelihood of every field of the records, in nats, under `orders`.

    `most`: of a record longer than the context only so many windows are read.
    """
    head, context = head_size(run.vocabulary), run.network.config.context
    windows = overlapping(laid_lens(shard, which, orders).sum(axis=1), context, head, most)
    out = np.zeros((len(which), len(run.vocabulary.fields)))
    for at in batches(windows.lens(head)):
        pause()
        part = windows[at]
        batch = _read(run, shard, orders, which, part)
        nats = run.objective.nats(run.network, batch).view(batch.ids.shape)
        grid = torch.zeros(len(at), out.shape[1])
        counted = nats * (batch.weight > 0)
        np.add.at(out, part.record, grid.scatter_add(1, batch.field, counted).numpy())
    return out


def _read(run: LoadedRun, shard: Shard, orders: Orders, which: Ints, windows: Windows) -> Batch:
    """The windows of some records as a batch; `windows.record` counts within `which`."""
    rows = windows.record
    some = Orders(orders.fields[rows], orders.wanted[rows])
    former = Former(run.vocabulary)
    return former.records(shard, which[rows], some, weighted=False, windows=windows)


def present_order(run: LoadedRun, columns: Mapping[str, Any], num: int) -> Orders:
    """Schema order over the columns that are there."""
    return _only_present(run, columns, schema_order(num, run.vocabulary))


def _only_present(run: LoadedRun, columns: Mapping[str, Any], orders: Orders) -> Orders:
    there = np.array([n in columns for n in run.schema.names])[orders.fields] & (orders.fields >= 0)
    return Orders(np.where(there, orders.fields, -1), orders.wanted & there)


def record_nats(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Floats:
    """(N, F): `schema_nats` of every record; in a run over one text each of N texts is one."""
    if not run.schema.stream:
        return schema_nats(run, encoded(run, columns), columns)
    ((name, texts),) = columns.items()
    alone = [{name: [text or ""]} for text in texts]
    return np.concatenate([schema_nats(run, encoded(run, one), one) for one in alone])


def schema_nats(run: LoadedRun, shard: Shard, columns: Mapping[str, Any]) -> Floats:
    """(N, F): nats of every field of every record, each given those before it in the schema; in a
    run of named tasks, of every field that one wants, given what that task gives."""
    out = np.zeros((len(shard), len(run.schema.names)))
    with Progress("scoring", len(shard), "rows") as progress:
        for which in batches(shard.sizes):
            for orders, fields in _readings(run, columns, len(which)):
                out[np.ix_(which, fields)] = field_nats(run, shard, orders, which)[:, fields]
            progress.advance(len(which))
    return out


def _readings(
    run: LoadedRun, columns: Mapping[str, Any], num: int
) -> Iterator[tuple[Orders, Ints]]:
    """(orders, fields that are told in them), so that each field is told once."""
    form, told = run.recipe.form, np.zeros(len(run.vocabulary.fields), bool)
    if not form.tasks:
        yield present_order(run, columns, num), np.flatnonzero(~told)
    for task in form.tasks:
        fields, wanted = task_order(run.vocabulary, task)
        orders = Orders(np.tile(fields, (num, 1)), np.tile(wanted, (num, 1)))
        fresh = np.array([n in task.want and n in columns for n in run.schema.names]) & ~told
        told |= fresh
        if fresh.any():
            yield _only_present(run, columns, orders), np.flatnonzero(fresh)


def category_log_probs(
    run: LoadedRun, shard: Shard, field: str, records: Ints | None = None
) -> Floats:
    """(N, K): log-probability of every code of a one-slot field, given the known others.

    `records`: their numbers in the shard; default: all. What the shard says of the field itself
    (a value or <missing>, but not absent) makes no difference.
    """
    where = run.vocabulary[field]
    records = np.arange(len(shard)) if records is None else records
    sizes = np.minimum(shard.sizes[records], run.network.config.context)
    direct = np.zeros((len(records), where.codec.size))
    with Progress(f"asking for {field}", len(records), "readings") as progress:
        for at in batches(sizes):
            pause()
            direct[at] = _asked(run, shard, where, records[at])
            progress.advance(len(at))
    share = _bayes_share(run, shard, records)
    near = _near(direct) & (share > 0)[:, None]
    joint = np.full_like(direct, -np.inf)
    with Progress(f"asking for {field}", int(near.sum()), "readings") as progress:
        for code in np.flatnonzero(near.any(axis=0)).tolist():
            named = _with_code(shard, where, where.first + code)
            rows = np.flatnonzero(near[:, code])
            for at in (rows[part] for part in batches(sizes[rows])):
                orders = _known_order(run, shard, where, records[at])
                nats = field_nats(run, named, orders, records[at], MOST_WINDOWS)
                joint[at, code] = -nats.sum(axis=1)
                progress.advance(len(at))
    rows = np.flatnonzero(near.any(axis=1))
    # Bayes' rule shares out anew what the direct answer gives to these values together.
    for row in rows.tolist():
        some = near[row]
        both = share[row] * joint[row, some] + (1 - share[row]) * direct[row, some]
        direct[row, some] = _log_sum(direct[row, some]) + both - _log_sum(both)
    return _normalised(direct)


def choice_log_probs(
    run: LoadedRun, columns: Mapping[str, Sequence[Any]], field: str, choices: Sequence[str]
) -> Floats:
    """(N, K): log-probability of each of some texts of a field, given the known others, as if there
    were no other texts. columns: canonical values of N records; what they say of the field itself
    makes no difference.

    Where no task ever told the field, but some task others from it, by how likely those others are
    beside each text (a noisy channel, as Min et al. 2022, arXiv 2108.04106, classify).
    """
    num = len(next(iter(columns.values())))
    known = {n: [ABSENT if x is None else x for x in v] for n, v in columns.items() if n != field}
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    tell = _told_directly if field in learned else _told_by_others
    out = np.zeros((num, len(choices)))
    for place, choice in enumerate(choices):
        out[:, place] = -tell(run, {**known, field: [choice] * num}, field)
    return _normalised(out)


def _told_directly(run: LoadedRun, columns: Mapping[str, Sequence[Any]], field: str) -> Floats:
    """(N,): nats of a field given the others."""
    shard = encoded(run, columns)
    index, form = run.schema.index(field), run.recipe.form
    out = np.zeros(len(shard))
    with Progress(f"asking for {field}", len(shard), "readings") as progress:
        for which in batches(shard.sizes):
            silent = silent_in(run.vocabulary, form, field, missing_in(shard, which))
            orders = ask_one(silent, index, run.vocabulary)
            out[which] = field_nats(run, shard, orders, which)[:, index]
            progress.advance(len(which))
    return out


def _told_by_others(run: LoadedRun, columns: Mapping[str, Sequence[Any]], field: str) -> Floats:
    """(N,): nats of the others given the field, as far as tasks tell them."""
    nats: Floats = schema_nats(run, encoded(run, columns), columns).sum(axis=1)
    return nats


def _bayes_share(run: LoadedRun, shard: Shard, records: Ints) -> Floats:
    """(n,): how much Bayes' rule counts beside the direct answer. Not at all where no record was
    ever read in schema order: in named tasks, and in small tables that are read in any order; nor
    where a whole record has a bound alone."""
    form = run.recipe.form
    if run.vocabulary.canvas or form.tasks or not (form.mix or MixSettings()).schema_order:
        return np.zeros(len(records))
    there, share = ~missing_in(shard, records), np.ones(len(records))
    media, text = np.array([run.vocabulary.leans(f.index) for f in run.vocabulary.fields]).T
    share[there[:, text].any(axis=1)] = BESIDE_TEXT
    share[there[:, media].any(axis=1)] = BESIDE_MEDIA
    return share


def _near(log_probs: Floats) -> Bools:
    """(n, K): the likeliest values, where there are at least two."""
    best = log_probs.max(axis=1, keepdims=True, initial=-np.inf)
    rank = np.argsort(np.argsort(-log_probs, axis=1, kind="stable"), axis=1, kind="stable")
    near = (log_probs > best - NEAR) & (rank < MOST_VALUES)
    return np.asarray(near & (near.sum(axis=1, keepdims=True) > 1))


def _log_sum(values: Floats) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


def batches(sizes: Ints) -> list[Ints]:
    """Lengths of records -> their places, in groups that are read at once."""
    return plan_batches(np.maximum(sizes, 1), SLOTS, None)  # nothing has a length, too


@torch.no_grad()
def _asked(run: LoadedRun, shard: Shard, where: FieldIds, which: Ints) -> Floats:
    """(n, K): log-probability of every code, asked for behind everything that is known."""
    missing = missing_in(shard, which)
    silent = silent_in(run.vocabulary, run.recipe.form, where.name, missing)
    orders = ask_one(silent, where.index, run.vocabulary)
    sizes = laid_lens(shard, which, orders).sum(axis=1)
    windows = last_ones(sizes, run.network.config.context, head_size(run.vocabulary))
    batch = _read(run, shard, orders, which, windows)
    hidden = run.objective.read(run.network, batch)
    at = (batch.weight > 0).int().argmax(dim=1)
    rows = torch.full((len(which),), where.start_row)
    scores = run.objective.columns.scores(
        run.network, hidden[torch.arange(len(which)), at], where.block, rows
    )
    return _normalised(scores[:, CODE_COLUMN:].numpy().astype(np.float64))


def _with_code(shard: Shard, where: FieldIds, id_: int) -> Shard:
    """The shard with that id in the field's one slot of every record."""
    lens = np.asarray(shard.lens, np.int64)
    ids = np.array(shard.ids)
    ids[(shard.starts + lens[:, : where.index].sum(axis=1))[lens[:, where.index] == 1]] = id_
    return Shard(ids, shard.rows, shard.lens)


def _known_order(run: LoadedRun, shard: Shard, where: FieldIds, which: Ints) -> Orders:
    """Schema order over what is known of the records, and the field itself."""
    orders = schema_order(len(which), run.vocabulary)
    known = ~missing_in(shard, which) | (np.arange(shard.lens.shape[1]) == where.index)
    there = np.take_along_axis(known, orders.fields, axis=1)
    return Orders(np.where(there, orders.fields, -1), orders.wanted & there)


def _normalised(grid: Floats) -> Floats:
    """(n, K) logarithms -> log-probabilities."""
    top = grid.max(axis=1, keepdims=True, initial=-np.inf)
    out: Floats = grid - top - np.log(np.exp(grid - top).sum(axis=1, keepdims=True))
    return out
