"""Pixels: exact, one by one or in squares; what cannot be is refused with what may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnifill.codecs.pixels import PixelCodec
from omnifill.errors import RecipeError, RunError

GREY = {"height": 4, "width": 6, "mode": "L"}
RNG = np.random.default_rng(0)


def pictures(shape: tuple[int, ...], colours: list[Any], num: int = 12) -> list[bytes]:
    """Each pixel one of the colours, and all colours in the first picture."""
    which = RNG.integers(0, len(colours), (num, *shape))
    which[0].flat[: len(colours)] = range(len(colours))
    return [np.array(colours, np.uint8)[grid].tobytes() for grid in which]


@pytest.mark.parametrize("stride", [1, 2])
def test_known_colours_come_back_exactly(stride: int) -> None:
    values = pictures((4, 6), [0, 90, 255])
    codec = PixelCodec.fit([values], GREY | {"stride": stride})
    assert (codec.slots, codec.size) == (24 // stride**2, 3 ** (stride**2))
    flat, lens = codec.encode_many(values)
    assert lens.tolist() == [codec.slots] * len(values)
    assert [codec.decode(codes) for codes in flat.reshape(len(values), -1)] == values


def test_a_code_is_a_number_whose_digits_are_the_colours_of_a_square() -> None:
    grid = np.zeros((4, 6), np.uint8)
    grid[0, 0] = grid[1, 3] = 255
    grid[2:, 4:] = [[0, 90], [90, 255]]
    codec = PixelCodec.fit([[grid.tobytes()]], GREY | {"stride": 2})
    first, second, last = 2 * 3**0, 2 * 3**3, 1 * 3**1 + 1 * 3**2 + 2 * 3**3
    assert codec.encode(grid.tobytes()).tolist() == [first, second, 0, 0, 0, last]
    assert codec.coords(4).tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert codec.axes == (3, 3, 3, 3), "digits are shades, in order"


def test_colours_are_ordered_where_they_are_shades_or_two() -> None:
    size = {"height": 2, "width": 2, "mode": "RGB"}
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    two = PixelCodec.fit([pictures((2, 2), [red, green])], size)
    three = PixelCodec.fit([pictures((2, 2), [red, green, blue])], size)
    assert (two.axes, three.axes) == ((2,), ())


def test_a_square_is_known_where_all_of_its_pixels_are() -> None:
    codec = PixelCodec.fit([pictures((4, 6), [0, 255])], GREY | {"stride": 2})
    keep = np.ones((4, 6), bool)
    keep[1, 1] = keep[2, 5] = False
    assert codec.known(keep).tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize(
    ("options", "colours", "words"),
    [
        ({"stride": 4}, 2, r"options\.stride = 4: must divide 6 and 4"),
        ({"stride": 5}, 2, "from 1 to 4"),
        ({"stride": 2}, 17, "squares of 2 pixels in 17 colours would have more than 65,536"),
        ({"height": 64, "width": 64}, 2, r"4,096 codes, and 1,024 are the most: .*options\.stride"),
        ({"strid": 2}, 2, "did you mean 'stride'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], colours: int, words: str) -> None:
    some = GREY | options
    values = pictures((some["height"], some["width"]), list(range(colours)))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=words):
        PixelCodec.fit([values], some)


@pytest.mark.parametrize(("stride", "words"), [(0, "cut into"), (4, "cut into"), (6, "codes")])
def test_a_file_that_cannot_be_is_damaged(stride: int, words: str, tmp_path: Path) -> None:
    size = {"height": 6, "width": 6, "mode": "L"}
    PixelCodec.fit([pictures((6, 6), [0, 255])], size | {"stride": 2}).save(tmp_path)
    file = tmp_path / "pixels.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stride": stride}))
    with pytest.raises(RunError, match=words):
        PixelCodec.load(tmp_path)


def test_pictures_may_be_larger_where_codes_are_squares() -> None:
    values = pictures((64, 64), [0, 255], num=2)
    codec = PixelCodec.fit([values], {"height": 64, "width": 64, "mode": "L", "stride": 2})
    assert codec.slots == 1024 and codec.decode(codec.encode(values[1])) == values[1]
