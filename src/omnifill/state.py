"""`run.json`: what a run folder says of itself, read without what its model needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnifill.errors import RunError
from omnifill.files import reason

STATE = "run.json"
FORMAT = 2
"""Raised when a run folder of this version cannot be read by older ones."""


def is_run(path: Path) -> bool:
    """Whether a run's folder is there, whole or not."""
    return (path / STATE).exists()


def read_text(path: Path) -> str:
    """A file of a run folder. RunError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RunError(f"{path}: cannot be read ({why}); is the run folder whole?") from None


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # the latter of what is nested too deeply
        raise RunError(f"{path}: is damaged ({error})") from None


def check_finished(folder: Path) -> None:
    """RunError for a run whose training has not come to its end."""
    if read_state(folder).get("state") != "done":
        raise RunError(f"{folder}: its training has not finished; continue it with "
                       f"`omnifill train DATA --out {folder} --resume`")  # fmt: skip


def read_state(folder: Path) -> dict[str, Any]:
    """RunError if this is no run folder or one from a newer version."""
    if not folder.exists():
        raise RunError(f"{folder}: there is no such run folder")
    if not folder.is_dir():
        raise RunError(f"{folder}: is a file; a run is the folder that `train` wrote")
    if not is_run(folder):
        raise RunError(f"{folder}: is not a run folder (no {STATE} in it)")
    state = read_json(folder / STATE)
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise RunError(f"{folder / STATE}: is damaged (no format number)")
    if state["format"] > FORMAT:
        raise RunError(
            f"{folder}: was written by a newer Omnifill ({state.get('omnifill')}, format "
            f"{state['format']}; this one reads up to {FORMAT}). Please update Omnifill"
        )
    if state.get("state") == "done" and not isinstance(state.get("training"), dict):
        raise RunError(f"{folder / STATE}: is damaged (nothing about its training)")
    return state
