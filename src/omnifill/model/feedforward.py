"""The part of a block that mixes the width and leaves the slots alone: every backbone has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model.config import ModelConfig
from omnifill.model.products import Linear, together

ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}  # fmt: skip


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202); or another function, gated or not."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.gated:
            self.gate_proj = Linear(config.dim, config.ffn, bias=config.ffn_bias)
        self.up_proj = Linear(config.dim, config.ffn, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn, config.dim, bias=config.ffn_bias)
        self.gated, self.act = config.gated, config.act
        self.side_by_side = ("gate_proj", "up_proj") if config.gated else ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = self.down_proj(self._inner(x))
        return out

    def _inner(self, x: Tensor) -> Tensor:
        if not self.gated:
            return ACTS[self.act](self.up_proj(x))
        gate, up = together(x, self.gate_proj, self.up_proj)
        if self.act != "silu":
            return ACTS[self.act](gate) * up
        if not torch.is_grad_enabled():
            return F.silu(gate).mul_(up)
        out: Tensor = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
        return out


class _Gated(torch.autograd.Function):
    """silu(gate) · up, with a gradient that reads memory fewer times than torch's."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        open_ = gate.sigmoid()
        ctx.save_for_backward(gate, up, open_)
        return (gate * open_).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        gate, up, open_ = ctx.saved_tensors
        through = gate * open_  # silu(gate); its slope is open_ + through · (1 - open_)
        slope = torch.addcmul(open_ + through, through, open_, value=-1)
        return slope.mul_(up).mul_(grad), through.mul_(grad)


def reset_parameters(module: nn.Module) -> None:
    """Fan-in scaled normal matrices; what writes to the stream starts at zero."""
    for name, weight in module.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
