"""The Transformer backbone: (B, T, D) hidden states in, (B, T, D) hidden states out.

RMSNorm, rotary positions, QK-norm, grouped queries, SwiGLU, no biases: the plain graph of
Llama and Qwen3, so that export is renaming. It knows no modality, objective or mode, and no
device: masks, positions and caches are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model.cache import KVCache, LayerCache, Place
from omnifill.model.config import ModelConfig
from omnifill.model.dropout import dropout
from omnifill.model.feedforward import FeedForward, reset_parameters
from omnifill.model.fused import Fused
from omnifill.model.mask import Mask
from omnifill.model.memory import CrossAttention, Memory
from omnifill.model.norm import RMSNorm, norm
from omnifill.model.products import Linear, is_turned_on, together
from omnifill.model.relative import RelativePositions
from omnifill.model.rotary import Rotation, rotate

LONG = 512
"""From this many keys on, the fused attention kernel wins over two products and a softmax."""


class Attention(nn.Module):
    """Causal or full self-attention with grouped queries."""

    side_by_side = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = Linear(config.dim, width, bias=config.qkv_bias)
        self.k_proj = Linear(config.dim, kv_width, bias=config.qkv_bias)
        self.v_proj = Linear(config.dim, kv_width, bias=config.qkv_bias)
        self.o_proj = Linear(width, config.dim, bias=config.o_bias)
        self.qk_norm, self.scale = config.qk_norm, config.attn_scale
        if config.qk_norm:
            self.q_norm = RMSNorm(self.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(self.head_dim, config.norm_eps)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None,
        cache: LayerCache | None, place: Place | None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D), mask broadcast to (B, H, T, keys) as of `attend` -> (B, T, D).

        With a cache, the slots of x stand at a place in it and see what it holds. `turn`: None
        where positions do not turn queries and keys.
        """
        rows, num, _ = x.shape
        q, k, v = together(x, self.q_proj, self.k_proj, self.v_proj)
        q = q.view(rows, num, self.heads, self.head_dim)
        k = k.view(rows, num, self.kv_heads, self.head_dim)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)  # (B, H, T, d), (B, KV, T, d)
        v = v.view(rows, num, self.kv_heads, self.head_dim).transpose(1, 2)
        turned = k
        if turn is not None:
            q, turned = rotate(q, *turn), rotate(k, *turn)
        if cache is None or place is None:
            k = turned
        else:
            k, v = cache.extend(k, turned, v, place)
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        out = attend(q, k, v, mask, self.scale)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, num, -1))
        return mixed


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """q (B, H, T, d), k and v (B, H, U, d), mask (…, T, U) -> as q. The mask is True where q may
    look, or numbers that are added to the scores; None: q may look everywhere.

    Short sequences on a CPU run as two products and a softmax where there is a gradient: the fused
    kernel's backward is slower there, and so is all of it with products by oneDNN (docs/log.md).
    """
    short = k.shape[2] < LONG and q.device.type == "cpu"
    if mask is None or not short or not (torch.is_grad_enabled() or is_turned_on()):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    weights = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    barred = mask.dtype == torch.bool
    weights = weights.masked_fill(~mask, float("-inf")) if barred else weights + mask
    weights = weights.softmax(dim=-1)
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
        self.proj = Linear(3 * config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """x (B, T, D), inside (B, T) bool -> (B, T, D); nothing stands outside."""
        x = self.norm(x)
        if inside is not None:
            x = x * inside[..., None]
        padded = F.pad(x, (0, 0, 1, 1))
        mixed: Tensor = self.proj(torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=-1))
        return mixed


