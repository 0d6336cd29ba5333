"""How like two pictures are: PSNR, and structural similarity (SSIM: Wang et al. 2004,
doi:10.1109/TIP.2003.819861)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifill.data.image import ImageShape, as_array
from omnifill.types import Floats

PEAK = 255.0
LEAST = 1e-3
"""Square error below which two pictures are as good as the same: 78 dB."""
WINDOW, SPREAD = 11, 1.5
"""Of SSIM: the side of a patch, and the standard deviation of its weights, in pixels."""
STEADY = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
"""Added to means and to variances, so that flat patches do not divide by nothing."""


def apart(made: Sequence[bytes], real: Sequence[bytes], shape: ImageShape) -> Floats:
    """Canonical pictures and others -> (n, 2): the mean square of the differences, and SSIM."""
    out = np.zeros((len(made), 2))
    for row, pair in enumerate(zip(made, real, strict=True)):  # one by one: they may be large
        ours, theirs = (as_array(value, shape).astype(np.float64) for value in pair)
        out[row] = np.square(ours - theirs).mean(), ssim(ours, theirs)
    return out


def psnr(error: Floats) -> float:
    """Peak signal-to-noise ratio in dB, of the mean of some square errors."""
    return float(10 * np.log10(PEAK**2 / max(float(error.mean()), LEAST)))


def ssim(made: Floats, real: Floats) -> float:
    """(H, W, C) and the same, of 0 to 255; 1 for pictures that are the same.

    Mean over all patches that lie wholly inside, and over channels; smaller pictures have smaller
    patches.
    """
    ours, theirs = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in (made, real))
    mean, other = _local(ours), _local(theirs)
    spread = _local(ours**2) - mean**2
    beside = _local(theirs**2) - other**2
    both = _local(ours * theirs) - mean * other
    first, second = STEADY
    alike = (2 * mean * other + first) / (mean**2 + other**2 + first)
    alike = alike * (2 * both + second) / (spread + beside + second)
    return float(alike.mean())


def _local(grid: Tensor) -> Tensor:
    """(1, C, H, W) -> weighted means of patches (1, C, H', W')."""
    for dim in (2, 3):
        side = min(WINDOW, grid.shape[dim] - 1 + grid.shape[dim] % 2)  # odd: there is a middle
        at = torch.arange(side, dtype=grid.dtype) - side // 2
        weight = torch.exp(-(at**2) / (2 * SPREAD**2))
        shape = [1, 1, side, 1] if dim == 2 else [1, 1, 1, side]
        kernel = (weight / weight.sum()).view(shape).expand(grid.shape[1], 1, *shape[2:])
        grid = F.conv2d(grid, kernel, groups=grid.shape[1])
    return grid
