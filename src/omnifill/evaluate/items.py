"""Pictures and sounds as grids of one size, which one judge can look at.

A sound is looked at as its spectrum on the mel scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from omnifill.codecs.likeness import apart, psnr
from omnifill.codecs.spectra import DECIBELS, FLOOR, Mel
from omnifill.data.audio import SAMPLE, SoundShape, as_wave, padded
from omnifill.data.image import ImageShape, as_array, to_image
from omnifill.evaluate.evaluation import Columns
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.form.vocabulary import decode_grid
from omnifill.schema import FieldSpec
from omnifill.types import Floats, Grammar, Ints

SIDE = 32
"""Larger grids are scaled down to this side."""
AVERAGED = 20_000
"""Items that an average is of, at most."""
AT_ONCE = 1 << 26
"""Numbers of grids and spectra that are in memory at once, about."""
LOUDEST = 150.0
"""Of a band, about."""
WIDEST = 128
"""Moments of a sound that is looked at."""


class View(Protocol):
    """How canonical values of one field are looked at."""

    channels: int
    size: int
    """Numbers that one value takes while it is looked at, about."""

    def grids(self, values: Sequence[bytes]) -> Tensor:
        """(n, C, H, W) of about -1 to 1."""
        ...

    def images(self, values: Sequence[bytes]) -> list[Image.Image]:
        """To look at."""
        ...

    def average(self, values: Sequence[bytes]) -> bytes:
        """Of all of them."""
        ...

    def apart(self, made: Sequence[bytes], real: Sequence[bytes]) -> Floats:
        """(n,) or (n, k): how far each reconstruction is off, in one measure or several."""
        ...

    def reconstruction(self, off: Floats) -> dict[str, Measure]:
        """The same of all, as figures with their names."""
        ...


def view_of(spec: FieldSpec) -> View:
    """How values of a field of pictures or sounds are looked at."""
    if spec.type == "audio":
        return SoundView(SoundShape.of(spec.options))
    return PictureView(ImageShape.of(spec.options))


@dataclass(frozen=True)
class Items:
    """Some canonical values of one field, the rows that they stand in, and how they look."""

    view: View
    values: Sequence[bytes]
    rows: Sequence[int]

    @classmethod
    def of(cls, spec: FieldSpec, part: Columns) -> Items:
        """Those of a column, its blanks left out."""
        rows = [row for row, value in enumerate(part[spec.name]) if value is not None]
        return cls(view_of(spec), [part[spec.name][row] for row in rows], rows)

    def like(self, values: Sequence[bytes]) -> Items:
        """Others of the same kind, which stand in no row."""
        return replace(self, values=values, rows=[0] * len(values))

    def pick(self, which: Sequence[int]) -> Items:
        return replace(
            self, values=[self.values[i] for i in which], rows=[self.rows[i] for i in which]
        )

    def first(self, num: int) -> Items:
        return self.pick(range(min(num, len(self.values))))

    def shuffled(self, num: int) -> Items:
        """So many of them, by chance."""
        return self.pick(np.random.default_rng(0).permutation(len(self.values))[:num].tolist())

    @cached_property
    def grids(self) -> Tensor:
        """(N, C, H, W) of about -1 to 1, at most `SIDE` cells in each direction."""
        return torch.cat([small(self.view.grids(some)) for some in self._few()])

    def average(self, num: int) -> Tensor:
        """The grid of the average of all, so many times."""
        value = self.view.average(self.values[:AVERAGED])
        return small(self.view.grids([value])).expand(num, -1, -1, -1)

    def noise(self, codec: Any, grammar: Grammar, num: int) -> Tensor:
        """Grids of what codes by chance are, a few at a time: they are as long as can be."""
        codes, few = by_chance(codec, grammar, num), self._at_once()
        parts = [decode_grid(codec, codes[at : at + few]) for at in range(0, num, few)]
        return torch.cat([small(self.view.grids(values)) for values in parts])

    def reconstruction(self, codec: Any) -> dict[str, Measure]:
        """What is left of them once they have been codes."""
        parts = []
        for some in self._few():
            codes, _ = codec.encode_many(some)
            made = decode_grid(codec, codes.reshape(len(some), -1))
            parts.append(self.view.apart(made, some))
        return self.view.reconstruction(np.concatenate(parts)) if parts else {}

    def _at_once(self) -> int:
        return max(1, min(256, AT_ONCE // self.view.size))

    def _few(self) -> Iterator[Sequence[bytes]]:
        step = self._at_once()
        for at in range(0, len(self.values), step):
            yield self.values[at : at + step]


def small(grids: Tensor) -> Tensor:
    """(n, C, H, W) -> at most `SIDE` cells in each direction."""
    size = [min(n, SIDE) for n in grids.shape[2:]]
    if size == list(grids.shape[2:]):
        return grids
    return F.interpolate(grids, size, mode="bilinear", antialias=True)


def by_chance(codec: Any, grammar: Grammar, num: int) -> Ints:
    """(num, S): any codes that the grammar accepts."""
    rng = np.random.default_rng(0)
    codes, state = np.zeros((num, codec.slots), np.int64), np.zeros(num, np.int64)
    for slot in range(codec.slots):
        for one in np.unique(state):
            here, allowed = state == one, np.flatnonzero(grammar.allowed[one, :-1])
            codes[here, slot] = rng.choice(allowed, int(here.sum()))
        state = grammar.step[state, codes[:, slot]]
    return codes


class PictureView:
    """Pictures, pixel by pixel."""

    def __init__(self, shape: ImageShape) -> None:
        self.shape, self.channels, self.size = shape, shape.channels, 4 * shape.size

    def grids(self, values: Sequence[bytes]) -> Tensor:
        grid = np.stack([as_array(value, self.shape) for value in values])
        return torch.from_numpy(grid).permute(0, 3, 1, 2).float() / 127.5 - 1

    def images(self, values: Sequence[bytes]) -> list[Image.Image]:
        return [to_image(value, self.shape) for value in values]

    def average(self, values: Sequence[bytes]) -> bytes:
        total = np.zeros(self.shape.size)
        for value in values:
            total += np.frombuffer(value, np.uint8)
        return np.round(total / len(values)).astype(np.uint8).tobytes()

    def apart(self, made: Sequence[bytes], real: Sequence[bytes]) -> Floats:
        """(n, 2): the mean square of the differences of pixels, and structural similarity."""
        return apart(made, real, self.shape)

    def reconstruction(self, off: Floats) -> dict[str, Measure]:
        """PSNR in dB, and SSIM."""
        error, alike = off.T
        return {
            "psnr": interval_of(lambda i: psnr(error[i]), len(error)), "ssim": interval(alike),
        }  # fmt: skip


class SoundView:
    """Sounds, as how loud they are in each band at each moment."""

    channels = 1

    def __init__(self, shape: SoundShape) -> None:
        self.shape, self.mel = shape, Mel(shape.rate)
        self.size = 8 * shape.samples

    def grids(self, values: Sequence[bytes]) -> Tensor:
        low, high = math.log(FLOOR), math.log(LOUDEST)
        return 2 * (self.mel(self._waves(values))[:, None] - low) / (high - low) - 1

    def images(self, values: Sequence[bytes]) -> list[Image.Image]:
        """Time from left to right, pitch upwards, the louder the brighter."""
        out = []
        for value in values:
            grid = self.grids([value])
            size = [grid.shape[2], min(grid.shape[3], WIDEST)]
            grid = F.interpolate(grid, size, mode="bilinear", antialias=True)
            grey = grid[0, 0].flip(0).add(1).mul(127.5).clamp(0, 255).to(torch.uint8)
            out.append(Image.fromarray(grey.numpy()))
        return out

    def average(self, values: Sequence[bytes]) -> bytes:
        """The average wave, as long as sounds are on average."""
        total, length = np.zeros(self.shape.samples), 0
        for value in values:
            wave = as_wave(value)
            total[: len(wave)] += wave
            length += len(wave)
        return np.round(total / len(values))[: length // len(values)].astype(SAMPLE).tobytes()

    def apart(self, made: Sequence[bytes], real: Sequence[bytes]) -> Floats:
        """(n,): the mean difference of spectra on the mel scale, in dB."""
        samples = torch.tensor([len(value) // 2 for value in real])
        apart = self.mel.apart(self._waves(made), self._waves(real), samples)
        return DECIBELS * apart.double().numpy()

    def reconstruction(self, off: Floats) -> dict[str, Measure]:
        return {"log_mel_distance": interval(off)}

    def _waves(self, values: Sequence[bytes]) -> Tensor:
        return torch.from_numpy(padded(values, self.shape.samples))
