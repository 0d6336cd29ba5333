"""What a sampler is asked to make, and what it tells of each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from omnifill.data.shards import Shard
from omnifill.form.layout import Orders
from omnifill.form.vocabulary import FieldIds
from omnifill.generate.filters import MEDIA_MIN_P, TEXT_MIN_P, Sampling
from omnifill.schema import MEDIA
from omnifill.types import Bools, Ints

Stopper = Callable[[Ints, Ints, Ints], Bools]
"""(rows, fields, new ids), (n,) each -> whether each row's text is over with it."""


class Leaning(Protocol):
    """Changes what is likely next, by what was chosen before; may choose otherwise itself, and
    knows the ids that must come, if there are such."""

    def lean(self, rows: Ints, fields: Ints, scores: Tensor) -> Tensor: ...
    def settle(self, rows: Ints, fields: Ints, columns: Ints) -> Ints: ...
    def tell(self, rows: Ints, fields: Ints, ids: Ints) -> None: ...
    def ahead(self, row: int, field: int) -> list[int]: ...


@dataclass(frozen=True, eq=False)
class Plan:
    """What to generate for n rows."""

    shard: Shard
    """The given values, encoded."""
    which: Ints
    """(n,): each row's record in the shard."""
    orders: Orders
    """Given fields first (not `wanted`), then the wanted ones."""
    numbers: Ints
    """(n,): the row numbers that chance is drawn for."""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 512
    """Most ids of one varying value."""
    forbid_missing: Bools | None = None
    """(F,): fields that must not come out as <missing>."""
    partial: bool = False
    """Whether the last given field is the beginning of the first wanted one (a prompt)."""
    suffix: Ints | None = None
    """Codes that the first wanted text ends with; for samplers that do not write forwards."""
    known: Ints | None = None
    """(S,): codes of the first wanted value, -1 where they are to be chosen; for samplers that
    choose anywhere."""
    quantile: float | None = None
    """Answer with this quantile of ordered fields (0.5: the median) and the mode of the others,
    instead of a draw."""
    leaning: Leaning | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """What one step chose, for the rows still at work."""

    row: Ints
    field: Ints
    id: Ints
    done: Bools
    """Whether the row's field is complete with this id."""
    cut: Bools
    """Whether it was ended: no more room, or a stop string."""


def for_field(sampling: Sampling, field: FieldIds) -> Sampling:
    """How a field's slots are drawn; what is long has a default of its own."""
    media = field.type in MEDIA
    if sampling.min_p is not None or sampling.beams > 1 or not (media or field.slots is None):
        return sampling
    return replace(sampling, min_p=MEDIA_MIN_P[field.type] if media else TEXT_MIN_P)


def branches(plan: Plan) -> list[Orders]:
    """What is read before the wanted fields: all that is given; and for guidance, beside it, no
    more than the beginning of the wanted text itself."""
    orders = plan.orders
    if plan.sampling.strength == 1:
        return [orders]
    keep = orders.wanted | beginning(plan, orders)
    return [orders, Orders(np.where(keep, orders.fields, -1), orders.wanted)]


def beginning(plan: Plan, orders: Orders) -> Bools:
    """(n, F): the place of the beginning of a wanted text, if that is given."""
    out = np.zeros_like(orders.wanted)
    if plan.partial:
        out[np.arange(len(out)), orders.wanted.argmax(axis=1) - 1] = True
    return out
