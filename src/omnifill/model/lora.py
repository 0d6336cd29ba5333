"""Small additions to a network's matrices, which stay as they are (LoRA: Hu et al. 2021, arXiv
2106.09685).

An addition is `scale · b · a`: `a` begins by chance, `b` at zero, so that training begins with the
network that was there. Merged, the matrices are sums, and nothing of this is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model.network import Network
from omnifill.model.products import linear

A, B = "lora_a", "lora_b"


class Lora(nn.Module):
    """A linear map and what is added to it."""

    def __init__(self, plain: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = plain.weight, plain.bias, scale
        self.settled = getattr(plain, "settled", None)
        self.lora_a = nn.Parameter(torch.randn(rank, plain.in_features) * plain.in_features**-0.5)
        self.lora_b = nn.Parameter(torch.zeros(plain.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        added = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return linear(x, self) + self.scale * added


def add_lora(
    network: Network, rank: int, scale: float, targets: Collection[str], vectors: bool
) -> None:
    """Put an addition beside every target in all blocks. What the network had before stays, but for
    tables that say which field a slot is of and what stays in view, and with `vectors` those of
    ids."""
    learned = ("fields.", "coords.", "standing.", *(("embed.", "head.") if vectors else ()))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(learned))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name in targets and isinstance(child, nn.Linear):
                setattr(module, name, Lora(child, rank, scale))


def merged(weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of a network with additions -> those of one without."""
    out = {name: tensor for name, tensor in weights.items() if not name.endswith((A, B))}
    for name, a in weights.items():
        if name.endswith(A):
            at = name.removesuffix(A)
            out[f"{at}weight"] = out[f"{at}weight"] + scale * (weights[f"{at}{B}"] @ a)
    return out
