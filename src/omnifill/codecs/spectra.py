"""How loud a sound is at each frequency and moment, and how far two sounds are apart in that."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-3
"""Loudness below which nothing is heard."""
MELS = 40
WINDOW = 0.032
"""Seconds in which pitch is told."""
DECIBELS = 20 / math.log(10)


def spectrum(waves: Tensor, size: int, hop: int, window: Tensor) -> Tensor:
    """(N, L) -> (N, bins, T): how loud each frequency is."""
    found = torch.stft(waves, size, hop, window=window, return_complex=True, pad_mode="constant")
    return (found.real.square() + found.imag.square() + 1e-9).sqrt()


def log(loud: Tensor) -> Tensor:
    """Loudness as it is heard; what cannot be heard is all alike."""
    return loud.clamp(min=FLOOR).log()


def mel_bank(rate: int, size: int, bands: int) -> Tensor:
    """(bands, bins): triangles that lie evenly on the mel scale, each of sum 1 (Stevens, Volkmann
    and Newman 1937; 2595 log10(1 + f / 700) after O'Shaughnessy 1987)."""
    bins = torch.linspace(0, rate / 2, size // 2 + 1)
    most = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, most, bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bank = torch.minimum(rising, falling).clamp(min=0)
    for band in range(bands):  # one that lies between two bins has the nearest
        if not bool((bank[band] > 0).any()):
            bank[band, (bins - middle[band]).abs().argmin()] = 1.0
    return bank / bank.sum(dim=1, keepdim=True)


class Mel:
    """Spectra in bands as wide as are heard apart."""

    def __init__(self, rate: int, bands: int = MELS) -> None:
        self.size = 1 << math.ceil(math.log2(rate * WINDOW))
        self.bank = mel_bank(rate, self.size, bands)
        self.window = torch.hann_window(self.size)

    def __call__(self, waves: Tensor) -> Tensor:
        """(N, L) -> (N, bands, T): the logarithm of how loud each band is, every half window."""
        return log(self.bank @ spectrum(waves, self.size, self.size // 2, self.window))

    def apart(self, ours: Tensor, theirs: Tensor, samples: Tensor) -> Tensor:
        """(N, L) and (N, L) -> (N,): how far apart they are on average, as logarithms, up to so
        many samples (N,)."""
        return mean_until(self(ours) - self(theirs), samples, self.size // 2)


def mean_until(apart: Tensor, samples: Tensor, hop: int) -> Tensor:
    """(N, bins, T) -> (N,): the mean size of what lies before so many samples (N,), for silence
    behind a sound's end is always right."""
    frames = torch.arange(apart.shape[2])[None]
    counts = (frames * hop < samples[:, None]).to(apart)
    return (apart.abs().mean(dim=1) * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
