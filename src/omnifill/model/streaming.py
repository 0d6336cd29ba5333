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


class Mixer(Protocol):
    """What a block mixes the slots with."""

    kept: tuple[int, int]
    """(P, W) of its memory."""

    def __call__(self, x: Tensor, memory: LayerMemory | None) -> Tensor: ...  # as x, (B, T, D)


class Block(nn.Module):
    """A mixer and a feed-forward part, each normalised before and added to the stream."""

    def __init__(self, config: ModelConfig, mixer: Mixer) -> None:
        super().__init__()
        self.mix_norm = RMSNorm(config.dim, config.norm_eps)
        self.mixer = mixer
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, memory: LayerMemory | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + dropout(self.mixer(self.mix_norm(x), memory), self.dropout, self.training)
        return x + dropout(self.ffn(self.ffn_norm(x)), self.dropout, self.training)


class Stack(nn.Module):
    """Blocks and a last norm: a whole backbone, for causal masks."""

    def __init__(self, config: ModelConfig, mixer: Callable[[ModelConfig, int], Mixer]) -> None:
        """`mixer(config, layer)` makes each block's own."""
        super().__init__()
        mixers = [mixer(config, layer) for layer in range(config.layers)]
        self.blocks = nn.ModuleList([Block(config, each) for each in mixers])
        self.kept = [each.kept for each in mixers]
        self.norm = RMSNorm(config.dim, config.norm_eps)
        reset_parameters(self)

    def forward(self, x: Tensor, mask: Mask, cache: StreamingCache | None) -> Tensor:
        """x (B, T, D) -> (B, T, D); with a cache, x continues what each row holds there."""
        assert mask.kind == "causal", "what comes later is not known to a recurrence"
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layers[i])
        if cache is not None:
            cache.lengths = cache.lengths + x.shape[1]
        out: Tensor = self.norm(x)
        return out

    def new_cache(self, rows: int) -> StreamingCache:
        """An empty memory for so many rows."""
        weight = self.norm.weight
        return StreamingCache([LayerMemory(weight.new_zeros(rows, *size)) for size in self.kept])
