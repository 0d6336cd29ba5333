"""What several codecs need: checked options, small JSON files, empty coordinates.

It knows the messages that they share and no field type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from omnifill.errors import DataError, RecipeError, RunError, unknown_name
from omnifill.files import write_atomic
from omnifill.types import Bools, Grammar, Ints

OPTIONS = "schema.fields.NAME.options"
"""Where a codec's options stand in the recipe; a codec does not know its field's name."""
IMAGE_OPTIONS = ("height", "width", "mode", "fit")
"""Options of an image field that say what its values are; its codec's come beside them."""
SOUND_OPTIONS = ("rate", "seconds")
"""The same of an audio field."""
MOST_CODES = 1 << 16
AT_ONCE = 16
"""Values in one pass of a codec that learns, always: one is the same alone and among others."""


@dataclass(frozen=True)
class LossSum:
    """A loss as a sum and the number of values that it is summed over."""

    total: Tensor
    count: Tensor

    @classmethod
    def of(cls, losses: Tensor) -> LossSum:
        """From the (N,) losses of values."""
        return cls(losses.sum(), torch.tensor(float(len(losses))))


def in_groups(values: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Groups of `AT_ONCE`, the last one filled up with its first; and how many count."""
    for at in range(0, len(values), AT_ONCE):
        some = values[at : at + AT_ONCE]
        yield some + [some[0]] * (AT_ONCE - len(some)), len(some)


def levels_option(options: Mapping[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    """The option `levels`: values of each number that is rounded to a code."""
    value = options.get("levels", default)
    whole = isinstance(value, (list, tuple)) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 2 for n in value
    )
    if not whole or not value or math.prod(value) > MOST_CODES:
        raise RecipeError(
            f"{OPTIONS}.levels = {value!r}: must be whole numbers from 2 on, such as "
            f"{list(default)}, whose product is at most {MOST_CODES:,}"
        )
    return tuple(value)


def check_options(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """RecipeError for an option that the codec does not have, with the nearest that it has."""
    names = list(known)
    for key in options:
        if key not in names:
            raise RecipeError(f"{OPTIONS}.{key}: {unknown_name('option', key, names)}")


def int_option(
    options: Mapping[str, Any], key: str, default: int | None, low: int, high: int
) -> int | None:
    """The option as an int in [low, high]; None stands for the default."""
    value = options.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RecipeError(
            f"{OPTIONS}.{key} = {value!r}: must be a whole number from {low} to {high}"
        )
    return value


def nothing_to_learn(kind: str) -> DataError:
    """The error of a codec that was given no value at all."""
    return DataError(
        f"a {kind} field has no value in the training part: every cell is blank; "
        "leave the column out (data.drop)"
    )


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write plain data, the same bytes on every platform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def write_weights(path: Path, network: nn.Module) -> None:
    """Write a network's weights, whole or not at all."""
    write_atomic(path, save({n: t.contiguous() for n, t in network.state_dict().items()}))


def read_learned(
    folder: Path, names: tuple[str, str], build: Callable[[dict[str, Any]], tuple[Any, nn.Module]]
) -> tuple[Any, nn.Module]:
    """The config and the network of a codec that learns, as its `save` left them.

    `names`: of its files of settings and of weights; `build`: settings -> config and network.
    RunError names the file that is damaged.
    """
    settings, weights = (folder / name for name in names)
    tree = read_json(settings)
    try:
        config, network = build(tree)
    except (KeyError, TypeError, ValueError, AttributeError, RecipeError) as error:
        raise damaged(settings, str(error)) from None
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise damaged(weights, str(error)) from None
    return config, network.eval()


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; RunError names the file if that is impossible."""
    try:
        tree = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except OSError as error:
        raise damaged(path, error.strerror or "cannot be read") from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise damaged(path, "no JSON object")
    return tree


def damaged(path: Path, why: str) -> RunError:
    """The error for a codec's file that cannot be used."""
    return RunError(
        f"{path}: the codec's file is missing or damaged ({why}); "
        "restore it from a copy, or train again"
    )


def no_coords(n: int) -> Ints:
    """(n, 3) of zeros: the coordinates of a plain field's codes."""
    return np.zeros((n, 3), np.int64)


def grid_coords(n: int, columns: int) -> Ints:
    """(n, 3): row and column of the first n codes of a grid that is written row by row."""
    at = np.arange(n)
    return np.stack([at // columns, at % columns, np.zeros(n, np.int64)], axis=1)


def known_places(keep: Bools, grid: tuple[int, int], stride: int) -> Bools:
    """(rows × columns,): which places of a grid, squares of `stride` pixels a side, are known as a
    whole; keep: (height, width)."""
    rows, columns = grid
    whole = np.ones((rows * stride, columns * stride), bool)
    whole[: keep.shape[0], : keep.shape[1]] = keep
    places: Bools = whole.reshape(rows, stride, columns, stride).all(axis=(1, 3)).reshape(-1)
    return places


def of_length(slots: int, size: int) -> Grammar:
    """Any `slots` codes out of `size`, then the end."""
    allowed = np.ones((slots + 1, size + 1), bool)
    allowed[:-1, -1] = False
    allowed[-1, :-1] = False
    after = np.minimum(np.arange(1, slots + 2), slots)
    return Grammar(allowed, np.repeat(after[:, None], size, axis=1))


def one_code_grammar(size: int) -> Grammar:
    """Any one of `size` codes, then the end."""
    return of_length(1, size)
