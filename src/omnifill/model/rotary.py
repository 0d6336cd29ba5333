"""Rotary positions (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

from typing import Any

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
    out: Tensor = _Turned.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


class _Turned(torch.autograd.Function):
    """Its gradient is turned back: no part of it is cut out and put together again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1.0), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    half = x.shape[-1] // 2
    out = (x * cos).to(x.dtype)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out
