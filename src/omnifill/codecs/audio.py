"""Audio: frames of a sound as codes, and a decoder that draws their spectra. It is learned first.

The encoder reads how loud each frequency is in each frame; the decoder says how loud and at which
phase it is to be, and the inverse transform makes the sound, so that all convolutions run at the
rate of frames (Vocos: Siuzdak 2023, arXiv 2306.00814). What is learned is that spectra at several
resolutions agree (Yamamoto et al. 2020, arXiv 1910.11480). A sound has a fixed number of frames;
those behind its end have a code of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifill.codecs.fsq import Fsq
from omnifill.codecs.spectra import DECIBELS, Mel, log, mean_until, spectrum
from omnifill.codecs.support import (
    OPTIONS,
    SOUND_OPTIONS,
    LossSum,
    check_options,
    in_groups,
    int_option,
    levels_option,
    nothing_to_learn,
    read_learned,
    write_json,
    write_weights,
)
from omnifill.data.audio import SAMPLE, SoundShape, check_sound, padded
from omnifill.errors import RecipeError, ValueRefused
from omnifill.types import Bools, Grammar, Ints

FILE, WEIGHTS = "audio.json", "audio.safetensors"
FRAMES = 50
"""Frames a second, where the recipe says nothing."""
LEAST_HOP = 16
"""Samples of a frame, at least."""
LEVELS = (8, 8, 8, 8)
OVERLAP = 4
"""Frames that each sample lies in."""
KERNEL = 7
LEAST_STEP, PASSES = 10, 8
"""Of a sound that is streamed: the fewest frames of a piece, and about how many pieces it has."""
SPREAD = 0.3
"""Weight, in what is learned, of how far codes are from being all in use (docs/log.md)."""
RESOLUTIONS = (256, 512, 1024)
"""Samples of the windows in which spectra are compared."""


@dataclass(frozen=True)
class AudioConfig:
    """A codec's network and codes."""

    shape: SoundShape
    hop: int
    """Samples from frame to frame."""
    levels: tuple[int, ...] = LEVELS
    depth: int = 2
    """Codes of each frame."""
    channels: int = 192
    blocks: int = 4

    @property
    def window(self) -> int:
        return OVERLAP * self.hop

    @property
    def frames(self) -> int:
        """Of the longest sound."""
        return 1 + math.ceil(self.shape.samples / self.hop)

    @property
    def slots(self) -> int:
        return self.frames * self.depth

    def frames_of(self, samples: int) -> int:
        """Frames of a sound of so many samples."""
        return 1 + math.ceil(samples / self.hop)


