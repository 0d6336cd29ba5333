"""Chat templates in Jinja: programs of somebody else's, which are run within `generate.sandbox`.

Jinja's own sandbox keeps them from reaching out.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """`{% generation %}` marks what an assistant says; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def run(template: str, values: dict[str, Any]) -> str:
    """The text that a template writes. TemplateError and others for one that cannot."""
    box = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    box.filters["tojson"] = _to_json
    box.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return box.from_string(template).render(**values)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(why: str) -> None:
    raise TemplateError(why)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
