"""The bridge to `model.kernels`: products of few slots with weights of any kind, on a CPU.

Where Numba is not installed nothing goes this way, and PyTorch makes all products.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_ROWS = 32
"""Of more slots at once PyTorch's products are the faster ones (docs/log.md)."""
KINDS = {torch.float32: np.float32, torch.int8: np.int8, torch.bfloat16: np.uint16}
"""Weights by what kernels see of them."""
LONG = 1.5
"""Seconds after which somebody who waits for the compiler is told so."""


@cache
def is_there() -> bool:
    """Whether Numba is installed; importing it takes a while."""
    return importlib.util.find_spec("numba") is not None


@cache
def kernels() -> ModuleType | None:
    """The compiled loops; None where there is no Numba, or no folder for what it compiles (which
    would be compiled anew in every process)."""
    if not is_there():
        return None
    try:
        from omnifill.model import kernels
    except RuntimeError:  # what Numba raises of folders
        return None
    return kernels


@cache
def _most_threads() -> int:
    """Threads that Numba has; one where it has no OpenMP: others sleep between two products, and
    waking them takes longer than most products do."""
    import numba

    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return 1
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


_told = threading.local()


def threads() -> int:
    """As many as PyTorch uses, told to Numba."""
    import numba

    wanted = torch.get_num_threads()
    num = min(wanted, _most_threads())
    if getattr(_told, "threads", None) != num:
        numba.set_num_threads(num)
        torch.set_num_threads(
            wanted
        )  # when Numba begins, OpenMP gets all cores, and so does PyTorch
        _told.threads = num
    return num


def is_small(x: Tensor) -> bool:
    """Whether x (…, K) are so few slots that kernels make products of them."""
    return (
        0 < x.numel() <= MOST_ROWS * x.shape[-1]
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and kernels() is not None
    )


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether products of x (…, K) with a weight (N, K) are made here."""
    return is_small(x) and weight.dtype in KINDS and weight.is_contiguous()


def multiply(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x (…, K), weight (N, K) of any of `KINDS`, scale and bias (N,) of its rows -> (…, N)."""
    num, width = weight.shape
    flat = x.reshape(-1, width).contiguous()
    out = torch.empty(len(flat), num)
    ones, zeros = plain(num)
    call("multiply", weight.dtype,
         seen(weight), flat.numpy(), ones.numpy() if scale is None else seen(scale),
         zeros.numpy() if bias is None else seen(bias), out.numpy(), False, threads())  # fmt: skip
    return out.view(*x.shape[:-1], num)


@lru_cache(64)
def plain(num: int) -> tuple[Tensor, Tensor]:
    """(num,) scales and biases that change nothing."""
    return torch.ones(num), torch.zeros(num)


def seen(tensor: Tensor) -> Any:
    """A tensor as kernels see it."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


_ready = set[tuple[str, torch.dtype]]()


def call(name: str, kind: torch.dtype, *arguments: Any) -> None:
    """Call a kernel for weights of some kind. The first call on a machine compiles it, and says so
    where that takes its time."""
    kernel = getattr(kernels(), name)
    if (name, kind) in _ready:
        kernel(*arguments)
        return
    said = threading.Timer(LONG, _say)
    said.daemon = True
    said.start()
    try:
        kernel(*arguments)
    finally:
        said.cancel()
    _ready.add((name, kind))


def _say() -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print("compiling loops for this processor (once, some ten seconds) …", file=sys.stderr)
