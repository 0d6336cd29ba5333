"""Distances of pictures: against closed forms, and in the right order."""

from __future__ import annotations

import numpy as np

from omnifill.data.image import ImageShape
from omnifill.evaluate.pictures import (
    Pictures,
    compared,
    frechet,
    learn_judge,
    precision_recall,
)

SHAPE = ImageShape(8, 8, "L")


def blobs(kind: int, num: int, seed: int) -> list[bytes]:
    """A bright square in one of four corners."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(num):
        grid = rng.integers(0, 60, (8, 8))
        grid[4 * (kind // 2) :, 4 * (kind % 2) :][:4, :4] += 150
        out.append(grid.astype(np.uint8).tobytes())
    return out


def test_frechet_distance_is_that_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (200_000, 2)), rng.normal(0, 1, (200_000, 2))
    far = b * [3, 1] + [2, 0]
    assert abs(frechet(a, b)) < 0.001
    assert abs(frechet(far, a) - (4 + (3 - 1) ** 2)) < 0.1


def test_precision_falls_for_strange_ones_and_recall_for_what_lacks() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(-20, 1, (100, 3)), rng.normal(20, 1, (100, 3))
    real = np.concatenate([left, right])
    inside, reached = precision_recall(np.concatenate([left + 0.01, left + 500]), real)
    assert inside.mean() == 0.5
    assert abs(reached.mean() - 0.5) < 0.05


def test_the_judge_learns_labels_and_does_without() -> None:
    values = [v for kind in range(4) for v in blobs(kind, 60, kind)]
    labels = [f"corner {i // 60}" for i in range(240)]
    real = Pictures(values, SHAPE, range(240))
    fresh = Pictures([v for kind in range(4) for v in blobs(kind, 20, 9)], SHAPE, range(80))
    judge, classes = learn_judge(real, labels)
    assert classes == {f"corner {i}": i for i in range(4)}
    assert (judge.told(fresh) == np.arange(80) // 20).mean() > 0.95
    again, _ = learn_judge(real, labels)
    np.testing.assert_array_equal(judge.read(fresh), again.read(fresh))
    for known in (labels, None):
        judge, _ = learn_judge(real, known)
        truth = judge.read(real)[::3]
        near = compared(judge.read(fresh), truth)["frechet"]["value"]
        one = compared(judge.read(Pictures(blobs(0, 80, 3), SHAPE, range(80))), truth)
        assert near < one["frechet"]["value"] / 3
        assert one["recall"]["value"] < 0.6
