"""Values that a user gives, as the model holds them: checked, cleaned and encoded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.clean import build_cleaner
from omnifill.data.shards import Shard
from omnifill.data.values import parse_value
from omnifill.errors import ValueRefused
from omnifill.form.encode import encode_records, whole_stream
from omnifill.schema import FieldSpec

ROOM = 16
"""Slots of a canvas that a text that is cut leaves to what is asked for beside it."""


def parse_given(run: LoadedRun, spec: FieldSpec, value: Any) -> Any:
    """A user's value -> canonical; a category's value must be one that was seen."""
    parsed = parse_value(spec, value)
    if isinstance(parsed, float) and spec.native == "int" and not parsed.is_integer():
        raise ValueRefused(f"field {spec.name!r}: {value!r} is no whole number, as all of it are")
    if parsed is not None:
        cleaner = build_cleaner(spec, run.recipe.data.clean, run.schema.stream)
        parsed = parsed if cleaner is None else cleaner(parsed)
        try:
            run.vocabulary[spec.name].codec.encode(parsed)
        except ValueRefused as error:
            raise ValueRefused(f"field {spec.name!r}: {error}") from None
    return parsed


def as_learned(run: LoadedRun, spec: FieldSpec, part: str | None) -> str | None:
    """A part of a text, cleaned as training texts were; its white space stays, since it joins."""
    cleaner = build_cleaner(spec, run.recipe.data.clean, stream=True)
    return part if part is None or cleaner is None else cleaner(part)


def encoded(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Canonical columns -> a shard in memory. ValueRefused for what a field cannot hold."""
    if run.schema.stream:
        return whole_stream(run.vocabulary, columns)
    return encode_records(run.vocabulary, columns, None)[0]


def encoded_to_ask(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """The same for what other fields are told from: long texts as training read them."""
    return encoded(run, columns) if run.schema.stream else in_view(run, columns)


def in_view(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Records, or parts of one text, that the model can look at: cut, with a warning, where all of
    a record must be seen at once."""
    canvas = run.vocabulary.canvas  # which has no windows to read a long record in
    context = run.network.config.context
    whole = run.schema.stream or (run.recipe.form.windows and not canvas)
    shard, cuts = encode_records(
        run.vocabulary, columns, None if whole else context, ROOM if canvas else 0
    )
    if str(cuts):
        said = f"cut to fit the {context} tokens of a record that are in view: {cuts}"
        warnings.warn(said, stacklevel=2)
    return shard
