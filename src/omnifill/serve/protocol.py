"""What clients may say, field by field. What is not named here is refused by name.

The shapes are those of the OpenAI API where it has one; what goes beyond it (`top_k`, `guidance`,
…) has the names that the library and the command line use.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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


def _switch(value: Any) -> Any:
    """0 equals false in Python, and not in JSON."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


Switch = BeforeValidator(_switch)


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LIMITS.text:
        raise ValueError(f"must have at most {LIMITS.text:,} characters")
    return value


Record = Annotated[dict[Name, Annotated[Any, AfterValidator(_short)]], Field(max_length=1000)]


class Said(BaseModel):
    """A request. Unknown fields, and values of another kind, are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Drawn(Said):
    """How the next token is chosen."""

    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    """0: always the most likely; left open: 1, or as the run's recipe says."""
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    """Only the likeliest mass p."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Only the k most likely tokens."""
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    """Only tokens at least p times as likely as the best; left open: 0.125 in texts, 0.02 in
    pictures, 0.1 in sounds."""
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    """Taken from the scores of tokens that were written already."""
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    """The same once for each time that they were."""
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] | None = None
    """Above 1: less repetition of what the text holds, the prompt included."""
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
                Annotated[Number, Field(ge=-100, le=100)],
            ],
            Field(max_length=1000),
        ]
        | None
    ) = None
    """Token id -> what is added to its score; 100 forces it, -100 bars it."""

    def sampling(self) -> dict[str, Any]:
        """What was said of it."""
        return {name: value for name in Drawn.model_fields
                if (value := getattr(self, name)) is not None}  # fmt: skip


class StreamOptions(Said):
    """More about a stream."""

    include_usage: bool = False
    """Whether a last piece tells the tokens read and written."""


class JsonSchema(Said):
    """A schema and its name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """Of the schema; the answer does not hang on it."""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """The schema; left open: any object."""
    strict: Annotated[Literal[True], Switch] | None = None
    """A schema is always obeyed."""


class PlainFormat(Said):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Said):
    """A JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Said):
    """JSON that obeys a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


Format = Annotated[PlainFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Written(Drawn):
    """What completions and chats have in common."""

    model: Name
    """The name of a model that is served."""
    n: Count = 1
    """How many answers."""
    seed: Seed = 0
    """Left open it is 0: the same request gives the same answer."""
    stop: Stops | None = None
    """Ends the text before this string, or before any of these."""
    stream: bool = False
    """Server-sent events while it is written, the last one [DONE]."""
    stream_options: StreamOptions | None = None
    """Of streams."""
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
    """Whether the prompt stands before the answer, with its tokens where `logprobs` asks."""
    logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None
    """Tell every token's log-probability, and as many of the likeliest beside it."""


class TextPart(Said):
    """A part of a message."""

    type: Literal["text"]
    text: Words


class Message(Said):
    """What somebody said."""

    role: Annotated[str, Field(min_length=1, max_length=40)]
    """As the checkpoint's chat template knows it: system, user, assistant."""
    content: Words | Annotated[list[TextPart], Field(max_length=LIMITS.messages)]
    """The text, or parts of it."""

    def plain(self) -> dict[str, str]:
        """As the library takes it."""
        whole = self.content
        text = whole if isinstance(whole, str) else "".join(part.text for part in whole)
        return {"role": self.role, "content": text}


class Chat(Written):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=LIMITS.messages)]
    """The conversation so far."""
    max_tokens: Tokens | None = None
    """Most tokens of the answer."""
    max_completion_tokens: Tokens | None = None
    """The newer name of `max_tokens`; not both. Left open: 512."""
    logprobs: bool = False
    """Tell every token's log-probability."""
    top_logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None
    """With `logprobs`: as many of the likeliest tokens beside each."""


class Embedding(Said):
    """POST /v1/embeddings."""

    model: Name
    """The name of a model that is served."""
    input: Words | Annotated[list[Words | Record], Field(min_length=1, max_length=LIMITS.records)]
    """Texts, or records."""
    encoding_format: Literal["float", "base64"] = "float"
    """base64: little-endian float32."""


class Tokenize(Said):
    """POST /tokenize."""

    model: Name | None = None
    """The name of a model that is served; left open: the only one."""
    prompt: Words
    """A text, or a control token of a checkpoint's by its name."""
    add_special_tokens: Annotated[Literal[False], Switch] = False
    """No control tokens are put around a text."""


