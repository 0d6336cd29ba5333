"""What one forward pass reads: B rows of T slots, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one record (or one piece of a text) each, padded at the end. All (B, T) but coord.

    Slot t holds `ids[t]` and predicts `target[t]`, whose field, coordinate, allowed row and
    weight in the loss stand at t too. Padded slots have weight 0.
    """

    ids: Tensor
    target: Tensor
    field: Tensor
    allow: Tensor
    """Row of the vocabulary that the target's softmax is taken over."""
    weight: Tensor
    coord: Tensor | None
    """(B, T, 3), or None where no field has coordinates."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self.each(lambda tensor: tensor.to(device))

    def split(self, micro_tokens: int | None) -> list[Batch]:
        """Parts of at most `micro_tokens` slots each (at least one row)."""
        rows, num = self.ids.shape
        step = rows if micro_tokens is None else max(1, micro_tokens // num)
        if step >= rows:
            return [self]
        return [
            self.each(lambda tensor, i=i: tensor[i : i + step])  # type: ignore[misc]
            for i in range(0, rows, step)
        ]

    def rows(self, which: Tensor) -> Batch:
        """Some of the rows, (R,) indices."""
        return self.each(lambda tensor: tensor[which])

    def with_target(self, target: Tensor) -> Batch:
        """The same with other targets."""
        return replace(self, target=target)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        return Batch(
            ids=change(self.ids),
            target=change(self.target),
            field=change(self.field),
            allow=change(self.allow),
            weight=change(self.weight),
            coord=None if self.coord is None else change(self.coord),
        )
