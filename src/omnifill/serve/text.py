"""Completions and chats: texts as clients of the OpenAI API ask for them."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from omnifill.serve.link import Answer
from omnifill.serve.protocol import Chat, Completion, ObjectFormat, SchemaFormat, Written, listed
from omnifill.serve.refusals import Refusal

MOST_TOKENS = 512
"""Of a chat's answer, where nothing is said."""


@dataclass
class Choice:
    """One text so far, or what is new of it."""

    text: str = ""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    over: str | None = None
    before: int = 0
    """Characters of the tokens that were told before."""


@dataclass
class Usage:
    """Tokens read and written."""

    prompt: int = 0
    completion: int = 0

    def body(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion,
                "total_tokens": self.prompt + self.completion}  # fmt: skip


@dataclass
class Frame:
    """What every answer, and every piece of one, begins with."""

    kind: str
    model: str
    fingerprint: str
    prefix: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def body(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": f"{self.prefix}-{self.id}", "object": self.kind, "created": self.created,
                "model": self.model, "system_fingerprint": self.fingerprint, "choices": choices,
                **more}  # fmt: skip


class Form(Protocol):
    """What completions and chats do in their own ways."""

    work: int
    """Tokens that the answer may take."""

    @property
    def said(self) -> Written:
        """The request."""
        ...

    def questions(self) -> list[dict[str, Any]]:
        """What the engine is asked, prompt by prompt."""
        ...

    def frame(self, streamed: bool) -> Frame: ...
    def choice(self, index: int, choice: Choice) -> dict[str, Any]: ...
    def piece(self, index: int, new: Choice, first: bool) -> dict[str, Any]: ...


