"""Steps of few slots by compiled loops: they say what PyTorch says, whoever else is there."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omnifill.model import fused, native
from omnifill.model.config import ModelConfig
from omnifill.model.feedforward import ACTS
from omnifill.model.fused import Fused, fuse
from omnifill.model.lora import add_lora
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.model.packed import pack
from omnifill.model.products import Linear, settle

pytest.importorskip("numba", reason="compiled loops are Numba's")

SHAPES: dict[str, dict[str, Any]] = {
    "as our own are": {},
    "grouped queries, odd widths": {
        "dim": 36, "heads": 6, "kv_heads": 2, "head_dim": 10, "ffn": 45,
    },
    "as GPT-2": {
        "positions": "learned", "norm": "layer", "act": "gelu_tanh", "gated": False,
        "qk_norm": False, "qkv_bias": True, "o_bias": True, "ffn_bias": True, "opens": False,
        "tied": True,
    },
    "as Llama": {"qk_norm": False, "opens": False, "kv_heads": 1},
    "as Mistral": {"qk_norm": False, "window": 3},
    "windows in some layers, scaled": {"window": 2, "windowed": (1,), "attn_scale": 0.2},
    "gelu, gated": {"act": "gelu", "embed_norm": True},
    "relu": {"act": "relu", "gated": False},
}  # fmt: skip


def network(weights: str = "fp32", **shape: Any) -> Network:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"dim": 32, "heads": 4, "kv_heads": 4, "head_dim": 8, "ffn": 48}
    config = ModelConfig(vocabulary=40, fields=3, layers=3, context=20, **(usual | shape))
    net = Network(config)
    with torch.no_grad():  # away from zero, which would hide mistakes
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    if weights != "fp32":
        pack(net, weights)  # type: ignore[arg-type]
    settle(net)
    fuse(net)
    return net.eval()


def step_of(net: Network) -> Fused:
    found = net.backbone.fused  # type: ignore[attr-defined]
    assert isinstance(found, Fused), "kernels do not know it"
    return found


@pytest.fixture(autouse=True)
def no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def written(
    net: Network, lengths: list[int], steps: tuple[int, ...] = (1, 1, 3, 1), prompt: bool = True
) -> list[Tensor]:
    """Rows of unequal lengths, read on in steps of so many slots. The beginning is read by PyTorch,
    so that it is the same on both ways, unless `prompt` is False."""
    rng = torch.Generator().manual_seed(1)
    rows, most = len(lengths), max(lengths)
    ids = torch.randint(0, 40, (16, 40), generator=rng)
    field = torch.randint(0, 3, ids.shape, generator=rng)
    cache = net.new_cache(rows, most + sum(steps))
    with by_pytorch() if prompt else nullcontext():
        net(ids[:rows, :most], field[:rows, :most], None, Mask(), cache)
    cache.rewind(torch.tensor(lengths))
    out, row = [], torch.arange(rows)[:, None]
    for num in steps:
        at = cache.lengths[:, None] + torch.arange(num)
        out.append(net(ids[row, at], field[row, at], None, Mask(), cache))
    return out


class by_pytorch:  # a context
    def __enter__(self) -> None:
        self.most, native.MOST_ROWS = native.MOST_ROWS, 0

    def __exit__(self, *error: object) -> None:
        native.MOST_ROWS = self.most


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_step_says_what_its_blocks_say(shape: dict[str, Any]) -> None:
    net = network(**shape)
    step_of(net)
    found = written(net, [2, 9, 5])
    with by_pytorch():
        known = written(net, [2, 9, 5])
    for a, b in zip(found, known, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("shape", ["as our own are", "as GPT-2"])
def test_weights_of_few_bits_are_what_they_stand_for(kind: str, shape: str) -> None:
    """Against the same weights written out in 32 bits: nothing is rounded on the way."""
    size = {"dim": 80, "heads": 4, "kv_heads": 4, "head_dim": 20, "ffn": 96}
    net = network(kind, **(SHAPES[shape] | size))
    assert step_of(net).kind == {"bf16": torch.bfloat16, "int8": torch.int8}[kind]
    plain = network(**(SHAPES[shape] | size))
    for ours, theirs in zip(net.modules(), plain.modules(), strict=True):
        if hasattr(ours, "rows"):
            theirs.weight.copy_(ours.rows(slice(None)))
    with by_pytorch():
        known = written(plain, [2, 9, 5])
    for a, b in zip(written(net, [2, 9, 5], prompt=False), known, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_row_is_the_same_beside_any_others_and_on_any_number_of_threads() -> None:
    """To the last bit, from two rows on (one alone is summed up in another order)."""
    net = network(dim=96, heads=3, kv_heads=3, head_dim=32, ffn=240)
    before, lengths, ones = torch.get_num_threads(), [3, 8, 1, 5, 6, 2, 7], (1,) * 4
    try:
        torch.set_num_threads(1)
        pair, among = written(net, lengths[:2], ones), written(net, lengths, ones)
        torch.set_num_threads(2)
        again = written(net, lengths, ones)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(among, again, strict=True))
    # The prompt, which PyTorch reads, may differ in its last bits; the first slot has none.
    first, whole = written(net, [1] * 2, ones, False), written(net, [1] * 7, ones, False)
    assert all(torch.equal(a, b[:2]) for a, b in zip(first, whole, strict=True))
    for a, b in zip(pair, among, strict=True):
        torch.testing.assert_close(a, b[:2], rtol=1e-4, atol=1e-5)


def test_blocks_that_were_exchanged_are_heeded() -> None:
    net = network()
    before = written(net, [2, 3])
    add_lora(net, 4, 1.0, ["q_proj", "down_proj"], vectors=False)
    for name, parameter in net.named_parameters():
        if name.endswith("lora_b"):
            parameter.normal_()
    after = written(net, [2, 3])
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    with by_pytorch():
        known = written(net, [2, 3])
    torch.testing.assert_close(after, known, rtol=1e-4, atol=1e-5)


def test_weights_that_learn_further_are_heeded() -> None:
    net = network()
    written(net, [2, 3])
    for parameter in net.parameters():
        parameter.mul_(1.1)
    found = written(net, [2, 3])
    with by_pytorch():
        torch.testing.assert_close(found, written(net, [2, 3]), rtol=1e-4, atol=1e-5)


def test_a_copy_has_its_own_weights() -> None:
    net = network()
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        parameter.mul_(2)
    found = written(other, [2, 3])
    with by_pytorch():
        torch.testing.assert_close(found, written(other, [2, 3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [{"positions": "relative"}, {"full": True}, {"norm_after": True}],
    ids=["relative positions", "sees all", "norm after"],
)
def test_what_kernels_do_not_know_goes_block_by_block(shape: dict[str, Any]) -> None:
    assert network(**shape).backbone.fused is None  # type: ignore[attr-defined]


def test_without_numba_all_goes_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    known = written(network(), [2, 9, 5])
    monkeypatch.setattr(fused, "is_there", lambda: False)
    monkeypatch.setattr(native, "compiled", lambda kind: False)
    net = network()
    assert net.backbone.fused is None  # type: ignore[attr-defined]
    for a, b in zip(written(net, [2, 9, 5]), known, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_where_nothing_compiled_can_be_kept_all_goes_as_before() -> None:
    """Ten seconds of compiling in every process would be the slower way."""
    code = "import sys; from omnifill.model import native; sys.exit(native.kernels() is not None)"
    nowhere = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    subprocess.run([sys.executable, "-c", code], env=nowhere, check=True)


def test_pytorch_keeps_its_number_of_threads() -> None:
    code = (
        "import torch; from omnifill.model import native; torch.set_num_threads(1)\n"
        "x, weight = torch.ones(1, 64), torch.ones(4000, 64)\n"
        "with torch.no_grad(): assert native.multiplies(x, weight)\n"
        "native.multiply(x, weight, None, None)\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("off", ["broken", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS"])
def test_a_numba_that_does_not_work_is_none(off: str, tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('it fits no NumPy')", encoding="utf-8")
    there = {"NUMBA_DISABLE_JIT": "1"} if off == "NUMBA_DISABLE_JIT" else {off: "0"}
    if off == "broken":
        there = {"PYTHONPATH": str(tmp_path)}
    code = (
        "import torch; from omnifill.model import native\n"
        "from omnifill.model.products import Linear\n"
        "with torch.no_grad(): Linear(64, 9)(torch.ones(1, 64))\n"
        "assert not native.compiled(torch.float32)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | there, check=True)


PREPARED = (
    "import torch; from omnifill.model import native\n"
    "assert native.compiled(torch.float32)\n"
    "x, weight = torch.ones(1, 64), torch.ones(4000, 64)\n"
    "assert float(native.multiply(x, weight, None, None)[0, 0]) == 64\n"
)


@pytest.mark.slow
def test_loops_that_were_half_kept_are_compiled_anew_by_numba(tmp_path: Path) -> None:
    """A loop on several threads was left without the one that calls it."""
    there = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PREPARED]
    both = [subprocess.Popen(command, env=there) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    [folder] = {path.parent for path in tmp_path.rglob("kernels.lock")}
    kept = {path.name for path in folder.glob("*.nb?")}
    for path in folder.glob("kernels.multiply*"):
        path.unlink()
    (folder / "kernels.float32.whole").rename(folder / "kernels.begun")
    for _ in range(3):
        subprocess.run(command, env=there, check=True)
    assert {path.name for path in folder.glob("*.nb?")} == kept


class Loops:
    """Some that are kept in two files, and may be ended between them."""

    def __init__(self, folder: Path) -> None:
        self.__file__ = str(folder / "kernels.py")
        for name in ("kernels.py", "intrinsics.py"):
            (folder / name).touch()
        self.kept = folder / "kept"
        self.multiply = SimpleNamespace(stats=SimpleNamespace(cache_path=str(self.kept)))
        self.found = list[list[str]]()
        self.ended = False

    def prepare(self, kind: type) -> None:
        self.found.append(sorted(path.name for path in self.kept.glob("*.nb?")))
        for name in ("kernels.a.nbi", "kernels.b.nbi"):
            (self.kept / name).touch()
            if self.ended:
                raise KeyboardInterrupt
            time.sleep(0.02)


def test_what_was_ended_in_the_middle_is_compiled_anew_and_by_one_at_a_time(tmp_path: Path) -> None:
    loops: Any
    loops, both = Loops(tmp_path), ["kernels.a.nbi", "kernels.b.nbi"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: native._prepare(loops, np.float32), range(3)))
    assert loops.found == [[], both, both]
    loops.ended = True
    with pytest.raises(KeyboardInterrupt):
        native._prepare(loops, np.int8)
    loops.ended = False
    for kind in (np.int8, np.float32, np.float32):
        native._prepare(loops, kind)
    assert loops.found[3:] == [both, [], both, both]


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Loops are prepared anew."""
    native.compiled.cache_clear()
    yield monkeypatch
    native.compiled.cache_clear()


