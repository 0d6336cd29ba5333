"""Sequence to sequence: Decoder(Encoder(X)). An encoder reads what is given in both directions; a
decoder, which looks at the encoder's states, tells what is wanted slot by slot (Sutskever et al.
2014, arXiv 1409.3215; Vaswani et al. 2017, arXiv 1706.03762).

What is given is what has no weight: a task's given fields, or the head of a window. Where any
fields may be asked for, half of the records are read with their first fields given, and of a text
alone its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import MASK, PAD, Vocabulary
from omnifill.model.mask import Mask
from omnifill.model.memory import Memory
from omnifill.model.network import Network
from omnifill.objectives.causal import PRESENCE, Columns, LossSum, in_training, target_nats
from omnifill.objectives.given import beginning_given, some_given

HOLES = 0.3
"""Share of the slots that are hidden of what is to be restored."""


class Seq2SeqObjective:
    """Loss and score of a model with an encoder."""

    needs = frozenset({"causal", "full", "memory"})

    def __init__(
        self, vocabulary: Vocabulary, restore: float = 0.0, smoothing: float = 0.0
    ) -> None:
        """`restore`: share of the training records of which one side is told from itself, with
        holes. A field that is always answered in one other foretells that one, whatever is asked
        for; one that is answered in itself, too, does not (zero-shot translation with a denoising
        autoencoder: Siddhant et al. 2020, arXiv 2005.04816). `smoothing`: as of causal."""
        self.columns = Columns(vocabulary)
        self.alone = len(vocabulary.fields) == 1
        self.restore, self.smoothing = restore, smoothing

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """Weighted sum of the nats of every target, its presence counted `PRESENCE`-fold."""
        given = batch.weight == 0
        if not torch.is_grad_enabled():
            sides = _sides(batch, given)
        else:
            given = given | (beginning_given(batch) if self.alone else some_given(batch))
            sides = restored(batch, given, self.restore) if self.restore else _sides(batch, given)
        wanted = sides.wanted
        nats = self._told(network, sides, PRESENCE, in_training(self.smoothing)) * wanted.weight
        return LossSum(nats.sum(), wanted.weight.sum())

    def nats(self, network: Network, batch: Batch) -> Tensor:
        """(B * T,): negative log-likelihood of every target; 0 where its weight is 0."""
        sides = _sides(batch, batch.weight == 0)
        nats = self._told(network, sides, 1.0)
        return nats.new_zeros(batch.target.shape).scatter(1, sides.order, nats).flatten()

    def read(self, network: Network, batch: Batch) -> Tensor:
        """Hidden states (B, T, D) that predict the targets of weight."""
        sides = _sides(batch, batch.weight == 0)
        hidden = _decoded(network, sides)
        out = hidden.new_zeros(*batch.target.shape, hidden.shape[2])
        return out.scatter(1, sides.order[..., None].expand(-1, -1, hidden.shape[2]), hidden)

    def _told(
        self, network: Network, sides: Sides, presence: float, smoothing: float = 0.0
    ) -> Tensor:
        """(B, T') nats of the targets that are told."""
        hidden, asked = _decoded(network, sides), sides.wanted.weight > 0
        nats = target_nats(self.columns, network, hidden, sides.wanted, asked, presence, smoothing)
        return nats.view(asked.shape)


@dataclass(frozen=True, eq=False)
class Sides:
    """A batch in two: what the encoder reads, and what the decoder tells; packed to the left."""

    source: Batch
    wanted: Batch
    order: Tensor
    """(B, T'): where each wanted slot stood."""


def _sides(batch: Batch, given: Tensor) -> Sides:
    inside = batch.target != PAD
    return Sides(batch.packed(inside & given)[0], *batch.packed(inside & ~given))


def restored(batch: Batch, given: Tensor, share: float) -> Sides:
    """What is given (B, T) bool to the encoder, the rest to the decoder; but a share of the rows
    shows and asks for one and the same side, with holes where it is shown."""
    inside, device = batch.target != PAD, given.device
    known, asked = inside & given, inside & ~given
    again, first = torch.rand(2, len(given), 1, device=device)
    again = again < share
    side = torch.where((first < 0.5) & known.any(dim=1, keepdim=True), known, asked)
    holes = again & (torch.rand(given.shape, device=device) < HOLES)
    shown = batch.with_target(torch.where(holes, MASK, batch.target))
    weight = torch.where(again & side & (batch.weight == 0), 1.0, batch.weight)
    wanted = replace(batch, weight=weight).packed(torch.where(again, side, asked))
    return Sides(shown.packed(torch.where(again, side, known))[0], *wanted)


def _decoded(network: Network, sides: Sides) -> Tensor:
    """Hidden states (B, T', D) of the wanted slots."""
    wanted, memory = sides.wanted, encode(network, sides.source)
    hidden: Tensor = network(wanted.ids, wanted.field, wanted.coord, Mask(), memory=memory)
    return hidden


def encode(network: Network, source: Batch) -> Memory:
    """The encoder's states of what is given, behind a `<bos>` that is always there."""
    opened = source.opened()
    lengths = (opened.target != PAD).sum(dim=1)
    return network.encode(opened.target, opened.field, opened.coord, Mask("full", lengths))
