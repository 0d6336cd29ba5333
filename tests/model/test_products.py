"""Products by oneDNN: as exact as torch's own, only where they are faster, and never stale."""

from __future__ import annotations

import copy
import platform
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from omnifill.model import products
from omnifill.model.products import Linear, by_onednn, linear, prefers_onednn, settle

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this processor were one that prefers oneDNN."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)


@pytest.fixture
def no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.usefixtures("preferred", "no_gradient")
@pytest.mark.parametrize("rows", [(0,), (1,), (3, 5), (33,), (2, 3, 4)])
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
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, chance = setting.fp32_precision, torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), by_onednn():
        assert products.is_turned_on()
        raise ZeroDivisionError
    assert setting.fp32_precision == before
    prefers_onednn.__wrapped__()
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("said", "amd"),
    [
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", True),
        ("Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", False),
        ("arm", False),
    ],
)
def test_the_processor_is_known_by_its_maker(
    said: str, amd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "processor", lambda: said)
    assert products._is_amd() == amd
