"""Who may look at whom, as a description that a backbone can read, obey or refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """`causal`: a slot sees itself and what is before it. `full`: every slot sees all."""

    kind: Literal["causal", "full"] = "causal"
    lengths: Tensor | None = None
    """(B,): slots of each row that count, where all are seen; None: all of them."""

    def inside(self, num: int) -> Tensor | None:
        """(B, T) bool: which slots count."""
        if self.lengths is None:
            return None
        return torch.arange(num, device=self.lengths.device) < self.lengths[:, None]

    def dense(self, num: int, device: torch.device) -> Tensor:
        """(T, T) or (B, 1, 1, T) bool, True where the row's slot may look at the column's."""
        inside = self.inside(num)
        if inside is not None:
            return inside[:, None, None]
        full = torch.ones(num, num, dtype=torch.bool, device=device)
        return full.tril() if self.kind == "causal" else full

    def stepped(self, start: Tensor, num: int, keys: int) -> Tensor:
        """(B, 1, T, keys) for T new slots at `start` (B,) of a cache: the rows of `dense`."""
        slot = start[:, None] + torch.arange(num, device=start.device)  # (B, T)
        look = torch.arange(keys, device=start.device) <= slot[..., None]
        if self.kind != "causal":
            look = torch.arange(keys, device=start.device) < (start[:, None, None] + num)
            look = look.expand(-1, num, -1)
        return look[:, None]
