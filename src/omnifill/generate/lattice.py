"""Which columns each slot of a value may still hold, whatever slots beside it are already chosen.

A field's grammar is an automaton. The states that can be reached from the left, and those from
which a valid end can be reached on the right, say what fits between them; so slots can be chosen in
any order and the value still decodes.
"""

from __future__ import annotations

import numpy as np

from omnifill.form.vocabulary import CODE_COLUMN, END_COLUMN, MISSING_COLUMN, FieldIds
from omnifill.types import Bools, Ints

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
        kinds, self.kind = np.unique(to, axis=1, return_inverse=True)
        self.kind = self.kind.reshape(-1)
        """(2 + K,): columns of one kind lead from the same states to the same states."""
        self.moves = (kinds.T[:, :, None] == np.arange(num + 2)).astype(np.float32)
        """(kinds, Q, Q)."""
        self.any_move = self.moves.max(axis=0)

    def fits(self, columns: Ints, anywhere: bool = False) -> tuple[Bools, Bools]:
        """columns (R, S), `OPEN` where nothing is chosen -> (R, S, kinds): what kinds of column may
        stand in each slot; and (R,): whether the row can be completed at all. `anywhere`: they may
        begin in any state of the grammar, in the middle of a character, say."""
        rows, num = columns.shape
        moves = np.where(
            (columns == OPEN)[:, :, None, None], self.any_move,
            self.moves[self.kind[np.maximum(columns, 0)]],
        )  # fmt: skip
        left = np.zeros((rows, num + 1, len(self.final)), np.float32)
        right = np.zeros_like(left)
        left[:, 0, : len(self.final) - 2 if anywhere else 1] = 1
        right[:, num] = self.final
        for slot in range(num):
            left[:, slot + 1] = np.einsum("rq,rqp->rp", left[:, slot], moves[:, slot]) > 0
        for slot in range(num - 1, -1, -1):
            right[:, slot] = np.einsum("rqp,rp->rq", moves[:, slot], right[:, slot + 1]) > 0
        fit = np.einsum(
            "rsq,kqp,rsp->rsk", left[:, :-1], self.moves, right[:, 1:], optimize=True
        )  # fmt: skip
        return np.asarray(fit > 0), np.asarray((left[:, num] * self.final).any(axis=1))
