"""Pictures and sounds by way of what nobody told: categories, numbers and dates are drawn first,
and then count as given, so that guidance leans on them, too.

p(sound | picture) is the sum over digits of p(digit | picture) p(sound | digit, picture): who draws
a digit and then a sound of it has drawn from that. What is short and says much of both is learned
long before what a picture says of a sound by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.form.layout import Orders
from omnifill.generate.decoding import decoded_values
from omnifill.generate.filters import Sampling
from omnifill.generate.given import in_view
from omnifill.generate.plan import Plan
from omnifill.generate.samplers import build_sampler
from omnifill.schema import MEDIA
from omnifill.types import Ints

APART = 0x5EED0FA11
"""What a seed is mixed with here, so that a short value and the first code behind it are drawn by
numbers that have nothing to do with each other."""


def ways(run: LoadedRun, want: Collection[str]) -> list[str]:
    """The fields to draw first where they are not known: all short ones, if a picture or sound is
    among `want`; none where named tasks say what is read."""
    if run.recipe.form.tasks or all(run.schema[name].type not in MEDIA for name in want):
        return []
    short = {f.name for f in run.vocabulary.fields if f.slots is not None and f.type not in MEDIA}
    return run.vocabulary.in_order(short)


def with_ways(
    run: LoadedRun, columns: Mapping[str, Sequence[Any]], names: Sequence[str], numbers: Ints,
    seed: int, temperature: float,
) -> dict[str, list[Any]]:  # fmt: skip
    """Columns of n records (None: not known), with the fields `names` drawn where they are not
    known, from what is known of their record and one after another. numbers (n,): the rows that
    chance is drawn for."""
    num, index = len(numbers), run.schema.index
    out = {name: list(values) for name, values in columns.items()}
    out |= {name: [None] * num for name in names if name not in columns}
    fields = np.full((num, len(run.vocabulary.fields)), -1, np.int64)
    wanted = np.zeros_like(fields, dtype=bool)
    for row in range(num):
        known = run.vocabulary.in_order(n for n in columns if columns[n][row] is not None)
        order = [*known, *(name for name in names if out[name][row] is None)]
        fields[row, : len(order)] = [index(name) for name in order]
        wanted[row, len(known) : len(order)] = True
    rows = np.flatnonzero(wanted.any(axis=1))
    if len(rows) == 0:
        return out
    shard, which = once(run, columns)
    plan = Plan(
        shard, which[rows], Orders(fields[rows], wanted[rows]), numbers[rows], seed ^ APART,
        Sampling(temperature=temperature),
        forbid_missing=np.ones(len(run.vocabulary.fields), bool),
    )  # fmt: skip
    for row, name, value in decoded_values(run, list(build_sampler(run)(plan))):
        out[name][rows[row]] = value
    return out


def once(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> tuple[Shard, Ints]:
    """n records -> a shard with those that are the same only once; and which of them (n,) each is:
    a picture is not encoded for every sound that is made of it."""
    rows = list(zip(*columns.values(), strict=True))
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    values = dict(zip(columns, zip(*places, strict=True), strict=True))
    return in_view(run, values), np.array([places[row] for row in rows], np.int64)