class AudioCodec:
    """A canonical sound (bytes) <-> `depth` codes a frame, frame after frame."""

    shared: ClassVar[bool] = False

    def __init__(self, config: AudioConfig, network: Vocoder) -> None:
        self.config, self.network = config, network
        self.slots: int | None = config.slots
        self.axes = config.levels
        self.size = network.fsq.size + 1
        """The last code: behind the end."""

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """An untrained codec; `learner` says how it is trained. Options: `frames`, frames a second;
        `levels`, values of each number that is rounded; `depth`, codes of each frame; `channels`
        and `blocks`, of the network."""
        known = (*SOUND_OPTIONS, "frames", "levels", "depth", "channels", "blocks")
        check_options(options, known)
        shape = SoundShape.of(options)
        if not any(len(chunk) for chunk in chunks):
            raise nothing_to_learn("audio")
        rate = int_option(options, "frames", FRAMES, 5, 500) or FRAMES
        if shape.rate / rate < LEAST_HOP:
            most = shape.rate // LEAST_HOP
            raise RecipeError(f"{OPTIONS}.frames = {rate}: at {shape.rate} Hz at most {most}")
        config = AudioConfig(
            shape, round(shape.rate / rate), levels_option(options, LEVELS),
            int_option(options, "depth", 2, 1, 8) or 2,
            int_option(options, "channels", 192, 4, 2048) or 192,
            int_option(options, "blocks", 4, 1, 32) or 4,
        )  # fmt: skip
        return cls(config, Vocoder(config))

    def learner(self) -> AudioLearner:
        """How it is trained."""
        return AudioLearner(self.config, self.network)

    def encode(self, value: Any) -> Ints:
        """bytes -> (S,)."""
        return self.encode_many([value])[0]

    @torch.no_grad()
    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N * S,) codes, (N,) lengths."""
        for value in values:
            check_sound(value, self.config.shape)
        parts = [np.zeros(0, np.int64)]
        for some, num in in_groups(list(values)):
            codes = self.network.encode(waves_of(some, self.config))
            frames = torch.tensor([self.config.frames_of(len(v) // 2) for v in some])
            over = torch.arange(self.config.frames)[None] >= frames[:, None]
            codes[over] = self.size - 1
            parts.append(codes[:num].flatten().numpy())
        return np.concatenate(parts), np.full(len(values), self.config.slots, np.int64)

    def decode(self, codes: Ints) -> bytes:
        """(S,) -> bytes."""
        return self.decode_many(codes[None])[0]

    @torch.no_grad()
    def decode_many(self, codes: Ints) -> list[bytes]:
        """(N, S) -> N values."""
        out: list[bytes] = []
        config = self.config
        for some, num in in_groups(list(codes)):
            grid = torch.from_numpy(np.stack(some)).view(-1, config.frames, config.depth)
            over = grid[..., 0] == self.size - 1
            waves = self.network.decode(grid.masked_fill(over[..., None], 0), over)
            frames = (~over).sum(dim=1)[:num].tolist()
            for wave, count in zip(waves[:num], frames, strict=True):
                most = min(max(1, (count - 1) * config.hop), config.shape.samples)
                whole = wave[:most].mul(32767).round().clamp(-32768, 32767)
                out.append(whole.numpy().astype(SAMPLE).tobytes())
        return out

    def stream_decoder(self) -> SoundDecoder:
        """Fed one code after another, it gives the sound as far as it is settled."""
        return SoundDecoder(self)

    def to_keep(self, keep: Any) -> Bools:
        """Which samples are known: the first `keep` seconds."""
        shape = self.config.shape
        try:
            seconds = float(keep)
        except (TypeError, ValueError):
            seconds = math.nan
        if not 0 < seconds <= shape.seconds:
            raise ValueRefused(f"keep = {keep!r}: must be seconds, more than 0 and at most "
                               f"{shape.seconds:g}")  # fmt: skip
        return np.arange(shape.samples) < seconds * shape.rate

    def known(self, keep: Bools) -> Bools:
        """The same of codes, (S,): those of frames that no later sample changes much."""
        frames = (np.arange(self.config.frames) + 1) * self.config.hop <= int(keep.sum())
        return frames.repeat(self.config.depth)

    def blanked(self, value: bytes, keep: Bools) -> bytes:
        """The sound up to where it is known."""
        if 2 * int(keep.sum()) >= len(value):
            seconds = len(value) / 2 / self.config.shape.rate
            raise ValueRefused(f"keep: the whole sound lasts {seconds:.2f} s; give less")
        return value[: 2 * int(keep.sum())]

    def pasted(self, made: bytes, value: bytes, keep: Bools) -> bytes:
        """What was made, behind what is known."""
        known = value[: 2 * int(keep.sum())]
        return known + made[len(known) :]

    def coords(self, n: int) -> Ints:
        """(n, 3): frame and level of each code."""
        at = np.arange(n)
        level = at % self.config.depth
        return np.stack([at // self.config.depth, np.zeros(n, np.int64), level], axis=1)

    def grammar(self) -> Grammar:
        """Codes of frames, then those behind the end: states 0 … S within the sound, S + 1 + s
        behind its end."""
        slots, over = self.config.slots, self.size - 1
        allowed = np.zeros((2 * slots + 2, self.size + 1), bool)
        step = np.zeros((2 * slots + 2, self.size), np.int64)
        inside, behind = np.arange(slots), slots + 1 + np.arange(slots)
        allowed[:slots, :over] = True
        first = inside[(inside % self.config.depth == 0) & (inside > 0)]
        allowed[first, over] = True
        allowed[behind, over] = True
        allowed[[slots, 2 * slots + 1], -1] = True
        step[:slots, :over] = inside[:, None] + 1
        step[inside, over] = slots + 2 + inside
        step[behind, over] = behind + 1
        return Grammar(allowed, step)

    def describe(self) -> str:
        config = self.config
        return f"audio: {config.frames} frames × {config.depth} codes of {self.size}"

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self.config))
        write_weights(folder / WEIGHTS, self.network)

    @classmethod
    def load(cls, folder: Path) -> Self:
        def build(tree: dict[str, Any]) -> tuple[AudioConfig, Vocoder]:
            shape = SoundShape.of(tree.pop("shape"))
            config = AudioConfig(shape, **(tree | {"levels": tuple(tree["levels"])}))
            return config, Vocoder(config)

        config, network = read_learned(folder, (FILE, WEIGHTS), build)
        return cls(config, cast(Vocoder, network))


class SoundDecoder:
    """Codes of one sound, one after another -> its samples, as soon as no later code changes them.

    Each pass is one over the whole sound, so that its samples are those of the whole, to the bit.
    """

    def __init__(self, codec: AudioCodec) -> None:
        self.codec, config = codec, codec.config
        self.codes, self.num, self.sent = np.zeros(config.slots, np.int64), 0, 0
        self.done = False
        """Whether all has been said."""
        self.step = max(LEAST_STEP, config.frames // PASSES) * config.hop * 2

    def feed(self, code: int) -> bytes:
        """One code -> the bytes that are settled by it, most often none."""
        config, over = self.codec.config, self.codec.size - 1
        if self.done:
            return b""
        self.codes[self.num] = code
        self.num += 1
        if code == over or self.num == config.slots:
            self.codes[self.num :] = over
            self.done = True
            return self._until(None)
        frames = self.num // config.depth - OVERLAP // 2 - config.blocks * (KERNEL // 2)
        settled = 2 * frames * config.hop
        return self._until(settled) if settled - self.sent >= self.step else b""

    def _until(self, end: int | None) -> bytes:
        piece = self.codec.decode(self.codes)[self.sent : end]
        self.sent += len(piece)
        return piece


def waves_of(values: Sequence[bytes], config: AudioConfig) -> Tensor:
    """N values -> (N, L) from -1 to 1, silent behind their ends."""
    return torch.from_numpy(padded(values, (config.frames - 1) * config.hop))


# --- the network ---------------------------------------------------------------------------


class Block(nn.Module):
    """A convolution along time for each channel, then two layers at each frame (ConvNeXt: Liu et
    al. 2022, arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        y = self.norm(self.along(x.mT).mT)
        out: Tensor = x + self.narrow(F.gelu(self.wide(y)))
        return out


class Vocoder(nn.Module):
    """(N, L) -> codes (N, T, depth) -> (N, L)."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.fsq = Fsq(config.levels, config.depth)
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)
        bins, width = config.window // 2 + 1, config.channels
        self.enter = nn.Linear(bins, width)
        self.down = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.told = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.fsq.dim))
        self.start = nn.Linear(self.fsq.dim + 1, width)
        self.up = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.loud = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, bins))
        self.phase = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * bins))

    def forward(self, waves: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        """Waves (N, L), and which frames (N, T) are behind their ends -> their reconstructions, and
        how far codes are from being all in use."""
        told = self._told(waves)
        return self._drawn(self.fsq(told), over), self.fsq.spread(told[~over])

    def encode(self, waves: Tensor) -> Tensor:
        """(N, L) -> (N, T, depth)."""
        return self.fsq.encode(self._told(waves))

    def decode(self, codes: Tensor, over: Tensor) -> Tensor:
        """(N, T, depth), and which frames (N, T) are behind the end -> (N, L)."""
        return self._drawn(self.fsq.decode(codes), over)

    def _told(self, waves: Tensor) -> Tensor:
        """(N, T, d), before it is rounded."""
        loud = spectrum(waves, self.config.window, self.config.hop, self.get_buffer("hann"))
        out: Tensor = self.told(self.down(self.enter(log(loud).mT)))
        return out

    def _drawn(self, rounded: Tensor, over: Tensor) -> Tensor:
        """(N, T, d) -> (N, L)."""
        gone = over[..., None].float()
        x = self.up(self.start(torch.cat([rounded * (1 - gone), gone], dim=-1)))
        loud = self.loud(x).clamp(max=8).exp() * (1 - gone)
        real, imaginary = self.phase(x).chunk(2, dim=-1)
        norm = (real.square() + imaginary.square() + 1e-6).rsqrt()
        whole = torch.complex(loud * real * norm, loud * imaginary * norm).mT
        return torch.istft(whole, self.config.window, self.config.hop,
                           window=self.get_buffer("hann"))  # fmt: skip


# --- learning ------------------------------------------------------------------------------


class Waves(NamedTuple):
    """A batch of sounds: (N, L), which frames (N, T) are behind their ends, and how many samples
    (N,) they have."""

    waves: Tensor
    over: Tensor
    samples: Tensor

    def split(self, micro_tokens: int | None) -> list[Waves]:
        """Whole: a step of sounds is small."""
        return [self]


class AudioLearner:
    """What the training loop needs to train the network of a codec."""

    def __init__(self, config: AudioConfig, network: Vocoder) -> None:
        self.config, self.network = config, network
        self.windows = {size: torch.hann_window(size) for size in RESOLUTIONS}
        self.mel = Mel(config.shape.rate)

    def batch(self, values: Sequence[bytes]) -> Waves:
        """Values -> a batch."""
        samples = torch.tensor([len(value) // 2 for value in values])
        frames = torch.tensor([self.config.frames_of(num) for num in samples.tolist()])
        over = torch.arange(self.config.frames)[None] >= frames[:, None]
        return Waves(waves_of(values, self.config), over, samples)

    def loss(self, network: nn.Module, batch: Waves) -> LossSum:
        """Per sound: how far spectra are apart at several resolutions, in loudness and in its
        logarithm, and on the mel scale."""
        (made, spread), real, samples = (
            network(batch.waves, batch.over), batch.waves, batch.samples
        )  # fmt: skip
        heard = self.mel.apart(made, real, samples)
        return LossSum.of(self._apart(made, real, samples) + heard + SPREAD * spread)

    def _apart(self, made: Tensor, real: Tensor, samples: Tensor) -> Tensor:
        """(N,)."""
        total = torch.zeros(len(real))
        for size, window in self.windows.items():
            ours, theirs = (spectrum(w, size, size // 4, window) for w in (made, real))
            off, whole = (x.flatten(1).norm(dim=1) for x in (ours - theirs, theirs))
            share = off / whole.clamp(min=0.1)
            logs = mean_until(log(ours) - log(theirs), samples, size // 4)
            total = total + share + logs
        return total / len(self.windows)

    @torch.no_grad()
    def figures(self, values: Sequence[bytes]) -> dict[str, float]:
        """How good reconstructions are: the mean difference of log-mel spectra in dB, and the share
        of codes that are used."""
        codec = AudioCodec(self.config, self.network)
        codes, _ = codec.encode_many(values)
        made = codec.decode_many(codes.reshape(len(values), -1))
        samples = torch.tensor([len(value) // 2 for value in values])
        ours, theirs = (waves_of(part, self.config) for part in (made, values))
        apart = DECIBELS * self.mel.apart(ours, theirs, samples)
        used = len(np.unique(codes[codes < codec.size - 1])) / (codec.size - 1)
        return {"log_mel_distance": float(apart.mean()), "codes_used": used}