class Detokenize(Said):
    """POST /detokenize."""

    model: Name | None = None
    """The name of a model that is served; left open: the only one."""
    tokens: Annotated[list[Token], Field(max_length=LIMITS.text)]
    """Token ids."""


class Records(Drawn):
    """POST /v1/records."""

    model: Name
    """The name of a model that is served."""
    given: Record = {}
    """Values that are known; a picture or sound as {"data": base64 of a file}, with its type and
    format if you like, which must be those of its bytes."""
    want: Annotated[Names, Field(min_length=1)] | None = None
    """Fields to generate; left open: all others."""
    n: Count = 1
    """How many records."""
    seed: Seed = 0
    """The same seed gives the same records."""
    max_tokens: Tokens = 512
    """Most tokens of one text."""
    prompt: Words | None = None
    """The beginning of the first wanted text."""
    suffix: Words | None = None
    """Its end; of masked models."""
    stop: Stops | None = None
    """Ends texts before this string, or before any of these."""
    no_missing: Names | None = None
    """Fields that must not come out blank."""
    choices: Annotated[list[Words], Field(min_length=1, max_length=LIMITS.records)] | None = None
    """Texts among which the wanted one is chosen by likelihood."""
    aims: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)]
        | None
    ) = None
    """What records are to be like: "length<=80", "domain=sports:2"."""
    candidates: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    """Draws for each record, of which the best by its aims is kept; without
    aims the likeliest."""
    rerank: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    """Draws for each record, of which the one most like the others is kept."""
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None
    """Above 1: what is given counts for more."""
    beams: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    """Above 1: search for the likeliest records instead of drawing; at most `--rows` of them."""
    length_penalty: Annotated[Number, Field(ge=0, le=100)] | None = None
    """With `beams`: how far length is made up for."""
    no_repeat_ngram: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None
    """No run of so many tokens twice in a text."""
    steps: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    """Of masked models: passes over a record."""
    order: Literal["random", "confidence"] | None = None
    """Of masked models: what is chosen next."""
    remask: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Of masked models: share of choices that is taken back in each step."""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """A JSON schema that the first wanted text obeys."""
    regex: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """A regular expression that it matches."""
    grammar: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    """A grammar in Lark's notation that it obeys."""
    logprobs: Annotated[int, Field(ge=0, le=LIMITS.tops, strict=True)] | None = None
    """Tell every token's log-probability, and as many of the likeliest beside it."""
    stream: bool = False
    """Server-sent events field by field, the last one [DONE]."""

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
    """The name of a model that is served."""
    records: Annotated[list[Record], Field(min_length=1, max_length=LIMITS.records)]
    """Each is told as a whole and field by field, in nats."""


class Pictures(Said):
    """POST /v1/images/generations."""

    model: Name
    """The name of a model that is served."""
    prompt: Words
    """What the picture is to show, for the model's text that pictures are made from."""
    n: Count = 1
    """How many."""
    size: Annotated[str, Field(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")] | None = None
    """The size that the model's pictures have; another is refused."""
    response_format: Literal["b64_json"] = "b64_json"
    """Pictures come in the answer: there are no addresses."""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    """What files they are."""
    seed: Seed = 0
    """The same seed gives the same pictures."""
    steps: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    """Of masked models: passes over a record."""
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None
    """Above 1: the prompt counts for more."""


class Speech(Said):
    """POST /v1/audio/speech."""

    model: Name
    """The name of a model that is served."""
    input: Words
    """What is said, for the field that sounds are made from."""
    voice: Words | None = None
    """The value of the model's field `speaker` or `voice`."""
    response_format: Literal["wav", "flac"] = "wav"
    """What file it is."""
    seed: Seed = 0
    """The same seed gives the same sound."""


class JobRequest(Said):
    """A request that nobody waits for."""

    path: Annotated[str, Field(max_length=100)]
    """Where it would be sent if somebody waited: /v1/records, …"""
    body: Record
    """What would be sent there; `stream` is not for it."""


class Jobs(Said):
    """POST /v1/jobs."""

    requests: Annotated[list[JobRequest], Field(min_length=1, max_length=1000)]
    """They are answered in order, a line of the result for each."""


ASKED = (Completion, Chat, Embedding, Tokenize, Detokenize, Records, Scored, Pictures, Speech)
FIELDS = {field.alias or name for one in ASKED for name, field in one.model_fields.items()}
"""What a request may name."""


def listed(stop: str | list[str] | None) -> list[str]:
    """One stop string by itself is a list of one."""
    return [stop] if isinstance(stop, str) else list(stop or ())
