"""What a decoder looks at beside its own past: the states of an encoder over what is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model.config import ModelConfig
from omnifill.model.norm import RMSNorm
from omnifill.model.products import Linear


class Memory:
    """The states of an encoder, and what its values that stay in view add up to."""

    def __init__(self, states: Tensor, inside: Tensor, total: Tensor | None) -> None:
        """states (B, S, D), inside (B, S) bool, total (B, D) or None where nothing stays."""
        self.states, self.inside, self.total = states, inside, total
        self.kept: dict[CrossAttention, tuple[Tensor, Tensor]] = {}
        """Keys and values of every layer that has looked, (B, H, S, d): made once for a text."""

    def select(self, rows: Tensor) -> Memory:
        """Of the given rows only, (R,) indices."""
        out = Memory(self.states[rows], self.inside[rows], _of(self.total, rows))
        out.kept = {layer: (k[rows], v[rows]) for layer, (k, v) in self.kept.items()}
        return out


def _of(total: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if total is None else total[rows]


class CrossAttention(nn.Module):
    """Slots of a decoder look at all slots of an encoder. There is no order between the two (as in
    T5: Raffel et al. 2020, arXiv 1910.10683); the encoder's states know their own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        width = self.heads * self.head_dim
        self.q_proj = Linear(config.dim, width, bias=config.qkv_bias)
        self.k_proj = Linear(config.dim, width, bias=config.qkv_bias)
        self.v_proj = Linear(config.dim, width, bias=config.qkv_bias)
        self.o_proj = Linear(width, config.dim, bias=config.o_bias)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps) if config.qk_norm else None
        self.scale = config.attn_scale

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        rows, num, _ = x.shape
        q = self._split(self.q_proj(x))
        q = (q if self.q_norm is None else self.q_norm(q)).transpose(1, 2)
        k, v = self._kept(memory)
        mask = memory.inside[:, None, None]
        out = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask,
                                             scale=self.scale)  # fmt: skip
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, num, -1))
        return mixed

    def _kept(self, memory: Memory) -> tuple[Tensor, Tensor]:
        if self in memory.kept:
            return memory.kept[self]
        k = self._split(self.k_proj(memory.states))
        k = (k if self.k_norm is None else self.k_norm(k)).transpose(1, 2)
        v = self._split(self.v_proj(memory.states)).transpose(1, 2)
        if not torch.is_grad_enabled():
            memory.kept[self] = k, v
        return k, v

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_dim)
