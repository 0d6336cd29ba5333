"""A good classifier of spoken digits, as a judge of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from omnifill.codecs.spectra import Mel
from omnifill.types import Sound
from peers.keeping import learned
from peers.picture_judge import Judge

RATE, LENGTH = 8000, 8000
"""Samples a second, and of the part that is heard."""


def grids(sounds: Sequence[Sound], mel: Mel) -> torch.Tensor:
    """(n, 1, bands, T), about -1 to 1; what lasts longer is cut."""
    waves = torch.zeros(len(sounds), LENGTH)
    for row, sound in zip(waves, sounds, strict=True):
        assert sound.rate == RATE
        some = torch.from_numpy(np.array(sound.samples[:LENGTH], np.float32))
        row[: len(some)] = some
    loudest = waves.abs().amax(dim=1, keepdim=True).clamp(min=1e-3)
    return (mel(waves / loudest)[:, None] + 1.5) / 4


class SoundJudge:
    """Trained on real sounds and their labels, moved in time and in pitch a little, with noise."""

    def __init__(
        self, file: Path, sounds: Sequence[Sound], labels: Sequence[str], epochs: int
    ) -> None:
        """`file` keeps it."""
        self.mel = Mel(RATE)
        self.names = sorted(set(labels))
        torch.manual_seed(0)
        self.network = learned(
            file, Judge(len(self.names)), lambda new: self._learn(new, sounds, labels, epochs)
        )

    def _learn(
        self, network: Judge, sounds: Sequence[Sound], labels: Sequence[str], epochs: int
    ) -> None:
        rng, size = np.random.default_rng(0), 64
        x = grids(sounds, self.mel)
        y = torch.tensor([self.names.index(label) for label in labels])
        optimizer = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=0.05)
        steps = epochs * (len(y) // size)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
        for _ in range(steps):
            which = rng.integers(0, len(y), size)
            moved = torch.roll(x[which], int(rng.integers(0, 6)), 3)
            moved = torch.roll(moved, int(rng.integers(-1, 2)), 2)
            moved = moved + 0.1 * torch.randn_like(moved) + 0.2 * torch.randn(size, 1, 1, 1)
            loss = F.cross_entropy(network(moved), y[which])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()

    @torch.no_grad()
    def features(self, sounds: Sequence[Sound]) -> np.ndarray:
        """(n, 128)."""
        return self.network.features(grids(sounds, self.mel)).double().numpy()

    @torch.no_grad()
    def told(self, sounds: Sequence[Sound]) -> list[str]:
        answers = self.network(grids(sounds, self.mel)).argmax(dim=1)
        return [self.names[i] for i in answers.tolist()]

    def accuracy(self, sounds: Sequence[Sound], labels: Sequence[str]) -> float:
        right = [a == b for a, b in zip(self.told(sounds), labels, strict=True)]
        return float(np.mean(right))
