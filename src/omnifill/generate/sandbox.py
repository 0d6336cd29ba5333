"""A process of its own that runs one chat template and ends: `python -m omnifill.generate.sandbox`.

A template is a program of somebody else's. Jinja's sandbox keeps it from reaching out; that it
neither loops for ever nor fills the memory is up to the system, which stops the process. It reads
JSON ({"template", "values"}) and writes JSON ({"text"} or {"error"}).
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from omnifill.bounded import limit

SECONDS, MEMORY = 2, 1 << 30
"""Of the processor, and bytes."""


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


def main() -> None:
    asked = json.load(sys.stdin)
    limit(MEMORY, SECONDS)
    try:
        out = {"text": run(asked["template"], asked["values"])}
    except Exception as error:  # whatever somebody else's program comes up with
        out = {"error": str(error) or type(error).__name__}
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
