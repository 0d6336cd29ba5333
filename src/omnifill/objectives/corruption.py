"""How many slots are hidden as time goes on: read by the masked loss and by the parallel sampler.

Time runs from 0, where all is known, to 1, where nothing is. The loss hides k of n slots, any k of
them. A likelihood weighs what is asked about them so that its mean bounds the negative logarithm of
the record's: n / k where every k comes as often (the loss of order-agnostic autoregressive models,
Hoogeboom et al. 2021, arXiv 2110.02037, which is that of masked diffusion, Sahoo et al. 2024, arXiv
2406.07524). A schedule that favours some k counts them less. In training all hidden slots count
alike: what is best for each of them is the same, and a record of which little is hidden does not
outweigh the others (docs/log.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """`linear`: as many slots at all times. `cosine`: most of the time much is hidden, as MaskGIT
    does (Chang et al. 2022, arXiv 2202.04200): few slots are chosen while little is known."""

    name: Literal["linear", "cosine"] = "linear"

    def hidden(self, time: Tensor) -> Tensor:
        """Time in [0, 1] -> the share that is hidden, rising from 0 to 1."""
        return time if self.name == "linear" else torch.sin(time * math.pi / 2)

    def time(self, hidden: Tensor) -> Tensor:
        """The inverse of `hidden`."""
        return hidden if self.name == "linear" else torch.asin(hidden) * 2 / math.pi

    def known(self, step: int, steps: int, num: int) -> int:
        """How many of `num` slots are known after `step` of `steps` steps."""
        if step >= steps:
            return num
        share = float(self.hidden(torch.tensor(1 - step / steps, dtype=torch.float64)))
        return min(num, math.floor(num * (1 - share) + 0.5))

    def corrupt(self, wanted: Tensor, time: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """wanted (B, T) bool; time (B,) and chance (B, T), uniform in [0, 1) -> which of the wanted
        slots are hidden (B, T), at least one of each row that has any; and the weight (B, 1) of
        each of them, whose sum over a row is its number of wanted slots on average."""
        num = wanted.sum(dim=1, keepdim=True)
        some = num.clamp(min=1).double()
        k = (some * self.hidden(time[:, None].double())).ceil().clamp(min=1)
        k = torch.minimum(k, some)
        often = self.time(k / some) - self.time((k - 1) / some)
        rank = chance.masked_fill(~wanted, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return wanted & (rank < k), (1 / (k * often)).float()

    def even(self, wanted: Tensor) -> Tensor:
        """wanted (B, T) bool -> the weight (B, 1) that all hidden slots of a row may have alike, so
        that their sum is its number of wanted slots on average."""
        num = wanted.sum(dim=1, keepdim=True).clamp(min=1).double()
        fewer = torch.arange(wanted.shape[1])[None] / num
        more = (1 - self.time(fewer.clamp(max=1))) * (fewer < 1)  # chance that more are hidden
        return (num / more.sum(dim=1, keepdim=True)).float()
