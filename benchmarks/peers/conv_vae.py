"""A convolutional VAE of 28 × 28 grey pictures that is told the label (Kingma & Welling 2014)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from peers.picture_judge import pixels

LATENT, WIDTH, BATCH = 32, 64, 128


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(11, WIDTH, 4, 2, 1), nn.SiLU(), nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1),
            nn.SiLU(), nn.Flatten(), nn.Linear(2 * WIDTH * 49, 2 * LATENT),
        )  # fmt: skip
        self.start = nn.Linear(LATENT + 10, 2 * WIDTH * 49)
        self.up = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1), nn.SiLU(), nn.Conv2d(WIDTH, 1, 3, 1, 1),
        )  # fmt: skip

    def decode(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        kind = F.one_hot(label, 10).float()
        start = self.start(torch.cat([z, kind], dim=1))
        return self.up(start.view(-1, 2 * WIDTH, 7, 7))

    def loss(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Negative evidence bound with Bernoulli pixels, per picture."""
        kind = F.one_hot(label, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
        mean, spread = self.down(torch.cat([x, kind], dim=1)).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (spread / 2).exp()
        logits = self.decode(z, label)
        told = F.binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="sum")
        apart = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum()
        return (told + apart) / len(x)


def train(pictures: np.ndarray, labels: np.ndarray, seconds: float) -> Callable[..., np.ndarray]:
    """-> a function from labels and a seed to pictures."""
    torch.manual_seed(0)
    vae, rng = Vae(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(vae.parameters(), 1e-3)
    started, target = time.monotonic(), torch.from_numpy(labels.astype(np.int64))
    while (gone := (time.monotonic() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (1 - gone) / 0.5)
        which = rng.integers(0, len(pictures), BATCH)
        loss = vae.loss(pixels(pictures[which]), target[which])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def draw(asked: np.ndarray, seed: int) -> np.ndarray:
        source = torch.Generator().manual_seed(seed)
        parts = []
        for at in range(0, len(asked), 500):
            label = torch.from_numpy(asked[at : at + 500].astype(np.int64))
            z = torch.randn(len(label), LATENT, generator=source)
            shades = torch.sigmoid(vae.decode(z, label))[:, 0] * 255
            parts.append(shades.round().to(torch.uint8).numpy())
        return np.concatenate(parts)

    return draw
