"""Image: a small convolutional autoencoder whose middle is rounded to codes. It is learned first.

It knows its own network and what is lost between a picture and its reconstruction; how it is
trained is the training loop's business.
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
from omnifill.codecs.likeness import apart, psnr
from omnifill.codecs.support import (
    IMAGE_OPTIONS,
    OPTIONS,
    LossSum,
    check_options,
    grid_coords,
    in_groups,
    int_option,
    known_places,
    levels_option,
    nothing_to_learn,
    of_length,
    read_learned,
    write_json,
    write_weights,
)
from omnifill.data.image import ImageShape, as_array, check_picture, pasted, to_keep
from omnifill.errors import RecipeError
from omnifill.types import Bools, Grammar, Ints

FILE, WEIGHTS = "image.json", "image.safetensors"
FEW_SLOTS = 128
"""Codes of a picture that the default stride stays below."""
STRIDES = (2, 4, 8, 16)
SMALL = 32
"""Side up to which a network begins with half of the picture's size; else with a quarter, which
takes two fifths of the time (docs/log.md)."""
LEVELS, GREY_LEVELS = (8, 8, 8, 8), (8, 8, 8)
"""Values of each number that is rounded; grey pictures have less to say (docs/log.md)."""
CRITIC_WIDTH = 32
FEATURES, REALISM = 0.1, 0.02
"""Weights of the errors beside that of pixels: first guesses (docs/log.md)."""
SPREAD = 0.03
"""Weight of how far codes are from being all in use: without it, drawings on black collapse."""


@dataclass(frozen=True)
class ImageConfig:
    """A codec's network and codes."""

    shape: ImageShape
    stride: int
    """Pixels that a code covers in each direction."""
    levels: tuple[int, ...] = LEVELS
    depth: int = 1
    """Codes of each place."""
    channels: int = 64
    """Of the network where it is widest; twice as many below."""
    patch: int = 2
    """Pixels in each direction that the network takes together at first."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of codes."""
        return -(-self.shape.height // self.stride), -(-self.shape.width // self.stride)

    @property
    def slots(self) -> int:
        return self.grid[0] * self.grid[1] * self.depth


class ImageCodec:
    """A canonical picture (bytes) <-> a grid of codes, row by row."""

    shared: ClassVar[bool] = False

    def __init__(self, config: ImageConfig, network: Autoencoder) -> None:
        self.config, self.network = config, network
        self.slots: int | None = config.slots
        self.size, self.axes = network.fsq.size, config.levels

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """An untrained codec; `learner` says how it is trained. Options: `stride`, pixels of a code
        in each direction; `levels`, values of each number that is rounded; `depth`, codes of each
        place; `channels`, of the network."""
        check_options(options, (*IMAGE_OPTIONS, "stride", "levels", "depth", "channels"))
        shape = ImageShape.of(options)
        if not any(len(chunk) for chunk in chunks):
            raise nothing_to_learn("image")
        depth = int_option(options, "depth", 1, 1, 8) or 1
        channels = int_option(options, "channels", 64, 4, 1024) or 64
        stride = options.get("stride") or _stride(shape, depth)
        if stride not in STRIDES:
            raise RecipeError(f"{OPTIONS}.stride = {stride!r}: must be one of {STRIDES}")
        patch = 2 if max(shape.height, shape.width) <= SMALL else min(stride, 4)
        levels = levels_option(options, LEVELS if shape.channels > 1 else GREY_LEVELS)
        config = ImageConfig(shape, stride, levels, depth, channels, patch)
        return cls(config, Autoencoder(config))

    def learner(self) -> ImageLearner:
        """How it is trained."""
        return ImageLearner(self.config, self.network)

    def encode(self, value: Any) -> Ints:
        """bytes -> (S,)."""
        return self.encode_many([value])[0]

    @torch.no_grad()
    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N * S,) codes, (N,) lengths."""
        for value in values:
            check_picture(value, self.config.shape)
        parts = [np.zeros(0, np.int64)]
        for some, num in in_groups(list(values)):
            codes = self.network.encode(pixels_of(some, self.config.shape))
            parts.append(codes.flatten(1)[:num].flatten().numpy())
        return np.concatenate(parts), np.full(len(values), self.config.slots, np.int64)

    def decode(self, codes: Ints) -> bytes:
        """(S,) -> bytes."""
        return self.decode_many(codes[None])[0]

    @torch.no_grad()
    def decode_many(self, codes: Ints) -> list[bytes]:
        """(N, S) -> N values."""
        out: list[bytes] = []
        rows, columns = self.config.grid
        for some, num in in_groups(list(codes)):
            grid = torch.from_numpy(np.stack(some)).view(-1, rows, columns, self.config.depth)
            pictures = self.network.decode(grid)[:num]
            out.extend(picture.tobytes() for picture in to_bytes(pictures))
        return out

    def to_keep(self, keep: Any) -> Bools:
        """Which pixels are known, (height, width)."""
        return to_keep(keep, self.config.shape)

    def known(self, keep: Bools) -> Bools:
        """The same of codes, (S,): those all of whose pixels are."""
        places = known_places(keep, self.config.grid, self.config.stride)
        return places.repeat(self.config.depth)

    def blanked(self, value: bytes, keep: Bools) -> bytes:
        """The picture without what is not known, which would show in codes beside it."""
        return pasted(bytes(len(value)), value, keep, self.config.shape)

    def pasted(self, made: bytes, value: bytes, keep: Bools) -> bytes:
        """What was made, with what is known put back."""
        return pasted(made, value, keep, self.config.shape)

    def coords(self, n: int) -> Ints:
        """(n, 3): row, column and level of each code."""
        depth = self.config.depth
        out = grid_coords(-(-n // depth), self.config.grid[1]).repeat(depth, axis=0)[:n]
        out[:, 2] = np.arange(n) % depth
        return out

    def grammar(self) -> Grammar:
        """Any `slots` codes."""
        return of_length(self.config.slots, self.size)

    def describe(self) -> str:
        rows, columns = self.config.grid
        return f"image: {rows} × {columns} × {self.config.depth} codes of {self.size}"

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self.config))
        write_weights(folder / WEIGHTS, self.network)

    @classmethod
    def load(cls, folder: Path) -> Self:
        def build(tree: dict[str, Any]) -> tuple[ImageConfig, Autoencoder]:
            shape = ImageShape.of(tree.pop("shape"))
            config = ImageConfig(shape, **(tree | {"levels": tuple(tree["levels"])}))
            return config, Autoencoder(config)

        config, network = read_learned(folder, (FILE, WEIGHTS), build)
        return cls(config, cast(Autoencoder, network))


def _stride(shape: ImageShape, depth: int) -> int:
    """The least stride whose codes are few."""
    fitting = [s for s in STRIDES if ImageConfig(shape, s, depth=depth).slots <= FEW_SLOTS]
    return fitting[0] if fitting else STRIDES[-1]


def pixels_of(values: Sequence[bytes], shape: ImageShape) -> Tensor:
    """N values -> (N, C, H, W) from -1 to 1."""
    grid = np.stack([as_array(value, shape) for value in values])
    pixels = torch.from_numpy(grid).permute(0, 3, 1, 2).float()
    return pixels.div_(127.5).sub_(1)


def to_bytes(pictures: Tensor) -> np.ndarray:
    """(N, C, H, W) from about -1 to 1 -> (N, H, W, C) of 8 bits."""
    whole = pictures.add(1).mul(127.5).round().clamp(0, 255)
    return whole.permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()


# --- the network ---------------------------------------------------------------------------


class Residual(nn.Module):
    """x + two convolutions of x, the second of which starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class Autoencoder(nn.Module):
    """(N, C, H, W) -> codes (N, rows, columns, depth) -> (N, C, H, W)."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.fsq = Fsq(config.levels, config.depth)
        inner, colours = config.channels, config.shape.channels * config.patch**2
        down: list[nn.Module] = [
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(colours, inner, 3, padding=1),
            Residual(inner),
        ]
        up: list[nn.Module] = [
            Residual(inner), nn.SiLU(), nn.Conv2d(inner, colours, 3, padding=1),
            nn.PixelShuffle(config.patch),
        ]  # fmt: skip
        for _ in range(int(math.log2(config.stride // config.patch))):
            outer = 2 * config.channels
            down += [nn.Conv2d(inner, outer, 2, stride=2), Residual(outer)]
            up = [Residual(outer), nn.Conv2d(outer, 4 * inner, 1), nn.PixelShuffle(2), *up]
            inner = outer
        self.down = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(inner, self.fsq.dim, 1))
        self.up = nn.Sequential(nn.Conv2d(self.fsq.dim, inner, 3, padding=1), *up)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures -> their reconstructions, and how far codes are from being all in use."""
        told = self._told(pictures)
        return self._drawn(self.fsq(told)), self.fsq.spread(told.flatten(0, 2))

    def encode(self, pictures: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, rows, columns, depth)."""
        return self.fsq.encode(self._told(pictures))

    def decode(self, codes: Tensor) -> Tensor:
        """(N, rows, columns, depth) -> (N, C, H, W)."""
        return self._drawn(self.fsq.decode(codes))

    def _told(self, pictures: Tensor) -> Tensor:
        """(N, rows, columns, d), before it is rounded; edges repeat where codes reach over."""
        height, width = self.config.shape.height, self.config.shape.width
        rows, columns = self.config.grid
        over = (0, columns * self.config.stride - width, 0, rows * self.config.stride - height)
        whole = F.pad(pictures, over, mode="replicate") if any(over) else pictures
        told: Tensor = self.down(whole.contiguous(memory_format=torch.channels_last))
        return told.permute(0, 2, 3, 1)

    def _drawn(self, rounded: Tensor) -> Tensor:
        whole: Tensor = self.up(rounded.permute(0, 3, 1, 2))
        return whole[:, :, : self.config.shape.height, : self.config.shape.width]


# --- learning ------------------------------------------------------------------------------


class Pictures(NamedTuple):
    """A batch of pictures (N, C, H, W)."""

    pixels: Tensor

    def split(self, micro_tokens: int | None) -> list[Pictures]:
        """Whole: a step of pictures is small."""
        return [self]


class Critic(nn.Module):
    """Tells real pictures from reconstructions, place by place; what it looks at are features."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = [(channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, s, 1) for a, b, s in sizes)
        self.verdict = nn.Conv2d(2 * width, 1, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, C, H, W) -> how real each place looks, and the features on the way."""
        x, features = pictures, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.verdict(x), features


class Studio(nn.Module):
    """The autoencoder, and the critic that it learns from."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.critic = Critic(autoencoder.config.shape.channels, CRITIC_WIDTH)


