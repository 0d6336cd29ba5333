"""Records, pictures and sounds: what our own routes, and the API's media routes, make of pieces."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from omnifill.serve.link import Answer
from omnifill.serve.protocol import Pictures, Records, Speech
from omnifill.serve.refusals import Refusal

VOICES = ("voice", "speaker")
"""Fields that say who speaks."""


class Rows:
    """Records as their fields come."""

    def __init__(self, given: Mapping[str, Any], names: list[str], prompt: str | None) -> None:
        self.given, self.names, self.prompt = given, names, prompt
        self.rows: dict[int, dict[str, Any]] = {}
        self.ends: dict[int, dict[str, str]] = {}
        self.tokens: dict[int, dict[str, list[Any]]] = {}
        self.first: str | None = None
        self.usage: dict[str, int] = {}
        self.warnings: list[str] = []

    def read(self, message: dict[str, Any]) -> None:
        """One message of the engine."""
        if message["do"] == "end":
            names = ("prompt_tokens", "completion_tokens")
            self.usage = {name: message[name] for name in names}
            self.warnings = message["warnings"]
            return
        row, name = message["row"], message["field"]
        record = self.rows.setdefault(row, {})
        if "value" in message:
            record[name] = message["value"]
        elif "there" in message:
            record[name] = record.get(name, "") + message["text"] if message["there"] else None
        if message["over"]:
            self.ends.setdefault(row, {})[name] = message["over"]
        if "tokens" in message:
            told = self.tokens.setdefault(row, {})
            told.setdefault(name, []).extend(message["tokens"])

    def record(self, row: int, begun: str | None) -> dict[str, Any]:
        """A whole record, fields in order. `begun`: the text that the prompt begins."""
        made = dict(self.rows[row])
        if begun is not None and made.get(begun) is not None:
            made[begun] = f"{self.prompt}{made[begun]}"
        whole = dict(self.given) | made
        return {name: whole[name] for name in self.names if name in whole}


def begun_by(said: Records, about: dict[str, Any]) -> str | None:
    """The text that a prompt begins: the first wanted one, or the first there is."""
    if said.prompt is None:
        return None
    wanted = [name for name in said.want or about["texts"] if name in about["texts"]]
    free = [name for name in wanted if name not in said.given]
    return next(iter(free), None)


def records_question(said: Records) -> dict[str, Any]:
    """What the engine is asked for records."""
    more = {} if said.logprobs is None else {"top": said.logprobs}
    return {"do": "generate", "model": said.model, "wish": said.wish(), **more}


def rows_of(said: Records, about: dict[str, Any]) -> Rows:
    return Rows(said.given, [field["name"] for field in about["fields"]], said.prompt)


async def whole_records(said: Records, about: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The records at once."""
    rows, begun = rows_of(said, about), begun_by(said, about)
    async for message in answer.pieces():
        rows.read(message)
    out = {
        "object": "list", "model": said.model,
        "data": [rows.record(row, begun) for row in sorted(rows.rows)],
        "finish_reasons": [rows.ends.get(row, {}) for row in sorted(rows.rows)],
        "usage": rows.usage, "warnings": rows.warnings,
    }  # fmt: skip
    if said.logprobs is not None:
        out["tokens"] = [rows.tokens.get(row, {}) for row in sorted(rows.rows)]
    return out


async def streamed_records(
    said: Records, about: dict[str, Any], answer: Answer, first: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Field by field: pieces of texts and whole values as they come, each record when it is whole,
    and at last the usage."""
    rows, begun, message = rows_of(said, about), begun_by(said, about), first
    while True:
        rows.read(message)
        if message["do"] == "piece":
            shown: dict[str, Any] = {
                k: message[k] for k in ("row", "field", "tokens") if k in message
            }
            shown |= {"value": message["value"]} if "value" in message else {}
            shown |= {"text": message["text"]} if message["text"] else {}
            shown["finish_reason"] = message["over"]
            yield {"object": "record.piece", **shown}
        if len(answer.over) == len(answer.numbers):
            break
        message = await answer.next()
    for row in sorted(rows.rows):
        yield {"object": "record", "row": row, "record": rows.record(row, begun),
               "finish_reasons": rows.ends.get(row, {})}  # fmt: skip
    yield {"object": "record.end", "usage": rows.usage, "warnings": rows.warnings}


# --- the media routes of the API ----------------------------------------------------------


def field_of(about: dict[str, Any], kind: str) -> dict[str, Any]:
    """The model's first field of a type."""
    for field in about["fields"]:
        if field["type"] == kind:
            return dict(field)
    raise Refusal(400, f"model {about['name']!r} makes no {kind}", param="model")


def told_from(about: dict[str, Any], want: str, leave: tuple[str, ...] = ()) -> str:
    """The field that a picture or sound is asked from: the first of a task that wants it, or the
    first text or category."""
    for task in about["tasks"]:
        if want in task["want"] and task["given"]:
            return str(task["given"][0])
    names = [f["name"] for f in about["fields"]
             if f["type"] in ("text", "category") and f["name"] not in leave]  # fmt: skip
    if not names:
        raise Refusal(400, f"model {about['name']!r} makes {want!r} from no text", param="model")
    texts = [name for name in names if name in about["texts"]]
    return str((texts or names)[0])


def pictures_question(said: Pictures, about: dict[str, Any]) -> dict[str, Any]:
    """What the engine is asked for pictures."""
    field = field_of(about, "image")
    size = f"{field['width']}x{field['height']}"
    if said.size is not None and said.size != size:
        raise Refusal(400, f"size: this model's pictures are {size}", param="size")
    if field.get("mode") == "RGBA" and said.output_format == "jpeg":
        raise Refusal(400, "output_format: this model's pictures are see-through, and JPEG holds "
                      "no such; ask for png or webp", param="output_format")  # fmt: skip
    given = {told_from(about, field["name"]): said.prompt}
    drawn = {n: v for n in ("steps", "guidance") if (v := getattr(said, n)) is not None}
    wish = {"given": given, "want": [field["name"]], "num": said.n, "seed": said.seed,
            "no_missing": [field["name"]], "sampling": drawn}  # fmt: skip
    return {"do": "generate", "model": said.model, "wish": wish, "media": said.output_format}


async def pictures(answer: Answer) -> dict[str, Any]:
    """As the API tells pictures."""
    data: dict[int, str] = {}
    async for message in answer.pieces():
        if message["do"] == "piece" and message.get("value"):
            data[message["row"]] = message["value"]["data"]
    return {"created": int(time.time()),
            "data": [{"b64_json": data[row]} for row in sorted(data)]}  # fmt: skip


def speech_question(said: Speech, about: dict[str, Any]) -> dict[str, Any]:
    """What the engine is asked for a sound."""
    field = field_of(about, "audio")
    names = [f["name"] for f in about["fields"]]
    voices = [name for name in VOICES if name in names]
    given = {told_from(about, field["name"], VOICES): said.input}
    if said.voice is not None:
        if not voices:
            raise Refusal(400, "voice: this model has no field called voice or speaker",
                          param="voice")  # fmt: skip
        given[voices[0]] = said.voice
    wish = {"given": given, "want": [field["name"]], "seed": said.seed,
            "no_missing": [field["name"]]}  # fmt: skip
    return {"do": "generate", "model": said.model, "wish": wish, "media": said.response_format}


async def speech(answer: Answer) -> bytes:
    """The bytes of a sound."""
    data = b""
    async for message in answer.pieces():
        if message["do"] == "piece" and message.get("value"):
            data = base64.b64decode(message["value"]["data"])
    return data
