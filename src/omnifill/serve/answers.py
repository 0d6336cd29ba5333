"""A request that was read, to its answer: the same for who waits for it and for long work."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import ValidationError

from omnifill.errors import unknown_name
from omnifill.serve import records as media
from omnifill.serve.link import Answer, Link
from omnifill.serve.protocol import (
    Chat,
    Completion,
    Detokenize,
    Embedding,
    Pictures,
    Records,
    Said,
    Scored,
    Speech,
    Tokenize,
)
from omnifill.serve.refusals import Refusal
from omnifill.serve.text import Chats, Completions, Texts

BY_PATH: dict[str, type[Said]] = {
    "/v1/completions": Completion, "/v1/chat/completions": Chat, "/v1/embeddings": Embedding,
    "/v1/records": Records, "/v1/records/score": Scored, "/v1/images/generations": Pictures,
}  # fmt: skip
"""What a job may be made of."""


class Answers:
    """Asks the engine and puts together what comes."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def by_path(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer to a request of a job."""
        return await self.whole(read(path, body))

    async def whole(self, said: Said) -> dict[str, Any]:
        """The whole answer."""
        if isinstance(said, Completion | Chat):
            texts = self.texts(said)
            form = texts.form
            async with self.link.asked(*form.questions(), work=form.work) as answer:
                return await texts.whole(answer)
        if isinstance(said, Records):
            about = self.about(said.model)
            question = media.records_question(said)
            async with self.link.asked(question, work=said.n * said.max_tokens) as answer:
                return await media.whole_records(said, about, answer)
        if isinstance(said, Pictures):
            question = media.pictures_question(said, self.about(said.model))
            async with self.link.asked(question, work=said.n) as answer:
                return await media.pictures(answer)
        return await self._at_once(said)

    async def _at_once(self, said: Said) -> dict[str, Any]:
        """Of questions with one answer."""
        if isinstance(said, Scored):
            found = await self._once(said.model, do="score", records=said.records)
            return {"object": "list", "model": said.model, "data": found["scores"],
                    "warnings": found["warnings"]}  # fmt: skip
        if isinstance(said, Embedding):
            return await self._embedded(said)
        if isinstance(said, Tokenize):
            model = self.named(said.model)
            found = await self._once(model, do="tokenize", text=said.prompt)
            context = self.about(model)["context"]
            return {"tokens": found["ids"], "count": len(found["ids"]), "max_model_len": context}
        assert isinstance(said, Detokenize), f"nobody answers {type(said).__name__}"
        found = await self._once(self.named(said.model), do="detokenize", ids=said.tokens)
        return {"prompt": found["text"]}

    async def tokenizer(self, name: str | None) -> dict[str, Any]:
        """The control tokens of a model, and its chat template."""
        found = await self._once(self.named(name), do="tokenizer")
        return {key: found[key] for key in ("bos_token", "eos_token", "pad_token", "chat_template")}

    def named(self, name: str | None) -> str:
        """The model of that name, or the only one."""
        names = list(self.link.models)
        if name is None and len(names) != 1:
            raise Refusal(400, f"model: {len(names)} are served; say which: {', '.join(names)}",
                          param="model")  # fmt: skip
        return names[0] if name is None else name

    async def speech(self, said: Speech) -> bytes:
        """The bytes of a sound."""
        question = media.speech_question(said, self.about(said.model))
        async with self.link.asked(question) as answer:
            return await media.speech(answer)

    async def _embedded(self, said: Embedding) -> dict[str, Any]:
        inputs = [said.input] if isinstance(said.input, str) else list(said.input)
        if len({isinstance(one, str) for one in inputs}) > 1:
            raise Refusal(400, "input: texts or records, not both at once", param="input")
        found = await self._once(said.model, do="embed", inputs=inputs)
        data = [
            {"object": "embedding", "index": i, "embedding": _shown(one, said.encoding_format)}
            for i, one in enumerate(found["vectors"])
        ]
        usage = {"prompt_tokens": found["tokens"], "total_tokens": found["tokens"]}
        return {"object": "list", "model": said.model, "data": data, "usage": usage}

    async def _once(self, model: str, **question: Any) -> dict[str, Any]:
        self.about(model)
        async with self.link.asked({"model": model, **question}) as answer:
            return await answer.next()

    def texts(self, said: Completion | Chat) -> Texts:
        """How a completion or a chat is asked and told."""
        about = self.about(said.model)
        if isinstance(said, Completion):
            return Texts(Completions(said, about))
        if not about["chats"]:
            raise Refusal(400, f"model {said.model!r} has no chat template: it is none of an "
                          "imported checkpoint; ask /v1/completions", param="model")  # fmt: skip
        return Texts(Chats(said, about))

    def pieces(
        self, said: Completion | Chat | Records, answer: Answer, first: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """The answer piece by piece. `first`: a message of it that was read already."""
        if isinstance(said, Records):
            return media.streamed_records(said, self.about(said.model), answer, first)
        return self.texts(said).streamed(answer, first)

    def questions(self, said: Completion | Chat | Records) -> tuple[list[dict[str, Any]], int]:
        """What the engine is asked, and how many tokens that may take."""
        if isinstance(said, Records):
            return [media.records_question(said)], said.n * said.max_tokens
        form = self.texts(said).form
        return form.questions(), form.work

    def about(self, name: str) -> dict[str, Any]:
        """What is known of a model. Refusal where there is none."""
        if name not in self.link.models:
            raise Refusal(404, unknown_name("model", name, self.link.models), param="model",
                          code="model_not_found")  # fmt: skip
        return self.link.models[name]


def read(path: Any, body: Any) -> Said:
    """A body as the request of its path. Refusal names what is off."""
    if not isinstance(path, str) or path not in BY_PATH:
        raise Refusal(400, f"path: one of {', '.join(BY_PATH)}", param="path")
    try:
        said = BY_PATH[path].model_validate(body)
    except ValidationError as error:
        raise refusal_of(error.errors()) from None
    if getattr(said, "stream", False):
        raise Refusal(400, "stream: nobody reads along; leave it out", param="stream")
    return said


def refusal_of(errors: Sequence[Any]) -> Refusal:
    """What pydantic says of the first field that is off, by its name. Of a field of several types
    it says what is off with each; told is of the one that fits furthest."""
    places = [[str(part) for part in error["loc"] if part != "body"] for error in errors]
    ours = [i for i, place in enumerate(places) if place[:1] == places[0][:1]]
    fits = max(ours, key=lambda i: (not errors[i]["type"].endswith("_type"), len(places[i]), -i))
    error, place = errors[fits], places[fits]
    name = ".".join(part for part in place if "[" not in part and "-" not in part) or "body"
    if place[:1] == ["header"]:
        name = place[-1].title()
    if error["type"] == "extra_forbidden":
        return Refusal(400, f"{name}: unknown, and would have no effect", param=name)
    return Refusal(400, f"{name}: {error['msg'][:300]}", param=name)


def _shown(vector: list[float], form: str) -> list[float] | str:
    """base64: little-endian float32, as the API has it."""
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
