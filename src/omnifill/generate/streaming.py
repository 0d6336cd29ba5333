"""One value while it is made: a text piece by piece, a sound as soon as it is settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.values import to_native
from omnifill.errors import RequestError
from omnifill.form.vocabulary import FieldIds
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.following import Follower
from omnifill.generate.plan import Plan
from omnifill.generate.requests import plan_of
from omnifill.generate.wishes import Request, Wish
from omnifill.types import Sound


def streamed(run: LoadedRun, want: Sequence[str]) -> FieldIds | None:
    """The field that is shown while it is made: the first wanted text, or else the first sound."""
    fields = [run.vocabulary[name] for name in want]
    able = [field for field in fields if hasattr(field.codec, "stream_decoder")]
    texts = [field for field in able if field.slots is None]
    return next(iter([*texts, *able]), None)


def stream(
    run: LoadedRun, request: Request, want: str | None = None
) -> Iterator[str] | Iterator[Sound]:
    """Pieces of the wanted text or sound (`want`, or the first there is) as they are chosen;
    together they are what the same request gives as a whole, of a text without the prompt."""
    field = streamed(run, request.want if want is None else [want])
    if request.sampling.beams > 1:
        raise RequestError("streaming shows a value while it is made, and beams end with it")
    if field is None:
        raise RequestError("streaming needs a wanted text or sound")
    if run.vocabulary.canvas:
        raise RequestError(
            "streaming goes from beginning to end; a masked model makes a value as a whole"
        )
    if field.slots is None:
        return _text(run, request, field)
    if request.stop or request.max_tokens != Wish.max_tokens:
        raise RequestError(f"stop strings and max_tokens are about texts, and {field.name!r} is a "
                           f"sound; leave them out")  # fmt: skip
    return _sound(run, request, field)


def _chosen(run: LoadedRun, plan: Plan, field: FieldIds) -> Iterator[tuple[int, bool]]:
    """The codes of a field as they are chosen (negative: none of them), and whether that is all."""
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    for step in sampler(plan):
        if step.field[0] == field.index:
            yield int(step.id[0]) - field.first, bool(step.done[0])


def _text(run: LoadedRun, request: Request, field: FieldIds) -> Iterator[str]:
    """A stop string is never shown in part."""
    plan = plan_of(run, request, 0, 1)
    follower = Follower(run, request, plan)
    for step in Autoregressive(run.network, run.vocabulary, run.objective.columns)(plan):
        for piece in follower.read(step):
            if piece.field == field.name:
                if piece.text:
                    yield piece.text
                if piece.over:
                    return


def _sound(run: LoadedRun, request: Request, field: FieldIds) -> Iterator[Sound]:
    """With what is known of its beginning."""
    codec: Any = field.codec
    spec, part = run.schema[field.name], request.part
    decoder, known, at = codec.stream_decoder(), b"", 0
    first: list[int] = []
    if part is not None and part.field == field.name:
        first = [int(code) for code in part.codes if code >= 0]
        known = part.beginning
    plan = plan_of(run, request, 0, 1)
    for code in chain(first, (code for code, _ in _chosen(run, plan, field))):
        piece = decoder.feed(code)
        told = known[at : at + len(piece)]
        at += len(piece)
        if piece:
            yield to_native(spec, told + piece[len(told) :])
        if decoder.done:
            break
    if known[at:]:  # it ended before all that is known of it
        yield to_native(spec, known[at:])
