"""Rows of one cache that come and go while texts are written.

Those in use stand first, so that a pass reads no others: where one leaves, the last one moves in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnifill.model.cache import KVCache, StandingCache
from omnifill.model.mask import Mask
from omnifill.model.network import Network

FIRST = 64
"""Slots of each row that there is room for at first."""
STEP = 256
"""Room is made for so many more at once: rows in use are copied."""


class Slots:
    """Room for the texts of many at once."""

    def __init__(self, network: Network, rows: int, exact: bool = False) -> None:
        """`exact`: every pass has the same shape, with rows that nobody uses in it, so that what
        comes of a row does not hang on the others to the last bit: products of other shapes add up
        in other orders."""
        self.network, self.rows, self.exact = network, rows, exact
        self.cache = network.new_cache(rows, self._most if exact else FIRST)
        if exact and isinstance(self.cache.inner, KVCache):
            self.cache.inner.fixed = True
        self.owners: list[Any] = []
        """Whose each row in use is."""

    @property
    def free(self) -> int:
        """Rows that nobody uses."""
        return self.rows - len(self.owners)

    @property
    def _most(self) -> int:
        """Slots of a full row."""
        return max(self.network.config.context, 2 * FIRST)

    @property
    def most_bytes(self) -> int:
        """What its rows take when each is full."""
        one = self.network.new_cache(1, self._most).inner
        return one.nbytes * self.rows if isinstance(one, KVCache) else 0

    def take(self, cache: StandingCache, owners: list[Any]) -> None:
        """Its rows come in, one of each owner."""
        assert len(owners) <= self.free, "there is no room"
        inner = cache.inner
        if isinstance(inner, KVCache) and inner.capacity > self.cache.inner.capacity:  # type: ignore[attr-defined]
            # In few steps, and to no more than there are slots before any is dropped.
            more = min(-(-inner.capacity // STEP) * STEP, self.network.config.context)
            room = max(inner.capacity, more)
            self.cache.inner.grow(room, len(self.owners))  # type: ignore[attr-defined]
        for at, owner in enumerate(owners):
            self.cache.put(len(self.owners), cache, at)
            self.owners.append(owner)

    def leave(self, rows: list[int]) -> None:
        """Rows that are not used any more."""
        for row in sorted(rows, reverse=True):
            last = len(self.owners) - 1
            if row != last:
                self.cache.put(row, self.cache, last)
                self.owners[row] = self.owners[last]
            self.owners.pop()

    def read(self, ids: Tensor, field: Tensor, coord: Tensor | None) -> Tensor:
        """The next slot of each row in use: ids and field (n, 1), coord (n, 1, 3) -> (n, D)."""
        used = len(self.owners)
        if self.exact:
            ids, field = padded(ids, self.rows), padded(field, self.rows)
            coord = None if coord is None else padded(coord, self.rows)
            self.cache.reset(torch.arange(used, self.rows))
        head = self.cache.head(self.rows if self.exact else used)
        head.make_room(1)
        hidden: Tensor = self.network(ids, field, coord, Mask("causal"), head)
        self.cache.accept(head)
        return hidden[:used, 0]


def padded(x: Tensor, rows: int) -> Tensor:
    """(n, …) -> (rows, …), zeros behind."""
    return torch.cat([x, x.new_zeros((rows - len(x), *x.shape[1:]))])
