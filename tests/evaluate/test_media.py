"""Distances of pictures and sounds: against closed forms, and in the right order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from omnifill.codecs.spectra import Mel, mel_bank
from omnifill.evaluate.items import Items, view_of
from omnifill.evaluate.media import compared, frechet, learn_judge, precision_recall
from omnifill.evaluate.vae import learn_vae
from omnifill.schema import FieldSpec

IMAGE = FieldSpec(
    name="image", type="image", codec="pixels", options={"height": 8, "width": 8, "mode": "L"}
)
AUDIO = FieldSpec(name="audio", type="audio", codec="audio", options={"rate": 4000, "seconds": 0.3})


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
    real = Items(view_of(IMAGE), values, range(240))
    some = [v for kind in range(4) for v in blobs(kind, 20, 9)]
    fresh = Items(view_of(IMAGE), some, range(80)).grids
    judge, classes = learn_judge(real, labels)
    assert classes == {f"corner {i}": i for i in range(4)}
    assert (judge.told(fresh) == np.arange(80) // 20).mean() > 0.95
    again, _ = learn_judge(real, labels)
    np.testing.assert_array_equal(judge.read(fresh), again.read(fresh))
    for known in (labels, None):
        judge, _ = learn_judge(real, known)
        truth = judge.read(real.grids)[::3]
        near = compared(judge.read(fresh), truth)["frechet"]["value"]
        one = compared(judge.read(real.like(blobs(0, 80, 3)).grids), truth)
        assert near < one["frechet"]["value"] / 3
        assert one["recall"]["value"] < 0.6


def test_a_vae_learns_what_each_kind_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    # A step takes a second.
    monkeypatch.setattr("omnifill.evaluate.vae.monotonic", itertools.count().__next__)
    wide = FieldSpec(name="i", type="image", codec="pixels",
                     options={"height": 7, "width": 9, "mode": "RGB"})  # fmt: skip
    rng = np.random.default_rng(0)
    kinds = np.arange(120) % 2
    values = [
        np.clip(rng.normal([[40, 200, 90], [220, 30, 90]][kind], 9, (7, 9, 3)), 0, 255)
        .astype(np.uint8).tobytes() for kind in kinds
    ]  # fmt: skip
    grids = Items(view_of(wide), values, range(120)).grids
    drawn = learn_vae(grids, torch.from_numpy(kinds), 80).draw(torch.tensor([0, 1, 1]), seed=1)
    assert drawn.shape == (3, 3, 7, 9) and float(drawn.abs().max()) <= 1
    red, green = drawn.mean(dim=(2, 3))[:, 0], drawn.mean(dim=(2, 3))[:, 1]
    assert (red > green).tolist() == [False, True, True]


def test_mel_bands_are_where_pitch_is() -> None:
    bank = mel_bank(16_000, 512, 40)
    np.testing.assert_allclose(bank.sum(dim=1).numpy(), 1, rtol=1e-5)
    middles = (bank @ torch.linspace(0, 8000, 257)).tolist()
    assert middles == sorted(middles)
    assert middles[20] - middles[19] < middles[39] - middles[38], "wider above"
    mel, time = Mel(16_000), torch.arange(16_000) / 16_000
    tones = torch.stack([0.5 * torch.sin(2 * np.pi * f * time) for f in (300, 1000, 4000)])
    loudest = mel(tones)[:, :, 20].argmax(dim=1).tolist()
    for band, pitch in zip(loudest, (300, 1000, 4000), strict=True):
        assert abs(middles[band] - pitch) < 0.12 * pitch + 40
    others = torch.stack([tones[0], 0.1 * tones[1], tones[0]])
    apart = mel.apart(tones, others, torch.tensor([16_000] * 3))
    assert apart[0] == 0 and 0 < apart[1] <= np.log(10.01) and apart[2] > apart[1]
    others[0, 8000:] = 0
    assert mel.apart(tones, others, torch.tensor([8000 - 512] * 3))[0] == 0


def tones(pitch: float, num: int, seed: int) -> list[bytes]:
    """Tones of unequal lengths about a pitch."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(num):
        time = np.arange(rng.integers(600, 1200)) / 4000
        wave = np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time)
        out.append((9000 * wave).astype("<i2").tobytes())
    return out


@pytest.mark.slow
def test_the_judge_hears_sounds() -> None:
    values = [v for kind, pitch in enumerate((300, 700, 1500)) for v in tones(pitch, 60, kind)]
    real = Items(view_of(AUDIO), values, range(180))
    fresh = real.like([v for f in (300, 700, 1500) for v in tones(f, 20, 9)]).grids
    judge, classes = learn_judge(real, [i // 60 for i in range(180)])
    assert classes == {0: 0, 1: 1, 2: 2}
    assert (judge.told(fresh) == np.arange(60) // 20).mean() > 0.95
    truth = judge.read(real.grids)[::3]
    near = compared(judge.read(fresh), truth)["frechet"]["value"]
    assert near < compared(judge.read(fresh[:20]), truth)["frechet"]["value"] / 3
    assert len(real.view.average(values)) == 2 * (sum(len(v) // 2 for v in values) // 180)
    assert compared(judge.read(real.average(60)), truth)["frechet"]["value"] > 3 * near


def test_pitch_is_heard_in_long_sounds() -> None:
    long = AUDIO.model_copy(update={"options": {"rate": 4000, "seconds": 12.0}})
    time = np.arange(48_000) / 4000
    values = [(9000 * np.sin(2 * np.pi * f * time)).astype("<i2").tobytes() for f in (300, 500)]
    grids = Items(view_of(long), values, range(2)).grids
    assert grids.shape[2:] == (32, 32) and float((grids[0] - grids[1]).abs().max()) > 1
