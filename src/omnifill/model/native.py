"""The bridge to `model.kernels`: products of few slots with weights of any kind, on a CPU.

Where Numba is not installed nothing goes this way, and PyTorch makes all products.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from omnifill.files import write_atomic
from omnifill.uncollected import uncollected

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
    """The loops; None where Numba does not work here, or has no folder for what it compiles (which
    would be compiled anew in every process)."""
    if not is_there():
        return None
    try:
        from numba import config

        from omnifill.model import kernels
    except Exception:  # whatever a Numba that fits neither NumPy nor the machine says
        return None
    return None if config.DISABLE_JIT else kernels  # type: ignore[attr-defined]


@cache
def compiled(kind: torch.dtype) -> bool:
    """Whether there are loops for weights of a kind. Where they were never needed before they are
    compiled now, and whoever waits is told so."""
    wanted, loops = torch.get_num_threads(), kernels()
    if loops is None or kind not in KINDS:
        return False
    said = threading.Timer(LONG, _say)
    said.daemon = True
    said.start()
    try:
        with _uninterrupted(), uncollected():
            _prepare(loops, KINDS[kind])
    except Exception as error:
        warnings.warn(f"texts are written by PyTorch, which is slower: Numba compiles nothing here "
                      f"({error or type(error).__name__}). If what it keeps is damaged, delete "
                      f"{_kept(loops)}", stacklevel=2)  # fmt: skip
        return False
    finally:
        said.cancel()
        torch.set_num_threads(wanted)  # to begin, Numba gives OpenMP, and so PyTorch, all cores
    return True


def _prepare(loops: ModuleType, kind: type) -> None:
    """Have the loops for a kind, as they are kept or compiled now: by one process at a time, and
    all anew if one was ended in the middle. What Numba links with a loop on several threads that
    another process has left runs there, but falls down in whoever reads it later."""
    folder = Path(loops.multiply.stats.cache_path)
    whole, begun = folder / f"kernels.{kind.__name__}.whole", folder / "kernels.begun"
    kept_for = _made_for(loops)
    if whole.exists() and whole.read_bytes() == kept_for:
        loops.prepare(kind)
        return
    from filelock import FileLock  # of no use to who finds all there

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "kernels.lock"):
        if begun.exists():
            for path in folder.iterdir():
                if path.match("kernels.*.whole") or path.match("*.nb?"):
                    path.unlink()
        begun.touch()
        loops.prepare(kind)
        write_atomic(whole, kept_for)
        begun.unlink()


def _made_for(loops: ModuleType) -> bytes:
    """What loops are compiled from, and for."""
    import llvmlite.binding as llvm
    import numba

    files = [Path(str(loops.__file__)).with_name(name) for name in ("kernels.py", "intrinsics.py")]
    processor = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return repr((numba.__version__, processor, [f.stat().st_mtime_ns for f in files])).encode()


def _say() -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print("compiling loops for this processor (once, some ten seconds) …", file=sys.stderr)


def _kept(loops: ModuleType) -> str:
    """Where files of the loops are, with those that say that all are there."""
    return str(Path(str(loops.multiply.stats.cache_path)) / "kernels.*")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is heeded at the end: the compiler may lose it, and then fails for no reason. A second
    one is heeded at once."""
    before, heard = signal.getsignal(signal.SIGINT), list[int]()
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(before):
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            before(heard[0], None)


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

    num = min(torch.get_num_threads(), _most_threads())
    if getattr(_told, "threads", None) != num:
        numba.set_num_threads(num)
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
    )


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether products of x (…, K) with a weight (N, K) are made here."""
    return is_small(x) and weight.is_contiguous() and compiled(weight.dtype)


def multiply(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x (…, K), weight (N, K) of any of `KINDS`, scale and bias (N,) of its rows -> (…, N)."""
    num, width = weight.shape
    flat = x.reshape(-1, width).contiguous()
    out = torch.empty(len(flat), num)
    ones, zeros = plain(num)
    cast(Any, kernels()).multiply(
        seen(weight), flat.numpy(), ones.numpy() if scale is None else seen(scale),
        zeros.numpy() if bias is None else seen(bias), out.numpy(), False, threads(),
    )  # fmt: skip
    return out.view(*x.shape[:-1], num)


@lru_cache(64)
def plain(num: int) -> tuple[Tensor, Tensor]:
    """(num,) scales and biases that change nothing."""
    return torch.ones(num), torch.zeros(num)


def seen(tensor: Tensor) -> Any:
    """A tensor as kernels see it."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
