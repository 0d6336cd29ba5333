"""Preferences: of two texts that answer the same, the one that was chosen becomes likelier than it
was, and the other less likely (DPO: Rafailov et al. 2023, arXiv 2305.18290).

How likely both were is what the network says that training goes on from; it stays as it is. A task
names the field that is wanted and, as `against`, the one that is not; both are read in the place of
the wanted one, so that which of them is read says nothing.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import MISSING, PAD, Vocabulary
from omnifill.model.network import Network
from omnifill.objectives.causal import CausalObjective, LossSum, target_nats


class PreferenceObjective(CausalObjective):
    """The loss of pairs; the score of a text is that of a causal model."""

    paired = True

    def __init__(self, vocabulary: Vocabulary, beta: float = 0.1) -> None:
        """`beta`: how strongly the network is held to what it was."""
        super().__init__(vocabulary)
        self.vocabulary, self.beta = vocabulary, beta
        self.reference: Network | None = None

    def begin(self, network: Network) -> None:
        """Keep a network as it is, for both texts' likelihoods before training."""
        self.reference = copy.deepcopy(network).eval().requires_grad_(False)

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """Sum over pairs of -log sigmoid(beta · how much more the chosen text gained)."""
        chosen, other, whole = self._pairs(batch)
        before = network if self.reference is None else self.reference
        gained = torch.zeros(len(whole))
        for side, sign in ((chosen, 1.0), (other, -1.0)):
            with torch.no_grad():
                known = self._total(before, side)
            gained = gained + sign * (known - self._total(network, side))
        nats = -F.logsigmoid(self.beta * gained) * whole
        return LossSum(nats.sum(), whole.sum())

    def _total(self, network: Network, side: Batch) -> Tensor:
        """(B,): nats of the told text of each row."""
        hidden, asked = self.read(network, side), side.weight > 0
        nats = target_nats(self.columns, network, hidden, side, asked, presence=1.0)
        return nats.view(asked.shape).sum(dim=1)

    def _pairs(self, batch: Batch) -> tuple[Batch, Batch, Tensor]:
        """Rows with the chosen text, rows with the other one in its place, and (B,) 1 where both
        are there."""
        told, inside = batch.weight > 0, batch.target != PAD
        # The told fields of a row: the first is wanted, the last is not.
        slot = torch.arange(told.shape[1])
        first = torch.where(told, slot, told.shape[1]).amin(dim=1).clamp(max=told.shape[1] - 1)
        last = torch.where(told, slot, -1).amax(dim=1).clamp(min=0)
        wanted = batch.field.gather(1, first[:, None])
        against = batch.field.gather(1, last[:, None])
        missing = ((batch.target == MISSING) & told).any(dim=1)
        whole = (told.any(dim=1) & (wanted != against)[:, 0] & ~missing).float()
        chosen, _ = batch.packed(inside & ~(told & (batch.field == against)))
        other, _ = batch.packed(inside & ~(told & (batch.field == wanted)))
        return chosen, self._in_place(other, wanted, against), whole

    def _in_place(self, other: Batch, wanted: Tensor, against: Tensor) -> Batch:
        """The other text as if it were the wanted one."""
        start = torch.tensor([field.start_row for field in self.vocabulary.fields])
        mine = (other.weight > 0) & (other.field == against)
        moved = (start[wanted] - start[against]).expand_as(other.allow)
        return replace(
            other,
            field=torch.where(mine, wanted, other.field),
            allow=torch.where(mine, other.allow + moved, other.allow),
        )
