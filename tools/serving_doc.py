"""Write docs/serving.md from the server's own tables: `python tools/serving_doc.py [--check]`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from omnifill.serve import protocol
from omnifill.serve.document import REFUSED
from omnifill.serve.limits import Limits
from omnifill.serve.protocol import Said

TARGET = Path(__file__).parent.parent / "docs" / "serving.md"
REQUESTS = (
    protocol.Completion, protocol.Chat, protocol.Records, protocol.Scored, protocol.Embedding,
    protocol.Pictures, protocol.Speech, protocol.Tokenize, protocol.Detokenize, protocol.Jobs,
)  # fmt: skip
PARTS = (
    protocol.Message, protocol.TextPart, protocol.StreamOptions, protocol.PlainFormat,
    protocol.ObjectFormat, protocol.SchemaFormat, protocol.JsonSchema, protocol.JobRequest,
)  # fmt: skip
HEAD = """# Serving

`omnifill serve RUN…` answers HTTP: the routes that clients of the OpenAI API know, and our own
for records of any fields. Every field of a request has its effect or is refused by name, with
status 400 and `{"error": {"message", "type", "param", "code"}}`. The same request gives the same
answer: where no seed is said it is 0.

```
omnifill serve run --port 8000
```

```
curl http://127.0.0.1:8000/v1/records -H 'Content-Type: application/json' \\
  -d '{"model": "run", "given": {"species": "Gentoo"}, "n": 3}'
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")
print(client.completions.create(model="run", prompt="It was", max_tokens=40).choices[0].text)
```

Without a key it answers this machine alone. Others reach it with `--host`, a key (`--keys FILE`,
or `OMNIFILL_API_KEY`) that every request brings as `Authorization: Bearer …` (those to `/health`,
`/ready` and `/metrics`, too), and `--allow-host NAME` for each name that it is called by. Nothing
is fetched for a client, no path of a request is ever read, and what is asked is in no log.

Requests of one model are written side by side (continuous batching), `--rows` of them at once;
who comes later waits, `--waiting` requests in all, and one more is refused with status 429 and
`Retry-After`, before its question is read; each prompt of a list counts as one, so that a list has
no more than that either. Of prompts some 256 tokens are read between two steps, those that came
first ahead, so that who writes does not wait for the prompts of many. Searches (`beams`, which take
a row each), comparing candidates (half of the rows), likelihoods and vectors take turns with the
others, some 2,000 tokens or a step each.
What prompts begin with is kept, 128 tokens at a time and 256 MB for each model, and need not be
read again: a system prompt, or a conversation so far (`omnifill_tokens_reused` in `/metrics`). All
keys share them, so that whoever measures time can tell that a beginning was asked before.
Many texts at once are told of several tokens at a time, some 250 pieces a second over all of
them, the first at once; one alone is told of each token. `--memory` says how many gigabytes all
models may take: weights, what is kept of texts while they are written, and what prompts begin with.
What comes does not hang on who else is there; with `--exact` to the last
bit. Who leaves frees what he had within one step. SIGTERM ends it: requests under way are
finished within 30 seconds, or told that the server goes (`going`), and jobs go on when the
server is back.

`response_format`, `schema`, `regex` and `grammar` need the extra `structured`, and `rerank` the
extra `evaluate`; where one is missing the answer names it.

Long work is handed in at `/v1/jobs`, a list of requests that nobody waits for. What was
acknowledged is in a database (`--jobs`: a file of SQLite, or PostgreSQL with the extra
`postgres`) and survives a server that is killed; parts that are there are not made again. The
same `Idempotency-Key` brings the job that is there. The result is a line of JSON for each
request, and `X-Content-SHA256` is its hash. `POST /v1/jobs/ID/cancel` calls one off, and
`DELETE /v1/jobs/ID` forgets one that is over; nothing else does.

With the extra `ui` there is a page at `/` (in Chinese at `/zh/`), which asks the same API;
`--no-page` leaves it out. Where keys are said, browsers log in with one at `/login`.

`GET /health`, `/ready` and `/metrics` (Prometheus) tell how it is; `GET /v1/models`, and
`/v1/models/{name}/schema` the fields of one; `GET /openapi.json` all of this for programs.

lm-evaluation-harness runs against it, and finds the model's tokens at `/tokenize` and
`GET /tokenizer_info`:

```
lm_eval --model local-completions --tasks TASK \\
  --model_args model=run,base_url=http://127.0.0.1:8000/v1/completions
```

This page is made from the code by `tools/serving_doc.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for request in (*REQUESTS, *PARTS):
        parts += table(request)
    parts += ["## Limits", "", "| what | most | |", "|---|---|---|"]
    about = attribute_docs(Limits)
    parts += [f"| {f.name} | {f.default:,} | {about[f.name]} |"
              for f in dataclasses.fields(Limits)]  # fmt: skip
    parts += ["", "## Status", "", "| status | when |", "|---|---|"]
    statuses = {200: "The answer.", 202: "A job was taken."} | REFUSED
    parts += [f"| {status} | {when} |" for status, when in statuses.items()] + [""]
    return "\n".join(parts)


def table(request: type[Said]) -> list[str]:
    """A heading and a row for each field."""
    title = (request.__doc__ or "").strip().rstrip(".")
    out = [f"## {title}", "", "| field | values | default | what it does |", "|---|---|---|---|"]
    schema = request.model_json_schema()
    for name, field in request.model_fields.items():
        said = schema["properties"][field.alias or name]
        default = "required" if field.is_required() else shown(field.default)
        about = " ".join((field.description or "").split()).replace("|", "\\|")
        out.append(f"| `{field.alias or name}` | {values(said, schema)} | {default} | {about} |")
    return [*out, ""]


def shown(default: Any) -> str:
    return "open" if default is None else f"`{str(default).lower()}`"


def values(said: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a field may be, in words."""
    if "$ref" in said:
        inner = schema["$defs"][said["$ref"].rpartition("/")[2]]
        return str(inner.get("description", "an object")).strip().rstrip(".").lower()
    for key in ("anyOf", "oneOf"):
        if key in said:
            kinds = [values(part, schema) for part in said[key] if part.get("type") != "null"]
            return ", or ".join(dict.fromkeys(kinds))
    if "const" in said:
        return f"`{str(said['const']).lower() if said['const'] is True else said['const']}`"
    if "enum" in said:
        return ", ".join(f"`{one}`" for one in said["enum"])
    kind = {"integer": "whole number", "array": "list", "string": "text", "boolean": "true, false",
            "object": "object"}.get(said.get("type", ""), said.get("type", "any"))  # fmt: skip
    low = said.get("minimum", said.get("exclusiveMinimum"))
    high = said.get("maximum", said.get("exclusiveMaximum"))
    if low is not None and high is not None:
        kind += f" from {low:,} to {high:,}"
    if kind == "list":
        kind += f" of {values(said.get('items', {}), schema)}"
        kind += f" (at most {said['maxItems']:,})" if "maxItems" in said else ""
    return kind


def attribute_docs(kind: type) -> dict[str, str]:
    """The docstrings under a dataclass's fields."""
    source = inspect.getsource(kind)
    found = re.findall(r'    (\w+): \w+ = [^\n]*\n    """(.*?)"""', source, re.DOTALL)
    return {name: " ".join(about.split()) for name, about in found}


def main() -> None:
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != page():
            sys.exit("docs/serving.md is out of date: run python tools/serving_doc.py")
        return
    TARGET.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
