"""What clients may say, field by field. What is not named here is refused by name.

The shapes are those of the OpenAI API where it has one; what goes beyond it (`top_k`, `guidance`,
…) has the names that the library and the command line use.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from omnifill.serve.limits import Limits

LIMITS = Limits()
Words = Annotated[str, Field(max_length=LIMITS.text)]
Count = Annotated[int, Field(ge=1, le=LIMITS.records, strict=True)]
Tokens = Annotated[int, Field(ge=1, le=LIMITS.tokens, strict=True)]
Seed = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True)]
"""No larger than what every reader of JSON holds exactly."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Token = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=1000)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Stops = Stop | Annotated[list[Stop], Field(max_length=LIMITS.stops)]
Record = Annotated[dict[Name, Any], Field(max_length=1000)]


class Said(BaseModel):
    """A request. Unknown fields, and values of another kind, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Drawn(Said):
    """How the next token is chosen."""

    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^\d{1,9}$")],
                Annotated[Number, Field(ge=-100, le=100)],
            ],
            Field(max_length=1000),
        ]
        | None
    ) = None

    def sampling(self) -> dict[str, Any]:
        """What was said of it."""
        return {name: value for name in Drawn.model_fields
                if (value := getattr(self, name)) is not None}  # fmt: skip


class StreamOptions(Said):
    include_usage: bool = False


class JsonSchema(Said):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """Of the schema; the answer does not hang on it."""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: Literal[True] | None = None
    """A schema is always obeyed."""


class PlainFormat(Said):
    type: Literal["text"]


class ObjectFormat(Said):
    type: Literal["json_object"]


class SchemaFormat(Said):
    type: Literal["json_schema"]
    json_schema: JsonSchema


Format = Annotated[PlainFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Written(Drawn):
    """What completions and chats have in common."""

    model: Name
    n: Count = 1
    seed: Seed = 0
    """Left open it is 0: the same request gives the same answer."""
    stop: Stops | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: Format | None = None
    """The answer is JSON, or obeys a JSON schema, always."""


class Completion(Written):
    """POST /v1/completions."""

    prompt: (
        Words
        | Annotated[list[Words], Field(min_length=1, max_length=LIMITS.records)]
        | Annotated[list[Token], Field(min_length=1, max_length=LIMITS.text)]
        | Annotated[
            list[Annotated[list[Token], Field(min_length=1, max_length=LIMITS.text)]],
            Field(min_length=1, max_length=LIMITS.records),
        ]
    )
    """A text, token ids, or several of either."""
    max_tokens: Annotated[int, Field(ge=0, le=LIMITS.tokens, strict=True)] = 512
    """0: with `echo`, what there is to tell of the prompt."""
    suffix: Words | None = None
    """What the text ends with; of masked models."""
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None


class TextPart(Said):
    type: Literal["text"]
    text: Words


class Message(Said):
    role: Annotated[str, Field(min_length=1, max_length=40)]
    content: Words | Annotated[list[TextPart], Field(max_length=LIMITS.messages)]

    def plain(self) -> dict[str, str]:
        """As the library takes it."""
        whole = self.content
        text = whole if isinstance(whole, str) else "".join(part.text for part in whole)
        return {"role": self.role, "content": text}


class Chat(Written):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=LIMITS.messages)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    """The newer name of `max_tokens`; not both. Left open: 512."""
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None


class Embedding(Said):
    """POST /v1/embeddings."""

    model: Name
    input: Words | Annotated[list[Words | Record], Field(min_length=1, max_length=LIMITS.records)]
    """Texts, or records."""
    encoding_format: Literal["float", "base64"] = "float"


class Tokenize(Said):
    """POST /tokenize."""

    model: Name
    prompt: Words


class Detokenize(Said):
    """POST /detokenize."""

    model: Name
    tokens: Annotated[list[Token], Field(max_length=LIMITS.text)]


class Records(Drawn):
    """POST /v1/records."""

    model: Name
    given: Record = {}
    """Values that are known; a picture or sound as {"data": base64 of a file}."""
    want: Names | None = None
    """Fields to generate; left open: all others."""
    n: Count = 1
    seed: Seed = 0
    max_tokens: Tokens = 512
    """Most tokens of one text."""
    prompt: Words | None = None
    suffix: Words | None = None
    stop: Stops | None = None
    no_missing: Names | None = None
    choices: Annotated[list[Words], Field(min_length=1, max_length=LIMITS.records)] | None = None
    aims: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)]
        | None
    ) = None
    candidates: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    rerank: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None
    beams: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    length_penalty: Annotated[Number, Field(ge=0, le=100)] | None = None
    no_repeat_ngram: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None
    steps: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    order: Literal["random", "confidence"] | None = None
    remask: Annotated[Number, Field(ge=0, lt=1)] | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    regex: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None
    stream: bool = False

    def wish(self) -> dict[str, Any]:
        """As the engine takes it."""
        names = ("given", "want", "seed", "max_tokens", "prompt", "suffix", "choices", "candidates",
                 "regex", "grammar", "no_missing", "rerank", "aims")  # fmt: skip
        more = ("guidance", "beams", "length_penalty", "no_repeat_ngram", "steps", "order",
                "remask")  # fmt: skip
        said = {n: v for n in names if (v := getattr(self, n)) is not None}
        drawn = {n: v for n in more if (v := getattr(self, n)) is not None}
        if self.schema_ is not None:
            said["schema"] = self.schema_
        return said | {"num": self.n, "stop": listed(self.stop),
                       "sampling": self.sampling() | drawn}  # fmt: skip


class Scored(Said):
    """POST /v1/records/score."""

    model: Name
    records: Annotated[list[Record], Field(min_length=1, max_length=LIMITS.records)]


class Pictures(Said):
    """POST /v1/images/generations."""

    model: Name
    prompt: Words
    """What the picture is to show, for the model's text that pictures are made from."""
    n: Count = 1
    size: Annotated[str, Field(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")] | None = None
    """The size that the model's pictures have; another is refused."""
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    seed: Seed = 0
    steps: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None


class Speech(Said):
    """POST /v1/audio/speech."""

    model: Name
    input: Words
    """What is said, for the field that sounds are made from."""
    voice: Words | None = None
    """The value of the model's field `speaker` or `voice`."""
    response_format: Literal["wav", "flac"] = "wav"
    seed: Seed = 0


class JobRequest(Said):
    path: Annotated[str, Field(max_length=100)]
    """Where it would be sent if somebody waited: /v1/records, …"""
    body: Record


class Jobs(Said):
    """POST /v1/jobs."""

    requests: Annotated[list[JobRequest], Field(min_length=1, max_length=1000)]


def listed(stop: str | list[str] | None) -> list[str]:
    """One stop string by itself is a list of one."""
    return [stop] if isinstance(stop, str) else list(stop or ())
