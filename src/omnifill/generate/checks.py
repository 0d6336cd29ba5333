"""Options that a model cannot heed, or that would have no effect, are refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError
from omnifill.generate.aims import Aim
from omnifill.generate.filters import Sampling

MOST_CANDIDATES = 256
FORWARDS = ("beams", "length_penalty", "repetition_penalty", "no_repeat_ngram")
"""Sampling options of models that write from left to right."""
AT_ONCE = ("steps", "order", "remask")
"""Those of masked models."""


def check_sampler(run: LoadedRun, sampling: Sampling, suffix: str | None = None) -> None:
    """RequestError for an option that this kind of model cannot heed."""
    usual = Sampling()
    canvas = run.vocabulary.canvas
    for name in FORWARDS if canvas else AT_ONCE:
        if getattr(sampling, name) != getattr(usual, name):
            kind = "writes from left to right" if not canvas else "chooses slots in any order"
            wanted = "masked" if not canvas else "causal"
            raise RequestError(
                f"{name}: this model {kind}; the option is for models trained with "
                f"--set objective.name={wanted}"
            )
    if suffix is not None and not canvas:
        raise RequestError(
            "--suffix: this model writes from left to right and cannot aim at an end; train one "
            "with --set objective.name=masked"
        )


def check_candidates(
    aims: Sequence[Aim], candidates: int | None, sampling: Sampling, rerank: int
) -> None:
    """RequestError where candidates have no aims, or all would be one."""
    if candidates is not None and not aims:
        raise RequestError("candidates are compared by aims; name some")
    if candidates is not None and not 1 <= candidates <= MOST_CANDIDATES:
        raise RequestError(f"candidates = {candidates}: must be from 1 to {MOST_CANDIDATES}")
    if aims and (sampling.beams > 1 or sampling.temperature == 0 or rerank > 1):
        raise RequestError(
            "aims choose among drawn candidates: leave out beams, rerank and temperature 0"
        )


def check_guidance(run: LoadedRun, given: Mapping[str, Any]) -> None:
    """RequestError where there is nothing to lean towards, or nothing to compare it with."""
    if not given:
        raise RequestError("guidance strengthens what is given, and nothing is given")
    if run.recipe.form.tasks and not run.recipe.form.drop_given:
        raise RequestError(
            "guidance compares with records read without what is given, and this run never saw "
            "any: train with form.drop_given above 0"
        )
