"""Write docs/recipe.md from the recipe's docstrings: `python tools/recipe_doc.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from omnifill.recipe import Recipe
from omnifill.settings import FieldSettings, Task

TARGET = Path(__file__).parent.parent / "docs" / "recipe.md"
HEAD = """# Recipe

Every setting, with its default. Write them in a YAML file (`--recipe FILE`), set one by its path
(`--set train.lr=0.01`), or pass them from Python (`train(..., recipe={"train": {"lr": 0.01}})`).
An unknown key is an error. What is left open is decided before step one and written into the run's
`recipe.yaml`; training from that file repeats the run.

This page is made from the code by `tools/recipe_doc.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, field in Recipe.model_fields.items():
        parts += group(field.alias or name, field.annotation)
    return "\n".join(parts)


def group(path: str, settings: Any) -> list[str]:
    """A heading, a table of the group's own keys, and its groups."""
    out = [f"## {path}", "", (settings.__doc__ or "").strip(), ""]
    rows, inner = [], []
    for name, field in settings.model_fields.items():
        kind, where = nested(field.annotation), f"{path}.{field.alias or name}"
        if kind is None:
            rows.append(f"| `{name}` | {default(field)} | {text(field.description)} |")
            continue
        if kind is FieldSettings:
            where += ".NAME"
        elif kind is Task:
            where += "[]"
        inner += group(where, kind)
    if rows:
        out += ["| key | default | what it does |", "|---|---|---|", *rows, ""]
    return out + inner


def nested(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that a key holds, if it holds one."""
    for part in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def default(field: Any) -> str:
    if field.default_factory is not None:
        return "empty"
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "open"
    return f"`{field.default!r}`" if field.default == "\n" else f"`{field.default}`"


def text(description: str | None) -> str:
    return " ".join((description or "").split()).replace("|", "\\|")


def main() -> None:
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != page():
            sys.exit("docs/recipe.md is out of date: run python tools/recipe_doc.py")
        return
    TARGET.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
