"""PSNR and SSIM are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from omnifill.codecs.likeness import apart, psnr, ssim
from omnifill.data.image import ImageShape


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels)).astype(float)


def test_psnr_is_in_decibels_below_the_peak() -> None:
    assert psnr(np.array([255.0**2])) == pytest.approx(0)
    assert psnr(np.array([2.0, 4.0])) == pytest.approx(10 * np.log10(255**2 / 3))
    assert psnr(np.zeros(2)) < 100, "finite for pictures that are the same"


def test_ssim_follows_its_formula_on_one_patch() -> None:
    real, made = picture(11, 11, 1)[:, :, 0], picture(11, 11, 1, seed=1)[:, :, 0]
    at = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(at, at) / at.sum() ** 2
    mean, other = (weight * real).sum(), (weight * made).sum()
    spread, beside = (weight * real**2).sum() - mean**2, (weight * made**2).sum() - other**2
    both = (weight * real * made).sum() - mean * other
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean * other + first) * (2 * both + second)
    expected /= (mean**2 + other**2 + first) * (spread + beside + second)
    assert ssim(made[:, :, None], real[:, :, None]) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 20, 4), (1, 1, 3), (2, 7, 1)])
def test_ssim_is_one_for_the_same_and_less_for_others_of_any_size(
    shape: tuple[int, int, int],
) -> None:
    real = picture(*shape)
    assert ssim(real, real) == pytest.approx(1)
    assert -1 <= ssim(255 - real, real) < 0.99


def test_pictures_are_compared_as_they_are_stored() -> None:
    shape = ImageShape(20, 14, "RGB")
    real = [picture(20, 14, 3, seed).astype(np.uint8) // 2 for seed in range(3)]
    made = [value + 7 for value in real]
    found = apart([v.tobytes() for v in made], [v.tobytes() for v in real], shape)
    np.testing.assert_allclose(found[:, 0], 49)
    alike = [ssim(a.astype(float), b.astype(float)) for a, b in zip(made, real, strict=True)]
    np.testing.assert_allclose(found[:, 1], alike)
