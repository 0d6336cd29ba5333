"""Weights in fewer bits, for networks that only generate: bfloat16, or 8-bit integers with a scale
for each row (Dettmers et al. 2022, arXiv 2208.07339, without their outliers).

Reading the weights is what a token costs, alone or a few at once; so they stay small until they are
in the processor. Few slots at once are multiplied as they are (`model.native`); of more, numbers
that pass through are rounded to bfloat16 on the way, sums are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model import native
from omnifill.model.products import ALL, Joined, Settled, linear, multiplies_halves, settled_for

if TYPE_CHECKING:
    from omnifill.model.network import Network

Kind = Literal["bf16", "int8"]
FEW = {"bf16": 2, "int8": 16}
"""Up to so many slots at once products of few bits are faster than unpacking (docs/log.md); on
processors that multiply bfloat16, those of bf16 always are."""
STRIDE = {"bf16": 1, "int8": 16}
"""What divides the columns of such products: torch's of 8 bits reads past the end of others."""
LEAST = 1 << 12
"""Smaller matrices stay as they are: there is nothing to gain."""


class Packed(nn.Module):
    """A matrix (N, K) in few bits: a linear map, and a table of vectors."""

    weight: Tensor
    scale: Tensor | None
    settled: Settled | None = None
    joined: Joined | None = None
    ones: Tensor

    def __init__(self, kind: Kind, rows: int, columns: int, bias: bool) -> None:
        super().__init__()
        self.kind = kind
        dtype = torch.int8 if kind == "int8" else torch.bfloat16
        self.register_buffer("weight", torch.zeros(rows, columns, dtype=dtype))
        self.register_buffer("scale", torch.ones(rows) if kind == "int8" else None)
        self.register_buffer("ones", torch.ones(rows, dtype=torch.bfloat16), persistent=False)
        self.bias = nn.Parameter(torch.zeros(rows), requires_grad=False) if bias else None

    @classmethod
    def of(cls, kind: Kind, plain: nn.Linear | nn.Embedding) -> Self:
        """The same matrix, rounded."""
        weight, bias = plain.weight.detach(), getattr(plain, "bias", None)
        out = cls(kind, len(weight), weight.shape[1], bias is not None)
        if kind == "bf16":
            out.weight = weight.bfloat16()
        else:
            out.scale = weight.abs().amax(dim=1).clamp(min=1e-30) / 127
            out.weight = (weight / out.scale[:, None]).round().to(torch.int8)
        if bias is not None:
            out.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, N)."""
        return self.told(x, ALL)

    def told(self, x: Tensor, ids: slice | list[int]) -> Tensor:
        """(…, K) -> (…, n): products with some of the rows."""
        if isinstance(ids, slice) and native.multiplies(x, self.weight):
            scale, bias = (t if t is None else t[ids] for t in (self.scale, self.bias))
            return native.multiply(x, self.weight[ids], scale, bias)
        flat, settled = x.reshape(-1, x.shape[-1]), settled_for(x, self)
        few = len(flat) <= FEW[self.kind] and flat.shape[1] % STRIDE[self.kind] == 0
        if not isinstance(ids, slice) or not (few or settled or multiplies_halves()):
            bias = None if self.bias is None else self.bias[ids]
            return F.linear(flat, self.rows(ids), bias).view(*x.shape[:-1], -1)
        weight, scale, ones, bias = self.weight, self.scale, self.ones, self.bias
        if ids != ALL:
            weight, scale, ones, bias = (
                cast(Tensor, t if t is None else t[ids]) for t in (weight, scale, ones, bias)
            )
        half = flat.bfloat16()
        if settled is not None:
            out = settled.told(half, None, ids).float()
        elif scale is None or not few:  # 8 bits are whole numbers in bfloat16, too
            out = F.linear(half, weight.bfloat16()).float()
        else:
            out = torch._weight_int8pack_mm(half, weight, ones).float()
        out = out if scale is None else out.mul_(scale)
        out = out if bias is None else out.add_(bias)
        return out.view(*x.shape[:-1], -1)

    def rows(self, ids: slice | list[int] | Tensor) -> Tensor:
        """(…, K): some rows as they are meant."""
        some = self.weight[ids].float()
        return some if self.scale is None else some * self.scale[ids][..., None]


class PackedTable(Packed):
    """Vectors by number."""

    def forward(self, ids: Tensor) -> Tensor:
        """(…) -> (…, K)."""
        return self.rows(ids)


def rows_of(table: nn.Module, ids: Tensor) -> Tensor:
    """(n, K): rows of a matrix that may be packed."""
    return table.rows(ids) if isinstance(table, Packed) else cast(Tensor, table.weight)[ids]


def told_by(head: nn.Module, hidden: Tensor, ids: slice | list[int]) -> Tensor:
    """(n, K) -> scores of some rows of a head that may be packed."""
    if isinstance(head, Packed):
        return head.told(hidden, ids)
    weight, bias = cast(Tensor, head.weight), cast("Tensor | None", head.bias)
    if isinstance(ids, slice):
        return linear(hidden, head, ids)
    return F.linear(hidden, weight[ids], None if bias is None else bias[ids])


def pack(network: Network, kind: Kind) -> None:
    """Replace every larger linear map of a network, and its table of ids."""
    tied = network.head.weight is network.embed.weight
    table, plain = PackedTable.of(kind, network.embed), network.head
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (
                isinstance(child, nn.Linear)
                and child is not plain
                and child.weight.numel() >= LEAST
            ):
                setattr(module, name, Packed.of(kind, child))
    head = Packed.of(kind, plain)
    if tied:
        head.weight, head.scale = table.weight, table.scale
    network.head, network.embed = head, table  # type: ignore[assignment]
