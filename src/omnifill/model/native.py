"""The bridge to `model.kernels`: products of few slots, for weights of any kind, on a CPU.

Where Numba is not installed nothing goes this way, and PyTorch makes all products.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

MOST_ROWS = 32
"""Of more slots at once PyTorch's products are the faster ones (docs/log.md)."""
KINDS = {torch.float32: np.float32, torch.int8: np.int8, torch.bfloat16: np.uint16}
"""Weights by what kernels see of them."""


@cache
def kernels() -> ModuleType | None:
    """The compiled loops; None where there is no Numba."""
    if importlib.util.find_spec("numba") is None:
        return None
    from omnifill.model import kernels

    return kernels


@cache
def _most_threads() -> int:
    """Threads that Numba has; one where it has none that wait for work without sleeping."""
    import numba

    layers = ("numba.np.ufunc.omppool", "numba.np.ufunc.tbbpool")
    try:
        if any(importlib.import_module(layer) for layer in layers[:1]):
            return int(numba.config.NUMBA_NUM_THREADS)
    except ImportError:
        pass
    return 1


def threads() -> int:
    """As many as PyTorch uses, told to Numba."""
    import numba

    num = min(torch.get_num_threads(), _most_threads())
    numba.set_num_threads(num)
    return num


def is_small(x: Tensor) -> bool:
    """Whether x (…, K) are so few slots that a kernel is to make products of them."""
    return (
        0 < x.numel() <= MOST_ROWS * x.shape[-1]
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and kernels() is not None
    )


def multiply(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x (…, K), weight (N, K) of any of `KINDS` -> (…, N)."""
    made = cast(Any, kernels())
    flat = x.reshape(-1, x.shape[-1])
    out = np.empty((len(flat), len(weight)), dtype=np.float32)
    ones, zeros = plain(len(weight))
    made.multiply(
        _seen(weight), flat.numpy(), _seen(ones if scale is None else scale),
        _seen(zeros if bias is None else bias), out, False, threads(),
    )  # fmt: skip
    return torch.from_numpy(out).view(*x.shape[:-1], -1)


@cache
def plain(num: int) -> tuple[Tensor, Tensor]:
    """(num,) scales and biases that change nothing."""
    return torch.ones(num), torch.zeros(num)


def _seen(tensor: Tensor) -> Any:
    """A tensor as kernels see it."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
