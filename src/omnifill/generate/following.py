"""What a sampler chooses, as readers see it: texts piece by piece, other values when complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.form.vocabulary import MISSING, FieldIds
from omnifill.generate.decoding import cut_at, decode_values
from omnifill.generate.plan import Plan, Step
from omnifill.generate.trace import Token, Trace
from omnifill.generate.wishes import Request


@dataclass(frozen=True)
class Piece:
    """Something new of one field of one row."""

    row: int
    field: str
    text: str = ""
    """What it adds to a text; never a part of a character, nor of a stop string."""
    tokens: tuple[Token, ...] = ()
    """What was chosen, where it is told (see `trace`)."""
    over: str | None = None
    """Why it ends here: 'stop' (by itself, or at a stop string) or 'length'; None: it goes on."""
    value: Any = None
    """Of what is no text: its canonical value, when it is over. Of a text: whether it is there."""


@dataclass
class Value:
    """One value under way."""

    decoder: Any
    """None: it is no text."""
    ids: list[int] = field(default_factory=list)
    held: str = ""
    """What may be the beginning of a stop string."""


class Follower:
    """Reads the steps of one plan."""

    def __init__(
        self, run: LoadedRun, request: Request, plan: Plan, trace: Trace | None = None
    ) -> None:
        self.run, self.request, self.plan, self.trace = run, request, plan, trace
        self.longest = max((len(s) for s in request.stop), default=1) - 1
        self.values: dict[tuple[int, int], Value] = {}

    def read(self, step: Step) -> list[Piece]:
        """What is new with it."""
        out = []
        for row, index, id_, done, cut in zip(
            step.row.tolist(), step.field.tolist(), step.id.tolist(), step.done.tolist(),
            step.cut.tolist(), strict=True,
        ):  # fmt: skip
            field = self.run.vocabulary.fields[index]
            if (row, index) not in self.values:
                self.values[row, index] = self._begun(row, field)
            value = self.values[row, index]
            read = self._text if value.decoder is not None else self._plain
            piece = read(row, field, value, id_, done, cut)
            if piece is not None:
                out.append(piece)
            if done:
                del self.values[row, index]
        return out

    def _begun(self, row: int, field: FieldIds) -> Value:
        if field.slots is not None:
            return Value(None)
        codec: Any = field.codec
        value = Value(codec.stream_decoder())
        if self.request.prompt is not None and field.name == self.request.want[0]:
            shard, record = self.plan.shard, int(self.plan.which[row])
            start = int(shard.starts[record] + shard.lens[record, : field.index].sum())
            for id_ in shard.ids[start : start + int(shard.lens[record, field.index])]:
                value.decoder.feed(int(id_) - field.first)
        return value

    def _text(
        self, row: int, field: FieldIds, value: Value, id_: int, done: bool, cut: bool
    ) -> Piece | None:
        if id_ >= field.first:
            value.held += value.decoder.feed(id_ - field.first)
        tokens, over = self._told(row), None
        if done:
            value.held += value.decoder.close()
            over = "length" if cut else "stop"
        ready, rest = value.held, ""
        if any(s in ready for s in self.request.stop):
            ready, over = cut_at(ready, self.request.stop), "stop"
        elif not done and self.longest:
            ready, rest = ready[: -self.longest], ready[-self.longest :]
        value.held = rest
        if not (ready or tokens or over):
            return None
        return Piece(row, field.name, ready, tokens, over, id_ != MISSING)

    def _plain(
        self, row: int, field: FieldIds, value: Value, id_: int, done: bool, cut: bool
    ) -> Piece | None:
        value.ids.append(id_)
        if not done:
            return None
        (found,) = decode_values(self.run, field.name, [np.array(value.ids)])
        return Piece(row, field.name, "", self._told(row), "stop", found)

    def _told(self, row: int) -> tuple[Token, ...]:
        return () if self.trace is None else tuple(self.trace.rows.pop(row, ()))
