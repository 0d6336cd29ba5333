"""Figures, and the records that they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnifill.evaluate.rows import Arrays
from omnifill.schema import Schema
from omnifill.types import Floats

Columns = Mapping[str, Sequence[Any]]
"""Canonical values by field."""
Figures = dict[str, Any]
Samples = dict[tuple[str, str], Floats]
"""(field, measure) -> (N,): what each record says of it; NaN: nothing. '' is the whole record."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found, for the flags and the report."""

    schema: Schema
    figures: Figures
    train: Columns
    """Empty where the run's training part is gone; so are `made` and `coded` then."""
    held_out: Columns
    made: Columns
    """Generated records."""
    coded: tuple[Arrays, Arrays, Arrays]
    """The three as arrays."""
    samples: Samples = field(default_factory=dict)
    """What the figures on held-out records are means of."""
    copied: dict[str, dict[str, str]] = field(default_factory=dict)
    """field -> generated text -> its longest piece that stands in a training text."""

    @property
    def names(self) -> list[str]:
        return list(self.held_out)

    def ours(self, name: str, measure: str) -> Mapping[str, float] | None:
        """The model's figure for a field ('': whole records), if there is one."""
        return _figure(self.figures, name, measure)

    def baseline(self, label: str, name: str, measure: str) -> Mapping[str, float] | None:
        """The same of a baseline."""
        return _figure(self.figures["baselines"].get(label), name, measure)


def _figure(group: Figures | None, field: str, measure: str) -> Mapping[str, float] | None:
    if group is None:
        return None
    part = group["fields"].get(field, {}) if field else group["rows"]
    found: Mapping[str, float] | None = part.get(measure)
    return found


def size(columns: Columns) -> int:
    """Number of records."""
    return len(next(iter(columns.values()))) if columns else 0
