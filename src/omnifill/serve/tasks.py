"""What the engine does for a request, and what it tells while it does it.

A task is begun with a message and tells others: `piece` (something new of a field of a row), `end`
(all is told), `error` (with the sentence for the client). Nothing here knows of HTTP.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd

from omnifill.api import Model
from omnifill.artifact import LoadedRun
from omnifill.codecs.pretrained import PretrainedCodec, Templated
from omnifill.data.results import Origin
from omnifill.errors import RequestError, unknown_name
from omnifill.generate import requests, wishes
from omnifill.generate.chat import ORIGIN, template_of
from omnifill.generate.constraint import parse_rule
from omnifill.generate.decoding import Stopper
from omnifill.generate.engine import Engine, Job, rows_of
from omnifill.generate.following import Follower, Piece
from omnifill.generate.requests import Made
from omnifill.generate.sandbox import SANDBOX
from omnifill.generate.trace import MOST, Token, Trace, told_prompt
from omnifill.generate.turns import in_turns
from omnifill.generate.wishes import Request, Wish, sampling_of
from omnifill.schema import MEDIA
from omnifill.serve.values import described, read_record, told

Send = Callable[[dict[str, Any]], None]


class Served:
    """A model and what writes with it."""

    def __init__(self, name: str, model: Model, rows: int, exact: bool) -> None:
        self.name, self.model, self.run = name, model, model.run
        self.engine = Engine(model.run, rows, exact)
        self.sha256 = model.run.sha256
        if (fused := getattr(self.run.network.backbone, "fused", None)) is not None:
            fused.is_whole()  # whoever asks first need not wait for the compiler
        if self.chats:
            SANDBOX.start()  # nor for the templates' process

    @property
    def chats(self) -> bool:
        """Whether it came with a chat template, as far as is known without one being run."""
        return (self.run.folder.path / ORIGIN).exists()

    def about(self) -> dict[str, Any]:
        """What the server tells of it."""
        texts = [f.name for f in self.run.vocabulary.fields if f.slots is None]
        return {"name": self.name, "sha256": self.sha256, "texts": texts, "chats": self.chats,
                **described(self.run)}  # fmt: skip

    def media(self) -> dict[str, Any]:
        """Of pictures and sounds, type and options by field."""
        return {spec.name: {"type": spec.type, "options": spec.options}
                for spec in self.run.schema.fields if spec.type in MEDIA}  # fmt: skip


class Task(Protocol):
    """Something under way in the engine."""

    def begin(self) -> bool:
        """Begin as much as there is room for; whether all of it has begun."""
        ...

    def read(self, job: Job, found: Any) -> int:
        """One of its jobs brings something; None: it is complete. How many slots were chosen."""
        ...

    def drop(self) -> None:
        """Nobody waits for it any more."""
        ...

    @property
    def over(self) -> bool: ...


@contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Warnings go to the client, in `said`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said += [str(w.message) for w in caught if str(w.message) not in said]


def listened(turns: Generator[Any, None, Any], said: list[str]) -> Generator[Any, None, Any]:
    """Turns of work whose warnings go to the client, too."""
    try:
        while True:
            with heard(said):
                try:
                    found = next(turns)
                except StopIteration as done:
                    return done.value
            yield found
    finally:
        turns.close()


class Generation:
    """Records, field by field while they are written where they can be."""

    def __init__(self, served: Served, message: Mapping[str, Any], send: Send) -> None:
        self.served, self.send, self.id = served, send, message["id"]
        self.said: list[str] = []
        self.media: str | None = message.get("media")
        run = served.run
        with heard(self.said):
            self.request = built(run, message["wish"])
            self.top: int | None = message.get("top")
            check_top(self.top)
            self.origin = Origin(served.sha256, self.request.seed)
            self.alone = not can_follow(run, self.request)
            if self.alone and self.top is not None:
                raise RequestError("logprobs: are told of what is drawn token by token; leave out "
                                   "whatever compares candidates")  # fmt: skip
            if self.request.sampling.beams > served.engine.rows:
                raise RequestError(f"beams = {self.request.sampling.beams}: this server writes "
                                   f"{served.engine.rows} rows at once")  # fmt: skip
            if not self.alone and rows_of(self.request.sampling, 1) > served.engine.rows:
                raise RequestError(f"guidance: this server writes {served.engine.rows} row at once")
            begun = self.request.prompt is not None or self.request.given
            shard = self._plan(0, 1).shard  # what was drawn on the way is none of what was said
            said = [run.schema.index(name) for name in (*self.request.given, self.request.want[0])]
            self.prompt = int(shard.lens[0, said].sum()) if begun else 0
            self.written = message.get("written", True)
            if message.get("echo"):
                known = [] if self.top is None else told_prompt(run, self.request, self.top)
                self._echo(message["wish"]["prompt"], known)
            if not self.written:
                self.request = replace(self.request, num=0)
        self.jobs: dict[Job, tuple[int, Follower | None]] = {}
        self.next = self.chosen = 0

    def _plan(self, first: int, num: int) -> Any:
        return requests.plan_of(self.served.run, self.request, first, num)

    def begin(self) -> bool:
        engine, run, request = self.served.engine, self.served.run, self.request
        free = engine.rows - engine.used
        if self.alone:
            rows = self._rows_alone()
            if free < rows:
                return False
            most = max(1, rows // rows_of(request.sampling, 1))
            turns = in_turns(partial(requests.made, run, request, most))
            self.jobs[engine.lend(listened(turns, self.said), rows)] = 0, None
            self.next = request.num
            return True
        while self.next < request.num:
            num = min(free // rows_of(request.sampling, 1), request.num - self.next)
            if num < 1:
                return False
            num = 1 if engine.exact else num
            with heard(self.said):
                plan = self._plan(self.next, num)
            trace = None
            if self.top is not None:
                trace = Trace(run, self.top, plan.leaning)
                plan = replace(plan, leaning=trace)
            stopper = Stopper(run, plan, request.stop) if request.stop else None
            job = engine.add(plan, stopper)
            self.jobs[job] = self.next, Follower(run, request, plan, trace)
            self.next += num
            free -= job.rows
        return True

    def _rows_alone(self) -> int:
        """Of the engine, for what shares no steps: all beams, or as many candidates at once as
        leave others half of them."""
        request, most = self.request, self.served.engine.rows
        if request.sampling.beams > 1:
            return request.sampling.beams
        drawn = request.num * request.rerank * request.candidates
        return 1 if request.choices else min(rows_of(request.sampling, drawn), max(2, most // 2))

    def read(self, job: Job, found: Any) -> int:
        (first, follower), before = self.jobs[job], self.chosen
        if found is None:
            if follower is None:
                self._whole(job.result)
            del self.jobs[job]
            if self.over:
                self.end()
        elif follower is not None:
            self.chosen += len(found.row)
            for piece in follower.read(found):
                self._tell(replace(piece, row=piece.row + first))
        return self.chosen - before

    @property
    def over(self) -> bool:
        return not self.jobs and self.next >= self.request.num

    def drop(self) -> None:
        for job in self.jobs:
            self.served.engine.drop(job)

    def end(self) -> None:
        """All is told."""
        self.send({"id": self.id, "do": "end", "prompt_tokens": self.prompt,
                   "completion_tokens": self.chosen, "warnings": self.said})  # fmt: skip

    def _tell(self, piece: Piece) -> None:
        message: dict[str, Any] = {
            "id": self.id, "do": "piece", "row": piece.row, "field": piece.field,
            "text": piece.text, "over": piece.over,
        }  # fmt: skip
        if piece.tokens:
            message["tokens"] = [as_told(token) for token in piece.tokens]
        spec = self.served.run.schema[piece.field]
        if spec.type == "text":
            message["there"] = piece.value is not False
        elif piece.over:
            message["value"] = told(spec, piece.value, self.origin, self.media)
        self.send(message)

    def _echo(self, prompt: str | list[int], tokens: list[Token]) -> None:
        text, over = self.request.prompt, "length" if not self.written else None
        if isinstance(prompt, list):
            name = self.request.want[0]
            codec: Any = self.served.run.vocabulary[name].codec
            text = codec.decode(np.array(prompt, np.int64))
            if prompt[0] == getattr(codec, "bos", None) and self.top is not None:
                tokens = [Token(name, "", prompt[0], float("-inf"), ()), *tokens]
        self.send({"id": self.id, "do": "echo", "text": text, "over": over,
                   "tokens": [as_told(token) for token in tokens]})  # fmt: skip

    def _whole(self, made: Made) -> None:
        """Values that were made as a whole."""
        for name in self.request.want:
            spec = self.served.run.schema[name]
            begun = self.request.prompt if name == self.request.want[0] else None
            for row, value in enumerate(made.columns[name]):
                cut = name in made.cut and made.cut[name][row]
                text, over = "", "length" if cut else "stop"
                if spec.type == "text" and value is not None:
                    text = value
                    if begun is not None and not isinstance(begun, Templated):
                        text = value.removeprefix(begun)
                    self.chosen += len(self.served.run.vocabulary[name].codec.encode(text))
                elif spec.type != "text":
                    self.chosen += self.served.run.vocabulary[name].slots or 0
                self._tell(Piece(row, name, text, (), over,
                                 value is not None if spec.type == "text" else value))  # fmt: skip


def can_follow(run: LoadedRun, request: Request) -> bool:
    """Whether its values are shown while they are made; others are compared first, or made as a
    whole."""
    compared = request.rerank > 1 or request.candidates > 1 or request.aims or request.choices
    return not (
        compared or request.sampling.beams > 1 or request.part is not None or run.vocabulary.canvas
    )


def check_top(top: int | None) -> None:
    """RequestError for more likely tokens than are told."""
    if top is not None and not 0 <= top <= MOST:
        raise RequestError(f"logprobs = {top}: must be from 0 to {MOST}")


def built(run: LoadedRun, said: Mapping[str, Any]) -> Request:
    """What a client wishes, checked. RequestError says what is off."""
    values = dict(said)
    if isinstance(values.get("prompt"), list) and all(isinstance(i, int) for i in values["prompt"]):
        values["prompt"] = spelled(run, values.get("want"), values["prompt"])
    if "given" in values:
        values["given"] = read_record(run, values["given"], "given")
    rule = parse_rule(*(values.pop(name, None) for name in ("schema", "regex", "grammar")))
    sampling = values.pop("sampling", {})
    if "logit_bias" in sampling:
        sampling = sampling | {"logit_bias": {int(k): v for k, v in sampling["logit_bias"].items()}}
    return wishes.build(run, Wish(**values, rule=rule, sampling=sampling_of(run, sampling)))


def text_field(run: LoadedRun, want: Any = None) -> str:
    """The text that a prompt begins: the first wanted one, or the first there is."""
    names = [f.name for f in run.vocabulary.fields if f.slots is None]
    if not names:
        raise RequestError("this model has no text; ask for records")
    return next((name for name in want or [] if name in names), names[0])


def spelled(run: LoadedRun, want: Any, ids: list[int]) -> str:
    """Token ids as text; RequestError where that text would be read as others."""
    codec: Any = run.vocabulary[text_field(run, want)].codec
    if not all(0 <= i < codec.size for i in ids):
        raise RequestError(f"prompt: token ids are from 0 to {codec.size - 1}")
    text: str = codec.decode(np.array(ids, np.int64))
    if codec.encode(text).tolist() == ids:
        return text
    if isinstance(codec, PretrainedCodec):  # control tokens are what they are, by their ids
        text = codec.spelled(ids)
        if codec.encode(text).tolist() == ids[ids[0] == codec.bos :]:
            return text
    raise RequestError("prompt: these tokens are not how their text is read; give the text")


def as_told(token: Token) -> dict[str, Any]:
    """A token in JSON's terms."""
    return {"text": token.text, "code": token.code, "log_prob": finite(token.log_prob),
            "top": [list(one) for one in token.likeliest]}  # fmt: skip


