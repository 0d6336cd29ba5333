"""Requests of a trained model, turned into plans for the sampler and back into records."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from omnifill.artifact import LoadedRun
from omnifill.codecs.pretrained import Templated
from omnifill.data.shards import Shard
from omnifill.data.values import to_native
from omnifill.errors import RequestError
from omnifill.form.layout import Orders
from omnifill.form.vocabulary import END, MISSING, Vocabulary
from omnifill.generate.aims import best_of, fluency, scored, unbeaten
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.beam import BeamSearch, as_steps
from omnifill.generate.checks import (
    check_places,
)
from omnifill.generate.choices import choose
from omnifill.generate.constraint import Constraint
from omnifill.generate.decoding import Stopper, chosen_ids, cut_at, decode_field, joined
from omnifill.generate.given import in_view
from omnifill.generate.part import completed, whole_ones
from omnifill.generate.plan import Leaning, Plan
from omnifill.generate.rerank import agreed
from omnifill.generate.samplers import ROWS, build_sampler
from omnifill.generate.steer import Steer, needs_steering
from omnifill.generate.turns import pause
from omnifill.generate.ways import draw_ways, ways
from omnifill.generate.wishes import Request
from omnifill.progress import Progress
from omnifill.schema import FieldSpec
from omnifill.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Made:
    """What a sampler wrote: canonical values by wanted field, one for each record."""

    columns: dict[str, list[Any]]
    cut: dict[str, list[bool]] = field(default_factory=dict)
    """Of texts, whether there was no room for more."""

    def rows(self, chosen: Sequence[int]) -> Made:
        """Those records, in that order."""
        columns, cut = ({name: [values[i] for i in chosen] for name, values in part.items()}
                        for part in (self.columns, self.cut))  # fmt: skip
        return Made(columns, cut)


def given_shard(run: LoadedRun, request: Request) -> tuple[Shard, bool]:
    """What is given, as one record; and whether its last field is a beginning."""
    values = {name: [value] for name, value in request.given.items()}
    if request.prompt is not None:
        values[request.want[0]] = [request.prompt]
    begun = request.prompt is not None
    if request.part is not None and not run.vocabulary.canvas:
        values[request.part.field] = [request.part.told]
        begun = request.part.begins
    shard = encode_given(run, values or {run.schema.names[0]: [None]})
    if request.prompt is not None and not run.vocabulary.canvas:
        shard = _open_end(run, shard, request.want[0])
    if request.part is not None and not run.vocabulary.canvas:
        shard = _cut(run, shard, request.want[0], int((request.part.codes >= 0).sum()))
    return shard, begun


def plan_of(run: LoadedRun, request: Request, first: int, num: int) -> Plan:
    """Rows first … first + num of a request."""
    shard, begun = given_shard(run, request)
    if first == 0:
        _tell_far(run, shard, request)
        check_places(run, shard, request.want, request.max_tokens)
    names = run.schema.names
    which, numbers = np.zeros(num, np.int64), np.arange(first, first + num)
    known = np.tile([name in request.given for name in names], (num, 1))
    if between := _between(run, request):
        wished = np.array([name in request.no_missing for name in names])
        shard, _ = draw_ways(run, shard, which, known, between, numbers, request.seed,
                             request.sampling, wished)  # fmt: skip
        which = np.arange(num)
    order = [run.vocabulary[name].index for name in [*[request.want[0]] * begun, *request.want]]
    laid = _laid(known, order, run.vocabulary)
    wanted = np.arange(laid.shape[1]) >= known.sum(axis=1, keepdims=True) + begun
    wanted &= laid >= 0
    steered = needs_steering(request.aims) and not run.vocabulary.canvas
    leaning: Leaning | None = None
    if steered:
        leaning = Steer(run, request.aims, request.prompt or "", request.seed, first)
    elif request.rule is not None:
        leaning = Constraint(run.vocabulary[request.want[0]], request.rule, request.max_tokens)
    there = {*request.no_missing, *(aim.field for aim in request.aims)}
    there |= {request.part.field} if request.part is not None else set()
    forbid = np.array([n in there for n in run.schema.names])
    return Plan(
        shard, which, Orders(laid, wanted), numbers, request.seed, request.sampling,
        request.max_tokens, forbid, partial=begun, leaning=leaning,
        known=None if request.part is None else request.part.codes,
        suffix=None if request.suffix is None else _codes(run, request.want[0], request.suffix),
    )  # fmt: skip


def _laid(known: Bools, order: Sequence[int], vocabulary: Vocabulary) -> Ints:
    """(n, F + 1) fields: those that are known (n, F), as training lays them out, then some others
    in their order, then -1."""
    num, num_fields = known.shape
    first = np.where(known[:, vocabulary.order], vocabulary.order, -1)
    whole = np.hstack([first, np.tile(np.array(order, np.int64), (num, 1))])
    places = np.argsort(whole < 0, axis=1, kind="stable")[:, : num_fields + 1]
    out: Ints = np.take_along_axis(whole, places, axis=1)
    return np.pad(out, ((0, 0), (0, num_fields + 1 - out.shape[1])), constant_values=-1)


def _between(run: LoadedRun, request: Request) -> list[str]:
    """What is drawn first and not told; nothing where a beginning is given, or where the likeliest
    is sought."""
    if request.prompt is not None or request.part is not None or request.sampling.beams > 1:
        return []
    return [n for n in ways(run, request.given, request.want) if n not in request.want]


def _codes(run: LoadedRun, name: str, text: str) -> Ints:
    return run.vocabulary[name].codec.encode(text)


def encode_given(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Known values -> a shard in memory, with a warning where one is not taken as it is."""
    tell_moved(run, columns)
    return in_view(run, columns)


