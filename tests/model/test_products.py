"""Products by oneDNN: as exact as torch's own, only where they are faster, and never stale."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from omnifill import api
from omnifill.model import products
from omnifill.model.packed import Kind, Packed
from omnifill.model.products import (
    Linear,
    by_onednn,
    linear,
    prefers_onednn,
    settle,
    together,
)
from omnifill.objectives.causal import CausalObjective

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this processor were one that prefers oneDNN, whatever the size."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "LEAST", 1)


@pytest.fixture
def no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.usefixtures("preferred", "no_gradient")
@pytest.mark.parametrize("rows", [(0,), (1,), (7, 5), (33,), (2, 5, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_settled_weights_say_what_plain_ones_say(rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(130, 257, bias=bias), torch.randn(*rows, 130)
    plain = layer(x)
    settle(layer)
    assert layer.settled is not None
    torch.testing.assert_close(layer(x), plain)
    torch.testing.assert_close(layer(x.transpose(0, -2)), plain.transpose(0, -2))
    some = linear(x, layer, slice(5, 200))
    torch.testing.assert_close(some, plain[..., 5:200])


@pytest.mark.usefixtures("preferred", "no_gradient")
def test_a_weight_that_changes_after_all_is_laid_out_again() -> None:
    layer, x = Linear(130, 257), torch.randn(2, 130)
    settle(layer)
    before = layer(x)
    layer.weight.mul_(2)
    torch.testing.assert_close(layer(x), 2 * (before - layer.bias) + layer.bias)


@pytest.mark.usefixtures("preferred")
def test_gradients_pass_through_settled_weights() -> None:
    layer, x = Linear(130, 257), torch.randn(4, 130, requires_grad=True)
    settle(layer)
    layer(x).square().sum().backward()
    assert x.grad is not None and layer.weight.grad is not None
    told = F.linear(x.detach(), layer.weight, layer.bias)
    torch.testing.assert_close(x.grad, 2 * told @ layer.weight.detach())


@pytest.mark.usefixtures("preferred", "no_gradient")
def test_no_more_than_so_many_bytes_are_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MOST_LAID_OUT", 5 * 130 * 257)
    first, second = Linear(130, 257), Linear(257, 130)
    settle(torch.nn.Sequential(first, second))
    assert first.settled is not None and second.settled is None
    monkeypatch.setattr(products, "MOST_LAID_OUT", 4 * 130 * (40 + 90))
    network = Three()
    settle(network)
    assert network.a.joined is not None and network.c.settled is None, "there is room for one"


@pytest.mark.usefixtures("preferred", "no_gradient")
def test_a_copy_shares_what_is_laid_out_if_it_shares_the_weight() -> None:
    layer, x = Linear(130, 257), torch.randn(2, 130)
    settle(layer)
    before = layer(x)
    shared = copy.deepcopy(layer, {id(layer.weight): layer.weight})
    assert shared.settled is layer.settled
    apart = copy.deepcopy(layer)
    apart.weight.zero_()
    torch.testing.assert_close(apart(x), layer.bias.expand(2, -1))
    assert torch.equal(layer(x), before)


class Three(nn.Module):
    """Two maps of the same input, and one of another."""

    side_by_side = ("a", "b")

    def __init__(self, bias: bool = True, kind: Kind | None = None) -> None:
        super().__init__()
        self.a, self.b = Linear(130, 40, bias=bias), Linear(130, 90, bias=bias)
        self.c = Linear(130, 50, bias=bias)
        if kind is not None:
            self.a, self.b = Packed.of(kind, self.a), Packed.of(kind, self.b)  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [*together(x, self.a, self.b), self.c(x)]

    def apart(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.a(x), self.b(x), self.c(x)]


@pytest.mark.usefixtures("no_gradient")
@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("kind", [None, "bf16", "int8"])
@pytest.mark.parametrize("bias", [True, False])
def test_joined_maps_say_what_each_says(
    laid_out: bool, kind: Kind | None, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: laid_out)
    monkeypatch.setattr(products, "LEAST", 1)
    torch.manual_seed(0)
    network, x = Three(bias, kind), torch.randn(3, 5, 130)
    settle(network)
    assert network.a.joined is not None and network.b.joined is None
    asked = _counted(network.a.joined.whole, monkeypatch)
    for told, plain in zip(network(x), network.apart(x), strict=True):
        torch.testing.assert_close(told, plain)
    assert asked == [1]
    whole = network.a.joined.whole.weight
    held = {part.untyped_storage().data_ptr() for part in (network.a.weight, network.b.weight)}
    assert held == {whole.untyped_storage().data_ptr()}, "no weight is held twice"
    found = load(save(network.state_dict()))
    assert {n: t.shape for n, t in found.items()} == {
        n: t.shape for n, t in network.state_dict().items()
    }


@pytest.mark.usefixtures("preferred", "no_gradient")
@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.b.weight.mul_(2),
        lambda network: network.b.bias.add_(1),
        lambda network: setattr(network.b, "weight", nn.Parameter(torch.ones(90, 130))),
        lambda network: setattr(network, "b", Linear(130, 90)),
        lambda network: network.double().float(),
        lambda network: network.load_state_dict(Three().state_dict(), assign=True),
    ],
)
def test_joined_maps_that_change_after_all_are_asked_one_by_one(
    change: Callable[[Three], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, x = Three(), torch.randn(2, 130)
    settle(network)
    assert network.a.joined is not None
    asked = _counted(network.a.joined.whole, monkeypatch)
    network(x)
    change(network)
    for told, plain in zip(network(x), network.apart(x), strict=True):
        torch.testing.assert_close(told, plain)
    assert asked == [1]


@pytest.mark.usefixtures("preferred", "no_gradient")
def test_a_copy_is_joined_if_it_shares_the_weights() -> None:
    network, x = Three(), torch.randn(2, 130)
    settle(network)
    before = network(x)
    shared = copy.deepcopy(network, {id(t): t for t in network.parameters()})
    assert shared.a.joined is not None and shared.a.joined.fits((shared.a, shared.b))
    shared.b = Linear(130, 90)  # type: ignore[unreachable]
    torch.testing.assert_close(shared(x)[1], shared.b(x))
    apart = copy.deepcopy(network)
    apart.a.weight.zero_()
    torch.testing.assert_close(apart(x)[0], apart.a.bias.expand(2, -1))
    for told, plain in zip(network(x), before, strict=True):
        assert torch.equal(told, plain)


def test_gradients_pass_each_of_joined_maps() -> None:
    network, x = Three(), torch.randn(2, 130)
    settle(network)
    sum(told.square().sum() for told in network(x)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def _counted(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often it is asked, which goes on counting."""
    asked, forward = [0], module.forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        asked[0] += 1
        return cast(torch.Tensor, forward(x))

    monkeypatch.setattr(module, "forward", counted)
    return asked