# --- what is told as a whole ---------------------------------------------------------------


def score(served: Served, message: Mapping[str, Any]) -> dict[str, Any]:
    """How likely records are, whole and by field, in nats."""
    rows = [read_record(served.run, record, f"records[{i}]")
            for i, record in enumerate(message["records"])]  # fmt: skip
    found = served.model.score(pd.DataFrame(rows))
    whole = "row" if "row" not in served.run.schema.names else "(row)"
    fields = found.drop(columns=whole)
    return {"scores": [
        {"row": finite(total), "fields": {n: finite(v) for n, v in row.items()}}
        for total, row in zip(found[whole], fields.to_dict("records"), strict=True)
    ]}  # fmt: skip


def finite(value: float) -> float | None:
    """JSON knows no infinity: what cannot be is null."""
    return float(value) if abs(value) < float("inf") else None


def embed(served: Served, message: Mapping[str, Any]) -> dict[str, Any]:
    """A vector for each text or record."""
    inputs = message["inputs"]
    if all(isinstance(one, str) for one in inputs):
        texts = inputs
        vectors = served.model.embed(texts)
        codec = served.run.vocabulary[text_field(served.run)].codec
        size = sum(len(codec.encode(text)) for text in texts)
    else:
        rows = [read_record(served.run, one, f"input[{i}]") for i, one in enumerate(inputs)]
        vectors, size = served.model.embed(pd.DataFrame(rows)), 0
    return {"vectors": vectors.tolist(), "tokens": size}


