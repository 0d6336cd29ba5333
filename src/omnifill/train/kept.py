"""What a run keeps of a model: the tensors that learn. What does not is a base's, who keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model, without those that do not learn."""
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
    return {n: t for n, t in model.state_dict().items() if t.data_ptr() not in frozen}


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Into a model what it has learned; KeyError if any of it is not there."""
    for name, tensor in learned(model).items():
        tensor.copy_(tensors[name])


def digest_of_frozen(model: nn.Module) -> str:
    """SHA-256 of the names and bytes of what does not learn; '' if all does."""
    frozen = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
    digest = hashlib.sha256()
    for name, parameter in frozen:
        digest.update(name.encode())
        data: Any = parameter.detach().flatten().view(torch.uint8).numpy()
        digest.update(data)
    return digest.hexdigest() if frozen else ""


def copies(model: nn.Module) -> dict[str, Tensor]:
    """Of what it has learned."""
    return {n: t.detach().clone() for n, t in learned(model).items()}


def apart(model: nn.Module) -> dict[str, Tensor]:
    """What a model has learned, tensors that share memory with an earlier one (a tied head) as
    copies."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in learned(model).items():
        out[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return out


@torch.no_grad()
def average_in(average: Mapping[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """average += (1 - decay) (model - average), with a shorter memory at the start."""
    state = model.state_dict()
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.values()), [state[n] for n in average], 1 - keep)
