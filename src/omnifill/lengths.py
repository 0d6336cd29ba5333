"""How long a run is, as a recipe says it."""

from __future__ import annotations

import re


def parse_duration(text: str) -> float:
    """'90s', '10m', '1.5h' -> seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a time; write 90s, 10m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 1}[match[2]]


def rising(knots: list[tuple[int, float]] | None) -> list[tuple[int, float]] | None:
    """The knots of a schedule, if they are ones; else ValueError."""
    steps = [step for step, _ in knots or [(1, 0.0)]]
    if steps != sorted(steps) or steps[0] < 0 or steps[-1] < 1:
        raise ValueError("must be knots [step, share], steps rising, the last one above 0")
    return knots
