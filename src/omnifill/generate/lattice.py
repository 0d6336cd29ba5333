"""Which columns each slot of a value may still hold, whatever slots beside it are already chosen.

A field's grammar is an automaton. The states that can be reached from the left, and those from
which a valid end can be reached on the right, say what fits between them; so slots can be chosen in
any order and the value still decodes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnifill.form.vocabulary import CODE_COLUMN, END_COLUMN, MISSING_COLUMN, FieldIds
from omnifill.types import Bools, Ints

Floats = NDArray[Any]
OPEN = -1
"""Stands for the column of a slot that is not chosen yet."""


class Lattice:
    """One field's automaton over the columns of its block, with the states `ended` and `missing`
    added to those of its grammar."""

    def __init__(self, field: FieldIds, optional: bool, endless: bool) -> None:
        """`endless`: a piece of a longer text, which needs no end."""
        grammar = field.grammar
        num, size = grammar.allowed.shape[0], grammar.allowed.shape[1] - 1
        ended, missing = num, num + 1
        # to[s, c]: the state after column c in state s; -1: it may not stand there.
        to = np.full((num + 2, CODE_COLUMN + size), -1, np.int64)
        to[:num, CODE_COLUMN:] = np.where(grammar.allowed[:, :-1], grammar.step, -1)
        final = np.zeros(num + 2, bool)
        if field.slots is None:
            final[ended] = True
            if endless:
                final[:num] = grammar.allowed[:, -1]
            else:
                to[:num, END_COLUMN] = np.where(grammar.allowed[:, -1], ended, -1)
                to[ended, END_COLUMN] = ended
        else:
            final[:num] = grammar.allowed[:, -1]
            final[missing] = True
            if optional:
                to[0, MISSING_COLUMN] = to[missing, MISSING_COLUMN] = missing
        self.final = final
        kinds, kind = np.unique(to, axis=1, return_inverse=True)
        self.kind: Ints = kind.reshape(-1)
        """(2 + K,): columns of one kind lead from the same states to the same states."""
        self.step: Ints = kinds.T
        """(kinds, Q): the state after a column of a kind; -1: it may not stand there."""
        self.optional = optional
        self.free = field.slots is not None and bool(grammar.allowed[: field.slots, :-1].all())
        """Whether any codes fit together, and only <missing> does not fit to them."""
        self.places: dict[tuple[int, bool], list[tuple[Ints, Floats]]] = {}
        self.between: dict[tuple[bytes, bytes], Floats] = {}

    def fits(self, columns: Ints, anywhere: bool = False) -> tuple[Bools, Bools]:
        """columns (R, S), `OPEN` where nothing is chosen -> (R, S, kinds): what kinds of column may
        stand in each slot; and (R,): whether the row can be completed at all. `anywhere`: they may
        begin in any state of the grammar, in the middle of a character, say."""
        if self.free:
            return self._fits_free(columns)
        rows, num = columns.shape
        places = self._places(num, anywhere)
        moves = [self._moves(part, columns[:, at]) for at, (_, part) in enumerate(places[:-1])]
        begins = np.ones(len(places[0][0])) if anywhere else places[0][0] == 0
        left = [np.tile(begins.astype(np.float32), (rows, 1))]
        right = [np.tile(self.final[places[-1][0]].astype(np.float32), (rows, 1))]
        for move in moves:
            left.append((np.einsum("rq,rqp->rp", left[-1], move) > 0).astype(np.float32))
        for move in reversed(moves):
            right.append((np.einsum("rqp,rp->rq", move, right[-1]) > 0).astype(np.float32))
        right.reverse()
        fit = np.zeros((rows, num, len(self.step)), bool)
        for at, (_, part) in enumerate(places[:-1]):
            fit[:, at] = np.einsum("rq,kqp,rp->rk", left[at], part, right[at + 1]) > 0
        return fit, np.asarray((left[-1] * right[-1]).any(axis=1))

    def _fits_free(self, columns: Ints) -> tuple[Bools, Bools]:
        code = np.asarray((columns >= CODE_COLUMN).any(axis=1))
        missing = np.asarray((columns == MISSING_COLUMN).any(axis=1))
        fit = np.zeros((*columns.shape, len(self.step)), bool)
        if self.optional:
            fit[:, :, self.kind[MISSING_COLUMN]] = ~code[:, None]
        fit[:, :, self.kind[CODE_COLUMN]] = ~missing[:, None]
        return fit, np.asarray(~missing | (self.optional & ~code))

    def _places(self, num: int, anywhere: bool) -> list[tuple[Ints, Floats]]:
        """For each of the slots and the end behind them: the states that can be reached there, and
        how each kind of column moves from them (kinds, q, p) to those of the next."""
        key = (num, anywhere)
        if key not in self.places:
            size = self.step.shape[1]
            states = [np.arange(size - 2) if anywhere else np.zeros(1, np.int64)]
            for _ in range(num):
                after = self.step[:, states[-1]]
                states.append(np.unique(after[after >= 0]))
            out = [(here, self._between(here, there)) for here, there in pairwise(states)]
            nothing = np.zeros((len(self.step), len(states[-1]), 0), np.float32)
            self.places[key] = [*out, (states[-1], nothing)]
        return self.places[key]

    def _between(self, here: Ints, there: Ints) -> Floats:
        """(kinds, q, p) from some states to others; of texts they are the same at most slots."""
        key = (here.tobytes(), there.tobytes())
        if key not in self.between:
            self.between[key] = (self.step[:, here][:, :, None] == there).astype(np.float32)
        return self.between[key]

    def _moves(self, part: Floats, columns: Ints) -> Floats:
        """(kinds, q, p) and the columns (R,) of one slot -> (R, q, p)."""
        chosen = part[self.kind[np.maximum(columns, 0)]]
        out: Floats = np.where((columns == OPEN)[:, None, None], part.max(axis=0), chosen)
        return out
