"""Products of fp32 matrices by oneDNN, where that is the faster library.

PyTorch takes MKL for them, which on processors of AMD leaves AVX-512 alone and so takes twice as
long and more (docs/log.md). Nothing here is less exact: both multiply and add in fp32.
"""

from __future__ import annotations

import copy
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.model import native

CPUS = Path("/proc/cpuinfo")
"""Where Linux tells of its processors."""
LEAST = 1 << 18
"""Products of fewer multiplications are made as ever: oneDNN takes longer to begin with one
(docs/log.md)."""
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


@cache
def multiplies_halves() -> bool:
    """Whether the processor has units for products of bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
    joined: Joined | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, N)."""
        return linear(x, self)


def settle(network: nn.Module) -> None:
    """Weights of linear maps will not change: those that read the same become one, and each may be
    laid out anew when it is first used."""
    maps, inside = [m for m in network.modules() if hasattr(m, "settled")], set[nn.Module]()
    for module in network.modules():
        side = [getattr(module, name) for name in getattr(module, "side_by_side", ())]
        if side and Joined.can(side):
            side[0].joined = Joined(side)
            maps.insert(0, side[0].joined.whole)
            inside.update(side)
    if not prefers_onednn():
        return
    room, halves = MOST_LAID_OUT, multiplies_halves()
    for each in maps:
        weight = cast(Tensor, each.weight)
        if weight.dtype != torch.float32 and not (halves and weight.dtype == torch.bfloat16):
            continue
        room -= 0 if each in inside else weight.nbytes  # those are hardly ever asked alone
        if room >= 0:
            cast(Any, each).settled = Settled(weight)


def linear(x: Tensor, layer: nn.Module, part: slice = ALL) -> Tensor:
    """(…, K) -> (…, n): what a layer of a weight (N, K) and perhaps a bias makes of x, or some of
    its rows."""
    weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
    if part is not ALL and bias is not None:
        bias = bias[part]
    if native.multiplies(x, weight):
        return native.multiply(x, weight if part is ALL else weight[part], None, bias)
    settled = settled_for(x, layer)
    if settled is None:
        return F.linear(x, weight if part is ALL else weight[part], bias)
    return settled.told(x, bias, part)


def settled_for(x: Tensor, layer: nn.Module) -> Settled | None:
    """What is laid out of a layer's weight, if that is to be used here."""
    settled = cast("Settled | None", getattr(layer, "settled", None))
    if settled is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    weight = settled.weight
    if x.numel() * len(weight) < LEAST:
        return None
    return settled if weight is layer.weight else None


class Joined:
    """Linear maps that read the same, as one product: their weights lie side by side in memory."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = tuple(layers)
        self.sizes = [len(cast(Tensor, layer.weight)) for layer in layers]
        self.whole: Any = copy.copy(layers[0])
        self.whole._parameters = dict(self.whole._parameters)
        self.whole._buffers = dict(self.whole._buffers)
        for name, first in _held(layers[0]):
            data = torch.cat([getattr(layer, name).detach() for layer in layers])
            for layer, part in zip(layers, data.split_with_sizes(self.sizes), strict=True):
                getattr(layer, name).data = part  # so that no second copy is kept
            learns = isinstance(first, nn.Parameter)
            setattr(self.whole, name, nn.Parameter(data, requires_grad=False) if learns else data)
        self.weights = [cast(Tensor, layer.weight) for layer in layers]
        self.parts = [tensor for layer in layers for _, tensor in _held(layer)]
        self.versions, self.place = self._versions(), self.weights[0].data_ptr()

    @staticmethod
    def can(layers: Sequence[nn.Module]) -> bool:
        """Whether there are such layers, all of one kind."""
        kinds = {(type(layer), *((n, t.dtype, t.shape[1:]) for n, t in _held(layer)))
                 for layer in layers}  # fmt: skip
        return len(layers) > 1 and len(kinds) == 1 and hasattr(layers[0], "joined")

    def __deepcopy__(self, memo: dict[int, Any]) -> Joined | None:
        if any(memo.get(id(weight)) is not weight for weight in self.weights):
            return None
        out = copy.copy(self)
        out.layers = tuple(copy.deepcopy(layer, memo) for layer in self.layers)
        return out

    def fits(self, layers: tuple[nn.Module, ...]) -> bool:
        """Whether it still is what these layers are."""
        return (
            layers == self.layers
            and all(layer.weight is w for layer, w in zip(layers, self.weights, strict=True))
            and self._versions() == self.versions
            and self.weights[0].data_ptr() == self.place
        )

    def _versions(self) -> list[int]:
        return [0 if tensor.is_inference() else tensor._version for tensor in self.parts]


def _held(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]


def together(x: Tensor, *layers: nn.Module) -> Sequence[Tensor]:
    """What each layer makes of x, (…, K) -> (…, n) of each; by one product if they are joined."""
    joined = cast("Joined | None", getattr(layers[0], "joined", None))
    if joined is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return [layer(x) for layer in layers]
    if not joined.fits(layers):
        return [layer(x) for layer in layers]
    out: Tensor = joined.whole(x)
    return out.split_with_sizes(joined.sizes, dim=-1)
