"""Slots of a canvas that are chosen at once, and how their choices come to fit together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnifill.form.vocabulary import FieldIds
from omnifill.generate.filters import choose, filtered
from omnifill.generate.lattice import OPEN, Lattice
from omnifill.generate.plan import Plan, for_field
from omnifill.types import Bools, Floats, Ints


@dataclass(eq=False)
class Ask:
    """Slots of one field to choose, in values of equal size."""

    field: FieldIds
    lattice: Lattice
    at: Ints
    row: Ints
    """(m,): the row of each, among those of the step."""
    slot: Ints
    """(m,): its place on the canvas."""
    span: Ints
    """(m,): its value, a row of `column`."""
    inside: Ints
    """(m,): its slot in the value."""
    column: Ints
    """(n, S): the columns of the values, `OPEN` where nothing is chosen."""
    scores: Tensor
    """(m, C)."""
    chance: Floats
    """(m,)."""
    anywhere: bool
    """Whether the slots begin in the middle of a longer text."""

    def _fits(self) -> tuple[Bools, Bools]:
        return self.lattice.fits(self.column, self.anywhere)

    def choose(
        self, plan: Plan, left: Floats, which: Ints | None = None
    ) -> tuple[Ints, Floats, Floats]:
        """(k,) columns that fit, how sure each is, and what is left of its quantile."""
        which = np.arange(len(self.row)) if which is None else which
        fit, _ = self._fits()
        fits = fit[self.span[which], self.inside[which]][:, self.lattice.kind]
        scores = self.scores[torch.from_numpy(which)]
        scores = scores.masked_fill(~torch.from_numpy(fits), float("-inf"))
        prob = scores.softmax(dim=1)
        rest = left[self.at[self.row[which]], self.field.index]
        if plan.quantile is None:
            sampling = for_field(plan.sampling, self.field)
            chance = torch.from_numpy(self.chance[which])
            column = choose(filtered(scores, sampling), chance, sampling.temperature == 0)[0]
        elif self.field.cells:
            column, some = choose(scores, torch.from_numpy(rest), greedy=False)
            rest = some.numpy()
        else:
            column = prob.argmax(dim=1)
        sure = prob.gather(1, column[:, None])[:, 0]
        return column.numpy(), sure.double().numpy(), rest

    def commit(self, plan: Plan, pick: Bools, left: Floats) -> None:
        """Choose all that are picked, in rounds until they fit together."""
        todo = np.flatnonzero(pick[self.row, self.slot])
        while len(todo):
            column, sure, rest = self.choose(plan, left, todo)
            span, inside = self.span[todo], self.inside[todo]
            self.column[span, inside] = column
            rank = _rank_within(span, -sure)
            most = np.bincount(span, minlength=len(self.column))
            whole = self._fits()[1]
            while not whole.all():
                most = np.where(whole, most, np.maximum(most // 2, 1))
                self.column[span, inside] = np.where(rank < most[span], column, OPEN)
                whole = self._fits()[1] | (most <= 1)
            stays = rank < most[span]
            left[self.at[self.row[todo[stays]]], self.field.index] = rest[stays]
            todo = todo[~stays]


def _rank_within(group: Ints, key: Floats) -> Ints:
    """(m,): each one's rank by key among those of its group."""
    order = np.lexsort((key, group))
    sorted_ = group[order]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(sorted_, sorted_)
    return rank
