"""Products of fp32 matrices by oneDNN, where that is the faster library.

PyTorch takes MKL for them, which on processors of AMD leaves AVX-512 alone and so takes twice as
long and more (docs/log.md). Nothing here is less exact: both multiply and add in fp32.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

LEAST = 1 << 14
"""Smaller matrices are multiplied as they are: they are in the processor anyway."""
MOST_LAID_OUT = 1 << 31
"""Bytes of weights that are laid out a second time, at most."""


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN is the faster here, and is what `by_onednn` turns on. By the processor's kind
    and not by time, so that the same recipe gives the same bytes."""
    if not _is_amd() or not torch.cpu._is_avx512_supported() or torch.cuda.is_available():
        return False
    if torch.cpu._is_amx_tile_supported() or not torch._C._has_mkldnn:
        return False
    # What is turned on lets oneDNN round to bfloat16 where it has units for that; here it has none.
    a = torch.linspace(-1, 1, 64 * 64).view(64, 64)
    with _turned_on():
        found = a @ a.mT
    return bool(((found.double() - a.double() @ a.double().mT).abs().max() < 1e-4).item())


def _is_amd() -> bool:
    said = platform.processor()
    if not said and Path("/proc/cpuinfo").exists():  # Linux
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    return "AuthenticAMD" in said


def _matmul() -> Any:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


@contextmanager
def _turned_on() -> Iterator[None]:
    matmul = _matmul()
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextmanager
def by_onednn() -> Iterator[None]:
    """Products within are made by oneDNN, if that is the faster; gradients, too."""
    if prefers_onednn():
        with _turned_on():
            yield
    else:
        yield


def is_turned_on() -> bool:
    """Whether products are made by oneDNN at this moment."""
    return prefers_onednn() and _matmul().fp32_precision == "bf16"


# --- weights that do not change any more ---------------------------------------------------

_laid_out: Any = WeakTensorKeyDictionary()
"""Weight -> its parts (start, stop, version) as oneDNN reads them fastest."""


class Linear(nn.Linear):
    """A linear map that is faster once its weight is `settled`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, N)."""
        return linear(x, self.weight, self.bias)


def settle(network: nn.Module) -> None:
    """Weights of linear maps will not change: each may be laid out anew when it is first used."""
    if not prefers_onednn():
        return
    room = MOST_LAID_OUT
    halves = torch.cpu._is_avx512_bf16_supported()
    for module in network.modules():
        if not isinstance(module, nn.Linear) and not (halves and _is_bf16(module)):
            continue
        weight = cast(Tensor, module.weight)
        room -= weight.nbytes
        if room >= 0 and weight.numel() >= LEAST:
            _laid_out[weight] = {}


def _is_bf16(module: nn.Module) -> bool:
    return getattr(module, "kind", None) == "bf16"


def is_settled(weight: Tensor) -> bool:
    """Whether products with it are made of what is laid out."""
    return weight in _laid_out and not torch.is_grad_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, part: slice | None = None) -> Tensor:
    """(…, K) -> (…, n): products with the rows of a weight (N, K), or with some of them."""
    laid = None
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        laid = _laid_out.get(weight)
    if laid is None or not x.numel():
        if part is not None:
            weight, bias = weight[part], None if bias is None else bias[part]
        return F.linear(x, weight, bias)
    part = part or slice(0, len(weight))
    which = part.start, part.stop, weight._version
    if which not in laid:
        plain = weight.detach()[part].contiguous()
        laid[which] = torch.ops.mkldnn._reorder_linear_weight(plain, None)
    bias = None if bias is None else bias[part]
    told: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid[which], bias, "none", [], "")
    return told
