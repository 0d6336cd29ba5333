"""Where the rows of a batch stand while their values are chosen slot by slot."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from omnifill.chance import uniforms
from omnifill.form.vocabulary import Vocabulary
from omnifill.generate.filters import Sampling, remembers
from omnifill.generate.plan import Plan, Step, for_field
from omnifill.types import Bools, Ints

NO: Bools = np.zeros(1, bool)


class State:
    """Where each row of the batch stands."""

    def __init__(self, vocabulary: Vocabulary, plan: Plan) -> None:
        self.vocabulary, self.plan = vocabulary, plan
        num = len(plan.which)
        self.row = np.arange(num)
        self.place = plan.orders.wanted.argmax(axis=1)  # column of orders.fields
        self.state = np.zeros(num, np.int64)
        self.slot = np.zeros(num, np.int64)  # slots of the current value chosen so far
        self.missing = np.zeros(num, bool)
        self.total = np.zeros(num, np.int64)  # slots chosen so far, over all fields
        self.id = np.zeros(num, np.int64)  # the last id chosen
        self.left = np.full(num, plan.quantile or 0.0)  # what is left of a quantile
        # Columns of the current value so far, where something is asked of them: a stream may be
        # endless.
        self.remembers = remembers(plan.sampling)
        self.seen: list[list[int]] = [[] for _ in range(num)]
        self.begun = np.zeros(num, np.int64)  # how many of them were given
        self.sampling = [for_field(plan.sampling, field) for field in vocabulary.fields]
        """How the slots of each field are drawn."""
        self.field = self._field()
        """(n,): the field each row is in; -1 when it has finished."""

    def next_field(self, rows: Ints) -> None:
        """Some rows are through with their field."""
        self.place[rows] += 1
        self.field = self._field()

    def _field(self) -> Ints:
        inside = self.place < self.plan.orders.fields.shape[1]
        place = np.where(inside, self.place, 0)
        found = self.plan.orders.fields[self.row, place]
        return np.where(inside & self.plan.orders.wanted[self.row, place], found, -1)

    def go_on(self, code: int) -> Step:
        """The only row's text has one code more, and nothing else happens; as of
        `Autoregressive.move`, which takes several times as long."""
        field = self.vocabulary.fields[self.field[0]]
        self.id[0], self.state[0] = field.first + code, field.grammar.step[self.state[0], code]
        self.slot[0] += 1
        self.total[0] += 1
        return Step(self.row, self.field, self.id.copy(), NO, NO)

    def keep(self, rows: Ints) -> None:
        """Go on with some of the rows only."""
        for name in ("row", "place", "field", "state", "slot", "missing", "total", "id", "left",
                     "begun"):  # fmt: skip
            setattr(self, name, getattr(self, name)[rows])
        self.seen = [list(self.seen[i]) for i in rows]


def chances(plan: Plan, state: State, at: Ints, sampling: Sampling) -> Tensor:
    """(n,): a number in [0, 1) for the next slot of some rows; zeros where nothing hangs on it."""
    if sampling.temperature == 0:
        return torch.zeros(len(at), dtype=torch.float64)
    return torch.from_numpy(uniforms(plan.seed, plan.numbers[state.row[at]], state.total[at]))


def kinds(numbers: Ints) -> Ints:
    """(k,): which numbers there are, (n,), in order."""
    return numbers if len(numbers) == 1 else np.unique(numbers)
