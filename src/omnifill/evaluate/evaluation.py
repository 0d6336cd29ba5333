"""Figures, and the records that they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnifill.evaluate.rows import Arrays
from omnifill.schema import Schema

Columns = Mapping[str, Sequence[Any]]
"""Canonical values by field."""
Figures = dict[str, Any]


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

    @property
    def names(self) -> list[str]:
        return list(self.held_out)

    def ours(self, field: str, measure: str) -> Mapping[str, float] | None:
        """The model's figure for a field ('': whole records), if there is one."""
        return _figure(self.figures, field, measure)

    def baseline(self, label: str, field: str, measure: str) -> Mapping[str, float] | None:
        """The same of a baseline."""
        return _figure(self.figures["baselines"].get(label), field, measure)


def _figure(group: Figures | None, field: str, measure: str) -> Mapping[str, float] | None:
    if group is None:
        return None
    part = group["fields"].get(field, {}) if field else group["rows"]
    found: Mapping[str, float] | None = part.get(measure)
    return found
