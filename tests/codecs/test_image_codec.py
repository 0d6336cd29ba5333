"""The codec that learns pictures: its codes, its rounding, its exactness."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnifill.codecs.fsq import Fsq
from omnifill.codecs.image import ImageCodec
from omnifill.errors import RecipeError, RunError, ValueRefused

SHAPE = {"height": 9, "width": 6, "mode": "RGB"}


def values(num: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, 9 * 6 * 3, np.uint8).tobytes() for _ in range(num)]


def codec(**options: object) -> ImageCodec:
    torch.manual_seed(3)
    made = ImageCodec.fit([values(4)], SHAPE | {"channels": 6, "levels": [5, 4, 3]} | options)
    for parameter in made.network.parameters():  # as if it had learned: nothing is zero
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@given(
    levels=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    depth=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_codes_stand_for_the_numbers_that_rounding_gives(
    levels: list[int], depth: int, seed: int
) -> None:
    fsq = Fsq(levels, depth)
    z = torch.randn(40, len(levels), generator=torch.Generator().manual_seed(seed)) * 2
    codes = fsq.encode(z)
    assert codes.shape == (40, depth)
    assert codes.min() >= 0 and codes.max() < fsq.size == math.prod(levels)
    rounded = fsq.decode(codes)
    torch.testing.assert_close(rounded, fsq(z), rtol=0, atol=1e-5)
    least = min(levels) - 1
    assert (rounded - torch.tanh(z)).abs().max() <= 1 / least**depth + 1e-5


def test_every_code_is_its_own_number() -> None:
    fsq = Fsq([4, 3, 2])
    points = fsq.decode(torch.arange(24)[:, None])
    assert len(torch.unique(points, dim=0)) == 24
    inverse = torch.atanh(points.clamp(-0.999, 0.999))
    torch.testing.assert_close(fsq.encode(inverse)[:, 0], torch.arange(24))


def test_the_axes_of_codes_are_the_numbers_that_they_stand_for_the_first_the_fastest() -> None:
    made = codec()
    points = made.network.fsq.decode(torch.arange(60)[:, None]).view(3, 4, 5, 3)
    assert made.axes == (5, 4, 3)
    for axis in range(3):
        moved = points.diff(dim=2 - axis)
        assert (moved[..., axis] > 0).all() and (moved != 0).sum() == moved[..., axis].numel()


def test_rounding_lets_the_gradient_through() -> None:
    z = torch.randn(5, 3, requires_grad=True)
    Fsq([5, 5, 5])(z).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()).square())


@pytest.mark.parametrize(
    ("options", "slots"), [({}, 15), ({"stride": 4}, 6), ({"depth": 2}, 30), ({"stride": 16}, 1)]
)
def test_pictures_of_any_size_have_a_fixed_number_of_codes(
    options: dict[str, int], slots: int
) -> None:
    made = codec(**options)
    codes, lens = made.encode_many(values(3))
    assert made.slots == slots and lens.tolist() == [slots] * 3
    assert made.coords(slots).shape == (slots, 3)
    rows, columns = made.config.grid
    expected = [(r, c, d) for r in range(rows) for c in range(columns)
                for d in range(made.config.depth)]  # fmt: skip
    assert made.coords(slots).tolist() == [list(place) for place in expected]
    assert all(len(v) == 9 * 6 * 3 for v in made.decode_many(codes.reshape(3, slots)))


def test_a_picture_is_the_same_alone_and_among_others() -> None:
    made, some = codec(), values(37)
    together, _ = made.encode_many(some)
    grid = together.reshape(37, -1)
    assert len(np.unique(grid, axis=0)) > 30, "they differ"
    for i in (0, 15, 16, 36):
        np.testing.assert_array_equal(made.encode(some[i]), grid[i])
        assert made.decode(grid[i]) == made.decode_many(grid)[i]


def test_it_is_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    made = codec()
    made.save(tmp_path)
    again = ImageCodec.load(tmp_path)
    np.testing.assert_array_equal(again.encode_many(values(9))[0], made.encode_many(values(9))[0])
    (tmp_path / "image.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"image\.safetensors"):
        ImageCodec.load(tmp_path)
    (tmp_path / "image.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"image\.json"):
        ImageCodec.load(tmp_path)


def test_learning_lowers_the_loss_and_reconstructs() -> None:
    torch.manual_seed(0)
    flat = [bytes([shade]) * (9 * 6 * 3) for shade in range(0, 256, 8)]
    made = ImageCodec.fit([flat], SHAPE | {"channels": 8})
    learner = made.learner()
    batch = learner.batch(flat)
    optimizer = torch.optim.Adam(learner.network.parameters(), 0.01)

    def error() -> float:
        with torch.no_grad():
            return learner.loss(learner.network, batch).total.item()

    before = error()
    for _ in range(60):
        optimizer.zero_grad()
        part = learner.loss(learner.network, batch)
        (part.total / part.count).backward()
        optimizer.step()
    assert error() < before / 3
    figures = learner.figures(flat)
    assert figures["psnr"] > 15 and figures["ssim"] > 0.5 and 0 < figures["codes_used"] <= 1


def test_drawings_on_black_do_not_collapse_to_one_code() -> None:
    rng = np.random.default_rng(0)
    drawings = np.zeros((60, 16, 16), np.uint8)
    for drawing in drawings:  # a short stroke somewhere; nearly all is black
        row, column = rng.integers(0, 14, 2)
        drawing[row : row + 2, column : column + 3] = 255
    some = [drawing.tobytes() for drawing in drawings]
    torch.manual_seed(0)
    shape = {"height": 16, "width": 16, "mode": "L", "stride": 4, "channels": 16}
    made = ImageCodec.fit([some], shape)
    learner = made.learner()
    optimizer = torch.optim.AdamW(learner.network.parameters(), 0.003, weight_decay=0)
    for step in range(120):
        part = learner.loss(learner.network, learner.batch(some[16 * (step % 3) :][:16]))
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
    assert learner.figures(some)["codes_used"] * made.size > 20


def test_one_code_of_one_picture_can_be_learned_from() -> None:
    made = ImageCodec.fit([[b"\x40" * 4]], {"height": 2, "width": 2, "mode": "L", "channels": 4})
    learner = made.learner()
    part = learner.loss(learner.network, learner.batch([b"\x40" * 4]))
    part.total.backward()
    assert torch.isfinite(part.total)
    assert all(torch.isfinite(p.grad).all() for p in learner.network.parameters())


def test_the_critic_learns_from_its_own_error_alone() -> None:
    made = codec()
    learner = made.learner()
    studio, batch = learner.network, learner.batch(values(5))
    learner.loss(studio, batch).total.backward()
    found = [p.grad.clone() for p in studio.critic.parameters()]
    studio.zero_grad()
    judged, _ = studio.critic(batch.pixels)
    seen, _ = studio.critic(studio.autoencoder(batch.pixels)[0].detach())
    own = torch.nn.functional.softplus(-judged) + torch.nn.functional.softplus(seen)
    own.flatten(1).mean(dim=1).sum().backward()
    for ours, p in zip(found, studio.critic.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stride": 3}, "stride"), ({"levels": []}, "levels"), ({"levels": [1]}, "levels"),
     ({"levels": [300, 300]}, "65,536"), ({"depth": 0}, "depth"), ({"wide": 3}, "wide")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ImageCodec.fit([values(2)], SHAPE | options)


def test_what_is_no_picture_of_the_field_is_refused() -> None:
    for value in (b"short", "text", None):
        with pytest.raises(ValueRefused, match="no picture of 6 × 9"):
            codec().encode(value)


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_larger_pictures_of_any_size_are_codes_and_again_pictures(
    stride: int, tmp_path: Path
) -> None:
    shape = {"height": 70, "width": 45, "mode": "RGBA", "stride": stride}
    size = 70 * 45 * 4
    rng = np.random.default_rng(0)
    some = [rng.integers(0, 256, size, np.uint8).tobytes() for _ in range(3)]
    made = ImageCodec.fit([some], shape | {"channels": 4})
    assert made.config.patch == min(stride, 4), "half of the size takes too long"
    codes, lens = made.encode_many(some)
    assert lens.tolist() == [-(-70 // stride) * -(-45 // stride)] * 3
    pictures = made.decode_many(codes.reshape(3, -1))
    assert [len(picture) for picture in pictures] == [size] * 3
    made.save(tmp_path)
    assert ImageCodec.load(tmp_path).decode_many(codes.reshape(3, -1)) == pictures
