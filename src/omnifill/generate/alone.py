"""Plain texts of one row: one call reads the slot that was chosen last, and those that are foretold
behind it, and chooses what comes next. So it goes where a network's blocks are one call
(`model.fused`), and nothing is asked of its scores that loops do not know.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from omnifill.chance import uniforms
from omnifill.form.vocabulary import END, FieldIds, Vocabulary
from omnifill.generate.filters import Sampling, remembers
from omnifill.generate.plan import Plan
from omnifill.model.cache import StandingCache
from omnifill.model.fused import Fused
from omnifill.model.native import kernels, plain, threads
from omnifill.model.network import Network
from omnifill.model.packed import Packed
from omnifill.types import Floats, Ints

CLOSE = 4
"""Where fewer may follow, a text may have to be closed, which is not for loops."""
AT_ONCE = 256
"""Numbers that are drawn at once."""


class Alone:
    """Writes the text of one field."""

    def __init__(self, network: Network, vocabulary: Vocabulary, plan: Plan, index: int,
                 sampling: Sampling, cache: StandingCache) -> None:  # fmt: skip
        """Where it `can`, and all before the text was read. `index` is the field's; the cache keeps
        its room."""
        field, backbone = vocabulary.fields[index], cast(Any, network.backbone)
        config = network.config
        local = int(vocabulary.row_local[field.state_row])
        self.allowed = vocabulary.blocks[field.block].allowed[local:][: len(field.grammar.allowed)]
        self.moves = np.ascontiguousarray(field.grammar.step, dtype=np.int64)
        heat = sampling.heat
        self.choice = np.array([config.embed_scale, heat, sampling.min_p or 0.0])
        self.first, self.plan, self.greedy = field.first, plan, not heat
        tables = [network.fields and network.fields.weight[index], cache.total[0],
                  backbone.segments and backbone.segments.weight[0]]  # fmt: skip
        more = [t for t in tables if t is not None and len(t)]
        self.more = torch.stack(more).numpy() if more else np.zeros((0, config.dim), np.float32)
        learned = config.positions == "learned"
        self.places = backbone.places.weight.detach().numpy() if learned else self.more[:0]
        self.tensors = [*_matrix(network.embed), *_matrix(network.head)]  # kept where they are
        places = np.array([t.data_ptr() for t in self.tensors], dtype=np.int64)
        self.table, self.head = places[:3], places[3:]
        self.told, self.cache = backbone.fused.told(cache.inner), cache
        self.capacity: int = cache.inner.capacity  # type: ignore[attr-defined]
        self.start = 0
        self.drawn: tuple[int, Floats] = (0, np.zeros(0))

    @staticmethod
    def can(network: Network, field: FieldIds, plan: Plan, sampling: Sampling) -> bool:
        """Whether loops know all that is asked of a text, and of the network around its blocks."""
        config, fused = network.config, getattr(network.backbone, "fused", None)
        kinds = {network.embed.weight.dtype, network.head.weight.dtype}
        return (
            isinstance(fused, Fused)
            and fused.is_whole()
            and kinds == {fused.kind}
            and network.embed.weight.device.type == "cpu"
            and not (config.embed_norm or config.head_dense or config.head_scale != 1)
            and field.slots is None
            and not _stands(network, field)
            and not (plan.leaning or sampling.logit_bias or remembers(sampling))
            and sampling.top_k is None
            and sampling.top_p in (None, 1)
        )

    def room(self) -> int:
        """Slots left in the cache, one at least: old ones fall out. `start` is the next one."""
        if int(self.cache.lengths) == self.capacity:
            self.cache.make_room(1)
        self.start = int(self.cache.lengths)
        return self.capacity - self.start

    def write(self, ids: list[int], state: int, total: int) -> list[int]:
        """Read some ids from slot `start` on, and choose what comes behind each of them, as long as
        that is the one which was read next -> columns. state: that of the grammar; total: slots
        chosen before."""
        num = len(ids)
        if self.cache.total.shape[1]:
            self.cache.fresh = self.cache.total.new_zeros(1, num, self.cache.total.shape[1])
        columns: Ints = np.empty(num, np.int64)
        found = kernels().write(  # type: ignore[union-attr]
            np.array(ids), self.start, self.table, self.more, self.places, *self.told,
            self.head, self.first, self.allowed, self.moves, state, self.choice,
            self._chance(total, num), threads(), columns,
        )  # fmt: skip
        self.cache.inner.advance(num)  # type: ignore[attr-defined]
        out: list[int] = columns[:found].tolist()
        return out

    def _chance(self, total: int, num: int) -> Floats:
        """(num,) numbers for the next slots, as of `state.chances`."""
        first, drawn = self.drawn
        if not first <= total <= first + len(drawn) - num:
            first, drawn = total, np.zeros(AT_ONCE)
            if not self.greedy:
                drawn = uniforms(self.plan.seed, self.plan.numbers[:1], total + np.arange(AT_ONCE))
            self.drawn = (first, drawn)
        return drawn[total - first :][:num]


def _stands(network: Network, field: FieldIds) -> bool:
    """Whether anything of a text stays in view of what comes after it."""
    if not network.config.standing:
        return False
    rows = network.get_buffer("standing_row")
    return bool(rows[field.first :][: field.codec.size].any()) or bool(rows[END])


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, scales and biases of a head, or a table."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    ones, zeros = plain(len(weight))
    scale = layer.scale if isinstance(layer, Packed) else None
    bias = getattr(layer, "bias", None)
    return weight, ones if scale is None else scale, zeros if bias is None else bias
