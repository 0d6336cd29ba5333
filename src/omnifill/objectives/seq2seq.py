"""Sequence to sequence: Decoder(Encoder(X)). An encoder reads what is given in both directions; a
decoder, which looks at the encoder's states, tells what is wanted slot by slot (Sutskever et al.
2014, arXiv 1409.3215; Vaswani et al. 2017, arXiv 1706.03762).

What is given is what has no weight: a task's given fields, or the head of a window. Where any
fields may be asked for, half of the records are read with their first fields given, and of a text
alone its beginning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import PAD, Vocabulary
from omnifill.model.mask import Mask
from omnifill.model.memory import Memory
from omnifill.model.network import Network
from omnifill.objectives.causal import PRESENCE, Columns, LossSum, target_nats
from omnifill.objectives.given import beginning_given, some_given


class Seq2SeqObjective:
    """Loss and score of a model with an encoder."""

    needs = frozenset({"causal", "full", "memory"})

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.columns = Columns(vocabulary)
        self.alone = len(vocabulary.fields) == 1

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """Weighted sum of the nats of every target, its presence counted `PRESENCE`-fold."""
        given = torch.zeros_like(batch.weight, dtype=torch.bool)
        if torch.is_grad_enabled():
            given = beginning_given(batch) if self.alone else some_given(batch)
        nats, weight = self._told(network, batch, given, PRESENCE)
        return LossSum((nats * weight).sum(), weight.sum())

    def nats(self, network: Network, batch: Batch) -> Tensor:
        """(B * T,): negative log-likelihood of every target; 0 where its weight is 0."""
        given = torch.zeros_like(batch.weight, dtype=torch.bool)
        return self._told(network, batch, given, 1.0)[0].flatten()

    def read(self, network: Network, batch: Batch) -> Tensor:
        """Hidden states (B, T, D) that predict the targets of weight."""
        hidden, _, order = _decoded(network, batch, batch.weight == 0)
        out = hidden.new_zeros(*batch.target.shape, hidden.shape[2])
        return out.scatter(1, order[..., None].expand(-1, -1, hidden.shape[2]), hidden)

    def _told(
        self, network: Network, batch: Batch, given: Tensor, presence: float
    ) -> tuple[Tensor, Tensor]:
        """(B, T) nats of the targets that are told, and their weights."""
        hidden, wanted, order = _decoded(network, batch, given | (batch.weight == 0))
        asked = wanted.weight > 0
        nats = target_nats(self.columns, network, hidden, wanted, asked, presence)
        out = nats.new_zeros(batch.target.shape)
        weight = torch.where(given, 0.0, batch.weight)
        return out.scatter(1, order, nats.view(asked.shape)), weight


def _decoded(network: Network, batch: Batch, given: Tensor) -> tuple[Tensor, Batch, Tensor]:
    """Hidden states of the slots that are not given, packed to the left; those slots as a batch;
    and where each stood, (B, T')."""
    inside = batch.target != PAD
    wanted, order = batch.packed(inside & ~given)
    memory = encode(network, batch.packed(inside & given)[0])
    hidden: Tensor = network(wanted.ids, wanted.field, wanted.coord, Mask(), memory=memory)
    return hidden, wanted, order


def encode(network: Network, source: Batch) -> Memory:
    """The encoder's states of what is given, behind a `<bos>` that is always there."""
    opened = source.opened()
    lengths = (opened.target != PAD).sum(dim=1)
    return network.encode(opened.target, opened.field, opened.coord, Mask("full", lengths))
