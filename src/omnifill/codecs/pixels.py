"""Pixels: small pictures of few colours, a code for each pixel or for small squares of them; exact
for known colours.

A code is a number whose digits are the colours of its pixels, the upper left one first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from omnifill.codecs.support import (
    IMAGE_OPTIONS,
    MOST_CODES,
    OPTIONS,
    check_options,
    damaged,
    grid_coords,
    int_option,
    known_places,
    nothing_to_learn,
    of_length,
    read_json,
    write_json,
)
from omnifill.data.image import CHANNELS, ImageShape, as_array, check_picture, pasted, to_keep
from omnifill.errors import RecipeError
from omnifill.types import Bools, Grammar, Ints

FILE = "pixels.json"
MOST_COLOURS, MOST_SLOTS = 256, 1024


class PixelCodec:
    """A canonical picture (bytes) <-> a grid of codes, row by row."""

    shared: ClassVar[bool] = False

    def __init__(self, shape: ImageShape, palette: Ints, stride: int = 1) -> None:
        """`palette`: (K, C) colours, of 8 bits a channel; `stride`: pixels of a code in each
        direction."""
        self.shape, self.palette, self.stride = shape, palette, stride
        self.grid = shape.height // stride, shape.width // stride
        self.slots: int | None = math.prod(self.grid)
        self.size = len(palette) ** (stride * stride)
        ordered = shape.channels == 1 or len(palette) == 2  # shades, and any two colours
        self.axes = (len(palette),) * (stride * stride) if ordered else ()
        self._places: Ints = len(palette) ** np.arange(stride * stride)
        self._codes = {tuple(colour): code for code, colour in enumerate(palette.tolist())}

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """The colours of the training part, dark ones first; more than `MOST_COLOURS`, or more
        codes than `MOST_SLOTS`, are for a codec that learns. Option: `stride`, pixels of a code in
        each direction."""
        check_options(options, (*IMAGE_OPTIONS, "stride"))
        shape = ImageShape.of(options)
        stride = int_option(options, "stride", 1, 1, min(shape.height, shape.width)) or 1
        if shape.height % stride or shape.width % stride:
            raise RecipeError(
                f"{OPTIONS}.stride = {stride}: must divide {shape.width} and {shape.height}, the "
                f"width and the height of the pictures"
            )
        slots = shape.height * shape.width // stride**2
        if slots > MOST_SLOTS:
            raise RecipeError(
                f"codec 'pixels' of field NAME: {shape.width} × {shape.height} pixels would be "
                f"{slots:,} codes, and {MOST_SLOTS:,} are the most: lower --set "
                f"schema.fields.NAME.options.height and width, or raise options.stride"
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
        if len(colours) ** (stride * stride) > MOST_CODES:
            raise RecipeError(
                f"{OPTIONS}.stride = {stride}: squares of {stride} pixels in {len(colours)} "
                f"colours would have more than {MOST_CODES:,} codes; lower it"
            )
        return cls(shape, np.array(sorted(colours), np.int64), stride)

    def encode(self, value: Any) -> Ints:
        """bytes -> (S,); a colour that training never saw becomes the nearest one that it did."""
        check_picture(value, self.shape)
        pixels = as_array(value, self.shape).reshape(-1, self.shape.channels)
        colours, which = np.unique(pixels, axis=0, return_inverse=True)
        digits = np.array([self._nearest(colour) for colour in colours.tolist()], np.int64)
        (rows, columns), stride = self.grid, self.stride
        squares = digits[which.reshape(-1)].reshape(rows, stride, columns, stride)
        codes: Ints = squares.transpose(0, 2, 1, 3).reshape(-1, stride * stride) @ self._places
        return codes

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
        (rows, columns), stride = self.grid, self.stride
        digits = codes[:, None] // self._places % len(self.palette)
        pixels = digits.reshape(rows, columns, stride, stride).transpose(0, 2, 1, 3)
        made: bytes = self.palette[pixels].astype(np.uint8).tobytes()
        return made

    def to_keep(self, keep: Any) -> Bools:
        """Which pixels are known, (height, width)."""
        return to_keep(keep, self.shape)

    def known(self, keep: Bools) -> Bools:
        """The same of codes, (S,): those all of whose pixels are."""
        return known_places(keep, self.grid, self.stride)

    def blanked(self, value: bytes, keep: Bools) -> bytes:
        """The picture without what is not known."""
        return pasted(bytes(len(value)), value, keep, self.shape)

    def pasted(self, made: bytes, value: bytes, keep: Bools) -> bytes:
        """What was made, with what is known put back."""
        return pasted(made, value, keep, self.shape)

    def coords(self, n: int) -> Ints:
        """(n, 3): row and column of each code."""
        return grid_coords(n, self.grid[1])

    def grammar(self) -> Grammar:
        """Any `slots` codes."""
        return of_length(math.prod(self.grid), self.size)

    def describe(self) -> str:
        rows, columns = self.grid
        return f"pixels: {rows} × {columns} codes of {self.size}, {len(self.palette)} colours"

    def save(self, folder: Path) -> None:
        tree = {"shape": vars(self.shape), "palette": self.palette.tolist(), "stride": self.stride}
        write_json(folder / FILE, tree)

    @classmethod
    def load(cls, folder: Path) -> Self:
        tree = read_json(folder / FILE)
        try:
            shape = ImageShape.of(tree["shape"])
            palette, stride = np.array(tree["palette"], np.int64), int(tree.get("stride", 1))
        except (KeyError, TypeError, ValueError, RecipeError) as error:
            raise damaged(folder / FILE, f"no shape or palette: {error}") from None
        if palette.ndim != 2 or palette.shape[1] != CHANNELS[shape.mode] or len(palette) == 0:
            raise damaged(folder / FILE, "the palette is not of its pictures' mode")
        if stride < 1 or shape.height % stride or shape.width % stride:
            raise damaged(folder / FILE, f"pictures cannot be cut into squares of {stride} pixels")
        if len(palette) ** (stride * stride) > MOST_CODES:
            raise damaged(folder / FILE, f"more than {MOST_CODES:,} codes")
        return cls(shape, palette, stride)