def _tell_far(run: LoadedRun, shard: Shard, request: Request) -> None:
    """Warn of given texts that are longer than what is in view at once."""
    context = run.network.config.context
    for name in request.given:
        size = int(shard.lens[0, run.schema.index(name)])
        if run.vocabulary[name].slots is None and size > context:
            warnings.warn(
                f"field {name!r}: the given text has {size} tokens, and its last {context} are in "
                f"view of what is generated (more: train with --set model.context=N)",
                stacklevel=2,
            )


def tell_moved(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> None:
    """Warn of given numbers and dates outside the range that training saw."""
    for name, values in columns.items():
        clamped = getattr(run.vocabulary[name].codec, "clamped", None)
        num = clamped([v for v in values if v is not None]) if clamped else 0
        if num:
            warnings.warn(
                f"field {name!r}: {num} given value{'s' * (num > 1)} outside what training saw; "
                f"the nearest that was seen stands in",
                stacklevel=2,
            )


def _open_end(run: LoadedRun, shard: Shard, name: str) -> Shard:
    """The shard's one record with the <end> of a text taken off: a beginning, not a whole."""
    return _cut(run, shard, name, int(shard.lens[0, run.schema.index(name)]) - 1)


def _cut(run: LoadedRun, shard: Shard, name: str, size: int) -> Shard:
    """The shard's one record with only the first `size` ids of a field."""
    index = run.schema.index(name)
    lens = np.asarray(shard.lens).copy()
    start = int(lens[0, :index].sum())
    gone = np.arange(start + size, start + int(lens[0, index]))
    lens[0, index] = size
    return Shard(np.delete(shard.ids, gone), np.delete(shard.rows, gone), lens)


def canonical(run: LoadedRun, request: Request) -> dict[str, list[Any]]:
    """The wanted fields of all records of a request, as canonical values."""
    return made(run, request).columns


def made(run: LoadedRun, request: Request, rows: int = ROWS) -> Made:
    """The same, and which texts were cut; at most `rows` are drawn at once. It pauses at each step
    (see `turns`)."""
    if request.choices is not None:
        tell_moved(run, _given(request, 1))
        texts = choose(run, request.want[0], request.choices, request.given, request.num,
                       request.seed, request.sampling.temperature)  # fmt: skip
        return Made({request.want[0]: texts})
    if request.sampling.beams > 1:
        return _searched(run, request)
    total = request.num * request.rerank * request.candidates
    drawn = _drawn(run, request, total, rows)
    if request.rerank > 1:
        return drawn.rows(agreed(run, drawn.columns, request.rerank))
    if request.aims or request.candidates > 1:
        whole = drawn.columns | _given(request, len(drawn.columns[request.want[0]]))
        scores, met = scored(request.aims, whole)
        fluent = fluency(run, whole, met)
        chosen = best_of(request.aims, scores, met, fluent, request.candidates)
        _tell_unmet(request, met[chosen])
        return drawn.rows(chosen)
    return drawn


def _drawn(run: LoadedRun, request: Request, total: int, rows: int = ROWS) -> Made:
    whole = Made(defaultdict(list), defaultdict(list))
    with Progress("generating", total, "records") as progress:
        for first in range(0, total, rows):
            num = min(rows, total - first)
            part = _values(run, plan_of(run, request, first, num), request)
            for name in request.want:
                whole.columns[name].extend(part.columns[name])
            for name, cut in part.cut.items():
                whole.cut[name].extend(cut)
            progress.advance(num)
    return whole


def _given(request: Request, num: int) -> dict[str, list[Any]]:
    return {name: [value] * num for name, value in request.given.items()}


def _tell_unmet(request: Request, met: Bools) -> None:
    """Warn of aims that records fall short of, though the best candidates were taken."""
    lacking = [f"{aim.name} ({int((~met[:, i]).sum())})" for i, aim in enumerate(request.aims)
               if not met[:, i].all()]  # fmt: skip
    if lacking:
        warnings.warn(
            f"of {len(met)} record{'s' * (len(met) > 1)}, not all meet: {', '.join(lacking)}; more "
            f"candidates than {request.candidates} would find more",
            stacklevel=4,
        )


def front(run: LoadedRun, request: Request) -> tuple[pd.DataFrame, Floats]:
    """The candidates that no other beats on all aims, their scores behind their fields; and the
    scores of all candidates (n, aims)."""
    columns = _drawn(run, request, request.num * request.candidates).columns
    columns |= _given(request, len(columns[request.want[0]]))
    scores, _ = scored(request.aims, columns)
    kept = unbeaten(scores)
    table = as_frame(run, {name: [values[i] for i in kept] for name, values in columns.items()})
    for i, aim in enumerate(request.aims):
        table[aim.name if aim.name not in table else f"({aim.name})"] = scores[kept, i]
    return table, scores


def run(run: LoadedRun, request: Request) -> pd.DataFrame:
    """All records of a request: given, prompted and wanted fields, in schema order."""
    return as_frame(run, canonical(run, request) | _given(request, request.num))


def as_frame(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Canonical columns as a table with the source's types, in schema order."""
    return pd.DataFrame({
        spec.name: native_column(spec, columns[spec.name])
        for spec in run.schema.fields if spec.name in columns
    })  # fmt: skip


def native_column(spec: FieldSpec, values: Sequence[Any]) -> pd.Series[Any]:
    """Canonical values -> a column of the source's type."""
    cells = [to_native(spec, value) for value in values]
    if spec.native == "int" and None in cells:
        return pd.Series(cells, dtype="Int64")
    if spec.native in ("int", "float", "bool") and None not in cells:
        return pd.Series(cells)
    if spec.native == "float":
        return pd.Series(cells, dtype=float)
    return pd.Series(cells, dtype=object)


def _values(run: LoadedRun, plan: Plan, request: Request) -> Made:
    """Run a plan."""
    sampler, steps = build_sampler(run), []
    stopper = [Stopper(run, plan, request.stop)] if request.stop else []
    for step in sampler(plan, *stopper):
        steps.append(step)
        pause()
    return decoded(run, plan, request, steps, len(plan.which))


def _searched(run: LoadedRun, request: Request) -> Made:
    """The likeliest records instead of drawn ones, the best first."""
    plan = plan_of(run, request, 0, 1)
    search = BeamSearch(Autoregressive(run.network, run.vocabulary, run.objective.columns))
    found = search(plan)
    if len(found[0]) < request.num:
        raise RequestError(f"n = {request.num}: there are only {len(found[0])} different records")
    steps = list(as_steps(found, request.num))
    return decoded(run, plan, request, steps, request.num)


def decoded(run: LoadedRun, plan: Plan, request: Request, steps: Sequence[Any], num: int) -> Made:
    """What a sampler chose for `num` rows."""
    part = request.part
    whole = whole_ones(run, part, request.want)
    out = {name: decode_field(run, steps, name, num) for name in whole}
    answers = isinstance(request.prompt, Templated)
    if request.prompt is not None and not run.vocabulary.canvas and not answers:
        name = request.want[0]
        out[name] = [joined(run, plan, name, steps, i) for i in range(num)]
    if part is not None:
        out[part.field] = completed(run, part, out.get(part.field), steps, num)
    cut = {name: [bool(len(ids)) and ids[-1] not in (END, MISSING)
                  for ids in chosen_ids(run.vocabulary[name], steps, num)]
           for name in whole if run.vocabulary[name].slots is None}  # fmt: skip
    for name in cut if request.stop else []:
        given = len(request.prompt or "") if name == request.want[0] and not answers else 0
        for i, text in enumerate(out[name]):
            if text is not None and any(s in text[given:] for s in request.stop):
                out[name][i], cut[name][i] = (
                    text[:given] + cut_at(text[given:], request.stop),
                    False,
                )
    return Made(out, cut)
