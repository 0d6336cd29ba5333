"""Classes by name: one of ours out of a literal table, or the caller's own as 'module:Class'."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from omnifill.errors import RecipeError, unknown_name


def load_class(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The class called `name`. RecipeError if there is none.

    For recipes only: a name out of a run folder or a request must not come here unchecked,
    because importing a module runs its code.
    """
    module, colon, attribute = table.get(name, name).partition(":")
    if not (module and colon and attribute):
        raise RecipeError(f"{unknown_name(kind, name, table)}, or your own as 'module:Class'")
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        raise RecipeError(f"{kind} {name!r}: {module} cannot be imported: {error}") from error
    except AttributeError:
        raise RecipeError(f"{kind} {name!r}: {module} has no {attribute!r}") from None
    if not isinstance(found, type):
        raise RecipeError(f"{kind} {name!r}: {attribute} is not a class")
    return found
