"""Beam search: the records that are likeliest as a whole, instead of slot by slot.

Of each row the `beams` likeliest beginnings are kept in every step (Graves 2012, arXiv
1211.3711). One that is complete leaves the beam, and the search ends when all have. Complete ones
are ranked by their log-probability, divided by ((5 + slots) / 6)^length_penalty (Wu et al. 2016,
arXiv 1609.08144), or else short texts would always win.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.filters import penalised
from omnifill.generate.plan import Plan, Step
from omnifill.generate.state import State
from omnifill.generate.turns import pause
from omnifill.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Found:
    """One complete record of a row."""

    score: float
    """Its log-probability in nats, divided by its length as above."""
    field: Ints
    """(slots,): the field of each id."""
    id: Ints


class BeamSearch:
    """The `beams` best records of every row of a plan, or nearly so."""

    def __init__(self, sampler: Autoregressive) -> None:
        self.sampler = sampler

    @torch.no_grad()
    def __call__(self, plan: Plan) -> list[list[Found]]:
        """For each row, the best first. A beam of one is the greedy choice."""
        num, width = len(plan.which), plan.sampling.beams
        state, readings = self.sampler.begin(plan)
        found: list[list[Found]] = [[] for _ in range(num)]
        total = np.zeros(num)
        paths: list[list[tuple[int, int]]] = [[] for _ in range(num)]
        while len(state.row):
            pause()
            score, column = self._continuations(plan, state, [hidden for hidden, _ in readings])
            room = np.array([width - len(done) for done in found])
            parent, place = _best(total[:, None] + score, state.row, room)
            total = total[parent] + score[parent, place]
            state.keep(parent)
            field = state.field
            self.sampler.move(plan, state, column[parent, place], None)
            steps = zip(field.tolist(), state.id.tolist(), strict=True)
            paths = [[*paths[p], s] for p, s in zip(parent.tolist(), steps, strict=True)]
            over = state.field < 0
            for i in np.flatnonzero(over).tolist():
                found[state.row[i]].append(_found(total[i], paths[i], plan))
            going = np.flatnonzero(~over)
            total, paths = total[going], [paths[i] for i in going.tolist()]
            state.keep(going)
            chosen = torch.from_numpy(parent[going])
            readings = [(h, cache.select(chosen)) for h, cache in readings]
            if len(going):
                readings = [(self.sampler.read_one(state, c), c) for _, c in readings]
        return [sorted(done, key=lambda f: -f.score) for done in found]

    def _continuations(self, plan: Plan, state: State, hidden: list[Tensor]) -> tuple[Floats, Ints]:
        """(n, beams) log-probabilities of each row's likeliest next columns, and the columns."""
        num, width = len(state.row), plan.sampling.beams
        score, column = np.full((num, width), -np.inf), np.zeros((num, width), np.int64)
        for at, scores in self.sampler.scored(plan, state, hidden):
            log_probs = scores.double().log_softmax(dim=1)
            log_probs = penalised(
                log_probs, [state.seen[i] for i in at], plan.sampling, state.begun[at]
            )
            best = log_probs.topk(min(width, log_probs.shape[1]), dim=1)
            score[at, : best.values.shape[1]] = best.values.numpy()
            column[at, : best.indices.shape[1]] = best.indices.numpy()
        return score, column


def _best(total: Floats, row: Ints, room: Ints) -> tuple[Ints, Ints]:
    """(entry, place) of the best continuations of each row: as many as there is room for."""
    entry, place = np.nonzero(np.isfinite(total))
    order = np.lexsort((place, entry, -total[entry, place], row[entry]))
    entry, place = entry[order], place[order]
    rows = row[entry]
    first = np.searchsorted(rows, rows)  # rows stand in order
    keep = np.arange(len(rows)) - first < room[rows]
    return entry[keep], place[keep]


def _found(total: float, path: list[tuple[int, int]], plan: Plan) -> Found:
    field, ids = (np.array(part, np.int64) for part in zip(*path, strict=True))
    return Found(total / ((5 + len(path)) / 6) ** plan.sampling.length_penalty, field, ids)


def as_steps(found: list[list[Found]], most: int) -> Iterator[Step]:
    """The `most` best records of every row as rows of their own, in the form of a sampler."""
    at = 0
    for done in found:
        for one in done[:most]:
            row = np.full(len(one.id), at)
            nothing = np.zeros(len(row), bool)
            yield Step(row, one.field, one.id, nothing, nothing)
            at += 1
