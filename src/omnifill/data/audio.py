"""Sounds: files and arrays <-> canonical values, one channel of 16 bits at one rate.

A canonical sound is its samples as bytes, the low byte first. The rate and the longest length are
options of the field. It knows no codec. Files are read by libsndfile, and rates changed by soxr
(the extra `audio`).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnifill.data.media import check_format
from omnifill.errors import DataError, RecipeError, ValueRefused
from omnifill.types import Sound

FORMATS = ("WAV", "FLAC", "OGG")
RATES = (4000, 48_000)
LONGEST = 60.0
"""Seconds of a canonical sound, at most."""
MOST_SAMPLES = 1 << 27
"""Of a file, in all channels."""
SAMPLE = np.dtype("<i2")


@dataclass(frozen=True)
class SoundShape:
    """Rate and longest length of a field's sounds."""

    rate: int
    """Samples a second."""
    seconds: float
    """Longer sounds are cut there."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SoundShape:
        """From the options of a field; RecipeError for one that cannot be."""
        where = "schema.fields.NAME.options"
        rate, seconds = options.get("rate"), options.get("seconds")
        if isinstance(rate, bool) or not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
            raise RecipeError(f"{where}.rate = {rate!r}: must be from {RATES[0]} to {RATES[1]} Hz")
        if (
            not isinstance(seconds, (int, float))
            or isinstance(seconds, bool)
            or not 0.01 <= seconds <= LONGEST
        ):
            raise RecipeError(f"{where}.seconds = {seconds!r}: must be from 0.01 to {LONGEST:g}")
        return cls(rate, float(seconds))

    @property
    def samples(self) -> int:
        """Of the longest sound."""
        return math.ceil(self.rate * self.seconds)

    @property
    def size(self) -> int:
        """Bytes of the longest sound."""
        return 2 * self.samples


def measure(value: Any) -> tuple[int, float]:
    """(rate, seconds) of what a cell holds, by the header of a file."""
    if isinstance(value, Sound):
        _check(value)
        return int(value.rate), len(value.samples) / int(value.rate)
    soundfile = library("soundfile")
    _check_bytes(value)
    try:
        info = soundfile.info(io.BytesIO(value))
    except Exception as error:  # foreign bytes make a decoder fail in any way
        raise ValueRefused(f"is a broken sound file ({_first_line(error)})") from None
    _check_size(info.frames, info.channels, info.samplerate)
    return info.samplerate, info.frames / info.samplerate


def to_samples(value: Any, shape: SoundShape) -> bytes:
    """What a cell holds -> the canonical sound, cut at the longest. ValueRefused says why not."""
    sound = value if isinstance(value, Sound) else _read(value)
    _check(sound)
    most = math.ceil(shape.seconds * sound.rate) + 1
    wave = np.asarray(sound.samples, np.float64)[:most]
    if sound.rate != shape.rate:
        wave = library("soxr").resample(wave, sound.rate, shape.rate, quality="HQ")
    whole = np.round(np.clip(wave, -1, 1) * 32767)[: shape.samples]
    if not len(whole):
        raise ValueRefused("holds no sample")
    return whole.astype(SAMPLE).tobytes()


def to_sound(value: bytes, shape: SoundShape) -> Sound:
    """A canonical sound in Python's terms."""
    return Sound((as_wave(value) / 32767).astype(np.float32), shape.rate)


def as_wave(value: bytes) -> np.ndarray:
    """A canonical sound as (N,) of 16 bits."""
    return np.frombuffer(value, SAMPLE)


def padded(values: Sequence[bytes], samples: int) -> np.ndarray:
    """Canonical sounds as (n, samples) from -1 to 1, silent behind their ends."""
    out = np.zeros((len(values), samples), np.float32)
    for row, value in zip(out, values, strict=True):
        wave = as_wave(value)[:samples]
        row[: len(wave)] = wave
    out /= 32767
    return out


def check_sound(value: Any, shape: SoundShape) -> None:
    """ValueRefused for what is no canonical sound of that rate and length."""
    if not isinstance(value, bytes) or len(value) % 2 or not 0 < len(value) <= 2 * shape.samples:
        raise ValueRefused(f"is no sound of at most {shape.seconds:g} s at {shape.rate} Hz")


def _read(value: Any) -> Sound:
    """A file's sound, its channels mixed to one."""
    measure(value)
    try:
        wave, rate = library("soundfile").read(io.BytesIO(value), dtype="float32", always_2d=True)
    except Exception as error:  # as above
        raise ValueRefused(f"is a broken sound file ({_first_line(error)})") from None
    return Sound(wave.mean(axis=1), int(rate))


def _check_bytes(value: Any) -> None:
    if not isinstance(value, bytes):
        raise ValueRefused(f"is a {type(value).__name__}, no sound: give a file or a Sound")
    check_format(value, FORMATS, "sound")


def _check_size(frames: int, channels: int, rate: int) -> None:
    if frames <= 0:
        raise ValueRefused("holds no sample")
    if frames * channels > MOST_SAMPLES:
        raise ValueRefused(f"has more samples than the {MOST_SAMPLES:,} that may be")
    if not 1000 <= rate <= 384_000:
        raise ValueRefused(f"has a rate of {rate} Hz; 1,000 to 384,000 can be read")


def _check(sound: Sound) -> None:
    if isinstance(sound.rate, bool) or not isinstance(sound.rate, (int, np.integer)):
        raise ValueRefused(
            f"has a rate of {sound.rate!r}; a whole number of samples a second is one"
        )
    wave = np.asarray(sound.samples)
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise ValueRefused(f"is an array of {wave.dtype} and shape {wave.shape}; a sound is one "
                           f"line of fractions from -1 to 1")  # fmt: skip
    _check_size(len(wave), 1, sound.rate)
    if not np.isfinite(wave).all():
        raise ValueRefused("holds samples that are no numbers")


def library(name: str) -> Any:
    """soundfile or soxr; DataError says how to get them."""
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        raise DataError(f"sounds are read with {name}: pip install 'omnifill[audio]'") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
