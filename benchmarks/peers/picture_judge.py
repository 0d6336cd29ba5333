"""A good classifier of 28 × 28 pictures, as a judge of others; and reading idx files."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn


def read_idx(path) -> np.ndarray:
    """The numbers of an idx file of bytes."""
    with gzip.open(path) as file:
        head = file.read(4)
        shape = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def table(pictures: np.ndarray) -> pd.DataFrame:
    """Pictures without their labels."""
    return pd.DataFrame({"image": list(pictures), "label": [None] * len(pictures)})


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """(n, 28, 28) bytes -> (n, 1, 28, 28) from -1 to 1."""
    return torch.from_numpy(np.array(pictures)).float()[:, None] / 127.5 - 1


class Judge(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer, stride in ((1, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
            layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer),
                       nn.ReLU()]  # fmt: skip
        self.layers, self.drop = nn.Sequential(*layers), nn.Dropout(0.3)
        self.places = nn.Linear(16 * 128, 128)
        self.head = nn.Linear(128, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, H, W) -> (n, 128): what there is in each of 4 × 4 parts, put together."""
        parts = F.adaptive_avg_pool2d(self.layers(x), 4).flatten(1)
        return F.relu(self.places(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.features(x)))

    @torch.no_grad()
    def read(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 128) features and (n,) labels."""
        parts = [self.features(pixels(pictures[i : i + 500])) for i in range(0, len(pictures), 500)]
        features = torch.cat(parts)
        return features.double().numpy(), self.head(features).argmax(dim=1).numpy()

    def accuracy(self, pictures: np.ndarray, labels: np.ndarray) -> float:
        return float((self.read(pictures)[1] == labels).mean())

    def figures(self, made: np.ndarray, labels: np.ndarray, real: np.ndarray) -> dict[str, float]:
        """Labels told again, Fréchet distance to real pictures, precision and recall."""
        from omnifill.evaluate.media import frechet, precision_recall

        (ours, told), (theirs, _) = self.read(made), self.read(real)
        some = 2000
        inside, reached = precision_recall(ours[:: max(1, len(ours) // some)], theirs[:some])
        return {"label_recovered": float((told == labels).mean()), "frechet": frechet(ours, theirs),
                "precision": float(inside.mean()), "recall": float(reached.mean())}  # fmt: skip


def untrained() -> Judge:
    torch.manual_seed(0)
    return Judge().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def train(judge: Judge, pictures: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Shifts of two pixels; a rate that goes up and down once."""
    size, rng = 128, np.random.default_rng(0)
    optimizer = torch.optim.AdamW(judge.parameters(), 4e-3, weight_decay=0.02)
    num = len(pictures) // size
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * num)
    target = torch.from_numpy(labels.astype(np.int64))
    for _ in range(epochs):
        order = rng.permutation(len(pictures))
        for i in range(num):
            which = order[i * size : (i + 1) * size]
            shift = tuple(int(n) for n in rng.integers(-2, 3, 2))
            x = torch.roll(pixels(pictures[which]), shift, (2, 3))
            x = x.contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(judge(x), target[which])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
