"""The OpenAPI document: what every route takes and answers, errors and streams among it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

REFUSED = {
    400: "Something about the request is wrong; `message` says what, `param` where.",
    401: "No key, or none that the server knows.",
    404: "No such model.",
    409: "A key that came with another body, or a job that is not done.",
    408: "It took too long, or the client has left.",
    413: "The body is too large.",
    429: "The server is full; `Retry-After` says when to ask again.",
    431: "Too many headers.",
    500: "A fault of the server.",
    503: "The server is starting, or going.",
}
TEXT = {"type": "string"}
NULLABLE = {"type": ["string", "null"]}
ERROR = {
    "type": "object", "required": ["error"], "properties": {"error": {
        "type": "object", "required": ["message", "type", "param", "code"],
        "properties": {"message": TEXT, "type": TEXT, "param": NULLABLE, "code": NULLABLE},
    }},
}  # fmt: skip
COUNTED = {
    "type": "object", "required": ["prompt_tokens", "completion_tokens"],
    "properties": {"prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"}},
}  # fmt: skip


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": [*required, *properties],
            "properties": {name: {} for name in required} | properties}  # fmt: skip


def _listed(**properties: Any) -> dict[str, Any]:
    return _object(data={"type": "array", "items": _object(**properties)})


JOB = _object("created", "changed", "total", "finished", "sha256", "error", id=TEXT, object=TEXT,
              state={"type": "string", "enum": ["queued", "running", "done", "failed",
                                                "cancelled"]})  # fmt: skip
WRITTEN = _object("id", "created", "model", choices={"type": "array"}, usage=COUNTED, object=TEXT)
EVENTS = {"description": "Events whose data is JSON; that of the last is [DONE]."}
"""No type: some take the schema for that of the stream's text, others for that of an event."""
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/models": {"application/json": _listed(id=TEXT, object=TEXT)},
    "/v1/models/{name}": {"application/json": _object(id=TEXT, object=TEXT)},
    "/v1/models/{name}/schema": {"application/json": _object("tasks", id=TEXT,
                                                            fields={"type": "array"})},
    "/v1/completions": {"application/json": WRITTEN, "text/event-stream": EVENTS},
    "/v1/chat/completions": {"application/json": WRITTEN, "text/event-stream": EVENTS},
    "/v1/embeddings": {"application/json": _listed(object=TEXT, index={"type": "integer"})},
    "/v1/images/generations": {"application/json": _listed(b64_json=TEXT)},
    "/v1/audio/speech": {"audio/wav": {}, "audio/flac": {}},
    "/v1/records": {"application/json": _object("finish_reasons", "usage",
                                                data={"type": "array"}),
                    "text/event-stream": EVENTS},
    "/v1/records/score": {"application/json": _listed(fields={"type": "object"})},
    "/tokenize": {"application/json": _object(tokens={"type": "array"})},
    "/detokenize": {"application/json": _object(prompt=TEXT)},
    "/tokenizer_info": {"application/json": _object(bos_token=NULLABLE, eos_token=NULLABLE,
                                                    chat_template=NULLABLE)},
    "/v1/jobs": {"application/json": {"type": "object"}},
    "/v1/jobs/{id}": {"application/json": JOB},
    "/v1/jobs/{id}/cancel": {"application/json": JOB},
    "/v1/jobs/{id}/result": {"application/jsonl": TEXT},
    "/metrics": {"text/plain": TEXT},
    "/health": {"application/json": _object(status=TEXT)},
    "/ready": {"application/json": _object(status=TEXT)},
}  # fmt: skip


def describe(app: FastAPI, models: Callable[[], list[str]]) -> None:
    """Make the document say what the server does. `models`: names of those that are served."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _true(plain(), models())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _true(document: dict[str, Any], models: list[str]) -> dict[str, Any]:
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    for schema in schemas.values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"type": "string", "enum": models}
    refused = {
        str(status): {
            "description": about,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, about in REFUSED.items()
    }
    for path, methods in document["paths"].items():
        content = {kind: {"schema": schema} for kind, schema in ANSWERS[path].items()}
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in ("name", "model"):
                    parameter["schema"] = {"type": "string", "enum": models}
            operation["security"] = [{"key": []}, {}]
            operation["responses"] = {
                "200": {"description": "The answer.", "content": content}, **refused,
            }  # fmt: skip
            if path == "/v1/jobs" and operation["operationId"].startswith("create"):
                operation["responses"]["202"] = operation["responses"]["200"]
    return document
