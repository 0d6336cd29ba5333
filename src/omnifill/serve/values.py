"""Values of fields as they go over the wire: JSON, with pictures and sounds in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.results import USUAL, Origin, encoded
from omnifill.data.values import to_native, to_text
from omnifill.errors import RequestError
from omnifill.schema import MEDIA, FieldSpec
from omnifill.serve.opener import OPENED


def read_record(run: LoadedRun, record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Values of a request as the library takes them, files among them opened; RequestError says
    which is none."""
    try:
        specs = [run.schema[key] for key in record]
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None
    return {spec.name: _read(spec, record[spec.name], f"{name}.{spec.name}") for spec in specs}


def _read(spec: FieldSpec, value: Any, name: str) -> Any:
    if spec.type == "number" and isinstance(value, bool):
        raise RequestError(f"{name}: must be a number, not {str(value).lower()}")
    if value is None or (spec.type not in MEDIA and isinstance(value, str | int | float)):
        return value
    if spec.type not in MEDIA:
        raise RequestError(f"{name}: must be text, a number, true, false or null")
    return to_native(spec, base64.b64decode(value[OPENED]))


def told(spec: FieldSpec, value: Any, origin: Origin, kind: str | None = None) -> Any:
    """A canonical value in JSON's terms. `kind`: what a picture or sound is written as."""
    if value is None:
        return None
    native = to_native(spec, value)
    if spec.type in MEDIA:
        kind = kind or USUAL[spec.type]
        data = base64.b64encode(encoded(native, kind, origin)).decode("ascii")
        return {"type": spec.type, "format": kind, "data": data}
    return native if isinstance(native, str | int | float | bool) else to_text(spec, native)


def described(run: LoadedRun) -> dict[str, Any]:
    """What a client needs to know to ask this model for records."""
    return {
        "fields": [_described(run, spec) for spec in run.schema.fields],
        "tasks": [task.model_dump() for task in run.recipe.form.tasks],
        "objective": run.recipe.objective.name, "stream": run.schema.stream,
        "context": run.network.config.context, "masked": run.vocabulary.canvas,
    }  # fmt: skip


def _described(run: LoadedRun, spec: FieldSpec) -> dict[str, Any]:
    field = {"name": spec.name, "type": spec.type, "optional": spec.optional}
    if spec.type == "category":
        codec: Any = run.vocabulary[spec.name].codec
        field["values"] = list(codec.values)
    shown = ("width", "height", "mode", "rate", "samples", "format", "decimals", "low", "high")
    return field | {key: spec.options[key] for key in shown if key in spec.options}
