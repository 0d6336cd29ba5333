"""Next-slot prediction: each slot's target given everything before it (GPT).

The softmax at a slot runs over exactly the ids that its field's grammar allows there. Slots are
grouped by block, so that each is scored against its own field's columns and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import CODE_COLUMN, END, END_COLUMN, MISSING_COLUMN, Vocabulary
from omnifill.model.mask import Mask
from omnifill.model.network import Network

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
        for i, block in enumerate(vocabulary.blocks):
            self._put(f"ids_{i}", torch.from_numpy(block.ids))
            bias = torch.zeros(block.allowed.shape)
            bias[~torch.from_numpy(block.allowed)] = float("-inf")
            self._put(f"bias_{i}", bias)

    def _put(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def scores(self, network: Network, hidden: Tensor, block: int, rows: Tensor) -> Tensor:
        """hidden (n, D) whose targets are in `block`, rows (n,) -> (n, 2 + K), -inf where barred.

        Columns are those of `form.vocabulary.Block`; always fp32.
        """
        ids, bias = self.get_buffer(f"ids_{block}"), self.get_buffer(f"bias_{block}")
        return network.scores(hidden, ids).float() + bias[self.get_buffer("row_local")[rows]]

    def column_of(self, target: Tensor, block: int) -> Tensor:
        """Ids of a block -> their columns."""
        column = target - self.first[block] + CODE_COLUMN
        special = torch.where(target == END, END_COLUMN, MISSING_COLUMN)
        return torch.where(target < self.first[0], special, column)


class CausalObjective:
    """Loss and score of a causal model."""

    needs = frozenset({"causal"})

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.columns = Columns(vocabulary)
        self.mask = Mask("causal")

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """Weighted sum of the nats of every target, its presence counted `PRESENCE`-fold."""
        nll = self._nats(network, batch, PRESENCE)
        weight = batch.weight.flatten()
        return LossSum((nll * weight).sum(), weight.sum())

    def nats(self, network: Network, batch: Batch) -> Tensor:
        """(B * T,): negative log-likelihood of every target; 0 where its weight is 0."""
        return self._nats(network, batch, 1.0)

    def _nats(self, network: Network, batch: Batch, presence: float) -> Tensor:
        hidden = network(batch.ids, batch.field, batch.coord, self.mask).flatten(0, 1)
        target, allow = batch.target.flatten(), batch.allow.flatten()
        counted = batch.weight.flatten() > 0
        block_of = self.columns.get_buffer("row_block")[allow]
        if self.columns.num == 1 and bool(counted.all()):
            logits = self.columns.scores(network, hidden, 0, allow)
            return weighed(logits, self.columns.column_of(target, 0), presence)
        places, values = [], []
        for block in range(self.columns.num):
            at = (counted & (block_of == block)).nonzero().flatten()
            if len(at) == 0:
                continue
            logits = self.columns.scores(network, hidden[at], block, allow[at])
            values.append(weighed(logits, self.columns.column_of(target[at], block), presence))
            places.append(at)
        if not places:  # all is only looked at: nothing, but with a gradient
            nothing: Tensor = hidden.float().sum(dim=1) * 0
            return nothing
        out = torch.zeros(len(target), device=target.device)
        return out.index_put((torch.cat(places),), torch.cat(values))


def weighed(logits: Tensor, column: Tensor, presence: float) -> Tensor:
    """logits (n, 2 + K), column (n,) of the targets -> (n,) nats.

    A target's likelihood is that of being there (or missing) times, if it is there, that of its
    value; the first counts `presence`-fold.
    """
    nll = F.cross_entropy(logits, column, reduction="none")
    if presence == 1:
        return nll
    missing = column == MISSING_COLUMN
    # Only where a value could have been missing is there anything to take apart.
    at = (~missing & (logits[:, MISSING_COLUMN] > float("-inf"))).nonzero().flatten()
    some = logits[at]
    there = some.logsumexp(1) - torch.cat(
        [some[:, :MISSING_COLUMN], some[:, MISSING_COLUMN + 1 :]], dim=1
    ).logsumexp(1)
    known = torch.where(missing, nll, 0.0).index_put((at,), there)
    return nll - (1 - presence) * known
