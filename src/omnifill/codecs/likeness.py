"""How like two pictures are: PSNR, and structural similarity (SSIM: Wang et al. 2004,
doi:10.1109/TIP.2003.819861)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifill.types import Floats

PEAK = 255.0
LEAST = 1e-3
"""Square error below which two pictures are as good as the same: 78 dB."""
WINDOW, SPREAD = 11, 1.5
"""Of SSIM: the side of a patch, and the standard deviation of its weights, in pixels."""
STEADY = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
"""Added to means and to variances, so that flat patches do not divide by nothing."""


def square_error(made: Floats, real: Floats) -> Floats:
    """(n, H, W, C) and the same, of 0 to 255 -> (n,): the mean square of the differences."""
    out: Floats = np.square(made - real).reshape(len(made), -1).mean(axis=1)
    return out


def psnr(error: Floats) -> float:
    """Peak signal-to-noise ratio in dB, of the mean of some square errors."""
    return float(10 * np.log10(PEAK**2 / max(float(error.mean()), LEAST)))


def ssim(made: Floats, real: Floats) -> Floats:
    """(n, H, W, C) and the same, of 0 to 255 -> (n,): 1 for pictures that are the same.

    Mean over all patches that lie wholly inside, and over channels; smaller pictures have smaller
    patches.
    """
    ours, theirs = (torch.from_numpy(part).permute(0, 3, 1, 2).double() for part in (made, real))
    mean, other = _local(ours), _local(theirs)
    spread = _local(ours**2) - mean**2
    beside = _local(theirs**2) - other**2
    both = _local(ours * theirs) - mean * other
    first, second = STEADY
    alike = (2 * mean * other + first) / (mean**2 + other**2 + first)
    alike = alike * (2 * both + second) / (spread + beside + second)
    out: Floats = alike.flatten(1).mean(dim=1).numpy()
    return out


def _local(grid: Tensor) -> Tensor:
    """(n, C, H, W) -> weighted means of patches (n, C, H', W')."""
    for dim in (2, 3):
        side = min(WINDOW, grid.shape[dim] - 1 + grid.shape[dim] % 2)  # odd: there is a middle
        at = torch.arange(side, dtype=grid.dtype) - side // 2
        weight = torch.exp(-(at**2) / (2 * SPREAD**2))
        shape = [1, 1, side, 1] if dim == 2 else [1, 1, 1, side]
        kernel = (weight / weight.sum()).view(shape).expand(grid.shape[1], 1, *shape[2:])
        grid = F.conv2d(grid, kernel, groups=grid.shape[1])
    return grid
