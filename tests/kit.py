"""The conformance kit: a codec, a backbone and an objective that exist only here.

Named in a recipe as 'tests.kit:Class', they go the whole way without a change in the package.
Whoever must edit the core to add one of theirs has found a fault in the core.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from omnifill.errors import ValueRefused
from omnifill.form.batch import Batch
from omnifill.form.vocabulary import Vocabulary
from omnifill.model.config import ModelConfig
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.objectives.causal import CausalObjective, LossSum
from omnifill.types import Grammar, Ints

ROWS, COLUMNS, COLOURS = 2, 3, ".ox"


class GridCodec:
    """Pictures of 2 x 3 cells in three colours, written as 'ox./..x': fixed slots in 2-D."""

    shared: ClassVar[bool] = False
    size = len(COLOURS)
    slots = ROWS * COLUMNS

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        for _ in chunks:
            pass
        return cls()

    def encode(self, value: Any) -> Ints:
        cells = str(value).replace("/", "")
        if len(cells) != self.slots or set(cells) - set(COLOURS):
            raise ValueRefused(f"{value!r} is not a grid such as 'ox./..x'")
        return np.array([COLOURS.index(c) for c in cells], np.int64)

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        codes = [self.encode(v) for v in values]
        flat = np.concatenate(codes) if codes else np.zeros(0, np.int64)
        return flat, np.full(len(values), self.slots, np.int64)

    def decode(self, codes: Ints) -> str:
        text = "".join(COLOURS[c] for c in codes)
        return "/".join(text[i : i + COLUMNS] for i in range(0, self.slots, COLUMNS))

    def coords(self, n: int) -> Ints:
        at = np.arange(n)
        return np.stack([at // COLUMNS, at % COLUMNS, np.zeros(n, np.int64)], axis=1)

    def grammar(self) -> Grammar:
        allowed = np.ones((self.slots + 1, self.size + 1), bool)
        allowed[:-1, -1] = False
        allowed[-1, :-1] = False
        step = np.repeat(np.minimum(np.arange(self.slots + 1) + 1, self.slots)[:, None], 3, axis=1)
        return Grammar(allowed, step)

    def save(self, folder: Path) -> None:
        (folder / "grid.json").write_text(json.dumps({"colours": COLOURS}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        assert json.loads((folder / "grid.json").read_text(encoding="utf-8"))
        return cls()


class SumCache:
    """Running sums after every slot: (B, capacity, D)."""

    def __init__(self, sums: Tensor) -> None:
        self.sums = sums
        self.lengths = torch.zeros(len(sums), dtype=torch.long)

    def select(self, rows: Tensor) -> SumCache:
        out = SumCache(self.sums[rows])
        out.lengths = self.lengths[rows]
        return out

    def reset(self, rows: Tensor) -> None:
        self.lengths[rows] = 0

    def rewind(self, lengths: Tensor) -> None:
        self.lengths = torch.minimum(self.lengths, lengths)

    @property
    def room(self) -> int:
        return int(self.sums.shape[1] - self.lengths.max())

    def make_room(self, num: int) -> None:
        assert int(self.lengths.max()) + num <= self.sums.shape[1], "short records only"


class MeanBackbone(nn.Module):
    """Every slot sees the mean of what was before it, through one hidden layer."""

    can = frozenset({"causal"})

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mix = nn.Linear(2 * config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, pos: Tensor, mask: Mask, cache: Any = None) -> Tensor:
        num = x.shape[1]
        if cache is None:
            sums, count = x.cumsum(dim=1), torch.arange(1, num + 1)[None, :, None]
        else:
            row = torch.arange(len(x))
            last = cache.sums[row, (cache.lengths - 1).clamp(min=0)]
            before = torch.where(cache.lengths[:, None] > 0, last, torch.zeros_like(last))
            sums = x.cumsum(dim=1) + before[:, None]
            slot = cache.lengths[:, None] + torch.arange(num)
            cache.sums[row[:, None], slot] = sums
            count = slot[..., None] + 1
            cache.lengths = cache.lengths + num
        out: Tensor = self.norm(x + torch.tanh(self.mix(torch.cat([x, sums / count], dim=-1))))
        return out

    def new_cache(self, rows: int, length: int, sinks: Tensor) -> SumCache:
        return SumCache(torch.zeros(rows, length, self.config.dim))


class SmoothedObjective:
    """Causal, with a little pull of every score towards zero."""

    needs = frozenset({"causal"})

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.causal = CausalObjective(vocabulary)
        self.columns, self.mask = self.causal.columns, self.causal.mask

    def loss(self, network: Network, batch: Batch) -> LossSum:
        plain = self.causal.loss(network, batch)
        return LossSum(plain.total + 1e-3 * network.head.weight.square().sum(), plain.count)

    def nats(self, network: Network, batch: Batch) -> Tensor:
        return self.causal.nats(network, batch)

    def read(self, network: Network, batch: Batch) -> Tensor:
        return self.causal.read(network, batch)
