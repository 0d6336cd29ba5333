"""Sounds become canonical samples and come back; what is no sound says so."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import pytest
import soundfile

from omnifill.data.audio import SoundShape, as_wave, measure, to_samples, to_sound
from omnifill.errors import RecipeError, ValueRefused
from omnifill.types import Sound

SHAPE = SoundShape(8000, 0.5)


def tone(seconds: float = 0.3, rate: int = 8000, pitch: float = 440) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * pitch * time)


def saved(wave: np.ndarray, rate: int = 8000, format_: str = "WAV", subtype: str = "") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, subtype or None, format=format_)
    return out.getvalue()


@pytest.mark.parametrize("format_", ["WAV", "FLAC"])
def test_a_file_of_the_fields_rate_keeps_every_sample(format_: str) -> None:
    whole = np.round(tone() * 32767).astype(np.int16)
    value = to_samples(saved(whole, format_=format_, subtype="PCM_16"), SHAPE)
    np.testing.assert_allclose(as_wave(value), whole, atol=1)
    sound = to_sound(value, SHAPE)
    assert sound.rate == 8000 and to_samples(sound, SHAPE) == value


def test_ogg_and_other_depths_are_read() -> None:
    for data in (saved(tone(), format_="OGG"), saved(tone(), subtype="PCM_24"),
                 saved(tone(), subtype="PCM_U8"), saved(tone(), subtype="FLOAT")):  # fmt: skip
        rate, seconds = measure(data)
        assert (rate, round(seconds, 2)) == (8000, 0.3)
        wave = as_wave(to_samples(data, SHAPE)) / 32767
        assert np.abs(wave[400:-400] - tone()[400:-400]).max() < 0.1


def test_channels_are_mixed_and_rates_changed() -> None:
    two = np.stack([tone(rate=22_050), -0.5 * tone(rate=22_050)], axis=1)
    wave = as_wave(to_samples(saved(two, 22_050), SHAPE)) / 32767
    assert abs(len(wave) - 2400) <= 2
    assert np.abs(wave[200:2200] - tone()[200:2200] / 4).max() < 0.01


def test_long_sounds_are_cut_and_loud_ones_clipped() -> None:
    assert len(to_samples(Sound(tone(2.0), 8000), SHAPE)) == 2 * 4000
    assert as_wave(to_samples(Sound(np.full(9, 4.0), 8000), SHAPE)).tolist() == [32767] * 9
    silent = to_samples(Sound(np.zeros(100), 8000), SHAPE)
    assert silent == b"\0" * 200, "silence is a sound"


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"hello", "begins with b'hello'"), (b"RIFF\0\0\0\0WAVEjunk", "broken"), ("x", "is a str"),
     (Sound(np.zeros(0), 8000), "no sample"), (Sound(np.array([np.nan]), 8000), "no numbers"),
     (Sound(np.zeros((3, 2)), 8000), "one line"), (Sound(np.zeros(3, int), 8000), "one line"),
     (Sound(np.zeros(3), 10), "a rate of 10 Hz")],
)  # fmt: skip
def test_what_is_no_sound_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueRefused, match=message):
        to_samples(value, SHAPE)


def test_a_header_that_promises_more_than_there_is_does_not_fill_memory() -> None:
    data = bytearray(saved(tone(0.01), subtype="PCM_16"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    try:
        assert len(to_samples(bytes(data), SHAPE)) <= 2 * SHAPE.samples
    except ValueRefused as error:
        assert "sound" in str(error) or "samples" in str(error)


@pytest.mark.parametrize("format_", ["WAV", "FLAC", "OGG"])
def test_mutated_files_are_a_sound_or_a_named_error(format_: str) -> None:
    rng = random.Random(format_)
    whole = saved(tone(), format_=format_)
    outcomes = set()
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            value = to_samples(bytes(data), SHAPE)
            assert 0 < len(value) <= 2 * SHAPE.samples
            outcomes.add("sound")
        except ValueRefused as error:
            assert str(error).startswith(("is ", "has ", "holds "))
            outcomes.add("refused")
    assert "refused" in outcomes and ("sound" in outcomes or format_ == "OGG")  # it has checksums


@pytest.mark.parametrize(
    "options",
    [{}, {"rate": 8000}, {"rate": 10, "seconds": 1}, {"rate": 8000, "seconds": 0},
     {"rate": 8000, "seconds": 1e9}, {"rate": True, "seconds": 1}, {"rate": 8e3, "seconds": 1}],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"options\.(rate|seconds)"):
        SoundShape.of(options)
