"""The few words that every module speaks.

Shapes use one letter each: B rows, T slots, D width, V vocabulary, F fields, S slots of one
field, K codes of one field, Q states of one grammar.

A record is a dict from field name to value. Its blanks have two meanings, kept apart: a key
with the value None is *missing* (an observed blank, learned as a value of its own); a key that
is not there is *absent* (not in the sequence at all).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]


class Absent(Enum):
    """Stands in a column for a value that is not in the sequence at all."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Partial:
    """A picture or a sound that is known in part, to be given to a model that makes the rest."""

    value: Any
    """A picture, a sound, or the path of one."""
    keep: Any
    """Of a picture: (H, W), or a picture or its path, bright where it is known. Of a sound: how
    many of its first seconds are. '60%': of masked models, that share of its codes, so that what
    is made is a variation of it."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound in Python's terms."""

    samples: NDArray[Any]
    """(N,) fractions from -1 to 1: one channel."""
    rate: int
    """Samples a second."""


@dataclass(frozen=True, eq=False)
class Grammar:
    """Which codes may follow which, for one field: a finite automaton that starts in state 0.

    The codes of a whole value are exactly those the automaton accepts, so that whatever is
    generated under it decodes.
    """

    allowed: Bools
    """(Q, K + 1): whether a code may come next in a state; the last column: whether to end."""
    step: Ints
    """(Q, K): the state after a code (any number where the code is not allowed)."""

    @cached_property
    def min_left(self) -> Ints:
        """(Q,): the fewest codes from each state to a valid end (a huge number: none)."""
        left = np.where(self.allowed[:, -1], 0, NEVER)
        for _ in range(len(left)):
            after = np.where(self.allowed[:, :-1], left[self.step], NEVER).min(axis=1)
            shorter = np.minimum(left, after + 1)
            if np.array_equal(shorter, left):
                break
            left = shorter
        return left

    @cached_property
    def settled(self) -> Bools:
        """(Q,): states from which there is one way to the end, and no other."""
        ends, states = self.allowed[:, -1], np.arange(len(self.allowed))
        out = np.asarray(self.allowed.sum(axis=1) == 1)
        if self.step.shape[1]:
            after = self.step[states, self.allowed[:, :-1].argmax(axis=1)]
            while (fewer := out & (ends | out[after])).sum() < out.sum():
                out = fewer
        return out

    def whole(self, codes: Ints) -> Ints:
        """The first codes of a value, whose last one settles it -> all of them."""
        state, rest = 0, []
        for code in codes.tolist():
            state = int(self.step[state, code])
        while self.settled[state] and not self.allowed[state, -1]:
            rest.append(int(self.allowed[state, :-1].argmax()))
            state = int(self.step[state, rest[-1]])
        return np.concatenate([codes, np.array(rest, np.int64)])

    def states(self, codes: Ints) -> Ints:
        """codes (S,) -> (S,): the state in which each code was chosen."""
        out = np.empty(len(codes), np.int64)
        state = 0
        for i, code in enumerate(codes.tolist()):
            out[i] = state
            state = int(self.step[state, code])
        return out


NEVER = np.int64(1) << 40


class Codec(Protocol):
    """Values of one field <-> codes in [0, size)."""

    shared: ClassVar[bool]
    """Whether all fields of this codec are fitted together and share one range of ids."""

    @property
    def size(self) -> int: ...  # K

    @property
    def slots(self) -> int | None: ...  # codes of every value; None: it varies, <end> closes it

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Learn from the training part's values, given in chunks (never None)."""
        ...

    def encode(self, value: Any) -> Ints:
        """One value -> (S,). ValueRefused if the field cannot hold it."""
        ...

    def decode(self, codes: Ints) -> Any:
        """(S,) -> the value. Total on what the grammar accepts."""
        ...

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> all codes in one line, and the (N,) number of codes of each."""
        ...

    def coords(self, n: int) -> Ints:
        """(n, 3): row or time, column, level of the first n codes; all zero for plain fields."""
        ...

    def grammar(self) -> Grammar: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


class Learner(Protocol):
    """How a codec that learns is trained: what its `learner()` gives to the training loop."""

    network: Any
    """The torch module that is trained; the codec uses its weights."""

    def batch(self, values: Sequence[Any]) -> Any:
        """Values -> a batch, which the training loop may split."""
        ...

    def loss(self, network: Any, batch: Any) -> Any:
        """A loss as a sum and the number of values that it is over."""
        ...

    def figures(self, values: Sequence[Any]) -> dict[str, float]:
        """How good it is on some values."""
        ...
