"""Embeddings, a backbone and a head: ids in, scores of ids out.

Values of a few slots (a category, a number, a date) *stay in view*: a second embedding of each
of their ids is added to every slot from there on. A text of sixty tokens tells little about its
label in any one of them, so attention alone takes long to learn to obey it (docs/log.md).

Cells of numbers and dates, and codes that stand for several numbers, start with embeddings that
are a smooth function of their place: what is learnt of one value then holds for its neighbours too,
which small tables cannot teach, nor the few steps that a budget may have.

The head is applied to the columns that matter only (a field's own range of ids); which those
are is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from omnifill.model.cache import Cache, StandingCache
from omnifill.model.config import ModelConfig
from omnifill.model.dropout import dropout
from omnifill.model.feedforward import ACTS
from omnifill.model.mask import Mask
from omnifill.model.memory import Memory
from omnifill.model.norm import norm
from omnifill.model.products import Linear
from omnifill.named import load_class

VECTORS = ("embed.weight", "head.weight", "head.bias")
"""What a network holds of every id."""
BACKBONES = {
    "transformer": "omnifill.model.transformer:Transformer",
    "rnn": "omnifill.model.rnn:Rnn",
    "cnn": "omnifill.model.cnn:Cnn",
}
"""Every backbone by name; a recipe may name another as 'module:Class'."""

ALIKE = 0.3
"""Distance at which values of an ordered field begin to differ in their first embeddings, as a
share of the field's range of cells (docs/log.md)."""


class Backbone(Protocol):
    """(B, T, D) -> (B, T, D)."""

    can: frozenset[str]
    """Of: causal, full, memory. One that can do the last takes a `Memory` behind the cache."""

    def __call__(
        self, x: Tensor, pos: Tensor, mask: Mask, cache: Cache | None = None, *memory: Memory
    ) -> Tensor: ...

    def new_cache(self, rows: int, length: int, sinks: Tensor) -> Cache: ...


def load_backbone(name: str) -> Any:
    """The class called `name`, or the one at 'module:Class'. For recipes only."""
    return load_class("backbone", name, BACKBONES)


