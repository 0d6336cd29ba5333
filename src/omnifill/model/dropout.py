"""Dropout (Srivastava et al. 2014) whose random bits are cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
"""A value is dropped or kept by one random byte: the share is a multiple of 1/256."""


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """x with about a `share` of its values zeroed and the others scaled up, in training only.

    torch's own draws a number of the Mersenne twister for every value, which takes longer than a
    product of the same size; one draw here is for eight.
    """
    if not training:
        return x
    dropped = round(LEVELS * share)
    if not dropped or x.device.type != "cpu":
        return F.dropout(x, share)
    num = x.numel()
    words = torch.empty(-(-num // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[:num].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
