"""Pictures and sounds from pictures and sounds, by way of what is short: categories, numbers and
dates are drawn first and then count as given, so that guidance leans on them, too.

p(sound | picture) is the sum over digits of p(digit | picture) p(sound | digit, picture): who draws
a digit and then a sound of it has drawn from that. What is short and says much of both is learned
long before what a picture says of a sound by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.form.encode import encode_records
from omnifill.form.layout import Orders, ask_one
from omnifill.form.vocabulary import ragged
from omnifill.generate.decoding import decode_field
from omnifill.generate.filters import Sampling
from omnifill.generate.plan import Plan
from omnifill.generate.samplers import ROWS, build_sampler
from omnifill.generate.turns import pause
from omnifill.schema import MEDIA
from omnifill.types import Bools, Ints

APART = 0x5EED0FA11
"""What a seed is mixed with for the first field, so that what is drawn one after another is drawn
by numbers that have nothing to do with each other."""


def ways(run: LoadedRun, given: Collection[str], want: Collection[str]) -> list[str]:
    """The fields to draw first: all short ones, if a picture or sound is wanted and nothing but
    such is given. Whatever else is given has been before a picture in training often enough; and
    named tasks say themselves what is read."""

    def is_media(name: str) -> bool:
        return run.schema[name].type in MEDIA

    if run.recipe.form.tasks or not given or not all(map(is_media, given)):
        return []
    if not any(map(is_media, want)):
        return []
    return run.vocabulary.in_order(
        f.name for f in run.vocabulary.fields if f.slots is not None and not is_media(f.name)
    )


def draw_ways(
    run: LoadedRun, shard: Shard, which: Ints, known: Bools, names: Sequence[str], numbers: Ints,
    seed: int, sampling: Sampling, forbid: Bools,
) -> tuple[Shard, dict[str, list[Any]]]:  # fmt: skip
    """n records with the fields `names` drawn, one after another, each laid out as it is asked for
    in training; and their values, None where <missing> was drawn, which then says nothing.

    which (n,): each record in the shard; known (n, F): what is laid before, which grows; numbers
    (n,): the rows that chance is drawn for; forbid (F,): what must not come out as <missing>.
    """
    num, values = len(which), {}
    plain = replace(sampling, guidance=None, steps=None, order=None, remask=0.0)
    for place, name in enumerate(names):
        index = run.schema.index(name)
        orders = ask_one(~known, index, run.vocabulary)
        drawn: list[Any] = []
        for at in range(0, num, ROWS):
            rows = slice(at, at + ROWS)
            plan = Plan(
                shard, which[rows], Orders(orders.fields[rows], orders.wanted[rows]),
                numbers[rows], int(seed) ^ (APART + place), plain, forbid_missing=forbid,
            )  # fmt: skip
            steps = list(build_sampler(run)(plan))
            pause()
            drawn += decode_field(run, steps, name, len(which[rows]))
        told = encode_records(run.vocabulary, {name: drawn}, None)[0]
        shard, which = _beside(shard, which, told, index), np.arange(num)
        known[:, index] = [value is not None for value in drawn]
        values[name] = drawn
    return shard, values


def _beside(shard: Shard, which: Ints, told: Shard, index: int) -> Shard:
    """Records which (n,) of a shard, with one field from others (n)."""
    lens = np.asarray(shard.lens[which], np.int64)
    starts = shard.starts[which][:, None] + np.cumsum(lens, axis=1) - lens
    lens[:, index], starts[:, index] = told.lens[:, index], len(shard.ids) + told.starts
    at = ragged(starts.ravel(), lens.ravel())
    ids, rows = (
        np.concatenate([np.asarray(a), np.asarray(b)])[at]
        for a, b in ((shard.ids, told.ids), (shard.rows, told.rows))
    )
    return Shard(ids, rows, lens)
