"""PSNR and SSIM are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from omnifill.codecs.likeness import psnr, square_error, ssim


def pictures(num: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, height, width, channels)).astype(float)


def test_psnr_is_in_decibels_below_the_peak() -> None:
    real = pictures(3, 5, 4, 3)
    np.testing.assert_allclose(square_error(real + 5.0, real), 25)
    assert psnr(np.array([255.0**2])) == pytest.approx(0)
    assert psnr(np.array([2.0, 4.0])) == pytest.approx(10 * np.log10(255**2 / 3))
    assert psnr(np.zeros(2)) < 100, "finite for pictures that are the same"


def test_ssim_follows_its_formula_on_one_patch() -> None:
    real, made = pictures(2, 11, 11, 1)[:, :, :, 0]
    at = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(at, at) / at.sum() ** 2
    mean, other = (weight * real).sum(), (weight * made).sum()
    spread, beside = (weight * real**2).sum() - mean**2, (weight * made**2).sum() - other**2
    both = (weight * real * made).sum() - mean * other
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean * other + first) * (2 * both + second)
    expected /= (mean**2 + other**2 + first) * (spread + beside + second)
    found = ssim(made[None, :, :, None], real[None, :, :, None])
    np.testing.assert_allclose(found, [expected], rtol=1e-9)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 20, 4), (1, 1, 3), (2, 7, 1)])
def test_ssim_is_one_for_the_same_and_less_for_others_of_any_size(
    shape: tuple[int, int, int],
) -> None:
    real = pictures(4, *shape)
    np.testing.assert_allclose(ssim(real, real), 1)
    other = ssim(255 - real, real)
    assert other.shape == (4,) and (other < 0.99).all() and (other >= -1).all()
    np.testing.assert_allclose(ssim(255 - real[:1], real[:1]), other[:1], rtol=1e-12)
