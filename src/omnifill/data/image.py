"""Pictures: files, arrays and PIL images <-> canonical values, bytes of one size and mode.

A canonical picture is its height × width × channels of 8 bits each, row by row. Height, width and
mode are options of the field. It knows no codec.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from PIL import Image, ImageOps

from omnifill.data.media import check_format
from omnifill.errors import RecipeError, ValueRefused

FORMATS = ("PNG", "JPEG", "WEBP")
MODES = ("L", "RGB", "RGBA")
"""Grey, colour, colour with alpha; each can hold what those before it hold."""
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
FITS = ("crop", "pad", "stretch")
MOST_PIXELS = 1 << 26
LARGEST = 1024
"""Pixels of a canonical picture's longer side, at most."""


@dataclass(frozen=True)
class ImageShape:
    """Size and mode of a field's pictures, and how others are made to fit."""

    height: int
    width: int
    mode: str
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Of pictures of another shape: cut the middle out, put a border around, or distort."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ImageShape:
        """From the options of a field; RecipeError for one that cannot be."""
        where = "schema.fields.NAME.options"
        for key in ("height", "width"):
            value = options.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
                raise RecipeError(f"{where}.{key} = {value!r}: must be from 1 to {LARGEST} pixels")
        mode, fit = options.get("mode", "RGB"), options.get("fit", "crop")
        for key, word, known in (("mode", mode, MODES), ("fit", fit, FITS)):
            if word not in known:
                raise RecipeError(f"{where}.{key} = {word!r}: must be {', '.join(known)}")
        return cls(options["height"], options["width"], mode, fit)

    @property
    def channels(self) -> int:
        return CHANNELS[self.mode]

    @property
    def size(self) -> int:
        """Bytes of a canonical picture."""
        return self.height * self.width * self.channels


def header(value: Any) -> tuple[int, int, str]:
    """(width, height, mode of `MODES`) of what a cell holds, without reading the pixels."""
    image = open_image(value) if isinstance(value, bytes) else _as_image(value)
    width, height = image.size
    if "exif" in image.info and _orientation(image) in (5, 6, 7, 8):  # it lies on its side
        width, height = height, width
    return width, height, mode_of(image)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(0x0112)
    except Exception as error:  # foreign bytes, as below
        raise ValueRefused(f"is a broken picture ({_first_line(error)})") from None


def mode_of(image: Image.Image) -> str:
    """The plainest of `MODES` that holds the picture."""
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L", "F") or image.mode.startswith("I") else "RGB"


def open_image(data: bytes) -> Image.Image:
    """A file's picture, its pixels not read yet. ValueRefused says why it cannot be."""
    format_ = check_format(data, FORMATS, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its size is checked right below
            image = Image.open(io.BytesIO(data), formats=[format_])
    except Image.DecompressionBombError:
        raise ValueRefused(f"has more pixels than the {MOST_PIXELS:,} that may be") from None
    except Exception as error:  # foreign bytes make a decoder fail in any way
        raise ValueRefused(f"is a broken {format_} file ({_first_line(error)})") from None
    if image.width * image.height > MOST_PIXELS:
        raise ValueRefused(f"has more pixels than the {MOST_PIXELS:,} that may be")
    return image


def to_pixels(value: Any, shape: ImageShape) -> bytes:
    """What a cell holds -> the canonical picture. ValueRefused says why it cannot be."""
    image = open_image(value) if isinstance(value, bytes) else _as_image(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            image = ImageOps.exif_transpose(image)
            image = _fitted(_in_mode(image, shape.mode), shape)
    except Exception as error:
        raise ValueRefused(f"is a broken picture ({_first_line(error)})") from None
    if shape.mode == "RGBA":  # what cannot be seen is nothing
        pixels = np.array(image)
        pixels[pixels[..., 3] == 0] = 0
        return pixels.tobytes()
    return image.tobytes()


def to_keep(value: Any, shape: ImageShape) -> np.ndarray:
    """What says which parts of a picture are known -> (height, width) bool. ValueRefused."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.max(initial=0) <= 1:
        value = value.astype(bool)
    mask = to_pixels(value, ImageShape(shape.height, shape.width, "L", shape.fit))
    return np.frombuffer(mask, np.uint8).reshape(shape.height, shape.width) > 127


def to_image(value: bytes, shape: ImageShape) -> Image.Image:
    """A canonical picture as a PIL image."""
    return Image.frombytes(shape.mode, (shape.width, shape.height), value)


def check_picture(value: Any, shape: ImageShape) -> None:
    """ValueRefused for what is no canonical picture of that shape."""
    if not isinstance(value, bytes) or len(value) != shape.size:
        raise ValueRefused(f"is no picture of {shape.width} × {shape.height} pixels")


def as_array(value: bytes, shape: ImageShape) -> np.ndarray:
    """A canonical picture as (H, W, C) of 8 bits."""
    grid = np.frombuffer(value, np.uint8)
    return grid.reshape(shape.height, shape.width, shape.channels)


def pasted(made: bytes, value: bytes, keep: np.ndarray, shape: ImageShape) -> bytes:
    """A picture with the pixels of another where `keep` (height, width) says so."""
    return np.where(keep[..., None], as_array(value, shape), as_array(made, shape)).tobytes()


def _as_image(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if not isinstance(value, np.ndarray):
        raise ValueRefused(
            f"is a {type(value).__name__}, no picture: give a file, a PIL image or an array"
        )
    array = value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueRefused(
            f"is an array of shape {value.shape}; (H, W) or (H, W, 1, 3 or 4) can be"
        )
    if 0 in array.shape:
        raise ValueRefused(f"is an array of shape {value.shape}, which holds nothing")
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueRefused("is an array of fractions that are not all from 0 to 1")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    else:
        raise ValueRefused(f"is an array of {array.dtype} that are not all from 0 to 255")
    return Image.fromarray(np.ascontiguousarray(array))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits to 8
        deep = np.clip(np.array(image), 0, 65_535)
        image = Image.fromarray((deep >> 8 if deep.max() > 255 else deep).astype(np.uint8))
    elif image.mode == "F":
        image = _as_image(np.array(image))
    if image.mode == mode:
        return image
    if mode != "RGBA" and mode_of(image) == "RGBA":  # what shows through is white
        whole = image.convert("RGBA")
        ground = Image.new("RGBA", whole.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, whole)
    return image.convert(mode)


def _fitted(image: Image.Image, shape: ImageShape) -> Image.Image:
    size = (shape.width, shape.height)
    if image.size == size:
        return image
    how = Image.Resampling.LANCZOS
    if shape.fit == "stretch":
        return image.resize(size, how)
    if shape.fit == "pad":
        return ImageOps.pad(image, size, how)
    return ImageOps.fit(image, size, how)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def sheet(pictures: list[Image.Image], columns: int, side: int = 64) -> Image.Image:
    """A contact sheet: pictures side by side, each enlarged by a whole number to about `side`."""
    width, height = pictures[0].size
    scale = max(1, side // max(width, height))
    step = (width * scale + 4, height * scale + 4)
    rows = -(-len(pictures) // columns)
    ground = (200, 204, 212)  # neither black nor white, which pictures end with
    out = Image.new("RGB", (step[0] * min(columns, len(pictures)) + 4, step[1] * rows + 4), ground)
    for number, picture in enumerate(pictures):
        large = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        at = (4 + number % columns * step[0], 4 + number // columns * step[1])
        whole = large.convert("RGBA")
        out.paste(whole, at, cast(Any, whole))
    return out
