"""Products of fp32 matrices by oneDNN, where that is the faster library.

PyTorch takes MKL for them, which on processors of AMD leaves AVX-512 alone and so takes twice as
long and more (docs/log.md). Nothing here is less exact: both multiply and add in fp32.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CPUS = Path("/proc/cpuinfo")
"""Where Linux tells of its processors."""
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
    said = platform.processor()  # of Windows; some Linux says no more than x86_64
    if CPUS.exists():
        said = CPUS.read_text(encoding="utf-8", errors="replace")[:4096]
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


_lock, _inside = threading.Lock(), ExitStack()
_depth = 0


@contextmanager
def by_onednn() -> Iterator[None]:
    """Products within are made by oneDNN, if that is the faster; gradients, too. The setting is one
    for all threads: the last one that leaves turns it off."""
    global _depth
    if not prefers_onednn():
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _inside.enter_context(_turned_on())
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _inside.close()


def is_turned_on() -> bool:
    """Whether products are made by oneDNN at this moment."""
    return _depth > 0


# --- weights that do not change any more ---------------------------------------------------


class Settled:
    """A weight (N, K) that does not change, laid out as oneDNN reads it fastest: whole, or some of
    its rows, when they are first asked for. A copy of the network that shares the weight shares
    this."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.parts: dict[tuple[int | None, int | None], Tensor] = {}
        self.version = -1

    def __deepcopy__(self, memo: dict[int, Any]) -> Settled | None:
        return self if memo.get(id(self.weight)) is self.weight else None

    def told(self, x: Tensor, bias: Tensor | None, part: slice) -> Tensor:
        """(…, K) -> (…, n): products with some of the rows."""
        version = 0 if self.weight.is_inference() else self.weight._version
        if version != self.version:  # it has changed after all
            self.parts, self.version = {}, version
        laid = self.parts.get((part.start, part.stop))
        if laid is None:
            plain = self.weight.detach()[part].contiguous()
            laid = torch.ops.mkldnn._reorder_linear_weight(plain, None)
            self.parts[part.start, part.stop] = laid
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid, bias, "none", [], "")
        return out


ALL = slice(None)


class Linear(nn.Linear):
    """A linear map that is faster once its weight is settled."""

    settled: Settled | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, N)."""
        return linear(x, self)


def settle(network: nn.Module) -> None:
    """Weights of linear maps will not change: each may be laid out anew when it is first used."""
    if not prefers_onednn():
        return
    room, halves = MOST_LAID_OUT, torch.cpu._is_avx512_bf16_supported()
    for module in network.modules():
        if not hasattr(module, "settled"):
            continue
        weight = cast(Tensor, module.weight)
        if weight.dtype != torch.float32 and not (halves and weight.dtype == torch.bfloat16):
            continue
        room -= weight.nbytes
        if room >= 0 and weight.numel() >= LEAST:
            cast(Any, module).settled = Settled(weight)


def linear(x: Tensor, layer: nn.Module, part: slice = ALL) -> Tensor:
    """(…, K) -> (…, n): what a layer of a weight (N, K) and perhaps a bias makes of x, or some of
    its rows."""
    weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
    if part is not ALL and bias is not None:
        bias = bias[part]
    settled = settled_for(x, layer)
    if settled is None:
        return F.linear(x, weight if part is ALL else weight[part], bias)
    return settled.told(x, bias, part)


def settled_for(x: Tensor, layer: nn.Module) -> Settled | None:
    """What is laid out of a layer's weight, if that is to be used here."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not x.numel():
        return None
    settled = cast("Settled | None", getattr(layer, "settled", None))
    return settled if settled is not None and settled.weight is layer.weight else None
