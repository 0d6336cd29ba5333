"""What recurrent and convolutional backbones share: blocks, and a memory that does not grow.

Each layer remembers the last few of what it lets pass: its state (a recurrence) or its last
inputs (a convolution). A step costs the same however long the text is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from omnifill.model.config import ModelConfig
from omnifill.model.dropout import dropout
from omnifill.model.feedforward import FeedForward, reset_parameters
from omnifill.model.mask import Mask
from omnifill.model.memory import CrossAttention, Memory
from omnifill.model.norm import RMSNorm


class LayerMemory:
    """The last P things that a layer lets pass, (B, P, W); zeros before the first slot."""

    def __init__(self, kept: Tensor) -> None:
        self.kept = self.trail = kept

    def extend(self, fresh: Tensor) -> Tensor:
        """Add those of T new slots, (B, T, W) -> what was kept and they, (B, P + T, W)."""
        self.trail = torch.cat([self.kept, fresh], dim=1)
        self.kept = self.trail[:, fresh.shape[1] :]
        return self.trail

    def go_back(self, away: Tensor) -> None:
        """Undo the last `away` (B,) slots of the last pass."""
        num, size = self.kept.shape[1], self.trail.shape[1]
        slot = torch.arange(num, device=away.device) + (size - num - away)[:, None]
        self.kept = self.trail[torch.arange(len(away), device=away.device)[:, None], slot]
        self.trail = self.kept

    def select(self, rows: Tensor) -> LayerMemory:
        out = LayerMemory(self.kept[rows])
        out.trail = self.trail[rows]
        return out


class StreamingCache:
    """The memories of all layers. It holds texts of any length, so there is nothing to drop."""

    def __init__(self, layers: Sequence[LayerMemory]) -> None:
        self.layers = list(layers)
        kept = self.layers[0].kept
        self.lengths = torch.zeros(len(kept), dtype=torch.long, device=kept.device)

    def select(self, rows: Tensor) -> StreamingCache:
        """A cache of the given rows only, (R,) indices."""
        out = StreamingCache([layer.select(rows) for layer in self.layers])
        out.lengths = self.lengths[rows]
        return out

    def put(self, row: int, other: StreamingCache, at: int) -> None:
        """A row becomes another cache's row `at`."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.kept[row] = theirs.kept[at]
        self.lengths[row] = other.lengths[at]

    def head(self, num: int) -> StreamingCache:
        """A cache of the first `num` rows; see `accept`."""
        out = StreamingCache([LayerMemory(layer.kept[:num]) for layer in self.layers])
        out.lengths = self.lengths[:num].clone()
        return out

    def accept(self, head: StreamingCache) -> None:
        """What was read with a `head` counts."""
        num = len(head.lengths)
        for mine, theirs in zip(self.layers, head.layers, strict=True):
            mine.kept[:num] = theirs.kept
        self.lengths[:num] = head.lengths

    def reset(self, rows: Tensor) -> None:
        """Forget the given rows."""
        for layer in self.layers:
            layer.kept = layer.kept.clone()
            layer.kept[rows] = 0.0
            layer.trail = layer.kept
        self.lengths[rows] = 0

    def rewind(self, lengths: Tensor) -> None:
        """Keep only the first `lengths` (B,) slots; once, and no further than the last pass."""
        away = (self.lengths - lengths).clamp(min=0)
        for layer in self.layers:
            assert int(away.max()) <= layer.trail.shape[1] - layer.kept.shape[1], (
                "a cache goes back over its last forward pass only"
            )
            layer.go_back(away)
        self.lengths = torch.minimum(self.lengths, lengths)

    def make_room(self, num: int) -> None:
        """There is always room."""

    @property
    def room(self) -> int:
        """Any number of slots."""
        return 1 << 30


class Mixer(Protocol):
    """What a block mixes the slots with."""

    kept: tuple[int, int]
    """(P, W) of its memory."""

    def __call__(self, x: Tensor, memory: LayerMemory | None) -> Tensor: ...  # as x, (B, T, D)


