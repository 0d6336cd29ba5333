"""Generated pictures or sounds beside real ones, in the features of a small network trained on real
ones.

Fréchet distance (Heusel et al. 2017, arXiv 1706.08500), precision and recall (Kynkäänniemi et al.
2019, arXiv 1904.06991), and whether a label can be told again from what was made for it. The
network is trained here on the run's own pictures or sounds, so its distances compare with each
other alone, never with published ones; beside each stands what real training items reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError
from omnifill.evaluate.evaluation import Columns
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.evaluate.items import Items
from omnifill.evaluate.vae import learn_vae
from omnifill.types import Floats, Ints

LEARNED_FROM, COMPARED = 20_000, 2000
"""Items that the network learns from, and that are compared."""
STEPS, BATCH, RATE = 400, 128, 0.003
EPOCHS = 40
"""Of few items, the most."""
WIDTH, MOST_CLASSES, CLUSTERS = 128, 200, 20
NEIGHBOURS, DRAWS = 3, 20
Parts = dict[str, dict[str, Measure]]
"""Baseline ('': the model) -> its figures."""


def media_figures(
    run: LoadedRun, name: str, train: Columns, unseen: Columns, made: Columns, vae: float = 0.0
) -> Parts:
    """All figures of a field of pictures or sounds; none where there are too few to compare.

    `vae`: seconds of training of one more baseline; RequestError where there are too few.
    """
    spec, field = run.schema[name], run.vocabulary[name]
    real, held, ours = (Items.of(spec, part) for part in (train, unseen, made))
    fewest = min(len(part.values) for part in (real, held, ours))
    if fewest <= NEIGHBOURS:
        if vae:
            raise RequestError(
                f"--vae: {fewest} of field {name!r} are too few to compare (of the training part, "
                f"unseen or made); at least {NEIGHBOURS + 1}"
            )
        return {}
    real, held = real.shuffled(LEARNED_FROM), held.shuffled(COMPARED)
    label = _label_field(run, train, real.rows)
    judge, classes = learn_judge(real, None if label is None else train[label])
    few = min(len(held.values), len(ours.values), COMPARED)
    grids = {
        "": ours.first(few).grids, "resampled": real.grids[:few], "mean": real.average(few),
        "noise": real.noise(field.codec, field.grammar, few),
    }  # fmt: skip
    asked = np.zeros(0, np.int64)
    if vae:
        kinds = _kinds(real, None if label is None else train[label], classes)
        asked = np.random.default_rng(0).choice(kinds, few)
        drawn = learn_vae(real.grids, torch.from_numpy(kinds), vae)
        grids["vae"] = drawn.draw(torch.from_numpy(asked))
    truth, learned = judge.read(held.first(few).grids), judge.read(real.grids[:COMPARED])
    out: Parts = {"held_out": {"distance_to_training": interval(_nearest(truth, learned))}}
    for kind, part in grids.items():
        features = judge.read(part)
        out[kind] = compared(features, truth)
        if kind != "resampled":
            out[kind]["distance_to_training"] = interval(_nearest(features, learned))
    if label is not None:
        for kind, items, columns in (("", ours, made), ("held_out", held, unseen)):
            some = items.pick([i for i, row in enumerate(items.rows)
                               if columns[label][row] is not None][:COMPARED])  # fmt: skip
            if some.values:
                told = judge.told(some.grids)
                right = [classes.get(columns[label][row]) == int(answer)
                         for row, answer in zip(some.rows, told, strict=True)]  # fmt: skip
                out[kind]["label_recovered"] = interval(np.array(right, float))
        if vae and (known := asked < len(classes)).any():
            right = judge.told(grids["vae"])[known] == asked[known]
            out["vae"]["label_recovered"] = interval(right.astype(float))
    out[""] |= held.first(few).reconstruction(field.codec)
    return out


def _kinds(real: Items, labels: Sequence[Any] | None, classes: Mapping[Any, int]) -> Ints:
    """(N,): the class of each item, those without a label last; without labels they are one."""
    if labels is None:
        return np.zeros(len(real.rows), np.int64)
    return np.array([classes.get(labels[row], len(classes)) for row in real.rows], np.int64)


def _label_field(run: LoadedRun, train: Columns, rows: Sequence[int]) -> str | None:
    """The first category that tells kinds of the pictures or sounds of those rows apart."""
    for spec in run.schema.fields:
        if spec.type == "category" and spec.name in train:
            told = [train[spec.name][row] for row in rows if train[spec.name][row] is not None]
            if 2 <= len(set(told)) <= min(MOST_CLASSES, len(told) // 10):
                return spec.name
    return None


# --- the network ---------------------------------------------------------------------------


class Judge(nn.Module):
    """A small convolutional classifier; its features are what comes before the last layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        sizes = [(channels, 32, 1), (32, 64, 2), (64, WIDTH, 2), (WIDTH, WIDTH, 1)]
        layers: list[nn.Module] = []
        for inner, outer, stride in sizes:
            layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer),
                       nn.ReLU()]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTH, classes)

    def features(self, grids: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, WIDTH)."""
        out: Tensor = self.layers(grids).mean(dim=(2, 3))
        return out

    @torch.no_grad()
    def read(self, grids: Tensor) -> Floats:
        """(N, C, H, W) -> (N, WIDTH)."""
        parts = [self.features(batch).double().numpy() for batch in torch.split(grids, 256)]
        return np.concatenate(parts)

    @torch.no_grad()
    def told(self, grids: Tensor) -> Ints:
        """(N, C, H, W) -> (N,): the class of each."""
        parts = [self.head(self.features(b)).argmax(dim=1).numpy() for b in torch.split(grids, 256)]
        return np.concatenate(parts)


def learn_judge(real: Items, labels: Sequence[Any] | None) -> tuple[Judge, dict[Any, int]]:
    """A classifier of real items, and the class of each label.

    `labels` by row; without any, the classes are clusters of what items look like from afar.
    """
    if labels is None:
        kinds: list[Any] = _clusters(real.grids).tolist()
    else:
        kinds = [labels[row] for row in real.rows]
    classes = {kind: i for i, kind in enumerate(sorted({k for k in kinds if k is not None}))}
    keep = [i for i, kind in enumerate(kinds) if kind is not None]
    grids, target = real.grids[keep], torch.tensor([classes[kinds[i]] for i in keep])
    steps = max(50, min(STEPS, EPOCHS * len(keep) // BATCH))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = Judge(real.view.channels, len(classes))
        optimizer = torch.optim.AdamW(judge.parameters(), RATE, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            which = rng.integers(0, len(keep), min(BATCH, 4 * len(keep)))
            loss = F.cross_entropy(judge.head(judge.features(grids[which])), target[which])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    return judge.eval(), classes


def _clusters(grids: Tensor) -> Ints:
    """(N,): k-means over grids of 8 × 8 cells (Lloyd 1982)."""
    small = F.adaptive_avg_pool2d(grids, 8).flatten(1)
    centres = small[:CLUSTERS].clone()
    nearest = torch.zeros(len(small), dtype=torch.long)
    for _ in range(20):
        nearest = torch.cdist(small, centres).argmin(dim=1)
        for number in range(len(centres)):
            if bool((nearest == number).any()):
                centres[number] = small[nearest == number].mean(dim=0)
    return np.asarray(nearest.numpy(), np.int64)


# --- measures ------------------------------------------------------------------------------


def compared(made: Floats, real: Floats) -> dict[str, Measure]:
    """Features of generated and of as many real items: Fréchet distance, precision, recall."""
    inside, reached = precision_recall(made, real)
    return {
        "frechet": interval_of(lambda i: frechet(made[i], real), len(made), DRAWS),
        "precision": interval(inside),
        "recall": interval(reached),
    }


def frechet(made: Floats, real: Floats) -> float:
    """Distance of two samples (n, d) taken for Gaussians: of their means, and of their spreads."""
    apart = np.square(made.mean(axis=0) - real.mean(axis=0)).sum()
    ours, theirs = (np.cov(part, rowvar=False) for part in (made, real))
    value, vector = np.linalg.eigh(theirs)
    root = vector * np.sqrt(np.maximum(value, 0)) @ vector.T
    shared = np.linalg.eigvalsh(root @ ours @ root)
    both = np.sqrt(np.maximum(shared, 0)).sum()
    return float(apart + np.trace(ours) + np.trace(theirs) - 2 * both)


def precision_recall(made: Floats, real: Floats) -> tuple[Floats, Floats]:
    """(n,): whether each generated item lies among the real ones; whether each real one lies
    among the generated ones: within the distance of a neighbour to its own third neighbour."""
    return _among(made, real), _among(real, made)


def _among(points: Floats, crowd: Floats) -> Floats:
    near = min(NEIGHBOURS, len(crowd) - 1)
    reach = np.sort(_distances(crowd, crowd), axis=1)[:, near]
    return np.asarray((_distances(points, crowd) <= reach[None]).any(axis=1), float)


def _nearest(points: Floats, crowd: Floats) -> Floats:
    """(n,): the distance of each point to the nearest of the crowd."""
    return np.asarray(_distances(points, crowd).min(axis=1))


def _distances(a: Floats, b: Floats) -> Floats:
    return torch.cdist(torch.from_numpy(a), torch.from_numpy(b)).numpy()
