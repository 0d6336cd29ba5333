"""What a sampler chose, as values; and where a text ends early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.form.vocabulary import END, MISSING, FieldIds, decode_grid
from omnifill.generate.plan import Plan
from omnifill.types import Bools, Ints


class Stopper:
    """Ends a text as soon as it holds one of the stop strings."""

    def __init__(self, run: LoadedRun, plan: Plan, stop: Sequence[str]) -> None:
        self.run, self.plan, self.stop = run, plan, stop
        self.keep = max(len(s) for s in stop) * 2
        self.decoders: dict[tuple[int, int], Any] = {}
        self.tails: dict[tuple[int, int], str] = {}

    def __call__(self, row: Ints, field: Ints, ids: Ints) -> Bools:
        """(n,) rows, their fields and new ids -> whether the text is over."""
        over = np.zeros(len(row), bool)
        for i, key in enumerate(zip(row.tolist(), field.tolist(), strict=True)):
            at = self.run.vocabulary.fields[key[1]]
            if at.slots is not None or ids[i] < at.first:
                continue
            if key not in self.decoders:
                self.decoders[key] = at.codec.stream_decoder()
            fresh = self.decoders[key].feed(int(ids[i]) - at.first)
            tail = self.tails.get(key, "") + fresh
            over[i] = any(s in tail for s in self.stop)
            self.tails[key] = tail[-self.keep :]
        return over


def decode_field(run: LoadedRun, steps: Sequence[Any], name: str, num: int) -> list[Any]:
    """What the steps chose for one field -> canonical values by row."""
    return decode_values(run, name, chosen_ids(run.vocabulary[name], steps, num))


def chosen_ids(field: FieldIds, steps: Sequence[Any], num: int) -> list[Ints]:
    """What the steps chose for one field, by row."""
    rows = np.concatenate([s.row[s.field == field.index] for s in steps])
    ids = np.concatenate([s.id[s.field == field.index] for s in steps])
    order = np.argsort(rows, kind="stable")
    return np.split(ids[order], np.searchsorted(rows[order], np.arange(1, num)))


def decode_values(run: LoadedRun, name: str, pieces: Sequence[Ints]) -> list[Any]:
    """The ids of several values of one field -> canonical values, together where they can be."""
    field = run.vocabulary[name]
    if field.slots is None:
        return [run.vocabulary.decode(name, without_end(ids)) for ids in pieces]
    known = [len(ids) > 0 and ids[0] != MISSING for ids in pieces]
    codes = [field.codes_of(ids) for ids, there in zip(pieces, known, strict=True) if there]
    values = iter(decode_grid(field.codec, np.stack(codes)) if codes else [])
    return [next(values) if there else None for there in known]


def decoded_values(run: LoadedRun, steps: Sequence[Any]) -> Iterator[tuple[int, str, Any]]:
    """(row of the plan, field, value) of everything that was chosen."""
    row = np.concatenate([s.row for s in steps])
    field = np.concatenate([s.field for s in steps])
    ids = np.concatenate([s.id for s in steps])
    for index in np.unique(field):
        name, here = run.schema.names[index], np.flatnonzero(field == index)
        here = here[np.argsort(row[here], kind="stable")]
        starts = np.flatnonzero(np.diff(row[here], prepend=-1))
        values = decode_values(run, name, np.split(ids[here], starts[1:]))
        yield from zip(row[here][starts].tolist(), repeat(name), values, strict=False)


def without_end(ids: Ints) -> Ints:
    return ids[:-1] if len(ids) and ids[-1] == END else ids


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    found = [text.find(s) for s in stop if s in text]
    return text[: min(found)] if found else text


def joined(run: LoadedRun, plan: Plan, name: str, steps: Any, i: int) -> str:
    """A prompted text: the prompt's codes and the new ones, decoded together."""
    field = run.vocabulary[name]
    ids = [s.id[(s.row == i) & (s.field == field.index)] for s in steps]
    start = int(plan.shard.starts[0] + plan.shard.lens[0, : field.index].sum())
    given = np.asarray(plan.shard.ids[start : start + int(plan.shard.lens[0, field.index])])
    whole: str = run.vocabulary.decode(name, without_end(np.concatenate([given, *ids])))
    return whole
