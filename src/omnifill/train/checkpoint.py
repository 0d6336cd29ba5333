"""Checkpoints that survive a kill at any moment, and say so when they are damaged.

A checkpoint is a folder `step-00001234` of safetensors and JSON, written beside under another
name, flushed, hashed, and renamed. The newest folder whose hashes agree is the one that counts;
there is no pointer file that could disagree with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from omnifill.errors import RunError
from omnifill.files import sync_file, sync_folder

TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "manifest.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors and plain data, as they were at `step`."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write `folder/step-…`; older ones go once the new one stands, except the one before."""
    target = folder / f"step-{step:08d}"
    beside = folder / f".{target.name}.{os.getpid()}.part"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        contiguous = {n: t.detach().contiguous() for n, t in tensors.items()}
        save_file(contiguous, beside / TENSORS)
        (beside / STATE).write_text(json.dumps(dict(state)), encoding="utf-8")
        sums = {name: hash_file(beside / name) for name in (TENSORS, STATE)}
        (beside / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
        for name in (TENSORS, STATE, MANIFEST):
            sync_file(beside / name)
        sync_folder(beside)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise RunError(
            f"checkpoint at step {step} could not be written to {folder} ({error.strerror}); "
            f"the one before stands: free some space and continue with --resume"
        ) from error
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint, and a sentence for each damaged one that was passed over."""
    damaged = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            _verify(path)
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            tensors = load_file(path / TENSORS)
        except (OSError, ValueError, KeyError) as error:
            damaged.append(f"checkpoint {path.name} is damaged ({error}); using the one before")
            continue
        return Checkpoint(int(path.name.removeprefix("step-")), tensors, state), damaged
    return None, damaged


def _verify(path: Path) -> None:
    sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    for name in (TENSORS, STATE):
        if hash_file(path / name) != sums[name]:
            raise ValueError(f"{name} does not match its hash")


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
