"""Pictures and sounds as grids of one size, which one judge can look at.

A sound is looked at as its spectrum on the mel scale.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from omnifill.codecs.spectra import DECIBELS, FLOOR, Mel
from omnifill.data.audio import SAMPLE, SoundShape, as_wave
from omnifill.data.image import ImageShape, as_array, to_image
from omnifill.evaluate.evaluation import Columns
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.form.vocabulary import decode_grid
from omnifill.schema import FieldSpec
from omnifill.types import Codec, Floats, Ints

SIDE = 32
"""Larger grids are scaled down to this side."""
AVERAGED = 20_000
"""Items that an average is of, at most."""
LOUDEST = 150.0
"""Of a band, about."""
WIDEST = 128
"""Moments of a sound that is looked at."""


class Items(ABC):
    """Some canonical values of one field, and the rows that they stand in."""

    channels: int

    def __init__(self, spec: FieldSpec, values: Sequence[bytes], rows: Sequence[int]) -> None:
        self.spec, self.values, self.rows = spec, values, rows

    @classmethod
    def of(cls, spec: FieldSpec, part: Columns) -> Items:
        """Those of a column, its blanks left out."""
        kind = {"image": Pictures, "audio": Sounds}[spec.type]
        rows = [row for row, value in enumerate(part[spec.name]) if value is not None]
        return kind(spec, [part[spec.name][row] for row in rows], rows)

    def like(self, values: Sequence[bytes]) -> Self:
        """Others of the same kind, which stand in no row."""
        return type(self)(self.spec, values, [0] * len(values))

    def first(self, num: int) -> Self:
        return type(self)(self.spec, self.values[:num], self.rows[:num])

    def shuffled(self) -> Self:
        order = np.random.default_rng(0).permutation(len(self.values)).tolist()
        return type(self)(self.spec, [self.values[i] for i in order], [self.rows[i] for i in order])

    def mean(self, num: int) -> Self:
        """The average of all, so many times."""
        return self.like([self._average(self.values[:AVERAGED])] * num)

    def noise(self, codec: Any, num: int) -> Self:
        """Codes by chance, and what they are."""
        return self.like(decode_grid(codec, _by_chance(codec, num)))

    def batches(self, size: int = 256) -> Iterator[Tensor]:
        """(n, C, H, W), at most `SIDE` cells in each direction."""
        for at in range(0, len(self.values), size):
            yield self.grids(range(at, min(at + size, len(self.values))))

    def grids(self, which: Sequence[int]) -> Tensor:
        """(n, C, H, W) of about -1 to 1."""
        grid = self._grids([self.values[i] for i in which])
        side = max(grid.shape[2:])
        if side <= SIDE:
            return grid
        size = [min(n, max(1, round(n * SIDE / side))) for n in grid.shape[2:]]
        return F.interpolate(grid, size, mode="bilinear", antialias=True)

    def reconstruction(self, codec: Codec) -> dict[str, Measure]:
        """What is left of them once they have been codes."""
        if not self.values:
            return {}
        codes, _ = codec.encode_many(self.values)
        return self._apart(decode_grid(codec, codes.reshape(len(self.values), -1)))

    @abstractmethod
    def images(self) -> list[Image.Image]:
        """To look at."""

    @abstractmethod
    def _grids(self, values: Sequence[bytes]) -> Tensor: ...

    @abstractmethod
    def _average(self, values: Sequence[bytes]) -> bytes: ...

    @abstractmethod
    def _apart(self, made: Sequence[bytes]) -> dict[str, Measure]: ...


def _by_chance(codec: Any, num: int) -> Ints:
    """(num, S): any codes that the grammar accepts."""
    grammar, rng = codec.grammar(), np.random.default_rng(0)
    codes, state = np.zeros((num, codec.slots), np.int64), np.zeros(num, np.int64)
    for slot in range(codec.slots):
        for one in np.unique(state):
            here, allowed = state == one, np.flatnonzero(grammar.allowed[one, :-1])
            codes[here, slot] = rng.choice(allowed, int(here.sum()))
        state = grammar.step[state, codes[:, slot]]
    return codes


class Pictures(Items):
    """Pictures, pixel by pixel."""

    def __init__(self, spec: FieldSpec, values: Sequence[bytes], rows: Sequence[int]) -> None:
        super().__init__(spec, values, rows)
        self.shape = ImageShape.of(spec.options)
        self.channels = self.shape.channels

    def _grids(self, values: Sequence[bytes]) -> Tensor:
        grid = np.stack([as_array(value, self.shape) for value in values])
        return torch.from_numpy(grid).permute(0, 3, 1, 2).float() / 127.5 - 1

    def images(self) -> list[Image.Image]:
        return [to_image(value, self.shape) for value in self.values]

    def _average(self, values: Sequence[bytes]) -> bytes:
        total = np.zeros(self.shape.size)
        for value in values:
            total += np.frombuffer(value, np.uint8)
        return np.round(total / len(values)).astype(np.uint8).tobytes()

    def _apart(self, made: Sequence[bytes]) -> dict[str, Measure]:
        """PSNR in dB."""
        error = np.array([
            np.square(_floats(ours) - _floats(value)).mean()
            for ours, value in zip(made, self.values, strict=True)
        ])  # fmt: skip
        return {"psnr": interval_of(lambda i: _psnr(error[i]), len(error))}


def _floats(value: bytes) -> Floats:
    return np.frombuffer(value, np.uint8).astype(np.float64)


def _psnr(error: Floats) -> float:
    return float(10 * np.log10(255**2 / max(float(error.mean()), 1e-3)))


class Sounds(Items):
    """Sounds, as how loud they are in each band at each moment."""

    channels = 1

    def __init__(self, spec: FieldSpec, values: Sequence[bytes], rows: Sequence[int]) -> None:
        super().__init__(spec, values, rows)
        self.shape = SoundShape.of(spec.options)
        self.mel = Mel(self.shape.rate)

    def _waves(self, values: Sequence[bytes]) -> Tensor:
        """(n, L) from -1 to 1, silent behind their ends."""
        out = np.zeros((len(values), self.shape.samples), np.float32)
        for row, value in zip(out, values, strict=True):
            wave = as_wave(value)
            row[: len(wave)] = wave
        return torch.from_numpy(out) / 32767

    def _grids(self, values: Sequence[bytes]) -> Tensor:
        low, high = math.log(FLOOR), math.log(LOUDEST)
        return 2 * (self.mel(self._waves(values))[:, None] - low) / (high - low) - 1

    def images(self) -> list[Image.Image]:
        """Time from left to right, pitch upwards, the louder the brighter."""
        grid = self._grids(self.values)
        if grid.shape[3] > WIDEST:
            size = (grid.shape[2], WIDEST)
            grid = F.interpolate(grid, size, mode="bilinear", antialias=True)
        grey = grid[:, 0].flip(1).add(1).mul(127.5).clamp(0, 255).to(torch.uint8)
        return [Image.fromarray(one) for one in grey.numpy()]

    def _average(self, values: Sequence[bytes]) -> bytes:
        """The average wave, as long as sounds are on average."""
        total, length = np.zeros(self.shape.samples), 0
        for value in values:
            wave = as_wave(value)
            total[: len(wave)] += wave
            length += len(wave)
        return np.round(total / len(values))[: length // len(values)].astype(SAMPLE).tobytes()

    def _apart(self, made: Sequence[bytes]) -> dict[str, Measure]:
        """The mean difference of spectra on the mel scale, in dB."""
        some = [slice(at, at + 256) for at in range(0, len(made), 256)]
        parts = [
            self.mel.apart(self._waves(made[i]), self._waves(self.values[i]),
                           torch.tensor([len(value) // 2 for value in self.values[i]]))
            for i in some
        ]  # fmt: skip
        return {"log_mel_distance": interval(DECIBELS * torch.cat(parts).double().numpy())}
