"""Rotary positions (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(pos: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """pos (B, T) -> cosines and sines (B, 1, T, head_dim)."""
    half = torch.arange(0, head_dim, 2, device=pos.device, dtype=torch.float32)
    angle = pos[..., None].float() * theta ** (-half / head_dim)  # (B, T, d/2)
    angle = torch.cat([angle, angle], dim=-1)[:, None]  # (B, 1, T, d)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + d/2) of x (B, H, T, d) by their angle."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
