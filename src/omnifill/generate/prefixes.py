"""Beginnings of prompts that were read before, so that they need not be read again: what a system
prompt says, or what was said in a conversation so far.

They are kept in chunks of as many slots, which are read by themselves whether they are kept or not.
So what comes of a prompt is the same to the last bit, whoever asked what before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from omnifill.model.cache import KVCache, StandingCache

SIZE = 128
"""Slots of a chunk: shorter ones would be found more often, and take longer to be read."""
MOST = 1 << 28
"""Bytes that are kept; what was not asked for longest goes first."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """What a cache holds of some slots."""

    layers: list[Tensor]
    """(3, H, size, head_dim) of each layer: keys, turned keys and values."""
    total: Tensor
    """(1, D): what stays in view behind it."""

    @property
    def bytes(self) -> int:
        """That it takes."""
        return sum(part.nbytes for part in (*self.layers, self.total))


class Prefixes:
    """Chunks by all ids up to their end."""

    def __init__(self, size: int = SIZE, most: int = MOST) -> None:
        """Of `size` slots each, `most` bytes of them."""
        self.size, self.most = size, most
        self.chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self.bytes = self.reused = 0
        """That are kept; slots that were not read again."""

    def fits(self, cache: StandingCache, width: int) -> bool:
        """Whether so many slots can be read in chunks: into a cache of one row that drops none."""
        inner = cache.inner
        alone = isinstance(inner, KVCache) and len(inner.lengths) == 1 and cache.memory is None
        return alone and self.size < width <= inner.room

    def restore(self, told: Tensor, cache: StandingCache) -> int:
        """told (T, 2): ids and fields of all slots -> how many of the first ones the cache, which
        is empty, has now. The last slot is not among them."""
        first = 0
        for name in self._names(told[:-1]):
            chunk = self.chunks.get(name)
            if chunk is None:
                break
            self.chunks.move_to_end(name)
            _put(chunk, cache, first, self.size)
            first += self.size
        self.reused += first
        return first

    def keep(self, told: Tensor, cache: StandingCache) -> None:
        """told (T, 2), T a multiple of `size`: the last chunk of them was read."""
        *_, name = self._names(told)
        if name in self.chunks:
            return
        self.chunks[name] = chunk = _taken(cache, len(told) - self.size, self.size)
        self.bytes += chunk.bytes
        while self.bytes > self.most:
            self.bytes -= self.chunks.popitem(last=False)[1].bytes

    def _names(self, told: Tensor) -> list[bytes]:
        """Of each chunk, by it and all before it."""
        digest, names = hashlib.sha256(), []
        for end in range(self.size, len(told) + 1, self.size):
            digest.update(told[end - self.size : end].contiguous().numpy().tobytes())
            names.append(digest.digest())
        return names


def _taken(cache: StandingCache, first: int, num: int) -> Chunk:
    inner = cache.inner
    assert isinstance(inner, KVCache), "it fits"
    return Chunk([layer.taken(0, first, num) for layer in inner.layers], cache.total.clone())


def _put(chunk: Chunk, cache: StandingCache, first: int, num: int) -> None:
    inner = cache.inner
    assert isinstance(inner, KVCache), "it fits"
    for layer, part in zip(inner.layers, chunk.layers, strict=True):
        layer.write(0, first, part)
    inner.advance(num)
    cache.total = chunk.total.clone()
