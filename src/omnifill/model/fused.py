"""All blocks of a Transformer as one call, for steps of few slots, by `model.kernels`.

For weights that do not change any more, on a CPU, where Numba is there. Anything else goes block by
block.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from omnifill.model.cache import KVCache
from omnifill.model.native import (
    KINDS,
    MOST_ROWS,
    compiled,
    is_small,
    is_there,
    kernels,
    plain,
    threads,
)
from omnifill.model.rotary import Rotation

ACTS = ("silu", "gelu", "gelu_tanh", "relu")
"""Functions by their number in kernels."""
ALL_THAT_THERE_IS = 1 << 40
ROWS = torch.arange(MOST_ROWS, device="cpu")


class Fused:
    """All blocks of a Transformer whose weights are settled."""

    def __init__(self, transformer: Any) -> None:
        """Those that `can` be."""
        config = transformer.config
        self.turn = cast("Rotation | None", transformer.turn)
        shape = (
            config.kv_heads, config.heads // config.kv_heads, config.head_dim, config.ffn, 0,
            not config.opens, config.norm == "layer", config.qk_norm, self.turn is not None,
            ACTS.index(config.act), config.gated,
        )  # fmt: skip
        self.shape = np.array(shape, dtype=np.int64)
        scale = config.head_dim**-0.5 if config.attn_scale is None else config.attn_scale
        self.numbers = np.array([config.norm_eps, scale], dtype=np.float32)
        sees = [config.window if config.windowed is None or i in config.windowed else None
                for i in range(config.layers)]  # fmt: skip
        blocks = list(transformer.blocks)
        self.tensors = [t for block in blocks for t in _tensors(block) or ()]
        self.parts = [part for block in blocks for part in _parts(block)]
        table = np.array([t.data_ptr() for t in self.tensors], dtype=np.int64)
        self.layers = np.zeros((config.layers, 22), dtype=np.int64)
        self.layers[:, :18] = table.reshape(config.layers, -1)
        self.layers[:, 21] = [ALL_THAT_THERE_IS if num is None else num for num in sees]
        self.like = np.empty(0, dtype=KINDS[self.tensors[2].dtype])
        self.kind = self.tensors[2].dtype
        last = _norm(transformer.norm)
        self.end = np.array([t.data_ptr() for t in last], dtype=np.int64)
        self.tensors += last  # which keeps them where they are
        self.turns: tuple[Any, Any] = (np.zeros((1, config.head_dim), np.float32),) * 2

    @staticmethod
    def can(transformer: Any) -> bool:
        """Whether kernels know all that there is in its blocks."""
        config = transformer.config
        known = (
            is_there()
            and not (config.full or config.memory or config.norm_after)
            and config.positions != "relative"
        )
        if not known:
            return False
        kinds = set()
        for block in transformer.blocks:
            found = _tensors(block)
            if found is None:
                return False
            kinds |= {found[i].dtype for i in (2, 7, 12, 15)}
            if not all(t.is_contiguous() for t in found):
                return False
        return len(kinds) == 1 and kinds <= KINDS.keys()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None  # a copy may change

    def fits(self, x: Tensor, cache: Any) -> bool:
        """Whether x (B, T, D) is a step that this makes, and the blocks are what they were."""
        return isinstance(cache, KVCache) and is_small(x) and self.is_whole()

    def is_whole(self) -> bool:
        """Whether there are loops for it, and its blocks are what they were."""
        return compiled(self.kind) and all(held.get(n) is part for held, n, part in self.parts)

    def __call__(self, x: Tensor, pos: Tensor, cache: KVCache) -> Tensor:
        """x (B, T, D), the next slots of each row of the cache, at positions (B, T) -> what the
        head reads, as x."""
        rows, num, dim = x.shape
        at, row = cache.lengths, ROWS[:rows]
        if int(at.max()) + num > cache.capacity:  # kernels do not look where they write
            raise IndexError("there is no room in the cache")
        if num > 1:
            at, row = (at[:, None] + torch.arange(num)).view(-1), row.repeat_interleave(num)
        out = x.reshape(-1, dim).clone()
        cast(Any, kernels()).step(
            out.numpy(), row.numpy(), at.numpy(), pos.reshape(-1).numpy(), *self.told(cache),
            threads(),
        )  # fmt: skip
        cache.advance(num)
        return out.view(rows, num, dim)

    def told(self, cache: KVCache) -> tuple[Any, ...]:
        """What kernels are told of the blocks and of a cache: `layers` to `like` of
        `kernels.step`."""
        cos, sin = self.turns
        if self.turn is not None and len(cos) < cache.capacity:
            cos, sin = (t[0, 0].numpy() for t in self.turn.at(torch.arange(cache.capacity)[None]))
            self.turns = (cos, sin)
        layers, shape = self.layers.copy(), self.shape.copy()  # threads may share a model
        shape[4] = cache.capacity
        for places, layer in zip(layers, cache.layers, strict=True):
            places[18:21] = layer.keys.data_ptr(), layer.turned.data_ptr(), layer.values.data_ptr()
        return layers, shape, self.numbers, cos, sin, self.end, self.like


def _tensors(block: Any) -> list[Any] | None:
    """What kernels read of a block, in their order; None where they do not know its parts."""
    attn, ffn = block.attn, block.ffn
    qkv = getattr(attn.q_proj, "joined", None)
    up: Any = ffn.up_proj
    if ffn.gated:
        joined = getattr(ffn.gate_proj, "joined", None)
        up = None if joined is None else joined.whole
    if qkv is None or up is None or block.near is not None:
        return None
    maps = (qkv.whole, attn.o_proj, up, ffn.down_proj)
    if not all(hasattr(each, "settled") and not hasattr(each, "lora_a") for each in maps):
        return None
    heads = (attn.q_norm.weight, attn.k_norm.weight) if attn.qk_norm else plain(attn.head_dim)
    (qkv, o, up, down) = (_map(each) for each in maps)
    return [*_norm(block.attn_norm), *qkv, *heads, *o, *_norm(block.ffn_norm), *up, *down]


def _parts(block: Any) -> list[tuple[dict[str, Any], str, Any]]:
    """What holds each linear map of a block, and each of their weights; under which name."""
    out: list[tuple[dict[str, Any], str, Any]] = []
    for around in (block.attn, block.ffn):
        for name, layer in around.named_children():
            held = layer._buffers if "weight" in layer._buffers else layer._parameters
            out += [(around._modules, name, layer), (held, "weight", layer.weight)]
    return out


def _map(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    ones, zeros = plain(len(layer.weight))
    scale = getattr(layer, "scale", None)
    return (layer.weight, ones if scale is None else scale,
            zeros if layer.bias is None else layer.bias)  # fmt: skip


def _norm(norm: Any) -> tuple[Tensor, Tensor]:
    bias = getattr(norm, "bias", None)
    return norm.weight, plain(len(norm.weight))[1] if bias is None else bias


def fuse(network: nn.Module) -> None:
    """Steps of few slots become one call where kernels know the network. Its weights are settled,
    those that read the same are joined."""
    for module in network.modules():
        if hasattr(module, "fused") and Fused.can(module):
            cast(Any, module).fused = Fused(module)
