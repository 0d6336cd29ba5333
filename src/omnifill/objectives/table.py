"""Every objective by name; nothing is imported before it is chosen."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from omnifill.errors import RecipeError, unknown_name

OBJECTIVES = {"causal": "omnifill.objectives.causal:CausalObjective"}


def load_objective(name: str) -> Any:
    """The class called `name`, or the one at 'module:Class'. For recipes only."""
    module, _, attr = OBJECTIVES.get(name, name).partition(":")
    if not attr:
        raise RecipeError("objective.name: " + unknown_name("objective", name, OBJECTIVES))
    return getattr(import_module(module), attr)
