"""The codec that learns sounds: its codes, its end, its exactness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omnifill.codecs.audio import AudioCodec
from omnifill.errors import RecipeError, RunError, ValueRefused

OPTIONS = {"rate": 4000, "seconds": 0.4, "frames": 25, "channels": 8, "blocks": 1, "levels": [4, 4]}


def values(num: int, seed: int = 0) -> list[bytes]:
    """Noise of unequal lengths, the longest as long as can be."""
    rng = np.random.default_rng(seed)
    sizes = [1600, 1, *rng.integers(2, 1601, num)][:num]
    return [rng.integers(-9000, 9000, n).astype("<i2").tobytes() for n in sizes]


def codec(**options: object) -> AudioCodec:
    torch.manual_seed(3)
    made = AudioCodec.fit([values(4)], OPTIONS | options)
    for parameter in made.network.parameters():  # as if it had learned: nothing is zero
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_sound_has_its_frames_and_the_rest_is_behind_its_end(depth: int) -> None:
    made = codec(depth=depth)
    some = values(12)
    codes, lens = made.encode_many(some)
    grid = codes.reshape(12, made.config.frames, depth)
    assert lens.tolist() == [made.slots] * 12 == [11 * depth] * 12
    for value, frames in zip(some, grid, strict=True):
        num = made.config.frames_of(len(value) // 2)
        assert (frames[:num] < made.size - 1).all() and (frames[num:] == made.size - 1).all()
        back = made.decode(frames.reshape(-1))
        assert 0 <= len(back) - len(value) < 2 * made.config.hop
    expected = [[f, 0, d] for f in range(11) for d in range(depth)]
    assert made.coords(11 * depth).tolist() == expected


@pytest.mark.parametrize("depth", [1, 2])
def test_the_grammar_accepts_sounds_and_nothing_behind_their_end(depth: int) -> None:
    made = codec(depth=depth)
    grammar, over = made.grammar(), made.size - 1

    def accepts(codes: list[int]) -> bool:
        state = 0
        for code in codes:
            if not grammar.allowed[state, code]:
                return False
            state = int(grammar.step[state, code])
        return bool(grammar.allowed[state, -1])

    for value in values(9):
        assert accepts(made.encode(value).tolist())
    slots = made.config.slots
    assert accepts([0] * slots)
    assert accepts([0] * depth + [over] * (slots - depth))
    assert not accepts([over] * slots), "at least one frame"
    assert not accepts([0] * depth + [over] + [0] * (slots - depth - 1))
    assert not accepts([0] * (slots - 1)) and not accepts([0] * (slots + 1))
    if depth == 2:
        assert not accepts([0] * 3 + [over] * (slots - 3)), "a frame ends whole"
    assert grammar.min_left[0] == slots


def test_a_sound_is_the_same_alone_and_among_others() -> None:
    made, some = codec(), values(35)
    together, _ = made.encode_many(some)
    grid = together.reshape(35, -1)
    for i in (0, 1, 15, 16, 34):
        np.testing.assert_array_equal(made.encode(some[i]), grid[i])
        assert made.decode(grid[i]) == made.decode_many(grid)[i]


def test_it_is_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    made = codec()
    made.save(tmp_path)
    again = AudioCodec.load(tmp_path)
    codes, _ = made.encode_many(values(5))
    np.testing.assert_array_equal(again.encode_many(values(5))[0], codes)
    assert again.decode_many(codes.reshape(5, -1)) == made.decode_many(codes.reshape(5, -1))
    for name in ("audio.safetensors", "audio.json"):
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(RunError, match=name):
            AudioCodec.load(tmp_path)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_streamed_sound_is_the_whole_sound(depth: int) -> None:
    made = codec(seconds=2.0, frames=100, depth=depth)
    rng, slots, over = np.random.default_rng(1), made.config.slots, made.size - 1
    for frames in (1, 9, 77, 150, made.config.frames):
        codes = rng.integers(0, over, slots)
        codes[frames * depth :] = over
        decoder = made.stream_decoder()
        pieces = [decoder.feed(int(code)) for code in codes]
        assert b"".join(pieces) == made.decode(codes)
        told = [i for i, piece in enumerate(pieces) if piece]
        if frames > 100:
            assert len(told) >= 4 and told[0] < slots // 4, "it is heard early"


def test_learning_brings_the_spectra_together() -> None:
    time = np.arange(1600) / 4000
    tones = [(9000 * np.sin(2 * np.pi * pitch * time)).astype("<i2").tobytes()
             for pitch in (200, 300, 450, 700, 1000, 1500)]  # fmt: skip
    torch.manual_seed(0)
    made = AudioCodec.fit([tones], OPTIONS | {"channels": 32, "levels": [8, 8, 8]})
    learner = made.learner()
    batch = learner.batch(tones)
    optimizer = torch.optim.Adam(learner.network.parameters(), 0.003)
    before = learner.loss(learner.network, batch).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        part = learner.loss(learner.network, batch)
        part.total.backward()
        optimizer.step()
    assert part.total.item() < before / 2
    figures = learner.figures(tones)
    assert figures["log_mel_distance"] < 20 and 0 < figures["codes_used"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"frames": 1}, "frames"), ({"frames": 400}, "at most 250"), ({"levels": [9] * 9}, "levels"),
     ({"depth": 0}, "depth"),
     ({"rates": 3}, "rates"), ({"rate": 1}, "rate")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        AudioCodec.fit([values(2)], OPTIONS | options)


def test_what_is_no_sound_of_the_field_is_refused() -> None:
    for value in (b"", b"odd", b"\0" * 3202, "text", None):
        with pytest.raises(ValueRefused, match="no sound of at most"):
            codec().encode(value)
