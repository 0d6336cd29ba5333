"""Pixels: small pictures of few colours, one code for each pixel, exact for known colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.support import (
    IMAGE_OPTIONS,
    check_options,
    damaged,
    grid_coords,
    nothing_to_learn,
    of_length,
    read_json,
    write_json,
)
from omnifill.data.image import CHANNELS, ImageShape, as_array, check_picture, pasted, to_keep
from omnifill.errors import RecipeError
from omnifill.types import Bools, Grammar, Ints

FILE = "pixels.json"
MOST_COLOURS, MOST_PIXELS = 256, 1024


class PixelCodec:
    """A canonical picture (bytes) <-> height × width codes, row by row."""

    shared: ClassVar[bool] = False

    def __init__(self, shape: ImageShape, palette: Ints) -> None:
        """`palette`: (K, C) colours by code, of 8 bits a channel."""
        self.shape, self.palette = shape, palette
        self.slots: int | None = shape.height * shape.width
        self._codes = {tuple(colour): code for code, colour in enumerate(palette.tolist())}

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """The colours of the training part, dark ones first; more than `MOST_COLOURS`, or more
        pixels than `MOST_PIXELS`, are for a codec that learns."""
        check_options(options, IMAGE_OPTIONS)
        shape = ImageShape.of(options)
        if shape.height * shape.width > MOST_PIXELS:
            raise RecipeError(
                f"codec 'pixels' of field NAME: {shape.width} × {shape.height} pixels would be a "
                f"code each, and {MOST_PIXELS} are the most: lower --set "
                f"schema.fields.NAME.options.height and width"
            )
        colours: set[tuple[int, ...]] = set()
        for chunk in chunks:
            for value in chunk:
                check_picture(value, shape)
                seen = np.unique(as_array(value, shape).reshape(-1, shape.channels), axis=0)
                colours.update(map(tuple, seen.tolist()))
            if len(colours) > MOST_COLOURS:
                raise RecipeError(
                    f"codec 'pixels' of field NAME: the pictures have more than {MOST_COLOURS} "
                    f"colours; --set schema.fields.NAME.options.mode=L makes them grey"
                )
        if not colours:
            raise nothing_to_learn("image")
        return cls(shape, np.array(sorted(colours), np.int64))

    @property
    def size(self) -> int:
        return len(self.palette)

    def encode(self, value: Any) -> Ints:
        """bytes -> (S,); a colour that training never saw becomes the nearest one that it did."""
        check_picture(value, self.shape)
        pixels = as_array(value, self.shape).reshape(-1, self.shape.channels)
        colours, which = np.unique(pixels, axis=0, return_inverse=True)
        codes = [self._nearest(colour) for colour in colours.tolist()]
        return np.array(codes, np.int64)[which.reshape(-1)]

    def _nearest(self, colour: Sequence[int]) -> int:
        code = self._codes.get(tuple(colour))
        if code is not None:
            return code
        return int(np.square(self.palette - np.array(colour)).sum(axis=1).argmin())

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N values -> (N * S,) codes, (N,) lengths."""
        codes = [self.encode(value) for value in values]
        flat = np.concatenate(codes) if codes else np.zeros(0, np.int64)
        return flat, np.full(len(values), self.slots, np.int64)

    def decode(self, codes: Ints) -> bytes:
        """(S,) -> bytes."""
        return self.palette[codes].astype(np.uint8).tobytes()

    def to_keep(self, keep: Any) -> Bools:
        """Which pixels are known, (height, width)."""
        return to_keep(keep, self.shape)

    def known(self, keep: Bools) -> Bools:
        """The same of codes, (S,)."""
        return keep.reshape(-1)

    def blanked(self, value: bytes, keep: Bools) -> bytes:
        """The picture without what is not known."""
        return pasted(bytes(len(value)), value, keep, self.shape)

    def pasted(self, made: bytes, value: bytes, keep: Bools) -> bytes:
        """What was made, with what is known put back."""
        return pasted(made, value, keep, self.shape)

    def coords(self, n: int) -> Ints:
        """(n, 3): row and column of each pixel."""
        return grid_coords(n, self.shape.width)

    def grammar(self) -> Grammar:
        """Any `slots` codes."""
        return of_length(self.shape.height * self.shape.width, self.size)

    def describe(self) -> str:
        return f"pixels: {self.shape.width} × {self.shape.height} of {self.size} colours"

    def save(self, folder: Path) -> None:
        shape = vars(self.shape)
        write_json(folder / FILE, {"shape": shape, "palette": self.palette.tolist()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        tree = read_json(folder / FILE)
        try:
            shape = ImageShape.of(tree["shape"])
            palette = np.array(tree["palette"], np.int64)
        except (KeyError, TypeError, ValueError, RecipeError) as error:
            raise damaged(folder / FILE, f"no shape or palette: {error}") from None
        if palette.ndim != 2 or palette.shape[1] != CHANNELS[shape.mode] or len(palette) == 0:
            raise damaged(folder / FILE, "the palette is not of its pictures' mode")
        return cls(shape, palette)
