"""Every objective by name; nothing is imported before it is chosen."""

from __future__ import annotations

from typing import Any

from omnifill.named import load_class

OBJECTIVES = {"causal": "omnifill.objectives.causal:CausalObjective"}


def load_objective(name: str) -> Any:
    """The class called `name`, or the one at 'module:Class'. For recipes only."""
    return load_class("objective", name, OBJECTIVES)
