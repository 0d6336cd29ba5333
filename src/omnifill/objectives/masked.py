"""Masked: hidden slots are told from all that are known, wherever they stand.

BERT's cloze (Devlin et al. 2019, arXiv 1810.04805) with any share of slots hidden: a discrete
diffusion model, whose likelihood is bounded by answers that are weighed (see
`objectives.corruption`). How long a text is comes first, from what is given: its slots, hidden or
not, would tell. So a record is asked for in two parts, the sizes of its wanted texts without their
slots, and then everything else with the sizes known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from omnifill.chance import uniforms
from omnifill.form.batch import Batch
from omnifill.form.vocabulary import MASK, PAD, Vocabulary
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.objectives.causal import PRESENCE, Columns, LossSum, in_training, target_nats
from omnifill.objectives.corruption import Schedule
from omnifill.objectives.given import some_given

DRAWS = 8
"""Ways of hiding that a likelihood's bound is the mean of."""
SIZES_EVERY = 4
"""Of the sizes of texts, which are one slot each, every fourth record is asked in training."""


@dataclass(frozen=True)
class View:
    """What one part of a record's likelihood is read from."""

    batch: Batch
    wanted: Tensor
    """(B, T) bool: the slots whose likelihood it is."""
    always: Tensor
    """(B, T) bool: slots that are hidden and not asked for."""
    at: Tensor
    """(B, T): where each slot stands in the rows of the batch that it was taken from."""


class MaskedObjective:
    """Loss and score of a masked model. Where nothing is learned, the loss is the bound."""

    needs = frozenset({"full"})
    canvas: ClassVar[bool] = True

    def __init__(
        self, vocabulary: Vocabulary, schedule: Literal["linear", "cosine"] = "linear",
        smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        """`smoothing`: as of causal."""
        self.columns = Columns(vocabulary)
        self.schedule = Schedule(schedule)
        self.sizes_block, self.smoothing = vocabulary.sizes_block, smoothing

    def loss(self, network: Network, batch: Batch) -> LossSum:
        """One way of hiding for each record; where nothing is learned, always the same one."""
        learning = torch.is_grad_enabled()
        given = some_given(batch) if learning else torch.zeros_like(batch.weight > 0)
        total, count = torch.zeros(()), torch.zeros(())
        for number, view in enumerate(self._views(batch, given)):
            if number and learning:
                rows = torch.arange(0, len(view.wanted), SIZES_EVERY)
                view = _rows_of(view, rows)
            time, chance = self._drawn(view) if learning else _fixed(view, 0, 1)
            nats = self._told(network, view, time, chance, PRESENCE, in_training(self.smoothing))
            total = total + (nats * view.batch.weight).sum()
            count = count + (view.batch.weight * view.wanted).sum()
        return LossSum(total, count)

    @torch.no_grad()
    def nats(self, network: Network, batch: Batch) -> Tensor:
        """(B * T,): a bound on the negative log-likelihood of every target, together; the mean of
        `DRAWS` ways of hiding, which depend on the record alone. 0 where the weight is 0."""
        out = torch.zeros(batch.target.shape)
        for view in self._views(batch, torch.zeros_like(batch.weight > 0)):
            most = int(view.wanted.sum(dim=1).max())
            draws = DRAWS if most > 1 else 1
            for draw in range(draws):
                time, chance = _fixed(view, draw, draws)
                told = self._told(network, view, time, chance, 1.0)
                out.scatter_add_(1, view.at, told / draws)
        return out.flatten()

    def read(self, network: Network, batch: Batch) -> Tensor:
        """Hidden states (B, T, D) that predict the targets of weight, none of which is seen."""
        return _read(network, batch, batch.weight > 0)

    def _views(self, batch: Batch, given: Tensor) -> list[View]:
        """Everything but sizes, with the sizes known; and the sizes, if any are asked for."""
        inside = batch.target != PAD
        wanted = (batch.weight > 0) & inside & ~given
        is_size = self.columns.get_buffer("row_block")[batch.allow] == self.sizes_block
        nothing = torch.zeros_like(wanted)
        at = torch.arange(wanted.shape[1]).expand_as(wanted)
        views = [View(batch, wanted & ~is_size, nothing, at)]
        sizes = wanted & is_size
        if not bool(sizes.any()):
            return views
        # Slots of a text whose size is asked for are left out; others that are wanted are hidden.
        texts = torch.zeros(len(batch.field), int(batch.field.max()) + 1, dtype=torch.bool)
        rows, slots = sizes.nonzero(as_tuple=True)
        texts[rows, batch.field[rows, slots]] = True
        stays = inside & (sizes | ~texts.gather(1, batch.field))
        short, order = batch.packed(stays)
        left = stays.gather(1, order)
        asked = sizes.gather(1, order) & left
        views.append(View(short, asked, wanted.gather(1, order) & left & ~asked, order))
        return views

    def _drawn(self, view: View) -> tuple[Tensor, Tensor]:
        """Chance for training; times are spread evenly over the rows, which varies less."""
        rows = len(view.wanted)
        time = (torch.randperm(rows) + torch.rand(rows)) / max(rows, 1)
        return time, torch.rand(view.wanted.shape)

    def _told(
        self, network: Network, view: View, time: Tensor, chance: Tensor, presence: float,
        smoothing: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """(B, T): weighted nats of the slots that are hidden."""
        hidden, weight = self.schedule.corrupt(view.wanted, time, chance)
        if torch.is_grad_enabled():
            weight = self.schedule.even(view.wanted)
        states = _read(network, view.batch, hidden | view.always)
        nats = target_nats(self.columns, network, states, view.batch, hidden, presence, smoothing)
        return nats.view(hidden.shape) * weight


def _read(network: Network, batch: Batch, hidden: Tensor) -> Tensor:
    ids = torch.where(hidden, MASK, batch.target)
    lengths = (batch.target != PAD).sum(dim=1).clamp(min=1)
    states: Tensor = network(ids, batch.field, batch.coord, Mask("full", lengths))
    return states


def _fixed(view: View, draw: int, draws: int) -> tuple[Tensor, Tensor]:
    """Chance that depends on the record and the number of the draw; times are spread over draws."""
    target = view.batch.target.numpy()
    place = uniforms(0, np.arange(target.shape[1]), np.zeros(1, np.int64))
    # Padding counts nothing, so that a row is itself in any batch.
    name = ((target + 1) * (place * 2**40).astype(np.int64) * (target != PAD)).sum(axis=1)
    time = (uniforms(draw, name, np.zeros(1, np.int64)) + draw) / draws
    chance = uniforms(draw, name[:, None], 1 + np.arange(target.shape[1])[None])
    return torch.from_numpy(time), torch.from_numpy(chance)


def _rows_of(view: View, rows: Tensor) -> View:
    return View(view.batch.rows(rows), view.wanted[rows], view.always[rows], view.at[rows])
