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


def encoded(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Canonical columns -> a shard in memory. ValueRefused for what a field cannot hold."""
    if run.schema.stream:
        return whole_stream(run.vocabulary, columns)
    return encode_records(run.vocabulary, columns, None)[0]


def encoded_to_ask(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """The same for what other fields are told from: long texts as training read them."""
    if run.schema.stream or run.recipe.form.windows:
        return encoded(run, columns)
    shard, cuts = encode_records(run.vocabulary, columns, run.network.config.context)
    if str(cuts):
        warnings.warn(
            f"cut to fit {run.network.config.context} tokens a record, as in training: {cuts}",
            stacklevel=2,
        )
    return shard