class Block(nn.Module):
    """Attention and feed-forward, each added to the stream, which is normalised before or after;
    where slots of texts and tables see what comes later, their neighbours first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Where codes stand in columns or on levels, too, what comes next is not what is beside.
        one_line = max(config.coords[1:]) <= 1
        self.near = Neighbours(config) if config.full and one_line and config.near else None
        self.attn_norm = norm(config)
        self.attn = Attention(config)
        if config.memory:
            self.cross_norm = norm(config)
            self.cross = CrossAttention(config)
        self.ffn_norm = norm(config)
        self.ffn = FeedForward(config)
        self.dropout, self.norm_after = config.dropout, config.norm_after

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor] | None, mask: Tensor | None,
        inside: Tensor | None, cache: LayerCache | None, place: Place | None,
        memory: Memory | None,
    ) -> Tensor:  # fmt: skip
        """(B, T, D) -> (B, T, D)."""
        if self.near is not None:
            x = x + dropout(self.near(x, inside), self.dropout, self.training)
        x = self._added(x, self.attn_norm, self.attn, turn, mask, cache, place)
        if memory is not None:
            x = self._added(x, self.cross_norm, self.cross, memory)
        return self._added(x, self.ffn_norm, self.ffn)

    def _added(self, x: Tensor, norm: nn.Module, layer: nn.Module, *beside: Any) -> Tensor:
        """x and what a layer makes of it, and of what is beside it."""
        more = layer(x if self.norm_after else norm(x), *beside)
        x = x + dropout(more, self.dropout, self.training)
        out: Tensor = norm(x) if self.norm_after else x
        return out


class Transformer(nn.Module):
    """A stack of blocks, and what stands before and behind it."""

    can = frozenset({"causal", "full", "memory"})
    fused: Fused | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.positions == "learned":
            self.places = nn.Embedding(config.places or config.context, config.dim)
        self.turn = Rotation.of(config) if config.positions == "rotary" else None
        self.away = RelativePositions(config) if config.positions == "relative" else None
        self.segments = nn.Embedding(config.segments, config.dim) if config.segments else None
        self.embed_norm = norm(config) if config.embed_norm else None
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = None if config.norm_after else norm(config)
        reset_parameters(self)

    def forward(
        self, x: Tensor, pos: Tensor, mask: Mask, cache: KVCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D), pos (B or 1, T) -> (B, T, D).

        With a cache, x continues what each row holds there (`pos` is then the cache's matter).
        """
        assert (mask.kind == "full") == self.config.full, "it was built for the other kind of mask"
        if self.fused is not None and cache is not None and self.fused.fits(x, cache):
            pos = self._counted(cache.lengths[:, None] + pos)
            return self.fused(self._begun(x, pos), pos, cache)
        num, inside, place = x.shape[1], mask.inside(x.shape[1]), None
        if cache is not None:
            place = cache.place(num)
            pos = place.slot
        looks = self._looks(mask, place, num, pos)
        pos = self._counted(pos)
        turn = None
        if self.turn is not None:
            cos, sin = self.turn.at(pos)
            turn = (cos.to(x.dtype), sin.to(x.dtype))
        x = self._begun(x, pos)
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layers[i]
            x = block(x, turn, looks[i], inside, layer, place, memory)
        if cache is not None:
            cache.advance(num)
        return x if self.norm is None else self.norm(x)

    def _counted(self, pos: Tensor) -> Tensor:
        """Slots as positions: one that nobody sees does not count."""
        return pos if self.config.opens else (pos - 1).clamp(min=0)

    def _begun(self, x: Tensor, pos: Tensor) -> Tensor:
        if self.config.positions == "learned":
            x = x + self.places(pos)
        if self.segments is not None:
            x = x + self.segments.weight[0]
        return x if self.embed_norm is None else self.embed_norm(x)

    def _looks(
        self, mask: Mask, place: Place | None, num: int, pos: Tensor
    ) -> Sequence[Tensor | None]:
        """Which slots may look at which, (…, T, keys) as of `attend`, for every layer."""
        config = self.config
        plain = config.opens and config.window is None and self.away is None
        if place is None:
            keys, look = num, mask.dense(num, pos.device)
        elif plain and num == 1 and place.even is not None:  # it is the last one of each row
            return [None] * config.layers
        else:
            keys, look = place.keys, mask.stepped(place.start, num, place.keys)
        if plain:
            return [look] * config.layers
        away = pos[..., None] - torch.arange(keys, device=pos.device)  # (B or 1, T, keys)
        if not config.opens:
            there, itself = torch.arange(keys, device=pos.device) > 0, (away == 0)[:, None]
            look = (look & there) | itself  # so that padding sees something, too
        if self.away is not None:
            look = self.away(away, look)
        if config.window is None:
            return [look] * config.layers
        near = look & (away < config.window)[:, None]
        return [near if config.windowed is None or i in config.windowed else look
                for i in range(config.layers)]  # fmt: skip

    def new_cache(self, rows: int, length: int, sinks: Tensor) -> KVCache:
        """Room for `length` slots of `rows` rows; the first `sinks` (B,) are never dropped."""
        weight = cast(Tensor, cast(Block, self.blocks[0]).attn_norm.weight)
        length = min(length, self.config.most_slots or length)
        shape = (rows, self.config.kv_heads, length, self.config.head_dim)
        layers = [LayerCache(shape, weight) for _ in range(self.config.layers)]
        return KVCache(layers, sinks, self.turn)
