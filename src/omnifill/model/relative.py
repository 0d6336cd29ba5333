"""Positions as what is added to attention's scores: a number for each distance, learned.

Near distances have a bucket each, farther ones share buckets that grow with the distance (T5:
Raffel et al. 2020, arXiv 1910.10683). All layers add the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omnifill.model.config import ModelConfig


class RelativePositions(nn.Module):
    """(T, keys) distances -> (H, T, keys) numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.both_ways, self.farthest = config.full, config.farthest
        self.table = nn.Embedding(config.buckets, config.heads)

    def forward(self, away: Tensor, look: Tensor) -> Tensor:
        """away (B or 1, T, keys): slots that each key stands before its query; look (…, T, keys)
        bool, True where it may be seen -> (…, H, T, keys), -inf where not."""
        numbers: Tensor = self.table(self._bucket(away)).permute(0, 3, 1, 2)
        return numbers.masked_fill(~look, float("-inf"))

    def _bucket(self, away: Tensor) -> Tensor:
        num, first = self.table.num_embeddings, torch.zeros_like(away)
        if self.both_ways:  # keys that stand behind have the second half
            num //= 2
            first, away = num * (away < 0), away.abs()
        away = away.clamp(min=0)
        near = num // 2
        share = torch.log(away.clamp(min=1).float() / near) / math.log(self.farthest / near)
        far = (near + (share * (num - near)).long()).clamp(max=num - 1)
        return first + torch.where(away < near, away, far)
