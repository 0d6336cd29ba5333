"""What is wrong with a tree of settings, in words for people who do not know Python."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from omnifill.errors import unknown_name

PLAIN = {
    "list_type": "must be a list, such as [a, b]",
    "model_type": "must be a group of settings, key: value",
    "dict_type": "must be a group of settings, key: value",
    "bool_type": "must be true or false",
    "string_type": "must be a text; put it in quotes",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
}
"""pydantic's words for what a person of no Python expects to read differently."""


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _keys_at(item["loc"][:-1], root)
            lines.append(f"{where}: {unknown_name('setting', str(item['loc'][-1]), known)}")
        else:
            what = PLAIN.get(item["type"]) or item["msg"].removeprefix("Value error, ")
            # A whole group of settings says less than its name.
            value = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
            lines.append(f"{where}{value}: {what}" if where else what)
    return "recipe: " + "; ".join(lines)


def _keys_at(path: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Known keys of the group of settings at a path of the tree."""
    node: Any = root
    for part in path:
        if not (isinstance(node, type) and issubclass(node, BaseModel)):
            break
        names = {(f.alias or n): f.annotation for n, f in node.model_fields.items()}
        node = names.get(str(part), node)
        args = getattr(node, "__args__", ())
        inner = [a for a in args if isinstance(a, type) and issubclass(a, BaseModel)]
        if inner:  # list[Task] or dict[str, FieldSettings]: the element's keys
            node = inner[-1]
    if isinstance(node, type) and issubclass(node, BaseModel):
        return [f.alias or n for n, f in node.model_fields.items()]
    return []