def tokenize(served: Served, message: Mapping[str, Any]) -> dict[str, Any]:
    """A text's token ids."""
    codec: Any = served.run.vocabulary[text_field(served.run, message.get("want"))].codec
    control = codec.control(message["text"]) if isinstance(codec, PretrainedCodec) else None
    return {"ids": codec.encode(message["text"]).tolist() if control is None else [control]}


def detokenize(served: Served, message: Mapping[str, Any]) -> dict[str, Any]:
    """The text of token ids."""
    codec: Any = served.run.vocabulary[text_field(served.run, message.get("want"))].codec
    if not all(0 <= i < codec.size for i in message["ids"]):
        raise RequestError(f"tokens: ids are from 0 to {codec.size - 1}")
    return {"text": codec.decode(np.array(message["ids"], np.int64))}


def tokenizer(served: Served, message: Mapping[str, Any]) -> dict[str, Any]:
    """The control tokens of a checkpoint, and its chat template; null where there is none."""
    codec: Any = served.run.vocabulary[text_field(served.run)].codec
    first = end = template = None
    if isinstance(codec, PretrainedCodec):
        ids = [codec.bos, *codec.ends[:1]] if codec.ends else [codec.bos, None]
        first, end = (None if i is None else codec.tokenizer.id_to_token(i) for i in ids)
        with suppress(RequestError):
            template = template_of(served.run)[0]
    return {"bos_token": first, "eos_token": end, "pad_token": None, "chat_template": template}


Reading = Callable[[Served, Mapping[str, Any]], dict[str, Any]]
AT_ONCE: Mapping[str, Reading] = {
    "tokenize": tokenize, "detokenize": detokenize, "tokenizer": tokenizer,
}  # fmt: skip
IN_TURNS: Mapping[str, Reading] = {"score": score, "embed": embed}
"""What may take long: others go on meanwhile."""


def served_called(models: Mapping[str, Served], name: str) -> Served:
    """The model of that name. RequestError where there is none."""
    if name not in models:
        raise RequestError(unknown_name("model", name, models))
    return models[name]
