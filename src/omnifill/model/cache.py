"""The keys and values of what was already read, so that a step costs one slot.

A slot's position is its index in the cache. Keys are kept unrotated too, so that dropping old
slots re-numbers the rest exactly, and text can go on for ever in constant memory (attention
sinks and a window: Xiao et al. 2023, arXiv 2309.17453).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omnifill.errors import RequestError
from omnifill.model.memory import Memory
from omnifill.model.rotary import Rotation, rotate


class Cache(Protocol):
    """What a sampler needs of any backbone's memory."""

    lengths: Tensor
    """(B,): slots of each row that count."""

    def select(self, rows: Tensor) -> Cache: ...
    def reset(self, rows: Tensor) -> None: ...
    def rewind(self, lengths: Tensor) -> None: ...
    def make_room(self, num: int) -> None: ...
    def put(self, row: int, other: Any, at: int) -> None: ...
    def head(self, num: int) -> Cache: ...
    def accept(self, head: Any) -> None: ...

    @property
    def room(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Place:
    """Where new slots stand in a cache: the same for all layers."""

    start: Tensor
    """(B,): the slots before them."""
    slot: Tensor
    """(B, T)."""
    keys: int
    """Slots that there are with them, in the longest row."""
    even: int | None
    """`start`, if it is the same in all rows."""

    @classmethod
    def behind(cls, lengths: Tensor, num: int) -> Place:
        """T = num slots behind what each row holds."""
        starts = lengths.tolist()
        slot = lengths[:, None] + torch.arange(num, device=lengths.device)
        even = starts[0] if min(starts) == max(starts) else None
        return cls(lengths, slot, max(starts) + num, even)


class LayerCache:
    """One layer's keys (as they are, and rotated) and values, (B, H, capacity, head_dim) each."""

    def __init__(self, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys, self.turned, self.values = (_room(shape, like) for _ in range(3))

    def extend(
        self, keys: Tensor, turned: Tensor, values: Tensor, place: Place
    ) -> tuple[Tensor, Tensor]:
        """Put (B, H, T, d) tensors where they stand -> all slots that there are then."""
        num, at = keys.shape[2], place.even
        for store, fresh in self._stores(keys, turned, values):
            if at is not None:
                store[:, :, at : at + num] = fresh
            else:
                row = torch.arange(len(place.slot), device=keys.device)[:, None]
                store[row.expand_as(place.slot), :, place.slot] = fresh.transpose(1, 2)
        return self.turned[:, :, : place.keys], self.values[:, :, : place.keys]

    def _stores(self, *fresh: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip((self.keys, self.turned, self.values), fresh, strict=True))

    def select(self, rows: Tensor) -> LayerCache:
        """The given rows only."""
        out = object.__new__(LayerCache)
        out.keys, out.turned, out.values = (
            store[rows] for store in (self.keys, self.turned, self.values)
        )
        return out

    def put(self, row: int, other: LayerCache, at: int, length: int) -> None:
        """The first `length` slots of a row become those of another cache's row `at`."""
        for store, theirs in self._stores(other.keys, other.turned, other.values):
            store[row, :, :length] = theirs[at, :, :length]

    def taken(self, row: int, first: int, num: int) -> Tensor:
        """(3, H, num, d): a copy of `num` slots of a row, from slot `first` on."""
        stores = (self.keys, self.turned, self.values)
        return torch.stack([store[row, :, first : first + num] for store in stores])

    def write(self, row: int, first: int, slots: Tensor) -> None:
        """Put what was `taken` where it stood."""
        for store, fresh in zip((self.keys, self.turned, self.values), slots, strict=True):
            store[row, :, first : first + slots.shape[2]] = fresh

    @property
    def nbytes(self) -> int:
        """What it takes once it is full."""
        return sum(store.nbytes for store in (self.keys, self.turned, self.values))

    def head(self, num: int) -> LayerCache:
        """The first `num` rows: what is written there is written here."""
        out = object.__new__(LayerCache)
        out.keys, out.turned, out.values = self.keys[:num], self.turned[:num], self.values[:num]
        return out

    def grow(self, length: int, rows: int) -> None:
        """Room for `length` slots; the first `rows` rows keep what they hold."""
        for name in ("keys", "turned", "values"):
            old: Tensor = getattr(self, name)
            store = _room((*old.shape[:2], length, old.shape[3]), old)
            store[:rows, :, : old.shape[2]] = old[:rows]
            setattr(self, name, store)

    def drop(self, row: int, first: int, num: int, length: int, turn: Rotation) -> None:
        """Forget `num` slots of a row from `first` on; what is behind moves up and re-rotates."""
        for store in (self.keys, self.values):
            store[row, :, first : length - num] = store[row, :, first + num : length].clone()
        moved = self.keys[row : row + 1, :, first : length - num]
        pos = torch.arange(first, length - num, device=moved.device)[None]
        cos, sin = turn.at(pos)
        self.turned[row, :, first : length - num] = rotate(moved, cos, sin)[0]


def _room(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros. On a CPU they take no memory, nor time, before they are written to: most of the room
    of many rows never is."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(like.dtype).view(shape)


class KVCache:
    """The caches of all layers and the number of slots that each row has filled."""

    def __init__(
        self, layers: list[LayerCache], sinks: Tensor, turn: Rotation | None, fixed: bool = False
    ) -> None:
        """sinks (B,): first slots of each row that are never dropped. `turn`: None where positions
        do not turn keys, so that no slot can move to another one. `fixed`: all that there is room
        for is looked through, whatever rows hold: the same products in every step."""
        self.layers, self.sinks, self.turn, self.fixed = layers, sinks, turn, fixed
        rows, _, self.capacity, _ = layers[0].keys.shape
        self.lengths = torch.zeros(rows, dtype=torch.long, device=layers[0].keys.device)

    def select(self, rows: Tensor) -> KVCache:
        """A cache of the given rows only, (R,) indices."""
        layers = [layer.select(rows) for layer in self.layers]
        cache = KVCache(layers, self.sinks[rows], self.turn, self.fixed)
        cache.lengths = self.lengths[rows]
        return cache

    @property
    def room(self) -> int:
        """Slots that all rows have left before any is dropped."""
        return int(self.capacity - self.lengths.max())

    @property
    def nbytes(self) -> int:
        """What its layers take once they are full."""
        return sum(layer.nbytes for layer in self.layers)

    def place(self, num: int) -> Place:
        """Where `num` new slots of each row stand."""
        place = Place.behind(self.lengths, num)
        return replace(place, keys=self.capacity, even=None) if self.fixed else place

    def put(self, row: int, other: KVCache, at: int) -> None:
        """A row becomes another cache's row `at`."""
        length = int(other.lengths[at])
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.put(row, theirs, at, length)
        self.lengths[row], self.sinks[row] = length, other.sinks[at]

    def head(self, num: int) -> KVCache:
        """A cache of the first `num` rows, which shares what they hold; see `accept`."""
        layers = [layer.head(num) for layer in self.layers]
        out = KVCache(layers, self.sinks[:num], self.turn, self.fixed)
        out.lengths = self.lengths[:num].clone()
        return out

    def accept(self, head: KVCache) -> None:
        """What was read with a `head` counts."""
        self.lengths[: len(head.lengths)] = head.lengths

    def grow(self, length: int, rows: int) -> None:
        """Room for `length` slots of each row; all but the first `rows` are forgotten."""
        for layer in self.layers:
            layer.grow(length, rows)
        self.lengths[rows:] = 0
        self.capacity = length

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
        if self.turn is None:
            raise RequestError(f"a text of more than {self.capacity} tokens: the model has no "
                               f"positions for them; ask for fewer, or give less")  # fmt: skip
        for row in full.nonzero().flatten().tolist():
            length, sinks = int(self.lengths[row]), int(self.sinks[row])
            # A quarter at once, so that moving the rest is paid rarely.
            drop = min(max(num, self.capacity // 4), length - sinks)
            for layer in self.layers:
                layer.drop(row, sinks, drop, length, self.turn)
            self.lengths[row] = length - drop


class StandingCache:
    """A backbone's cache, and the sum of the values that stay in view (see `model.network`)."""

    def __init__(self, inner: Cache, total: Tensor, memory: Memory | None = None) -> None:
        """total (B, D); (B, 0) where nothing stays in view. `memory`: an encoder's states that all
        slots look at."""
        self.inner, self.total, self.memory = inner, total, memory
        self.fresh = total.new_zeros((len(total), 0, total.shape[1]))

    @property
    def lengths(self) -> Tensor:
        """(B,): slots of each row that count."""
        return self.inner.lengths

    @property
    def room(self) -> int:
        """Slots that all rows have left before any is dropped."""
        return self.inner.room

    def stand(self, fresh: Tensor) -> Tensor:
        """Add what T new slots bring, (B, T, D) -> the sums that each of them sees."""
        sums = self.total[:, None] + fresh.cumsum(dim=1)
        self.total, self.fresh = sums[:, -1], fresh
        return sums

    def select(self, rows: Tensor) -> StandingCache:
        """A cache of the given rows only, (R,) indices."""
        memory = None if self.memory is None else self.memory.select(rows)
        cache = StandingCache(self.inner.select(rows), self.total[rows], memory)
        cache.fresh = self.fresh[rows]
        return cache

    def put(self, row: int, other: StandingCache, at: int) -> None:
        """A row becomes another cache's row `at`."""
        self.inner.put(row, other.inner, at)
        self.total[row] = other.total[at]

    def head(self, num: int) -> StandingCache:
        """A cache of the first `num` rows, which shares what they hold; see `accept`."""
        return StandingCache(self.inner.head(num), self.total[:num], self.memory)

    def accept(self, head: StandingCache) -> None:
        """What was read with a `head` counts."""
        self.inner.accept(head.inner)
        self.total[: len(head.total)] = head.total

    def reset(self, rows: Tensor) -> None:
        """Forget the given rows."""
        self.inner.reset(rows)
        self.total[rows] = 0.0

    def rewind(self, lengths: Tensor) -> None:
        """Keep only the first `lengths` (B,) slots; once, and no further than the last pass."""
        if self.total.shape[1]:
            away = (self.lengths - lengths).clamp(min=0)
            num = self.fresh.shape[1]
            assert int(away.max()) <= num, "a cache goes back over its last forward pass only"
            gone = torch.arange(num, device=away.device) >= (num - away)[:, None]
            self.total = self.total - (self.fresh * gone[..., None]).sum(dim=1)
            self.fresh = self.fresh[:, :0]
        self.inner.rewind(lengths)

    def make_room(self, num: int) -> None:
        """Where a row has no place for `num` more slots, drop its oldest ones after the sinks.

        What stood in them stays in view.
        """
        self.inner.make_room(num)
