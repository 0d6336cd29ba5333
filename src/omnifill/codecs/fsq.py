"""Finite scalar quantisation: a vector becomes a code by rounding each of its numbers.

Mentzer et al. 2023 (arXiv 2309.15505): no codebook that could collapse. The straight-through
gradient is Bengio et al.'s (2013, arXiv 1308.3432). Where one code is not enough, further levels
round what the ones before them left over (residual FSQ: arXiv 2508.15860).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Fsq(nn.Module):
    """(…, d) numbers <-> (…, depth) codes in [0, size)."""

    def __init__(self, levels: Sequence[int], depth: int = 1) -> None:
        """`levels`: values that each of the d numbers may take; `depth`: codes of one vector."""
        super().__init__()
        self.levels, self.depth = tuple(levels), depth
        self.size = math.prod(levels)
        steps = torch.tensor(levels, dtype=torch.float32) - 1
        self.register_buffer("steps", steps, persistent=False)
        base = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("base", base, persistent=False)

    @property
    def dim(self) -> int:
        return len(self.levels)

    def forward(self, z: Tensor) -> Tensor:
        """z (…, d), any numbers -> the nearest that have codes, with the gradient of all of z."""
        bounded = torch.tanh(z)
        rounded = self._rounded(bounded)[0]
        return bounded + (rounded - bounded).detach()

    def spread(self, z: Tensor) -> Tensor:
        """z (n, d) -> how far its numbers are from mean 0 and deviation 1, where all codes are in
        use: numbers that have left for an end have no gradient to come back."""
        # Of one vector alone the deviation is 0, and no number that is not one.
        apart: Tensor = z.mean(dim=0).square() + (z.std(dim=0, correction=0) - 1).square()
        return apart.sum()

    def encode(self, z: Tensor) -> Tensor:
        """z (…, d) -> codes (…, depth)."""
        return self._rounded(torch.tanh(z))[1]

    def decode(self, codes: Tensor) -> Tensor:
        """codes (…, depth) -> the numbers (…, d) that they stand for."""
        steps, base = self.get_buffer("steps"), self.get_buffer("base")
        levels = (steps + 1).long()
        digits = codes[..., None] // base % levels  # (…, depth, d)
        values = digits / steps * 2 - 1
        scale = steps ** -torch.arange(self.depth)[:, None].float()
        return (values * scale).sum(dim=-2)

    def _rounded(self, bounded: Tensor) -> tuple[Tensor, Tensor]:
        steps, base = self.get_buffer("steps"), self.get_buffer("base")
        total, codes = torch.zeros_like(bounded), []
        scale = torch.ones_like(steps)
        for _ in range(self.depth):
            left = ((bounded - total) / scale).clamp(-1, 1)
            digits = torch.round((left + 1) / 2 * steps)
            codes.append((digits.long() * base).sum(dim=-1))
            total = total + (digits / steps * 2 - 1) * scale
            scale = scale / steps
        return total, torch.stack(codes, dim=-1)
