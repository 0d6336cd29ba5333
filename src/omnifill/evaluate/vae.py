"""A convolutional variational autoencoder of small grids, told their class: what a plain generator
of pictures reaches in some time (Kingma & Welling 2014, arXiv 1312.6114)."""

from __future__ import annotations

from time import monotonic

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.progress import Progress

LATENT, WIDTH, BATCH, RATE = 32, 64, 128, 0.001
AT_ONCE = 500
"""Grids that are drawn at once."""


class Vae(nn.Module):
    """Grids of (C, H, W) from -1 to 1, each of one of `classes` kinds."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, *size = shape
        self.size, self.classes = size, classes
        self.coarse = [-(-side // 4) for side in size]
        cells = 2 * WIDTH * self.coarse[0] * self.coarse[1]
        self.down = nn.Sequential(
            nn.Conv2d(channels + classes, WIDTH, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(cells, 2 * LATENT),
        )  # fmt: skip
        self.start = nn.Linear(LATENT + classes, cells)
        self.up = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(WIDTH, channels, 3, 1, 1),
        )  # fmt: skip

    def loss(self, grids: Tensor, kinds: Tensor) -> Tensor:
        """(n, C, H, W), (n,) -> the negative evidence bound of Bernoulli cells, in nats a grid."""
        told = self._told(kinds)[:, :, None, None].expand(-1, -1, *self.size)
        pad = [0, 4 * self.coarse[1] - self.size[1], 0, 4 * self.coarse[0] - self.size[0]]
        seen = F.pad(torch.cat([grids, told], dim=1), pad)
        mean, spread = self.down(seen).chunk(2, dim=1)
        logits = self._decode(mean + torch.randn_like(mean) * (spread / 2).exp(), kinds)
        shades = ((grids + 1) / 2).clamp(0, 1)
        off = F.binary_cross_entropy_with_logits(logits, shades, reduction="sum")
        apart = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum()
        bound: Tensor = (off + apart) / len(grids)
        return bound

    @torch.no_grad()
    def draw(self, kinds: Tensor, seed: int = 0) -> Tensor:
        """(n,) -> (n, C, H, W): a new grid of each kind."""
        source = torch.Generator().manual_seed(seed)
        parts = [
            torch.sigmoid(self._decode(torch.randn(len(some), LATENT, generator=source), some))
            for some in torch.split(kinds, AT_ONCE)
        ]
        return 2 * torch.cat(parts) - 1

    def _decode(self, z: Tensor, kinds: Tensor) -> Tensor:
        start = self.start(torch.cat([z, self._told(kinds)], dim=1))
        grids: Tensor = self.up(start.view(-1, 2 * WIDTH, *self.coarse))
        return grids[:, :, : self.size[0], : self.size[1]]

    def _told(self, kinds: Tensor) -> Tensor:
        return F.one_hot(kinds, self.classes).float()


def learn_vae(grids: Tensor, kinds: Tensor, seconds: float) -> Vae:
    """Train one for so long on (N, C, H, W) and the kind of each, (N,) from 0."""
    channels, height, width = grids.shape[1:]
    with torch.random.fork_rng(devices=[]), Progress("training a VAE", int(seconds), "s") as bar:
        torch.manual_seed(0)
        vae = Vae((channels, height, width), int(kinds.max()) + 1)
        optimizer, rng = torch.optim.AdamW(vae.parameters(), RATE), np.random.default_rng(0)
        started = monotonic()
        while (gone := monotonic() - started) < seconds:
            bar.advance(int(gone) - bar.done)
            for group in optimizer.param_groups:  # falls in the second half
                group["lr"] = RATE * min(1.0, 2 * (1 - gone / seconds))
            which = rng.integers(0, len(grids), min(BATCH, 4 * len(grids)))
            loss = vae.loss(grids[which], kinds[which])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return vae.eval()
