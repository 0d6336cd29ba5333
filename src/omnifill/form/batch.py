"""What one forward pass reads: B rows of T slots, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omnifill.form.vocabulary import BOS, PAD


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

    def packed(self, stays: Tensor) -> tuple[Batch, Tensor]:
        """Only the slots that stay (B, T) bool, moved to the left as if there were no others; and
        where each stood, (B, T')."""
        order = (~stays).to(torch.int8).argsort(dim=1, stable=True)
        order = order[:, : max(1, int(stays.sum(dim=1).max()))]
        left = stays.gather(1, order)
        out = self.each(lambda part: _gathered(part, order))
        target = torch.where(left, out.target, PAD)
        ids = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        return replace(out, ids=ids, target=target, weight=out.weight * left), order

    def opened(self) -> Batch:
        """The same with a slot more in front, whose target is `<bos>`."""
        out = self.each(lambda part: torch.cat([torch.zeros_like(part[:, :1]), part], dim=1))
        target = out.target.clone()
        target[:, 0] = BOS
        return replace(out, target=target)

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


def _gathered(part: Tensor, order: Tensor) -> Tensor:
    if part.ndim == 3:
        return part.gather(1, order[..., None].expand(-1, -1, part.shape[2]))
    return part.gather(1, order)