def test_what_cannot_be_compiled_is_told_and_done_without(prepare: pytest.MonkeyPatch) -> None:
    def fail(kind: object) -> None:
        raise EOFError("Ran out of input")

    prepare.setattr(native.kernels(), "prepare", fail)
    with pytest.warns(UserWarning, match=r"slower.*Ran out of input.*delete .*kernels"):
        assert not native.multiplies(torch.ones(1, 4), torch.ones(3, 4))


@pytest.mark.parametrize("times", [1, 2])
def test_who_interrupts_the_compiler_is_heard_once_it_is_done(
    times: int, prepare: pytest.MonkeyPatch
) -> None:
    """And at once who does so twice."""
    done = list[object]()

    def slow(kind: object) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append(kind)

    prepare.setattr(native.kernels(), "prepare", slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            native.compiled(torch.float32)
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(done) == (times == 1) and after is signal.default_int_handler


def test_nothing_is_written_behind_the_room_there_is() -> None:
    net = network()
    cache = net.new_cache(2, 4)
    ids = torch.zeros(2, 1, dtype=torch.long)
    for _ in range(4):
        net(ids, ids, None, Mask(), cache)
    with pytest.raises(IndexError, match="no room"):
        net(ids, ids, None, Mask(), cache)


def test_threads_may_share_a_model() -> None:
    net = network()
    known = {rows: written(net, list(range(1, rows + 1)), prompt=False) for rows in (2, 5)}
    wrong = list[int]()

    def write(rows: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                found = written(net, list(range(1, rows + 1)), prompt=False)
                if not all(torch.equal(a, b) for a, b in zip(found, known[rows], strict=True)):
                    wrong.append(rows)

    threads = [threading.Thread(target=write, args=(rows,)) for rows in (2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(
    rows=st.integers(1, 9), width=st.integers(1, 70), num=st.integers(1, 19),
    bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_products_of_any_size_are_products(
    rows: int, width: int, num: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        layer, x = Linear(width, num, bias=bias), torch.randn(rows, width)
        assert native.multiplies(x, layer.weight)
        known = F.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), known, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x.T.contiguous().T), known, rtol=1e-5, atol=1e-5)


def test_arrays_of_any_layout_are_compiled_for_once() -> None:
    layer, x = Linear(24, 10), torch.randn(6, 24)
    layer(x)
    kernels = native.kernels()
    assert kernels is not None
    before = len(kernels.multiply.signatures)
    layer(x[::2])
    layer(x.T.contiguous().T)
    layer(x[:, None].expand(6, 2, 24))
    assert len(kernels.multiply.signatures) == before


def test_an_exponential_is_one_wherever_it_is_a_number() -> None:
    intrinsics = pytest.importorskip("omnifill.model.intrinsics")
    x = np.linspace(-86, 88, 20_001, dtype=np.float32)
    found = np.array([intrinsics.exp(one) for one in x])
    known = np.exp(x.astype(np.float64))
    assert np.abs(found / known - 1).max() < 3e-7
    assert 0 <= intrinsics.exp(np.float32(-math.inf)) < 1e-37


@pytest.mark.parametrize("act", fused.ACTS)
def test_functions_are_those_of_pytorch(act: str) -> None:
    kernels = native.kernels()
    assert kernels is not None
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-90.0, 90.0, 0.0])])
    found = x.clone()
    kernels._act(fused.ACTS.index(act), found.numpy())
    torch.testing.assert_close(found, ACTS[act](x), rtol=2e-5, atol=2e-6)