@pytest.mark.skipif(not prefers_onednn(), reason="this processor prefers torch's own products")
def test_products_that_are_turned_on_are_those_of_fp32() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(300, 200, requires_grad=True), torch.randn(40, 200)
    exact = a.double() @ b.double().T
    with by_onednn():
        told = a @ b.T
        told.sum().backward()
    assert (told - exact).abs().max() < 1e-4  # rounded to bfloat16 it would be 0.1
    assert a.grad is not None
    torch.testing.assert_close(a.grad, b.sum(dim=0).expand(300, 200), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("preferred")
def test_what_is_turned_on_is_turned_off_whatever_happens() -> None:
    before, chance = _setting(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), by_onednn():
        assert products.is_turned_on()
        raise ZeroDivisionError
    assert _setting() == before
    prefers_onednn.__wrapped__()
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("said", "listed", "amd"),
    [
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", None, True),
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", None, False),
        ("arm", None, False),
        ("", "vendor_id\t: AuthenticAMD", True),
        ("x86_64", "vendor_id\t: AuthenticAMD", True),
        ("x86_64", "vendor_id\t: GenuineIntel", False),
    ],
)
def test_the_processor_is_known_by_its_maker(
    said: str, listed: str | None, amd: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "processor", lambda: said)
    monkeypatch.setattr(products, "CPUS", tmp_path / "cpuinfo")
    if listed:
        (tmp_path / "cpuinfo").write_text(listed, encoding="utf-8")
    assert products._is_amd() == amd


@pytest.mark.usefixtures("preferred")
def test_runs_are_trained_by_onednn_and_settled_once_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    table = pd.DataFrame({"a": ["x", "y"] * 30, "note": ["one two", "three"] * 30})
    loss = CausalObjective.loss

    def watched(self: CausalObjective, network: Any, batch: Any) -> Any:
        seen.append((network.training, products.is_turned_on()))
        return loss(self, network, batch)

    monkeypatch.setattr(CausalObjective, "loss", watched)
    monkeypatch.setattr(products, "LEAST", 1)
    model = api.train(table, tmp_path / "run", steps=3, recipe={"model": {"size": "nano"}})
    assert {(True, True), (False, True)} == set(seen), "steps and validations"
    assert not products.is_turned_on()
    head = cast(Any, model.run.network.head)
    assert head.settled is not None
    model.generate(40)
    assert head.settled.parts, "what was generated was told by what is laid out"


@pytest.mark.usefixtures("no_gradient")
@pytest.mark.skipif(
    not (prefers_onednn() and torch.cpu._is_avx512_bf16_supported()),
    reason="this processor does not multiply bf16 of any number of slots",
)
def test_settled_weights_of_bf16_say_the_same() -> None:
    torch.manual_seed(0)
    packed, x = Packed.of("bf16", Linear(130, 257)), torch.randn(40, 130)
    plain = packed(x)
    settle(packed)
    assert packed.settled is not None
    told = packed(x)
    torch.testing.assert_close(told, plain)
    torch.testing.assert_close(told, F.linear(x, packed.rows(slice(None)), packed.bias), rtol=0.02,
                               atol=0.02)  # fmt: skip


@pytest.mark.usefixtures("preferred")
def test_the_last_thread_that_leaves_turns_it_off() -> None:
    first, second = by_onednn(), by_onednn()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert products.is_turned_on()
    second.__exit__(None, None, None)
    assert not products.is_turned_on()
    assert _setting() == "none"


def _setting() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]
