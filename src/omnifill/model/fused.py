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
from omnifill.model.native import KINDS, is_small, kernels, plain, threads
from omnifill.model.rotary import Rotation

ALL_THAT_THERE_IS = 1 << 40


class Fused:
    """All blocks of a Transformer whose weights are settled."""

    def __init__(self, transformer: Any) -> None:
        """Those that `can` be."""
        config = transformer.config
        self.blocks, self.turn = transformer.blocks, cast("Rotation | None", transformer.turn)
        self.last = transformer.norm
        self.group = config.heads // config.kv_heads
        act = cast(Any, kernels()).ACTS.index(config.act)
        self.shape = (config.kv_heads, self.group, config.head_dim, config.ffn)
        self.kind = (not config.opens, config.norm == "layer", config.qk_norm, self.turn is not None, act,
                     int(config.gated))  # fmt: skip
        scale = config.head_dim**-0.5 if config.attn_scale is None else config.attn_scale
        self.numbers = (np.float32(config.norm_eps), np.float32(scale))
        sees = [config.window if config.windowed is None or i in config.windowed else None
                for i in range(config.layers)]  # fmt: skip
        self.tensors = [t for block in self.blocks for t in _tensors(block)]
        table = np.array([t.data_ptr() for t in self.tensors], dtype=np.int64)
        self.layers = np.zeros((config.layers, 22), dtype=np.int64)
        self.layers[:, WEIGHTS] = table.reshape(config.layers, -1)
        self.layers[:, 20] = [ALL_THAT_THERE_IS if num is None else num for num in sees]
        self.like = np.empty(0, dtype=KINDS[self.tensors[2].dtype])
        bias = getattr(self.last, "bias", None)
        weight = self.last.weight.detach()
        self.end = torch.stack([weight, torch.zeros_like(weight) if bias is None else bias.detach()])
        self.turns: tuple[Any, Any] = (np.zeros((1, config.head_dim), np.float32),) * 2

    @staticmethod
    def can(transformer: Any) -> bool:
        """Whether kernels know all that there is in its blocks."""
        config = transformer.config
        known = (
            kernels() is not None
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
        """Whether x (B, T, D) is a step that this makes."""
        return isinstance(cache, KVCache) and is_small(x)

    def __call__(self, x: Tensor, pos: Tensor, cache: KVCache) -> Tensor:
        """x (B, T, D), the next slots of each row of the cache, at positions (B, T) -> what the head
        reads, as x."""
        made, (rows, num, dim) = cast(Any, kernels()), x.shape
        at = cache.lengths.numpy()
        assert int(at.max()) + num <= cache.capacity, "there is no room in the cache"
        row = np.arange(rows)
        if num > 1:
            at = (at[:, None] + np.arange(num)).reshape(-1)
            row = row.repeat(num)
        if self.turn is not None and len(self.turns[0]) < cache.capacity:
            cos, sin = self.turn.at(torch.arange(cache.capacity)[None])
            self.turns = (cos[0, 0].numpy(), sin[0, 0].numpy())
        for places, layer in zip(self.layers, cache.layers, strict=True):
            places[17:20] = layer.keys.data_ptr(), layer.turned.data_ptr(), layer.values.data_ptr()
        out = x.reshape(-1, dim).clone().numpy()
        shape = (*self.shape, cache.capacity, *self.kind)
        made.step(out, row, at, pos.reshape(-1).numpy(), self.layers, shape, self.numbers, *self.turns, self.end.numpy(),
                  self.like, threads())  # fmt: skip
        cache.advance(num)
        return torch.from_numpy(out).view(rows, num, dim)


WEIGHTS = [*range(17), 21]


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


def _map(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    ones, zeros = plain(len(layer.weight))
    scale = getattr(layer, "scale", None)
    return (layer.weight, ones if scale is None else scale,
            zeros if layer.bias is None else layer.bias)  # fmt: skip


def _norm(norm: Any) -> tuple[Tensor, Tensor]:
    bias = getattr(norm, "bias", None)
    return norm.weight, plain(len(norm.weight))[1] if bias is None else bias


def fuse(network: nn.Module) -> None:
    """Steps of few slots become one call where kernels know the network; its weights are settled."""
    for module in network.modules():
        if hasattr(module, "fused") and Fused.can(module):
            module.fused = Fused(module)