class Network(nn.Module):
    """The trained part of a run. Its weights are `model.safetensors`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.dim)
        self.fields = nn.Embedding(config.fields, config.dim) if config.fields > 1 else None
        self.coords = nn.ModuleDict(
            {str(a): nn.Embedding(n, config.dim) for a, n in enumerate(config.coords) if n > 1}
        )
        if config.standing:
            num = 1 + sum(size for _, size in config.standing)
            self.standing = nn.Embedding(num, config.dim, padding_idx=0)
            self.register_buffer("standing_row", _standing_rows(config), persistent=False)
        self.backbone = load_backbone(config.backbone)(config)
        self.encoder = None
        if config.encoder_layers:
            sided = {"layers": config.encoder_layers, "memory": False, "full": True,
                     "opens": config.encoder_opens}  # fmt: skip
            self.encoder = load_backbone(config.backbone)(config.model_copy(update=sided))
        self.head_in = HeadDense(config) if config.head_dense else None
        self.head = Linear(config.dim, config.vocabulary, bias=config.head_bias)
        nn.init.normal_(self.embed.weight, std=1.0)
        for first, *steps in config.ordered:
            _embed_smoothly(self.embed.weight[first : first + math.prod(steps)], steps)
        nn.init.zeros_(self.head.weight)
        added = [self.fields, *self.coords.values(), getattr(self, "standing", None)]
        for table in added:
            if table is not None:
                nn.init.zeros_(cast(nn.Embedding, table).weight)
        if config.tied:
            nn.init.normal_(self.embed.weight, std=0.02)
            self.head.weight = self.embed.weight

    def embedded(
        self, ids: Tensor, field: Tensor, coord: Tensor | None, mask: Mask,
        cache: StandingCache | None = None, memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """ids and field (B, T), coord (B, T, 3) -> (B, T, D).

        Field and coordinates are those of the slot that is predicted here: the *next* one, or,
        where every slot sees all, this one.
        """
        x: Tensor = self.embed(ids)
        if self.config.embed_scale != 1:
            x = x * self.config.embed_scale
        if self.fields is not None:
            x = x + self.fields(field)
        if coord is not None:
            for axis, table in self.coords.items():
                x = x + table(coord[..., int(axis)])
        if self.config.standing:
            fresh = self._standing(ids)
            if mask.kind == "full":
                x = x + fresh.sum(dim=1, keepdim=True)
            else:
                x = x + (fresh.cumsum(dim=1) if cache is None else cache.stand(fresh))
            if memory is not None and memory.total is not None:
                x = x + memory.total[:, None]
        return dropout(x, self.config.dropout, self.training)

    def _standing(self, ids: Tensor) -> Tensor:
        """(B, T, D): what each slot adds to the view of others."""
        out: Tensor = self.standing(self.get_buffer("standing_row")[ids])
        return out

    def forward(
        self, ids: Tensor, field: Tensor, coord: Tensor | None, mask: Mask,
        cache: StandingCache | None = None, memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, T) -> hidden states (B, T, D) for the head. A cache brings the memory that it
        was made with."""
        hidden = self.states(ids, field, coord, mask, cache, memory)
        if self.head_in is not None:
            hidden = self.head_in(hidden)
        return hidden if self.config.head_scale == 1 else hidden * self.config.head_scale

    def states(
        self, ids: Tensor, field: Tensor, coord: Tensor | None, mask: Mask,
        cache: StandingCache | None = None, memory: Memory | None = None,
    ) -> Tensor:  # fmt: skip
        """The same before what is there for the head alone."""
        pos = torch.arange(ids.shape[1], device=ids.device)[None]
        memory = memory if cache is None else cache.memory
        x = self.embedded(ids, field, coord, mask, cache, memory)
        look = () if memory is None else (memory,)
        hidden: Tensor = self.backbone(x, pos, mask, None if cache is None else cache.inner, *look)
        return hidden

    def encode(self, ids: Tensor, field: Tensor, coord: Tensor | None, mask: Mask) -> Memory:
        """What is given, (B, S), as the encoder sees it."""
        assert self.encoder is not None, "this network has no encoder"
        pos = torch.arange(ids.shape[1], device=ids.device)[None]
        states = self.encoder(self.embedded(ids, field, coord, mask), pos, mask, None)
        inside = mask.inside(ids.shape[1])
        if inside is None:
            inside = torch.ones_like(ids, dtype=torch.bool)
        if not self.config.encoder_opens:  # unless there is nothing else to see
            inside = torch.cat([~inside[:, 1:].any(dim=1, keepdim=True), inside[:, 1:]], dim=1)
        total = self._standing(ids).sum(dim=1) if self.config.standing else None
        return Memory(states, inside, total)

    def new_cache(
        self, rows: int, length: int, sinks: Tensor | None = None, memory: Memory | None = None
    ) -> StandingCache:
        """Room for `length` slots of `rows` rows; the first `sinks` (B,) slots are never dropped
        (None: the first one alone). `memory`: what all that is read looks at."""
        if sinks is None:
            sinks = torch.ones(rows, dtype=torch.long)
        inner = self.backbone.new_cache(rows, length, sinks)
        width = self.config.dim if self.config.standing else 0
        return StandingCache(inner, next(self.parameters()).new_zeros(rows, width), memory)


class undrawn(TorchFunctionMode):  # a context, as torch.no_grad is
    """Networks that are built within have shapes, and no numbers yet: none are drawn or filled in
    (which takes longer than to read them), and chance is left alone."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        drawn = getattr(func, "__module__", None) == "torch.nn.init"
        if drawn or func in (Tensor.zero_, Tensor.fill_):
            return args[0] if args else kwargs["tensor"]
        if func in (torch.randn, torch.rand):
            func = torch.empty
        return func(*args, **(kwargs or {}))


class HeadDense(nn.Module):
    """A layer between a backbone and its head (as in BERT: Devlin et al. 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense, self.act = Linear(config.dim, config.dim), config.act
        self.norm = norm(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = self.norm(ACTS[self.act](self.dense(x)))
        return out


@torch.no_grad()
def _embed_smoothly(embedding: Tensor, steps: Sequence[int]) -> None:
    """embedding (n, D) of all places of a grid, the first axis changing fastest: neighbours start
    out alike, those far apart do not.

    Each dimension is a cosine of random phase and frequency, so that the products of two rows
    are about a Gaussian of their distance (random Fourier features, Rahimi & Recht 2007).
    """
    num, dim = embedding.shape
    if num < 3:
        return
    axes = [torch.linspace(0, 1, n) for n in reversed(steps)]
    place = torch.cartesian_prod(*axes).view(num, -1)  # whose last axis changes fastest
    wave = place @ torch.randn(len(axes), dim) / ALIKE + torch.rand(dim) * 2 * math.pi
    embedding.copy_(math.sqrt(2) * wave.cos())


def _standing_rows(config: ModelConfig) -> Tensor:
    """(V,): the row of `standing` of every id; 0, which stays zero, for ids that do not stand."""
    rows = torch.zeros(config.vocabulary, dtype=torch.long, device="cpu")
    at = 1
    for first, size in config.standing:
        rows[first : first + size] = torch.arange(at, at + size, device="cpu")
        at += size
    return rows
