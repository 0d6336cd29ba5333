"""One value while it is made: a text piece by piece, a sound as soon as it is settled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.values import to_native
from omnifill.errors import RequestError
from omnifill.form.vocabulary import FieldIds
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.decoding import cut_at
from omnifill.generate.requests import Request, plan_of
from omnifill.types import Sound


def stream(run: LoadedRun, request: Request) -> Iterator[str] | Iterator[Sound]:
    """Pieces of the first wanted text or sound as they are chosen; together they are what the same
    request gives as a whole, of a text without the prompt."""
    fields = [run.vocabulary[name] for name in request.want]
    able = [field for field in fields if hasattr(field.codec, "stream_decoder")]
    if request.sampling.beams > 1:
        raise RequestError("streaming shows a value while it is made, and beams end with it")
    if not able:
        raise RequestError("streaming needs a wanted text or sound")
    if run.vocabulary.canvas:
        raise RequestError(
            "streaming goes from beginning to end; a masked model makes a value as a whole"
        )
    return _text(run, request, able[0]) if able[0].slots is None else _sound(run, request, able[0])


def _chosen(run: LoadedRun, request: Request, field: FieldIds) -> Iterator[tuple[int, bool]]:
    """The codes of a field as they are chosen (negative: none of them), and whether that is all."""
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    for step in sampler(plan_of(run, request, 0, 1)):
        if step.field[0] == field.index:
            yield int(step.id[0]) - field.first, bool(step.done[0])


def _text(run: LoadedRun, request: Request, field: FieldIds) -> Iterator[str]:
    """A stop string is never shown in part."""
    codec: Any = field.codec
    decoder, held = codec.stream_decoder(), ""
    longest = max((len(s) for s in request.stop), default=1) - 1
    if request.prompt is not None:
        plan = plan_of(run, request, 0, 1)
        start = int(plan.shard.lens[0, : field.index].sum())
        for id_ in plan.shard.ids[start : start + int(plan.shard.lens[0, field.index])]:
            held += decoder.feed(int(id_) - field.first)
        held = held.removeprefix(request.prompt)
    for code, done in _chosen(run, request, field):
        if code >= 0:
            held += decoder.feed(code)
        if any(s in held for s in request.stop):
            yield cut_at(held, request.stop)
            return
        ready = len(held) if done else len(held) - longest
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
        if done:
            break
    if held:
        yield held


def _sound(run: LoadedRun, request: Request, field: FieldIds) -> Iterator[Sound]:
    """With what is known of its beginning."""
    codec: Any = field.codec
    decoder, known, at = codec.stream_decoder(), b"", 0
    left, first = codec.slots, []
    if request.part is not None and request.part.field == field.name:
        first = [(int(code), False) for code in request.part.codes if code >= 0]
        known = request.part.beginning
    for code, _ in chain(first, _chosen(run, request, field)):
        piece = decoder.feed(code)
        told = known[at : at + len(piece)]
        at += len(piece)
        left -= 1
        if piece:
            yield to_native(run.schema[field.name], told + piece[len(told) :])
        if left == 0:
            break
