"""What a sampler chose, token by token, how likely each was, and what else might have come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError, check_kind
from omnifill.form.layout import Former, Orders
from omnifill.form.vocabulary import (
    CODE_COLUMN,
    END,
    END_COLUMN,
    MISSING,
    MISSING_COLUMN,
    PAD,
    FieldIds,
)
from omnifill.generate.decoding import Stopper
from omnifill.generate.plan import Leaning
from omnifill.generate.requests import plan_of
from omnifill.generate.samplers import build_sampler
from omnifill.generate.wishes import Request
from omnifill.types import Ints

MOST = 50
"""Alternatives that can be asked for."""


@dataclass(frozen=True)
class Token:
    """One slot of a value, as it was chosen."""

    field: str
    text: str
    """What it adds to a text, or the value of a category; of the slots of other values nothing."""
    code: int | None
    """Of the field's codec (of an imported checkpoint: the id of its tokenizer); None: the end, or
    that the value is missing."""
    log_prob: float
    """In nats, by the model's distribution over what its field allows there: before temperature,
    cuts, penalties and rules, and with guidance and `logit_bias`."""
    likeliest: tuple[tuple[str, int | None, float], ...]
    """Text, code and log-probability of what was likeliest, the likeliest first."""


class Trace:
    """Writes down what is likely and what is chosen, beside whatever else leans."""

    def __init__(self, run: LoadedRun, top: int, inner: Leaning | None) -> None:
        self.run, self.top, self.inner = run, top, inner
        self.scores: dict[int, Tensor] = {}
        """Of each row that is at work, its last scores."""
        self.rows: dict[int, list[Token]] = {}
        self.decoders: dict[tuple[int, int], Any] = {}

    def lean(self, rows: Ints, fields: Ints, scores: Tensor) -> Tensor:
        """(n, C) scores as they are, or as the inner one has them."""
        for row, some in zip(rows.tolist(), scores.log_softmax(dim=1), strict=True):
            self.scores[row] = some
        return scores if self.inner is None else self.inner.lean(rows, fields, scores)

    def settle(self, rows: Ints, fields: Ints, columns: Ints) -> Ints:
        """The columns as the inner one has them."""
        return columns if self.inner is None else self.inner.settle(rows, fields, columns)

    def tell(self, rows: Ints, fields: Ints, ids: Ints) -> None:
        """Write the chosen (n,) ids down."""
        if self.inner is not None:
            self.inner.tell(rows, fields, ids)
        for row, index, i in zip(rows.tolist(), fields.tolist(), ids.tolist(), strict=True):
            field, log_probs = self.run.vocabulary.fields[index], self.scores.pop(row)
            column = {END: END_COLUMN, MISSING: MISSING_COLUMN}.get(
                i, i - field.first + CODE_COLUMN
            )
            best = log_probs.topk(min(self.top, len(log_probs)))
            likeliest = tuple(
                (self._alone(field, c), _code(c), float(p))
                for p, c in zip(best.values, best.indices.tolist(), strict=True)
                if p > float("-inf")
            )
            self.rows.setdefault(row, []).append(Token(
                field.name, self._next(row, field, column), _code(column),
                float(log_probs[column]), likeliest,
            ))  # fmt: skip

    def ahead(self, row: int, field: int) -> list[int]:
        """What the inner one knows."""
        return [] if self.inner is None else self.inner.ahead(row, field)

    def _next(self, row: int, field: FieldIds, column: int) -> str:
        """What a column adds to the row's text."""
        if field.slots is not None or column < CODE_COLUMN:
            return self._alone(field, column)
        decoder = self.decoders.get((row, field.index))
        if decoder is None:
            decoder = self.decoders[row, field.index] = field.codec.stream_decoder()  # type: ignore[attr-defined]
        fresh: str = decoder.feed(column - CODE_COLUMN)
        return fresh

    def _alone(self, field: FieldIds, column: int) -> str:
        """A column by itself."""
        if column < CODE_COLUMN or (field.slots or 1) > 1:
            return ""
        return str(field.codec.decode(np.array([column - CODE_COLUMN])))


def traced(run: LoadedRun, request: Request, top: int) -> list[list[Token]]:
    """The tokens of every record of a request. RequestError where they aren't chosen one by one."""
    check_kind("top", top, int, "a whole number")
    if not 0 <= top <= MOST:
        raise RequestError(f"top = {top}: must be from 0 to {MOST}")
    if run.vocabulary.canvas:
        raise RequestError("tokens are told by models that write from left to right, and a masked "
                           "model makes a value as a whole")  # fmt: skip
    more = [request.sampling.beams > 1, request.rerank > 1, request.candidates > 1, request.choices]
    if any(more):
        raise RequestError("tokens are told of what is drawn: leave out beams, rerank, candidates "
                           "and choices")  # fmt: skip
    plan = plan_of(run, request, 0, request.num)
    trace = Trace(run, top, plan.leaning)
    stopper = Stopper(run, plan, request.stop) if request.stop else None
    for _ in build_sampler(run)(replace(plan, leaning=trace), stopper):
        pass
    return [trace.rows.get(row, []) for row in range(request.num)]


def _code(column: int) -> int | None:
    return column - CODE_COLUMN if column >= CODE_COLUMN else None


@torch.no_grad()
def told_prompt(run: LoadedRun, request: Request, top: int) -> list[Token]:
    """The tokens of a request's prompt, as likely as they are behind what is given. RequestError
    for a prompt of more tokens than are in view at once, and for models that read no other way."""
    if run.vocabulary.canvas or run.network.encoder is not None:
        raise RequestError("tokens of a prompt are told by models that read from left to right")
    plan, field = plan_of(run, request, 0, 1), run.vocabulary[request.want[0]]
    if int(plan.shard.sizes[0]) > run.network.config.context:
        raise RequestError(f"prompt: has {int(plan.shard.sizes[0])} tokens, and "
                           f"{run.network.config.context} are in view at once")  # fmt: skip
    shown = Orders(np.where(plan.orders.wanted, -1, plan.orders.fields), plan.orders.wanted)
    batch = Former(run.vocabulary).records(plan.shard, plan.which, shown, weighted=False)
    at = ((batch.field[0] == field.index) & (batch.target[0] != PAD)).nonzero().flatten()
    hidden = run.objective.read(run.network, batch)[0, at]
    columns = run.objective.columns
    scores = columns.scores(run.network, hidden, field.block, batch.allow[0, at])
    trace, row = Trace(run, top, None), np.zeros(1, np.int64)
    for some, id_ in zip(scores, batch.target[0, at].tolist(), strict=True):
        trace.lean(row, row, some[None])
        trace.tell(row, row + field.index, row + id_)
    return trace.rows.get(0, [])
