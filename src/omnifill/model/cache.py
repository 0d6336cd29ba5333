"""The keys and values of what was already read, so that a step costs one slot.

Keys are stored *unrotated*: a slot's position is its index in the cache, so dropping old slots
re-numbers the rest and text can go on for ever in constant memory (attention sinks and a window:
Xiao et al. 2023, arXiv 2309.17453).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Cache(Protocol):
    """What a sampler needs of any backbone's memory."""

    lengths: Tensor
    """(B,): slots of each row that count."""

    def select(self, rows: Tensor) -> Cache: ...
    def reset(self, rows: Tensor) -> None: ...
    def rewind(self, lengths: Tensor) -> None: ...
    def make_room(self, num: int) -> None: ...


class LayerCache:
    """One layer's keys and values, (B, H, capacity, head_dim) each."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    def write(self, k: Tensor, v: Tensor, start: Tensor) -> None:
        """Put k, v (B, H, T, d) at slots start (B,) onwards."""
        rows, _, num, _ = k.shape
        if rows == 1 or bool((start == start[0]).all()):
            at = int(start[0])
            self.keys[:rows, :, at : at + num] = k
            self.values[:rows, :, at : at + num] = v
            return
        row = torch.arange(rows, device=k.device)[:, None].expand(rows, num)
        slot = start[:, None] + torch.arange(num, device=k.device)
        self.keys[row, :, slot] = k.transpose(1, 2)
        self.values[row, :, slot] = v.transpose(1, 2)


class KVCache:
    """The caches of all layers and the number of slots that each row has filled."""

    def __init__(self, layers: list[LayerCache], sinks: int) -> None:
        self.layers = layers
        self.sinks = sinks
        rows, _, self.capacity, _ = layers[0].keys.shape
        self.lengths = torch.zeros(rows, dtype=torch.long, device=layers[0].keys.device)

    def select(self, rows: Tensor) -> KVCache:
        """A cache of the given rows only, (R,) indices."""
        picked = [LayerCache(c.keys[rows], c.values[rows]) for c in self.layers]
        cache = KVCache(picked, self.sinks)
        cache.lengths = self.lengths[rows]
        return cache

    def reset(self, rows: Tensor) -> None:
        """Forget the given rows."""
        self.lengths[rows] = 0

    def rewind(self, lengths: Tensor) -> None:
        """Keep only the first `lengths` (B,) slots of each row."""
        self.lengths = torch.minimum(self.lengths, lengths)

    def advance(self, num: Tensor | int) -> None:
        """Count `num` more slots of each row as filled."""
        self.lengths = self.lengths + num

    def make_room(self, num: int) -> None:
        """Where a row has no place for `num` more slots, drop its oldest ones after the sinks."""
        full = self.lengths + num > self.capacity
        if not bool(full.any()):
            return
        for row in full.nonzero().flatten().tolist():
            length = int(self.lengths[row])
            # A quarter at once, so that the copy is paid rarely.
            drop = min(max(num, self.capacity // 4), length - self.sinks)
            first = self.sinks + drop
            for layer in self.layers:
                for store in (layer.keys, layer.values):
                    store[row, :, self.sinks : length - drop] = store[row, :, first:length].clone()
            self.lengths[row] = length - drop
