"""The recipe: every setting of a run, typed, in one tree.

Load, override by path, check, dump. An unknown key is an error that names the nearest known one.
Nothing edits a recipe after it is loaded; the resolved recipe is written into the run folder,
and training from it again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from omnifill.errors import RecipeError
from omnifill.paths import set_path
from omnifill.settings import (
    DataSettings,
    FormSettings,
    GenerateSettings,
    ModelSettings,
    ObjectiveSettings,
    SchemaSettings,
    Settings,
    TrainSettings,
)
from omnifill.unfit import explain

PAIR = {"given": ["prompt"], "want": ["chosen"], "against": "rejected"}
"""The task of a table of preferences that names none."""


class Recipe(Settings):
    """All settings of a run."""

    data: DataSettings = Field(default_factory=DataSettings)
    schema_: SchemaSettings = Field(default_factory=SchemaSettings, alias="schema")
    form: FormSettings = Field(default_factory=FormSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    objective: ObjectiveSettings = Field(default_factory=ObjectiveSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    generate: GenerateSettings = Field(default_factory=GenerateSettings)

    @model_validator(mode="after")
    def _has_the_side(self) -> Recipe:
        if self.model.encoder_layers and self.objective.name in ("causal", "masked"):
            raise ValueError(
                "model.encoder_layers is a setting of objective 'seq2seq', and this is "
                f"{self.objective.name!r}: leave it out"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _usual_pairs(cls, tree: Any) -> Any:
        """Preferences without named tasks are those that such tables usually hold."""
        if not isinstance(tree, dict) or not isinstance(objective := tree.get("objective"), dict):
            return tree
        form = tree.get("form") or {}
        if objective.get("name") != "dpo" or not isinstance(form, dict) or form.get("tasks"):
            return tree
        return {**tree, "form": {**form, "tasks": [PAIR]}}

    @model_validator(mode="after")
    def _has_pairs(self) -> Recipe:
        paired = self.objective.name == "dpo"
        if paired and self.train.base is None:
            raise ValueError("objective 'dpo' goes on from a network that is there: name it as "
                             "train.base (--base)")  # fmt: skip
        for task in self.form.tasks:
            if paired and task.against is None:
                raise ValueError("form.tasks: with objective 'dpo' each names the field `against` "
                                 "which the wanted one is preferred")  # fmt: skip
            if task.against is not None and self.objective.name in ("causal", "masked", "seq2seq"):
                raise ValueError("form.tasks: `against` is of objective 'dpo'; leave it out")
        return self

    def with_values(self, **changes: Any) -> Recipe:
        """A copy with dotted paths set: `with_values(**{"train.steps": 100})`."""
        tree = to_dict(self)
        for path, value in changes.items():
            set_path(tree, path, value)
        return from_dict(tree)


def load_recipe(path: Path) -> Recipe:
    """Read a YAML recipe."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path}: is not YAML in UTF-8: {error}") from None
    except RecursionError:
        raise RecipeError(f"recipe {path}: is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"recipe {path}{line}: is not YAML: {why}") from None
    if not isinstance(tree, dict | None):
        raise RecipeError(f"recipe {path}: must hold keys such as 'train:', not {tree!r}")
    return from_dict(tree or {})


def from_dict(tree: Mapping[str, Any]) -> Recipe:
    """Build a checked recipe; RecipeError names the key, the value and what is allowed."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe)) from None


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The whole tree as plain data, defaults included."""
    return recipe.model_dump(mode="json", by_alias=True)


def dump_recipe(recipe: Recipe) -> str:
    """The whole tree as YAML."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)
