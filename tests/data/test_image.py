"""Pictures become canonical bytes and come back; what is no picture says so."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from omnifill.data.image import ImageShape, header, open_image, sheet, to_image, to_pixels
from omnifill.data.media import MediaFile, load_cell
from omnifill.errors import RecipeError, ValueRefused

GREY, COLOUR, ALPHA = (ImageShape(6, 5, mode) for mode in ("L", "RGB", "RGBA"))


def picture(mode: str, width: int = 5, height: int = 6, seed: int = 0) -> Image.Image:
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


@pytest.mark.parametrize("shape", [GREY, COLOUR, ALPHA])
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_a_lossless_file_of_the_fields_size_keeps_every_pixel(
    shape: ImageShape, format_: str
) -> None:
    image = picture(shape.mode)
    value = to_pixels(saved(image, format_, lossless=True), shape)
    assert len(value) == shape.size
    assert value == to_pixels(image, shape) == to_pixels(np.array(image), shape)
    assert to_pixels(to_image(value, shape), shape) == value
    seen = np.array(image) if shape.mode != "RGBA" else np.array(image) * 1
    if shape.mode == "RGBA":
        seen[seen[..., 3] == 0] = 0
    np.testing.assert_array_equal(np.array(to_image(value, shape)), seen)


def test_arrays_of_fractions_and_truths_are_pictures_too() -> None:
    whole = np.array([[0, 255], [255, 0]], np.uint8)
    shape = ImageShape(2, 2, "L")
    assert to_pixels(whole, shape) == to_pixels(whole / 255, shape) == to_pixels(whole > 0, shape)
    assert to_pixels(whole[..., None].astype(np.int64), shape) == whole.tobytes()


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2, 2), np.uint8), np.zeros((0, 3), np.uint8), np.full((2, 2), 1.5),
     np.full((2, 2), np.nan), np.full((2, 2), 300), np.full((2, 2), -1), np.array([["a"]]), "x", 5],
)  # fmt: skip
def test_arrays_that_are_no_pictures_are_refused(array: Any) -> None:
    with pytest.raises(ValueRefused, match=r"^is a"):
        to_pixels(array, GREY)


def test_modes_are_converted_and_what_is_transparent_shows_white_below() -> None:
    grey = picture("L")
    assert to_pixels(grey, COLOUR) == to_pixels(grey.convert("RGB"), COLOUR)
    clear = Image.new("RGBA", (5, 6), (9, 9, 9, 0))
    assert to_pixels(clear, COLOUR) == b"\xff" * COLOUR.size
    assert to_pixels(clear, ALPHA) == b"\0" * ALPHA.size, "what cannot be seen is nothing"
    deep = Image.fromarray(np.full((6, 5), 0x80FF, np.uint16))
    assert to_pixels(saved(deep, "PNG"), GREY) == b"\x80" * GREY.size
    assert [header(i)[2] for i in (grey, picture("RGB"), clear)] == ["L", "RGB", "RGBA"]
    palette = picture("RGB").quantize(4)
    palette.info["transparency"] = 0
    assert header(palette)[2] == "RGBA"


def test_other_shapes_are_cropped_padded_or_stretched_as_asked() -> None:
    wide = Image.new("L", (40, 20), 100)
    wide.paste(255, (0, 0, 10, 20))  # the left quarter is white
    made = {
        fit: np.array(to_image(to_pixels(wide, ImageShape(10, 10, "L", fit)), GREY_10))
        for fit in ("crop", "pad", "stretch")
    }  # type: ignore[misc]
    assert made["crop"].min() >= 95 and made["crop"][:, 3:].max() <= 110, "the middle is kept"
    assert made["pad"][0].max() == 0 and made["pad"][5].max() > 200
    assert made["stretch"][:, 0].min() > 200 and abs(int(made["stretch"][5, 8]) - 100) < 5


GREY_10 = ImageShape(10, 10, "L")


def test_a_picture_that_lies_on_its_side_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture("RGB", 8, 4), "JPEG", exif=exif)
    assert header(data)[:2] == (4, 8)
    upright = to_image(to_pixels(data, ImageShape(8, 4, "RGB")), ImageShape(8, 4, "RGB"))
    turned = Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(np.array(upright), np.array(turned))


def test_a_file_is_taken_for_what_its_first_bytes_say(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello", encoding="utf-8")
    (tmp_path / "b.png").write_bytes(saved(picture("RGB"), "JPEG"))
    (tmp_path / "c.png").write_bytes(saved(picture("RGB"), "GIF"))
    with pytest.raises(ValueRefused, match="begins with b'hello'"):
        to_pixels(load_cell("a.png", tmp_path), COLOUR)
    assert to_pixels(load_cell("b.png", tmp_path), COLOUR)
    with pytest.raises(ValueRefused, match="PNG, JPEG or WEBP can"):
        to_pixels(load_cell("c.png", tmp_path), COLOUR)


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/secret.png"])
def test_a_path_outside_of_the_tables_folder_is_refused(tmp_path: Path, path: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.png").write_bytes(saved(picture("L"), "PNG"))
    with pytest.raises(ValueRefused, match="outside"):
        load_cell(path, inner)
    assert load_cell("secret.png", tmp_path) == load_cell(str(tmp_path / "secret.png"), tmp_path)
    with pytest.raises(ValueRefused, match="no such file"):
        load_cell("nowhere.png", tmp_path)


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_bomb_is_refused_before_it_is_unpacked(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = saved(Image.new("1", (side, side)), "PNG")
    assert len(bomb) < 100_000
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was unpacked"))
    with pytest.raises(ValueRefused, match="more pixels than"):
        to_pixels(bomb, GREY)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_mutated_files_are_a_picture_or_a_named_error(format_: str) -> None:
    rng = random.Random(format_)
    whole = saved(picture("RGB", 32, 24), format_)
    outcomes = set()
    for _ in range(700):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            outcomes.add(len(to_pixels(bytes(data), COLOUR)))
        except ValueRefused as error:
            outcomes.add("refused")
            assert str(error).startswith(("is ", "has "))
    assert outcomes == {COLOUR.size, "refused"}


def test_the_header_alone_is_read_for_size_and_mode() -> None:
    whole = saved(picture("RGB", 640, 480), "PNG")
    assert header(whole[:200])[:2] == (640, 480)
    with pytest.raises(ValueRefused, match="broken"):
        to_pixels(whole[:200], COLOUR)
    assert open_image(whole).size == (640, 480)


@pytest.mark.parametrize(
    "options",
    [{}, {"height": 4}, {"height": 0, "width": 4}, {"height": 4, "width": 5000},
     {"height": True, "width": 4}, {"height": 4, "width": 4, "mode": "CMYK"},
     {"height": 4, "width": 4, "fit": "squeeze"}],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"options\.(height|width|mode|fit)"):
        ImageShape.of(options)


def test_a_contact_sheet_holds_every_picture() -> None:
    some = [Image.new("L", (8, 8), 25 * i) for i in range(7)]
    pixels = np.array(sheet(some, 3).convert("L"))
    shown = {pixels[4 + 68 * (i // 3) + 30, 4 + 68 * (i % 3) + 30] for i in range(7)}
    assert shown == {25 * i for i in range(7)}


def test_a_cell_is_named_by_its_file() -> None:
    assert str(MediaFile("a/b.png", bytes)) == "a/b.png"
    assert os.fspath("a") == "a"