class ImageLearner:
    """What the training loop needs to train the network of a codec."""

    def __init__(self, config: ImageConfig, network: Autoencoder) -> None:
        self.config = config
        self.network = Studio(network)

    def batch(self, values: Sequence[bytes]) -> Pictures:
        """Values -> a batch."""
        return Pictures(pixels_of(values, self.config.shape))

    def loss(self, network: Studio, batch: Pictures) -> LossSum:
        """Per picture: the error of its pixels, of the critic's features, how far the critic sees
        through it (Larsen et al. 2016, arXiv 1512.09300; Esser et al. 2021, arXiv 2012.09841), and
        the critic's own error. The critic learns from its own error alone."""
        real, critic = batch.pixels, network.critic
        made, spread = network.autoencoder(real)
        pixels = (made - real).abs().flatten(1).mean(dim=1)
        if not torch.is_grad_enabled():
            return LossSum.of(pixels)
        judged, features = critic(real)
        frozen = {name: p.detach() for name, p in critic.named_parameters()}
        seen, made_features = torch.func.functional_call(critic, frozen, (made,))
        alike = [
            (ours - theirs.detach()).abs().flatten(1).mean(dim=1) / theirs.detach().abs().mean()
            for ours, theirs in zip(made_features, features, strict=True)
        ]
        caught = F.softplus(-seen).flatten(1).mean(dim=1)
        own = F.softplus(-judged) + F.softplus(critic(made.detach())[0])
        return LossSum.of(
            pixels
            + FEATURES * torch.stack(alike).mean(dim=0)
            + REALISM * caught
            + SPREAD * spread
            + own.flatten(1).mean(dim=1)
        )

    @torch.no_grad()
    def figures(self, values: Sequence[bytes]) -> dict[str, float]:
        """How good reconstructions are: PSNR in dB, SSIM, and the share of codes that are used."""
        codec = ImageCodec(self.config, self.network.autoencoder)
        codes, _ = codec.encode_many(values)
        made = codec.decode_many(codes.reshape(len(values), self.config.slots))
        error, alike = apart(made, values, self.config.shape).T
        return {
            "psnr": psnr(error),
            "ssim": float(alike.mean()),
            "codes_used": len(np.unique(codes)) / codec.size,
        }
