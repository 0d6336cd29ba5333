"""The Transformer backbone: (B, T, D) hidden states in, (B, T, D) hidden states out.

RMSNorm, rotary positions, QK-norm, grouped queries, SwiGLU, no biases: the plain graph of
Llama and Qwen3, so that export is renaming. It knows no modality, objective or mode, and no
device: masks, positions and caches are arguments.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model.cache import KVCache, LayerCache
from omnifill.model.config import ModelConfig
from omnifill.model.dropout import dropout
from omnifill.model.feedforward import FeedForward, reset_parameters
from omnifill.model.mask import Mask
from omnifill.model.memory import CrossAttention, Memory
from omnifill.model.norm import RMSNorm
from omnifill.model.rotary import rotary, rotate

LONG = 512
"""From this many keys on, the fused attention kernel wins over two products and a softmax."""


class Attention(nn.Module):
    """Causal or full self-attention with grouped queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.theta = config.rope_theta
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.dim, width, bias=False)
        self.k_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.v_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.dim, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: LayerCache | None,
        start: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D), mask broadcast to (B, H, T, keys) -> (B, T, D).

        With a cache, the slots of x stand at `start` (B,) and see what the cache holds.
        """
        rows, num, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, num, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, num, self.kv_heads, self.head_dim))
        k = k.transpose(1, 2)  # (B, KV, T, d)
        v = self.v_proj(x).view(rows, num, self.kv_heads, self.head_dim).transpose(1, 2)
        cos, sin = turn
        turned = rotate(k, cos, sin)
        q = rotate(q, cos, sin)
        if cache is None or start is None:
            k = turned
        else:
            k, v = cache.extend(k, turned, v, start, mask.shape[-1])
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        out = attend(q, k, v, mask)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, num, -1))
        return mixed


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q (B, H, T, d), k and v (B, H, U, d), mask (…, T, U) True where q may look -> as q.

    Short sequences on a CPU run as two products and a softmax: the fused kernel's backward is
    slower there (docs/log.md).
    """
    if k.shape[2] >= LONG or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    weights = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]))
    weights = weights.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return weights.to(v.dtype) @ v


class Neighbours(nn.Module):
    """What stands right before and behind each slot.

    Where all slots are seen at once, attention takes long to find out which are beside each other;
    a convolution of three knows it from the first step (as in Primer: So et al. 2021, arXiv
    2109.08668; figures in docs/log.md). It is one matrix over the slots side by side, which Muon
    takes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.proj = nn.Linear(3 * config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """x (B, T, D), inside (B, T) bool -> (B, T, D); nothing stands outside."""
        x = self.norm(x)
        if inside is not None:
            x = x * inside[..., None]
        padded = F.pad(x, (0, 0, 1, 1))
        mixed: Tensor = self.proj(torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=-1))
        return mixed


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream; where slots of
    texts and tables see what comes later, their neighbours first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Where codes stand in columns or on levels, too, what comes next is not what is beside.
        one_line = max(config.coords[1:]) <= 1
        self.near = Neighbours(config) if config.full and one_line else None
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attn = Attention(config)
        if config.memory:
            self.cross_norm = RMSNorm(config.dim, config.norm_eps)
            self.cross = CrossAttention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, inside: Tensor | None,
        cache: LayerCache | None, start: Tensor | None, memory: Memory | None,
    ) -> Tensor:  # fmt: skip
        """(B, T, D) -> (B, T, D)."""
        if self.near is not None:
            x = x + dropout(self.near(x, inside), self.dropout, self.training)
        out = self.attn(self.attn_norm(x), turn, mask, cache, start)
        x = x + dropout(out, self.dropout, self.training)
        if memory is not None:
            seen = self.cross(self.cross_norm(x), memory)
            x = x + dropout(seen, self.dropout, self.training)
        return x + dropout(self.ffn(self.ffn_norm(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """A stack of blocks and a last norm."""

    can = frozenset({"causal", "full", "memory"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = RMSNorm(config.dim, config.norm_eps)
        reset_parameters(self)

    def forward(
        self, x: Tensor, pos: Tensor, mask: Mask, cache: KVCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D), pos (B or 1, T) -> (B, T, D).

        With a cache, x continues what each row holds there (`pos` is then the cache's matter).
        """
        assert (mask.kind == "full") == self.config.full, "it was built for the other kind of mask"
        num, inside = x.shape[1], mask.inside(x.shape[1])
        if cache is None:
            start, look = None, mask.dense(num, x.device)
        else:
            start = cache.lengths
            look = mask.stepped(start, num, int(start.max()) + num)
            pos = start[:, None] + torch.arange(num, device=x.device)
        turn = rotary(pos, self.config.head_dim, self.config.rope_theta)
        turn = (turn[0].to(x.dtype), turn[1].to(x.dtype))
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layers[i]
            x = block(x, turn, look, inside, layer, start, memory)
        if cache is not None:
            cache.advance(num)
        out: Tensor = self.norm(x)
        return out

    def new_cache(self, rows: int, length: int, sinks: Tensor) -> KVCache:
        """Room for `length` slots of `rows` rows; the first `sinks` (B,) are never dropped."""
        weight = self.norm.weight
        shape = (rows, self.config.kv_heads, length, self.config.head_dim)
        layers = [LayerCache(shape, weight) for _ in range(self.config.layers)]
        return KVCache(layers, sinks, self.config.rope_theta)
