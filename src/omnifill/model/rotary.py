"""Rotary positions (Su et al. 2021, arXiv 2104.09864), and how they stretch to longer texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnifill.model.config import ModelConfig, RopeScaling


@dataclass(frozen=True, eq=False)
class Rotation:
    """How far each pair of a head's numbers turns from one slot to the next."""

    speed: Tensor
    """(d / 2,) radians a slot."""
    gain: float = 1.0
    """What both parts are multiplied by."""

    @classmethod
    def of(cls, config: ModelConfig) -> Rotation:
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
        speed = 1.0 / config.rope_theta ** (half / config.head_dim)
        if config.rope is None:
            return cls(speed)
        return cls(STRETCHED[config.rope.kind](speed, config.rope, config), config.rope.gain)

    def at(self, pos: Tensor) -> tuple[Tensor, Tensor]:
        """pos (B, T) -> cosines and sines (B, 1, T, d), the sines of each pair's first negative."""
        angle = pos[:, None, :, None].float() * self.speed.to(pos.device)  # (B, 1, T, d/2)
        cos, sin = angle.cos() * self.gain, angle.sin() * self.gain
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def _linear(speed: Tensor, rope: RopeScaling, config: ModelConfig) -> Tensor:
    """Positions closer together (Chen et al. 2023, arXiv 2306.15595)."""
    return speed / rope.factor


def _by_parts(speed: Tensor, rope: RopeScaling, config: ModelConfig) -> Tensor:
    """Slow pairs as in `_linear`, fast ones as they were, a ramp of wave lengths between (Llama 3:
    Grattafiori et al. 2024, arXiv 2407.21783)."""
    turns = rope.original * speed / (2 * math.pi)  # over the original context
    share = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return (1 - share) * speed / rope.factor + share * speed


def _yarn(speed: Tensor, rope: RopeScaling, config: ModelConfig) -> Tensor:
    """The same, with a ramp over the pairs' numbers (Peng et al. 2023, arXiv 2309.00071)."""
    per_turn = config.head_dim / (2 * math.log(config.rope_theta))
    first, last = (
        per_turn * math.log(rope.original / (turns * 2 * math.pi))
        for turns in (rope.high, rope.low)
    )
    if rope.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.head_dim - 1)
    pair = torch.arange(len(speed), dtype=torch.float32, device="cpu")
    slow = ((pair - first) / max(last - first, 0.001)).clamp(0, 1)
    return slow * speed / rope.factor + (1 - slow) * speed


STRETCHED = {"linear": _linear, "llama3": _by_parts, "yarn": _yarn}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + d/2) of x (B, H, T, d) by their angle, as of `Rotation.at`."""
    if not torch.is_grad_enabled():
        return _turned(x, cos, sin, 1.0)
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
    if x.shape[2] == 1:  # so few numbers that calls count, and a copy does not
        return out.addcmul_(x.roll(half, -1), sin, value=sign)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out
