"""Judges are trained once for a work folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def learned(file: Path, untrained: Network, learn: Callable[[Network], None]) -> Network:
    """The network with the weights that `file` keeps; or else it learns, and they are kept."""
    if file.exists():
        untrained.load_state_dict(load_file(file))
    else:
        learn(untrained)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: x.contiguous() for name, x in untrained.state_dict().items()}, file)
    return untrained.eval()
