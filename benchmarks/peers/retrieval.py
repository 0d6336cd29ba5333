"""Which caption belongs to a picture: two small networks trained on real pairs so that a picture
and its caption lie close together (Radford et al. 2021)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BUCKETS, WIDTH, DIM, BATCH = 1 << 15, 256, 128, 256
SIDE = 36
"""Pixels of a picture's side that are looked at: a fifth of the time of 72."""


def bag(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hashes of each text's pieces of one to four characters, for an `EmbeddingBag`."""
    ids, starts = [], []
    for text in texts:
        starts.append(len(ids))
        whole = f" {text.lower()} "
        ids += [zlib.crc32(whole[i : i + n].encode()) % BUCKETS
                for n in (1, 2, 3, 4) for i in range(len(whole) - n + 1)]  # fmt: skip
    return torch.tensor(ids), torch.tensor(starts)


class Retrieval(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer, stride in ((channels, 32, 2), (32, 64, 2), (64, 128, 2), (128, 256, 2)):
            layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer),
                       nn.ReLU()]  # fmt: skip
        self.look = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                                  nn.Linear(1024, DIM))  # fmt: skip
        self.read = nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean")
        self.say = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM))
        self.sharp = nn.Parameter(torch.tensor(2.5))

    def pictures(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) of 0 to 1, looked at from afar -> (n, D) of length one."""
        x = F.interpolate(x, SIDE, mode="area").contiguous(memory_format=torch.channels_last)
        return F.normalize(self.look(x), dim=1)

    def captions(self, texts: Sequence[str]) -> torch.Tensor:
        """-> (n, D) of length one."""
        return F.normalize(self.say(self.read(*bag(texts))), dim=1)


def untrained(pictures: torch.Tensor) -> Retrieval:
    torch.manual_seed(0)
    return Retrieval(pictures.shape[1])


def train(
    model: Retrieval, pictures: torch.Tensor, captions: Sequence[Sequence[str]], steps: int
) -> None:
    """`captions`: of each picture, in several languages. Pictures are moved, blurred and made
    noisy, so that it knows less than perfect ones as well."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        which = rng.choice(len(pictures), BATCH, replace=False)
        x = torch.roll(pictures[which], tuple(int(n) for n in rng.integers(-3, 4, 2)), (2, 3))
        if rng.random() < 0.5:
            small = int(rng.integers(12, 36))
            x = F.interpolate(F.interpolate(x, small, mode="area"), x.shape[2:], mode="bilinear")
        x = x + 0.05 * torch.randn_like(x)
        texts = [captions[i][rng.integers(len(captions[i]))] for i in which]
        logits = model.sharp.exp() * model.pictures(x) @ model.captions(texts).T
        target = torch.arange(BATCH)
        loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()


@torch.no_grad()
def found(
    model: Retrieval, pictures: torch.Tensor, texts: Sequence[str], others: Sequence[str],
    among: int = 100, best: int = 5,
) -> float:  # fmt: skip
    """How often a picture's own caption is among the best of so many, the others drawn."""
    rng, hits = np.random.default_rng(0), []
    ours, theirs = model.captions(texts), model.captions(others)
    for picture, own, text in zip(model.pictures(pictures), ours, texts, strict=True):
        wrong = [i for i in rng.permutation(len(others))[: 2 * among].tolist() if others[i] != text]
        closer = (theirs[wrong[: among - 1]] @ picture > own @ picture).sum()
        hits.append(int(closer) < best)
    return float(np.mean(hits))
