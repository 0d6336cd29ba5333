"""The sampler of a run's kind of model."""

from __future__ import annotations

from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.parallel import Parallel

ROWS = 512
"""Rows of a batch."""


def build_sampler(run: LoadedRun) -> Any:
    """What makes records of a plan: slot by slot, or all slots in a few steps."""
    if run.vocabulary.canvas:
        return Parallel(run.network, run.vocabulary, run.objective.columns, run.objective.schedule)
    return Autoregressive(run.network, run.vocabulary, run.objective.columns)