class Block(nn.Module):
    """A mixer and a feed-forward part, each normalised before and added to the stream. Where slots
    see what comes later, too, a second mixer goes over them from their end."""

    def __init__(self, config: ModelConfig, mixer: Mixer, back: Mixer | None) -> None:
        super().__init__()
        self.mix_norm = RMSNorm(config.dim, config.norm_eps)
        self.mixer, self.back = mixer, back
        if config.memory:
            self.cross_norm = RMSNorm(config.dim, config.norm_eps)
            self.cross = CrossAttention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, kept: LayerMemory | None, turn: Tensor | None, memory: Memory | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). turn (B, T, 1): where each slot stands seen from the end."""
        normed = self.mix_norm(x)
        mixed = self.mixer(normed, kept)
        if self.back is not None:
            assert turn is not None, "what comes later was not shown"
            mixed = mixed + _turned(self.back(_turned(normed, turn), None), turn)
        x = x + dropout(mixed, self.dropout, self.training)
        if memory is not None:
            seen = self.cross(self.cross_norm(x), memory)
            x = x + dropout(seen, self.dropout, self.training)
        return x + dropout(self.ffn(self.ffn_norm(x)), self.dropout, self.training)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    return x.gather(1, turn.expand(-1, -1, x.shape[2]))


class Stack(nn.Module):
    """Blocks and a last norm: a whole backbone. Order is all it knows of positions."""

    can = frozenset({"causal", "full", "memory"})

    def __init__(self, config: ModelConfig, mixer: Callable[[ModelConfig, int], Mixer]) -> None:
        """`mixer(config, layer)` makes each block's own."""
        super().__init__()
        mixers = [mixer(config, layer) for layer in range(config.layers)]
        backs = [mixer(config, layer) if config.full else None for layer in range(config.layers)]
        self.blocks = nn.ModuleList([
            Block(config, each, back) for each, back in zip(mixers, backs, strict=True)
        ])  # fmt: skip
        self.kept = [each.kept for each in mixers]
        self.full = config.full
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.quick: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]] | None = None
        """`one_slot` compiled, where that was asked for (see `model.compiled`)."""
        reset_parameters(self)

    def forward(
        self, x: Tensor, pos: Tensor, mask: Mask, cache: StreamingCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, D) -> (B, T, D); with a cache, x continues what each row holds there."""
        assert (mask.kind == "full") == self.full, "it was built for the other kind of mask"
        if self.quick is not None and cache is not None and memory is None and x.shape[1] == 1:
            like = torch.contiguous_format  # each other layout would be compiled for anew
            kept = [layer.kept.clone(memory_format=like) for layer in cache.layers]
            quick, trails = self.quick(x, kept)
            for layer, trail in zip(cache.layers, trails, strict=True):
                layer.trail, layer.kept = trail, trail[:, 1:]
            cache.lengths = cache.lengths + 1
            return quick
        turn = _turn(mask, x) if self.full else None
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layers[i], turn, memory)
        if cache is not None:
            cache.lengths = cache.lengths + x.shape[1]
        out: Tensor = self.norm(x)
        return out

    def one_slot(self, x: Tensor, kept: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x (B, 1, D) and what each layer has kept -> (B, 1, D), and what was kept with what is
        new: the same as `forward`, of tensors alone."""
        layers = [LayerMemory(one) for one in kept]
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, layer, None, None)
        return self.norm(x), [layer.trail for layer in layers]

    def new_cache(self, rows: int, length: int, sinks: Tensor) -> StreamingCache:
        """An empty memory for so many rows; there is no length to keep room for."""
        weight = self.norm.weight
        return StreamingCache([LayerMemory(weight.new_zeros(rows, *size)) for size in self.kept])


def _turn(mask: Mask, x: Tensor) -> Tensor:
    """(B, T, 1): each row's slots that count from the last to the first, and then the others."""
    rows, num, _ = x.shape
    slot = torch.arange(num, device=x.device).expand(rows, num)
    if mask.lengths is None:
        return (num - 1 - slot)[..., None]
    back = mask.lengths[:, None] - 1 - slot
    return torch.where(back >= 0, back, slot)[..., None]
