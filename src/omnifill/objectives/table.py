"""Every objective by name; nothing is imported before it is chosen."""

from __future__ import annotations

from typing import Any

from omnifill.form.vocabulary import Vocabulary
from omnifill.named import load_class
from omnifill.settings import ObjectiveSettings

OBJECTIVES = {
    "causal": "omnifill.objectives.causal:CausalObjective",
    "seq2seq": "omnifill.objectives.seq2seq:Seq2SeqObjective",
    "masked": "omnifill.objectives.masked:MaskedObjective",
    "dpo": "omnifill.objectives.preference:PreferenceObjective",
}


def load_objective(name: str) -> Any:
    """The class called `name`, or the one at 'module:Class'. For recipes only."""
    return load_class("objective", name, OBJECTIVES)


def build_objective(settings: ObjectiveSettings, vocabulary: Vocabulary) -> Any:
    """The objective that a recipe names, with its settings."""
    options = settings.model_dump(exclude={"name"}, exclude_none=True)
    return load_objective(settings.name)(vocabulary, **options)


def on_canvas(name: str) -> bool:
    """Whether the objective's records have all their slots before any is chosen."""
    return bool(getattr(load_objective(name), "canvas", False))
