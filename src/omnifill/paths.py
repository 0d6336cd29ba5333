"""Dotted paths into a tree of settings: 'train.steps', 'schema.fields.NAME.type'."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from omnifill.errors import RecipeError


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as {'train.steps': 100, …}."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        out |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return out


def parse_sets(pairs: Iterable[str]) -> dict[str, Any]:
    """['train.lr=0.01'] -> {'train.lr': 0.01}; values are YAML."""
    out: dict[str, Any] = {}
    for pair in pairs:
        path, eq, value = pair.partition("=")
        if not eq or not path:
            raise RecipeError(f"--set {pair!r}: write it as key.path=value")
        try:
            out[path.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError):
            out[path.strip()] = value
    return out


def to_set(path: str, names: Sequence[str]) -> str:
    """What sets a list of names, as typed: '--set data.drop=[a]', in quotes where a shell needs
    them."""
    value = yaml.safe_dump(list(names), default_flow_style=True, allow_unicode=True, width=10**6)
    return "--set " + shlex.quote(f"{path}={value.strip()}")


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value into a tree, making groups on the way. RecipeError if a value stands in it."""
    *parents, last = split_path(path)
    for key in parents:
        child = tree.get(key)
        if child is None:
            child = tree[key] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"{path}: {key!r} holds a value, not further keys")
        tree = child
    tree[last] = value


def split_path(path: str) -> list[str]:
    """Dots separate keys, but a field's name may hold dots: schema.fields.NAME.key."""
    prefix = "schema.fields."
    if path.startswith(prefix) and "." in path[len(prefix) :]:
        rest = path[len(prefix) :]
        name, _, key = rest.rpartition(".")
        for group in ("options", "learn"):
            field, found, inner = rest.rpartition(f".{group}.")
            if found:
                return ["schema", "fields", field, group, inner]
        return ["schema", "fields", name, key]
    return path.split(".")
