"""What of a record is taken as given in training, where any fields may be asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from omnifill.form.batch import Batch
from omnifill.form.vocabulary import PAD

SHARE = 0.5
"""Share of the records of which something is given."""


def some_given(batch: Batch) -> Tensor:
    """(B, T) bool: of half of the rows the first few fields, as they are laid out, whole. Those
    that a task gives have no weight and are known anyway."""
    starts = torch.ones_like(batch.field, dtype=torch.bool)
    starts[:, 1:] = batch.field[:, 1:] != batch.field[:, :-1]
    place = starts.cumsum(dim=1) - 1
    fields = place.masked_fill(batch.target == PAD, 0).amax(dim=1) + 1
    num = (torch.rand(len(fields), device=fields.device) * fields).floor()
    num = num * (torch.rand(len(fields), device=fields.device) < SHARE)
    return place < num[:, None]


def beginning_given(batch: Batch) -> Tensor:
    """(B, T) bool: of half of the rows a beginning, up to half of it."""
    lengths = (batch.target != PAD).sum(dim=1)
    num = (torch.rand(len(lengths), device=lengths.device) * (lengths / 2 + 1)).floor()
    num = num * (torch.rand(len(lengths), device=lengths.device) < SHARE)
    return torch.arange(batch.target.shape[1], device=num.device) < num[:, None]