class Texts:
    """How the pieces of an answer become what a client reads."""

    def __init__(self, form: Form) -> None:
        self.form, self.said, self.usage = form, form.said, Usage()
        if self.said.stream_options is not None and not self.said.stream:
            raise Refusal(400, "stream_options: is for streams; leave it out, or stream",
                          param="stream_options")  # fmt: skip

    def read(self, message: dict[str, Any]) -> list[tuple[int, Choice]]:
        """What a message of the engine adds to which texts."""
        first = message["part"] * self.said.n
        if message["do"] == "end":
            self.usage.prompt += message["prompt_tokens"]
            self.usage.completion += message["completion_tokens"]
            return []
        if message["do"] == "echo":
            new = Choice(message["text"], message["tokens"], message["over"])
            return [(first + row, new) for row in range(self.said.n)]
        new = Choice(message["text"], message.get("tokens", []), message["over"])
        return [(first + message["row"], new)]

    async def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer at once."""
        choices: dict[int, Choice] = {}
        async for message in answer.pieces():
            for index, new in self.read(message):
                choice = choices.setdefault(index, Choice())
                choice.text += new.text
                choice.tokens += new.tokens
                choice.over = new.over or choice.over
        shown = [self.form.choice(index, choices[index]) for index in sorted(choices)]
        return self.form.frame(False).body(shown, usage=self.usage.body())

    async def streamed(self, answer: Answer, first: dict[str, Any]) -> AsyncIterator[Any]:
        """The same piece by piece. `first`: a message that was read already."""
        frame, told = self.form.frame(True), dict[int, int]()
        options = self.said.stream_options
        tells_usage = options is not None and options.include_usage
        more = {"usage": None} if tells_usage else {}
        message = first
        while True:
            for index, new in self.read(message):
                new.before = told.get(index, 0)
                yield frame.body([self.form.piece(index, new, index not in told)], **more)
                told[index] = new.before + sum(len(token["text"]) for token in new.tokens)
            if len(answer.over) == len(answer.numbers):
                break
            message = await answer.next()
        if tells_usage:
            yield frame.body([], usage=self.usage.body())


def question(said: Written, about: dict[str, Any], prompt: Any, most: int, **more: Any) -> Any:
    """What the engine is asked for one prompt."""
    if not about["texts"]:
        raise Refusal(400, f"model {about['name']!r} has no text; ask /v1/records")
    wish = {"prompt": prompt, "num": said.n, "seed": said.seed, "max_tokens": most,
            "stop": listed(said.stop), "sampling": said.sampling()}  # fmt: skip
    if len(about["fields"]) > 1:
        wish["want"] = about["texts"][:1]
    if isinstance(said.response_format, ObjectFormat):
        wish["schema"] = {"type": "object"}
    elif isinstance(said.response_format, SchemaFormat):
        wish["schema"] = said.response_format.json_schema.schema_ or {"type": "object"}
    return {"do": "generate", "model": said.model, "wish": wish, **more}


class Completions:
    """POST /v1/completions."""

    def __init__(self, said: Completion, about: dict[str, Any]) -> None:
        self.said, self.about = said, about
        whole = said.prompt
        several = isinstance(whole, list) and not isinstance(whole[0], int)
        self.prompts: list[Any] = list(whole) if several else [whole]
        self.work = len(self.prompts) * said.n * max(1, said.max_tokens)
        if said.max_tokens == 0 and not said.echo:
            raise Refusal(400, "max_tokens: 0 is for `echo`; nothing else would come of it",
                          param="max_tokens")  # fmt: skip

    def questions(self) -> list[dict[str, Any]]:
        more: dict[str, Any] = {}
        if self.said.echo:
            more = {"echo": True, "written": self.said.max_tokens > 0}
        if self.said.logprobs is not None:
            more["top"] = self.said.logprobs
        most = max(1, self.said.max_tokens)
        asked = [question(self.said, self.about, p, most, **more) for p in self.prompts]
        if self.said.suffix is not None:
            for one in asked:
                one["wish"]["suffix"] = self.said.suffix
        return asked

    def frame(self, streamed: bool) -> Frame:
        return Frame("text_completion", self.said.model, fingerprint(self.about), "cmpl")

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {"index": index, "text": choice.text, "finish_reason": choice.over,
                "logprobs": self._logprobs(choice)}  # fmt: skip

    def piece(self, index: int, new: Choice, first: bool) -> dict[str, Any]:
        return self.choice(index, new)

    def _logprobs(self, choice: Choice) -> dict[str, Any] | None:
        if self.said.logprobs is None:
            return None
        offsets, at = [], choice.before
        for token in choice.tokens:
            offsets.append(at)
            at += len(token["text"])
        return {
            "tokens": [token["text"] for token in choice.tokens],
            "token_logprobs": [token["log_prob"] for token in choice.tokens],
            "top_logprobs": [{text: value for text, _, value in token["top"]}
                             for token in choice.tokens],
            "text_offset": offsets,
        }  # fmt: skip


class Chats:
    """POST /v1/chat/completions."""

    def __init__(self, said: Chat, about: dict[str, Any]) -> None:
        self.said, self.about = said, about
        if said.max_tokens is not None and said.max_completion_tokens is not None:
            raise Refusal(400, "max_tokens and max_completion_tokens say the same; leave out one",
                          param="max_tokens")  # fmt: skip
        if said.top_logprobs is not None and not said.logprobs:
            raise Refusal(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        self.most = said.max_completion_tokens or said.max_tokens or MOST_TOKENS
        self.work = said.n * self.most

    def questions(self) -> list[dict[str, Any]]:
        more = {"top": self.said.top_logprobs or 0} if self.said.logprobs else {}
        messages = [m.plain() for m in self.said.messages]
        return [question(self.said, self.about, messages, self.most, **more)]

    def frame(self, streamed: bool) -> Frame:
        kind = "chat.completion.chunk" if streamed else "chat.completion"
        return Frame(kind, self.said.model, fingerprint(self.about), "chatcmpl")

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"index": index, "message": message, "finish_reason": choice.over,
                "logprobs": self._logprobs(choice)}  # fmt: skip

    def piece(self, index: int, new: Choice, first: bool) -> dict[str, Any]:
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if new.text or first:
            delta["content"] = new.text
        return {"index": index, "delta": delta, "finish_reason": new.over,
                "logprobs": self._logprobs(new)}  # fmt: skip

    def _logprobs(self, choice: Choice) -> dict[str, Any] | None:
        if not self.said.logprobs:
            return None
        return {"content": [
            {**_token(token["text"], token["log_prob"]),
             "top_logprobs": [_token(text, value) for text, _, value in token["top"]]}
            for token in choice.tokens
        ], "refusal": None}  # fmt: skip


def _token(text: str, log_prob: float) -> dict[str, Any]:
    return {"token": text, "logprob": log_prob, "bytes": list(text.encode("utf-8"))}


def fingerprint(about: dict[str, Any]) -> str:
    """Of the weights."""
    return f"omnifill-{about['sha256'][:16]}"
