"""Leans the tokens of a text towards aims while it is drawn, so that few candidates are enough.

A word that is to stand in a text is made likelier where the model finds it likely, compared with
the rest of the text so far, and once begun it is completed. The end of a text is made likelier as
the longest allowed length comes near, and less likely before the shortest is reached or while a
word is still lacking. What is drawn stays valid, and most of it is what the model would say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from omnifill.artifact import LoadedRun
from omnifill.chance import uniforms
from omnifill.form.vocabulary import CODE_COLUMN, END_COLUMN
from omnifill.generate.aims import Aim
from omnifill.types import Ints

FINISH = 12.0
"""Nats by which the next code of a word that is begun is raised."""
LATE = 0.4
"""Share of the longest length from which on the end is raised."""
UNLIKELY = -7.0
"""Logarithm of the chance of an end below which none is forced: a text cut short anywhere is worse
than one candidate more that is too long."""
HOLD = 4.0
"""Nats by which the end is lowered while something is lacking."""
USUAL = 200
"""Characters of a text whose length nobody limits, for the pace of a word."""
FAR = 1 << 32
"""Chance is drawn for slots from here on: the others are the sampler's."""
MOST_RAISED = 0.3
"""Greatest chance of beginning the word at one token."""


def needs_steering(aims: Sequence[Aim]) -> bool:
    """Whether any aim says something about the next token."""
    return any(aim.contains or aim.most < math.inf or aim.least for aim in aims)


@dataclass
class Writing:
    """One text so far."""

    decoder: Any
    text: str = ""
    begun: list[int] = field(default_factory=list)
    """The codes of the word that still have to come."""
    usual: list[float] = field(default_factory=list)
    """Logarithms of the chances of its first code at the tokens so far."""
    begins: float = 0.0
    """Chance that the word is begun if its first code comes now: other words begin with it, too."""


class Steer:
    """Changes scores of one text field; rows are told what was chosen."""

    def __init__(
        self, run: LoadedRun, aims: Sequence[Aim], prompt: str, seed: int, first: int
    ) -> None:
        """`first`: number of row 0, which chance is drawn for."""
        names = {aim.field for aim in aims if needs_steering([aim])}
        assert len(names) == 1, "aims of a text are about one text"
        self.field = run.vocabulary[names.pop()]
        mine = [aim for aim in aims if aim.field == self.field.name]
        self.most = min(aim.most for aim in mine)
        self.least = max(aim.least for aim in mine)
        self.words = [aim.contains for aim in mine if aim.contains]
        codec = self.field.codec
        # A word is one thing behind a blank and another without.
        self.spelled: dict[str, list[list[int]]] = {
            w: [codec.encode(s).tolist() for s in (f" {w}", w)] for w in self.words
        }
        self.prompt, self.seed, self.first = prompt, seed, first
        self.rows: dict[int, Writing] = {}

    def _of(self, row: int) -> Writing:
        if row not in self.rows:
            decoder = self.field.codec.stream_decoder()  # type: ignore[attr-defined]
            self.rows[row] = Writing(decoder, self.prompt)
        return self.rows[row]

    def lean(self, rows: Ints, fields: Ints, scores: Tensor) -> Tensor:
        """scores (n, C) of the rows' next slots -> leaning ones, where they are in the text."""
        scores = scores.clone()
        logs = scores.log_softmax(dim=1)
        for i in np.flatnonzero(fields == self.field.index).tolist():
            at = self._of(int(rows[i]))
            if at.begun:
                scores[i, CODE_COLUMN + at.begun[0]] += FINISH
                continue
            lacking = [w for w in self.words if w not in at.text]
            if lacking:
                self._raise_word(at, lacking[0], scores[i], logs[i])
            size = len(at.text)
            if size < self.least or (lacking and size < self.most):
                scores[i, END_COLUMN] -= HOLD
            elif size > LATE * self.most and float(logs[i, END_COLUMN]) > UNLIKELY:
                late = (size / max(self.most, 1.0) - LATE) / (1 - LATE)
                scores[i, END_COLUMN] += FINISH * late**2
        return scores

    def _raise_word(self, at: Writing, word: str, scores: Tensor, logs: Tensor) -> None:
        """Make the first token of the word so likely that it comes about once in the text, sooner
        where the model finds it more likely than elsewhere."""
        spelled = self._spelled(at, word)
        column = CODE_COLUMN + spelled[0]
        if not math.isfinite(float(scores[column])):
            return
        chance = math.exp(max(float(logs[column]), -30.0))
        at.usual.append(math.log(chance))
        each = max(1.0, len(word) / len(spelled))  # characters of a token
        tokens = max(4.0, min(self.most, USUAL) / each)
        goal = 3.0 / tokens * math.exp(at.usual[-1] - float(np.mean(at.usual)))
        goal = min(MOST_RAISED, goal)
        if self.most - len(at.text) < 2 * len(word) + 8:  # the last room for it
            goal = 0.9
        at.begins = min(1.0, goal / chance)
        if goal > chance:
            scores[column] += math.log(goal / (1 - goal)) - math.log(chance / (1 - chance))

    def _spelled(self, at: Writing, word: str) -> list[int]:
        return self.spelled[word][0 if at.text and not at.text[-1].isspace() else 1]

    def _chance(self, row: int, at: Writing) -> float:
        number = np.array([self.first + row], np.int64)
        return float(uniforms(self.seed, number, np.array([FAR + len(at.text)], np.int64))[0])

    def settle(self, rows: Ints, fields: Ints, columns: Ints) -> Ints:
        """What was chosen stands."""
        return columns

    def ahead(self, row: int, field: int) -> list[int]:
        """Nothing must come."""
        return []

    def tell(self, rows: Ints, fields: Ints, ids: Ints) -> None:
        """What the rows' texts go on with."""
        mine = (fields == self.field.index) & (ids >= self.field.first)
        for row, id_ in zip(rows[mine].tolist(), ids[mine].tolist(), strict=True):
            code = id_ - self.field.first
            at = self._of(row)
            if at.begun:
                at.begun = at.begun[1:] if at.begun[0] == code else []
            else:
                lacking = [word for word in self.words if word not in at.text][:1]
                for first, *rest in (self._spelled(at, word) for word in lacking):
                    if first == code and self._chance(row, at) < at.begins:
                        at.begun = rest
            at.text += at.decoder.feed(code)
