"""Layers with gradients of their own agree with torch's, which derive them step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from omnifill.model.dropout import dropout
from omnifill.model.feedforward import _Gated
from omnifill.model.norm import RMSNorm
from omnifill.model.rotary import Rotation, rotate


def gradients(out: Tensor, *of: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad((out * torch.randn(out.shape).to(out.dtype)).sum(), of))


@pytest.mark.parametrize("shape", [(3, 5), (2, 7, 5), (2, 7, 4, 5)])
def test_rms_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = RMSNorm(5, 1e-6).double(), nn.RMSNorm(5, eps=1e-6).double()
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(-1, 2, 5))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(ours(x), x, ours.weight), gradients(theirs(x), x, theirs.weight),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_rms_norm_of_nothing_is_nothing() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    out = RMSNorm(4, 1e-6)(x)
    assert not out.any() and gradients(out, x)[0].isfinite().all()


def test_turned_keys_and_their_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    turn = Rotation(1e4 ** (-torch.arange(0, 8, 2) / 8))
    cos, sin = (part.double() for part in turn.at(torch.arange(5)[None]))
    angle = torch.arange(5.0)[:, None] * turn.speed
    first, second = x.chunk(2, dim=-1)
    plain = torch.cat([first * angle.cos() - second * angle.sin(),
                       second * angle.cos() + first * angle.sin()], dim=-1)  # fmt: skip
    torch.testing.assert_close(rotate(x, cos, sin), plain)
    torch.testing.assert_close(gradients(rotate(x, cos, sin), x), gradients(plain, x))
    with torch.no_grad():  # one slot at a time
        parts = [rotate(x[:, :, t : t + 1], cos[:, :, t : t + 1], sin[:, :, t : t + 1])
                 for t in range(5)]  # fmt: skip
    torch.testing.assert_close(torch.cat(parts, dim=2), plain)


def test_the_gate_and_its_gradient() -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, plain = _Gated.apply(gate, up), F.silu(gate) * up  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, gate, up), gradients(plain, gate, up))


@given(st.floats(0.01, 0.9), st.integers(1, 40), st.integers(0, 99))
def test_dropout_drops_its_share_and_keeps_the_mean(share: float, rows: int, seed: int) -> None:
    x = torch.ones(rows, 257, requires_grad=True)
    torch.manual_seed(seed)
    out = dropout(x, share, True)
    dropped = float((out == 0).float().mean())
    assert abs(dropped - share) < 0.002 + 4 * (share / out.numel()) ** 0.5
    largest = float(out.detach().max())
    assert set(out.unique().tolist()) <= {0.0, largest}
    assert largest == pytest.approx(1 / (1 - round(256 * share) / 256))
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], out)
    torch.manual_seed(seed)
    assert torch.equal(dropout(x, share, True), out)


def test_dropout_is_nothing_outside_training() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(dropout(x, 0.5, False), x) and torch.equal(dropout(x, 0.0, True), x)
