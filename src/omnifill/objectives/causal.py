"""Next-slot prediction: each slot's target given everything before it (GPT).

The softmax at a slot runs over exactly the ids that its field's grammar allows there. Slots are
grouped by block, so that each is scored against its own field's columns and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import (
    CODE_COLUMN,
    END,
    END_COLUMN,
    MISSING,
    MISSING_COLUMN,
    NUM_SPECIAL,
    Vocabulary,
)
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.model.packed import rows_of, told_by

HELD = 1 << 23
"""Scores that are held at once where the head does not learn."""
PRESENCE = 0.05
"""Weight in training of *whether* a value is there, against 1 for *which* it is.

Where cells are blank by chance, learning by heart which ones is the easiest way to over-fit: with
full weight, German credit with a fifth blanked is filled half as well (docs/log.md). The two parts
of a target's likelihood are weighted apart, so both still have the true shares as their optimum.
"""


@dataclass(frozen=True)
class LossSum:
    """A loss as a sum and what it is summed over, so that parts add up exactly."""

    total: Tensor
    """() fp32: weighted negative log-likelihood, in nats."""
    count: Tensor
    """(): sum of the weights."""


class Columns(nn.Module):
    """The vocabulary's blocks as tensors that move with the model."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.num = len(vocabulary.blocks)
        self.first = [b.first for b in vocabulary.blocks]
        self._put("row_block", torch.from_numpy(vocabulary.row_block))
        self._put("row_local", torch.from_numpy(vocabulary.row_local))
        self._put("ids", torch.from_numpy(np.concatenate([b.ids for b in vocabulary.blocks])))
        self.sizes = [len(b.ids) for b in vocabulary.blocks]
        self.barred = [
            [torch.from_numpy(np.flatnonzero(~row)) for row in block.allowed]
            for block in vocabulary.blocks
        ]

    def _put(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def scores(self, network: Network, hidden: Tensor, block: int, rows: Tensor) -> Tensor:
        """hidden (n, D) whose targets are in `block`, rows (n,) -> (n, 2 + K), -inf where barred.

        Columns are those of `form.vocabulary.Block`; always fp32.
        """
        first, size = self.first[block], self.sizes[block] - CODE_COLUMN
        if first == NUM_SPECIAL and not torch.is_grad_enabled():
            # Nothing is gathered or copied: <end> moves over what stands between it and <missing>.
            scores = told_by(network.head, hidden, slice(END, first + size))
            scores[:, MISSING - END - 1] = scores[:, 0]
            return self._barred(scores[:, MISSING - END - 1 :], block, rows)
        parts = ([END, MISSING], slice(first, first + size))
        scores = torch.cat([told_by(network.head, hidden, part) for part in parts], dim=1)
        return self._barred(scores, block, rows)

    def all_scores(self, network: Network, hidden: Tensor, rows: Tensor) -> Iterator[Tensor]:
        """The same of every block in turn, where hidden (N, D) and rows (N,) stand in the order of
        their blocks. The gradient of the head is gathered once, not block by block."""
        nums = torch.bincount(self.get_buffer("row_block")[rows], minlength=self.num).tolist()
        ids, head = self.get_buffer("ids"), network.head
        whole = [(rows_of(head, ids), self.sizes), (hidden, nums), (rows, nums)]
        if head.bias is not None:
            whole.append((head.bias[ids], self.sizes))
        parts = zip(*(torch.split(part, sizes) for part, sizes in whole), strict=True)
        for block, (weight, some, allow, *bias) in enumerate(parts):
            yield self._barred(F.linear(some, weight, *bias), block, allow)

    def _barred(self, scores: Tensor, block: int, rows: Tensor) -> Tensor:
        """scores (n, 2 + K) of our own, -inf where the row bars a column.

        Most rows bar a few columns: those are written alone, since passing over all of a large
        vocabulary once more is what takes time. The gradient there is zero by itself.
        """
        scores, local = scores.float(), self.get_buffer("row_local")[rows]
        kinds = sorted(set(local.tolist()))
        with torch.no_grad():
            for row in kinds:
                columns = self.barred[block][row]
                if len(kinds) == 1:
                    scores.index_fill_(1, columns, float("-inf"))
                else:
                    scores[(local == row).nonzero(), columns] = float("-inf")
        return scores

    def column_of(self, target: Tensor, block: int) -> Tensor:
        """Ids of a block -> their columns."""
        column = target - self.first[block] + CODE_COLUMN
        special = torch.where(target == END, END_COLUMN, MISSING_COLUMN)
        return torch.where(target < self.first[0], special, column)


class CausalObjective:
    """Loss and score of a causal model."""

    needs = frozenset({"causal"})

    def __init__(self, vocabulary: Vocabulary, smoothing: float = 0.0) -> None:
        """`smoothing`: see `weighed`; in training alone."""
        self.columns = Columns(vocabulary)
        self.mask = Mask("causal")
        self.smoothing = smoothing

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """Weighted sum of the nats of every target, its presence counted `PRESENCE`-fold."""
        nll = self._nats(network, batch, PRESENCE, in_training(self.smoothing))
        weight = batch.weight.flatten()
        return LossSum((nll * weight).sum(), weight.sum())

    def nats(self, network: Network, batch: Batch) -> Tensor:
        """(B * T,): negative log-likelihood of every target; 0 where its weight is 0."""
        return self._nats(network, batch, 1.0)

    def read(self, network: Network, batch: Batch) -> Tensor:
        """Hidden states (B, T, D) that predict the targets, from the slots before them."""
        hidden: Tensor = network(batch.ids, batch.field, batch.coord, self.mask)
        return hidden

    def _nats(
        self, network: Network, batch: Batch, presence: float, smoothing: float = 0.0
    ) -> Tensor:
        hidden, asked = self.read(network, batch), batch.weight > 0
        return target_nats(self.columns, network, hidden, batch, asked, presence, smoothing)


def in_training(smoothing: float) -> float:
    """What is smoothed is learned from, and not measured."""
    return smoothing if torch.is_grad_enabled() else 0.0


def target_nats(
    columns: Columns, network: Network, hidden: Tensor, batch: Batch, asked: Tensor,
    presence: float, smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """hidden (B, T, D), asked (B, T) bool -> (B * T,): nats of every target that is asked for,
    their presence counted `presence`-fold, their value smoothed; 0 elsewhere."""
    hidden = hidden.flatten(0, 1)
    target, allow = batch.target.flatten(), batch.allow.flatten()
    block_of = columns.get_buffer("row_block")[allow]
    at = asked.flatten().nonzero().flatten()
    if len(at) == 0:  # all is only looked at: nothing, but with a gradient
        nothing: Tensor = hidden.float().sum(dim=1) * 0
        return nothing
    at = at[block_of[at].argsort(stable=True)]
    hidden, target, allow, num = hidden[at], target[at], allow[at], hidden.shape[0]
    values: list[Tensor] = []
    if torch.is_grad_enabled() and network.head.weight.requires_grad:
        first = 0
        for block, logits in enumerate(columns.all_scores(network, hidden, allow)):
            column = columns.column_of(target[first : first + len(logits)], block)
            values.append(weighed(logits, column, presence, smoothing))
            first += len(logits)
    else:  # a head that does not learn needs no scores but those of the rows at hand
        nums = torch.bincount(block_of[at], minlength=columns.num).tolist()
        parts = zip(*(torch.split(part, nums) for part in (hidden, target, allow)), strict=True)
        for block, (some, wanted, rows) in enumerate(parts):

            def told(
                part: Tensor, where: slice, block: int = block, wanted: Tensor = wanted,
                rows: Tensor = rows,
            ) -> Tensor:  # fmt: skip
                logits = columns.scores(network, part, block, rows[where])
                column = columns.column_of(wanted[where], block)
                return weighed(logits, column, presence, smoothing)

            values.append(by_rows(some, told, max(1, HELD // columns.sizes[block])))
    out = torch.zeros(num, device=target.device)
    return out.index_put((at,), torch.cat(values))


def by_rows(hidden: Tensor, function: Callable[[Tensor, slice], Tensor], most: int) -> Tensor:
    """hidden (n, D) -> (n,): a number of each row by a function of rows, and where they are, that
    looks at no other row and learns nothing itself; at most so many at a time."""
    if torch.is_grad_enabled():
        out: Tensor = _ByRows.apply(hidden, function, most)  # type: ignore[no-untyped-call]
        return out
    places = [slice(first, first + most) for first in range(0, len(hidden), most)]
    return torch.cat([_none(hidden), *(function(hidden[where], where) for where in places)])


def _none(hidden: Tensor) -> Tensor:
    return hidden.new_zeros(0, dtype=torch.float32)


class _ByRows(torch.autograd.Function):
    """The gradient of each row is found with its number, so that nothing is kept of how."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, function: Callable[[Tensor, slice], Tensor], most: int
    ) -> Tensor:
        values, slopes = [_none(hidden)], [hidden.new_zeros(0, hidden.shape[1])]
        for first in range(0, len(hidden), most):
            where = slice(first, first + most)
            with torch.enable_grad():
                part = hidden[where].detach().requires_grad_()
                told = function(part, where)
                slopes.extend(torch.autograd.grad(told.sum(), part))
            values.append(told.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grads[0][:, None]).to(slopes.dtype), None, None


def weighed(logits: Tensor, column: Tensor, presence: float, smoothing: float = 0.0) -> Tensor:
    """logits (n, 2 + K), column (n,) of the targets -> (n,) nats.

    A target's likelihood is that of being there (or missing) times, if it is there, that of its
    value; the first counts `presence`-fold. `smoothing`: a share of the target that all columns
    that are allowed have in equal parts (label smoothing: Szegedy et al. 2015, arXiv 1512.00567).
    """
    nll: Tensor = _Nats.apply(logits, column, smoothing)  # type: ignore[no-untyped-call]
    if presence < 1:
        nll = nll - (1 - presence) * _of_presence(logits, column, nll)
    return nll


class _Nats(torch.autograd.Function):
    """Cross-entropy with a gradient that passes over the logits half as often as torch's; and
    columns of -inf take no part in smoothing."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, column: Tensor, smoothing: float) -> Tensor:
        whole = logits.logsumexp(dim=1)
        nats = whole - logits.gather(1, column[:, None])[:, 0]
        ctx.smoothing = smoothing
        ctx.save_for_backward(logits, column, whole)
        if not smoothing:
            return nats
        allowed = logits > float("-inf")
        mean = torch.where(allowed, logits, 0.0).sum(dim=1) / allowed.sum(dim=1)
        return nats.mul_(1 - smoothing).add_(whole - mean, alpha=smoothing)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grad,) = grads
        logits, column, whole = ctx.saved_tensors
        out = (logits - whole[:, None]).exp_()
        if ctx.smoothing:
            barred = logits == float("-inf")
            share = ctx.smoothing / (logits.shape[1] - barred.sum(dim=1, keepdim=True))
            out.sub_(share).masked_fill_(barred, 0.0)
        out.mul_(grad[:, None])
        hit = (grad * (ctx.smoothing - 1))[:, None]
        return out.scatter_add_(1, column[:, None], hit), None, None


def _of_presence(logits: Tensor, column: Tensor, nll: Tensor) -> Tensor:
    """(n,): nats of being there, or of missing."""
    missing = column == MISSING_COLUMN
    # Only where a value could have been missing is there anything to take apart.
    at = (~missing & (logits[:, MISSING_COLUMN] > float("-inf"))).nonzero().flatten()
    some = logits[at]
    there = some.logsumexp(1) - torch.cat(
        [some[:, :MISSING_COLUMN], some[:, MISSING_COLUMN + 1 :]], dim=1
    ).logsumexp(1)
    return torch.where(missing, nll, 0.0).index_put((at,), there)
