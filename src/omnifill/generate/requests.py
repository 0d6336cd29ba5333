"""What people ask of a trained model, turned into plans for the sampler and back into records."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from omnifill.artifact import LoadedRun
from omnifill.codecs.pretrained import PretrainedCodec, Templated
from omnifill.data.shards import Shard
from omnifill.data.values import to_native
from omnifill.errors import RequestError, check_kind
from omnifill.form.layout import Orders
from omnifill.form.tasks import tell_untrained, wanted_fields, wanted_from
from omnifill.generate.aims import Aim, Goal, best_of, fluency, parse_aims, scored, unbeaten
from omnifill.generate.autoregressive import Autoregressive, Leaning, Plan
from omnifill.generate.beam import BeamSearch, as_steps
from omnifill.generate.chat import Messages, templated
from omnifill.generate.checks import (
    check_candidates,
    check_guidance,
    check_places,
    check_prompt,
    check_rule,
    check_sampler,
)
from omnifill.generate.choices import choose, parse_choices
from omnifill.generate.constraint import Constraint, Rule
from omnifill.generate.decoding import Stopper, cut_at, decode_field, joined
from omnifill.generate.filters import Sampling
from omnifill.generate.given import as_learned, in_view, parse_given
from omnifill.generate.parallel import Parallel
from omnifill.generate.part import Part, check_part, completed, known_part, whole_ones
from omnifill.generate.rerank import agreed, check_rerank
from omnifill.generate.steer import Steer, needs_steering
from omnifill.progress import Progress
from omnifill.schema import FieldSpec
from omnifill.types import Bools, Floats, Ints

ROWS = 512
"""Rows of a batch."""
CANDIDATES = 6
"""Records drawn for each that is kept by its aims."""


@dataclass(frozen=True, eq=False)
class Wish:
    """What somebody asks for, as it was said."""

    num: int = 1
    given: Mapping[str, Any] | None = None
    want: Sequence[str] | None = None
    """Fields to generate; None or none: all others."""
    prompt: str | Messages | None = None
    """What the first wanted text begins with; or messages, for the chat template of an imported
    checkpoint, which the text answers."""
    suffix: str | None = None
    """What it ends with."""
    seed: int = 0
    max_tokens: int = 512
    no_missing: Sequence[str] = ()
    stop: Sequence[str] = ()
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    rerank: int = 1
    """Candidates that are drawn for each record, of which the one most like the others is kept."""
    aims: Sequence[Goal] = ()
    candidates: int | None = None
    """Records that are drawn for each one that is kept by its aims."""
    choices: Sequence[str] | None = None
    """Texts among which the wanted one is chosen by likelihood."""
    rule: Rule | None = None
    """What the first wanted text must obey, behind its prompt."""


@dataclass(frozen=True, eq=False)
class Request:
    """Records to generate, n rows with the same given and wanted fields: a `Wish`, checked."""

    num: int
    given: dict[str, Any]
    """Canonical values by field."""
    want: list[str]
    prompt: str | None
    seed: int
    max_tokens: int
    no_missing: list[str]
    stop: list[str]
    sampling: Sampling
    rerank: int = 1
    aims: Sequence[Aim] = ()
    candidates: int = 1
    suffix: str | None = None
    choices: Sequence[str] | None = None
    part: Part | None = None
    rule: Rule | None = None


def build(run: LoadedRun, wish: Wish) -> Request:
    """Check a wish against the model's fields; RequestError or ValueRefused says what is off."""
    schema, num, want = run.schema, wish.num, wish.want
    prompt, suffix = _begun(run, wish.prompt), wish.suffix
    sampling, seed, max_tokens = wish.sampling, wish.seed, wish.max_tokens
    given = {} if wish.given is None else wish.given
    check_kind("given", given, Mapping, "a dict from field to value")
    for name, value in (("n", num), ("max_tokens", max_tokens), ("seed", seed)):
        check_kind(name, value, (int, np.integer), "a whole number")
    for name in [*given, *(want or []), *wish.no_missing]:
        check_kind("given, want or no_missing", name, str, "names of fields")
        schema[name]
    for name, value in (("n", num), ("max_tokens", max_tokens)):
        if value < 1:
            raise RequestError(f"{name} = {value}: must be 1 or more")
    if not 0 <= seed < 2**64:
        raise RequestError(f"seed = {seed}: must be from 0 to 2^64 - 1")
    if "" in wish.stop:
        raise RequestError("stop: an empty string would end every text before it begins")
    if len(set(want or [])) < len(want or []):
        raise RequestError(f"want = {list(want or [])}: names a field twice")
    part, given = known_part(run, given, seed)
    both = set(given) & set(want or [])
    if both:
        raise RequestError(f"{sorted(both)}: given and wanted at once; leave it out of one")
    parsed = {name: parse_given(run, schema[name], value) for name, value in given.items()}
    form = run.recipe.form
    if part is not None and want and part.field not in want:
        want = [part.field, *want]
    wanted = list(want) if want else wanted_from(run.vocabulary, form, parsed)
    if not wanted:
        raise RequestError("every field is given; there is nothing to generate")
    if wish.choices is not None and not set(wanted) & set(wanted_fields(run.vocabulary, form)):
        tell_untrained(form, wanted, parsed)  # weighed by how likely the others are beside each
    else:
        tell_untrained(form, parsed, wanted)
    parsed_aims = parse_aims(run, wish.aims, wanted)
    check_candidates(parsed_aims, wish.candidates, sampling, wish.rerank)
    for aim in parsed_aims:
        if aim.value is not None and parsed.setdefault(aim.field, aim.value) != aim.value:
            raise RequestError(f"--aim {aim.name}: {aim.field!r} is given another value")
    wanted = run.vocabulary.in_order(name for name in wanted if name not in parsed)
    if not wanted:
        raise RequestError("what is aimed at is given, and nothing else is wanted")
    if prompt is not None or wish.suffix is not None:
        said = want or wanted  # aims are about the first that is said, too
        texts = [n for n in said if n in wanted and run.vocabulary[n].slots is None]
        if not texts:
            named = "--suffix" if prompt is None else "--prompt"
            raise RequestError(f"{named} is a part of a text, and no text is wanted")
        wanted = [texts[0], *(n for n in wanted if n != texts[0])]
        prompt, suffix = (as_learned(run, schema[texts[0]], t) for t in (prompt, wish.suffix))
        check_prompt(run, texts[0], prompt or "")
    prompt, suffix, wanted = _opened(run, wanted, prompt, suffix)
    if part is not None:
        more = [prompt, suffix, wish.aims, wish.rerank != 1, wish.choices, sampling.beams > 1]
        check_part(part, wanted, any(more))
        wanted = [part.field, *(n for n in wanted if n != part.field)]
    check_sampler(run, sampling, wish.suffix)
    if wish.stop and not any(run.vocabulary[n].slots is None for n in wanted):
        raise RequestError("stop strings end texts, and no text is wanted")
    if sampling.guidance != 1:
        check_guidance(run, parsed)
    if sampling.beams > 1 and num > sampling.beams:
        raise RequestError(f"n = {num}: {sampling.beams} beams find no more than that")
    if wish.rerank != 1:
        check_rerank(run, wanted, wish.rerank, sampling)
    choices = None if wish.choices is None else _check_choices(run, wish, wanted)
    if wish.rule is not None:
        beside = wish.choices is not None or wish.stop or needs_steering(parsed_aims)
        wanted = check_rule(run, wanted, bool(beside) or sampling.beams > 1)
    if sampling.beams > 1 and wish.stop:
        raise RequestError("stop strings end what is drawn, and beams search; leave one out")
    return Request(
        num, parsed, wanted, prompt, seed, max_tokens, list(wish.no_missing), list(wish.stop),
        sampling, wish.rerank, parsed_aims,
        (wish.candidates or CANDIDATES) if parsed_aims else 1, suffix, choices, part,
        wish.rule,
    )  # fmt: skip


def _begun(run: LoadedRun, prompt: str | Messages | None) -> str | None:
    """The prompt as text."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    return templated(run, prompt)


def _opened(
    run: LoadedRun, wanted: list[str], prompt: str | None, suffix: str | None
) -> tuple[str | None, str | None, list[str]]:
    """Prompt, suffix and wanted fields, where a text begins or ends with tokens of its own, since
    the network knows no <bos>: they are there even if nothing is said."""
    for name in wanted:
        codec = run.vocabulary[name].codec
        if isinstance(codec, PretrainedCodec) and (codec.opener is not None or codec.tail):
            suffix = suffix or "" if codec.tail else suffix
            return prompt or "", suffix, [name, *(n for n in wanted if n != name)]
    return prompt, suffix, wanted


def _check_choices(run: LoadedRun, wish: Wish, wanted: Sequence[str]) -> list[str]:
    """The texts among which to choose; RequestError for whatever else would have no effect."""
    if len(wanted) != 1:
        raise RequestError(
            f"choices are values of one field, and {len(wanted)} are wanted; name it"
        )
    more = [wish.prompt, wish.suffix, wish.stop, wish.aims, wish.rerank != 1, wish.no_missing]
    plain = Sampling(temperature=wish.sampling.temperature)
    if any(more) or wish.sampling != plain or wish.max_tokens != Wish.max_tokens:
        raise RequestError(
            "choices are weighed as they are: beside given, want, n, seed and temperature leave "
            "out the rest"
        )
    return parse_choices(run, wanted[0], wish.choices or ())


def build_sampler(run: LoadedRun) -> Any:
    """What makes records of a plan: slot by slot, or all slots in a few steps."""
    if run.vocabulary.canvas:
        return Parallel(run.network, run.vocabulary, run.objective.columns, run.objective.schedule)
    return Autoregressive(run.network, run.vocabulary, run.objective.columns)


def plan_of(run: LoadedRun, request: Request, first: int, num: int) -> Plan:
    """Rows first … first + num of a request."""
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
    if first == 0:
        _tell_far(run, shard, request)
        check_places(run, shard, request.want, request.max_tokens)
    names = run.vocabulary.in_order(request.given)
    row = np.full(len(run.vocabulary.fields) + 1, -1, np.int64)
    wanted = np.zeros(len(row), bool)
    given = [*names, *([request.want[0]] if begun else [])]
    order = [run.vocabulary[n].index for n in [*given, *request.want]]
    row[: len(order)] = order
    wanted[len(given) : len(order)] = True
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
        shard, np.zeros(num, np.int64), Orders(np.tile(row, (num, 1)), np.tile(wanted, (num, 1))),
        np.arange(first, first + num), request.seed, request.sampling, request.max_tokens,
        forbid, partial=begun, leaning=leaning,
        known=None if request.part is None else request.part.codes,
        suffix=None if request.suffix is None else _codes(run, request.want[0], request.suffix),
    )  # fmt: skip


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
    if request.choices is not None:
        tell_moved(run, _given(request, 1))
        texts = choose(run, request.want[0], request.choices, request.given, request.num,
                       request.seed, request.sampling.temperature)  # fmt: skip
        return {request.want[0]: texts}
    if request.sampling.beams > 1:
        return _searched(run, request)
    columns = _drawn(run, request, request.num * request.rerank * request.candidates)
    if request.rerank > 1:
        return agreed(run, columns, request.rerank)
    if request.aims:
        whole = columns | _given(request, len(columns[request.want[0]]))
        scores, met = scored(request.aims, whole)
        fluent = fluency(run, whole, met)
        chosen = best_of(request.aims, scores, met, fluent, request.candidates)
        _tell_unmet(request, met[chosen])
        return {name: [values[i] for i in chosen] for name, values in columns.items()}
    return columns


def _drawn(run: LoadedRun, request: Request, total: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in request.want}
    with Progress("generating", total, "records") as progress:
        for first in range(0, total, ROWS):
            num = min(ROWS, total - first)
            values = _values(run, plan_of(run, request, first, num), request)
            for name in request.want:
                columns[name].extend(values[name])
            progress.advance(num)
    return columns


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
    columns = _drawn(run, request, request.num * request.candidates)
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


def _values(run: LoadedRun, plan: Plan, request: Request) -> dict[str, list[Any]]:
    """Run a plan -> canonical values by wanted field, one per row."""
    sampler = build_sampler(run)
    if isinstance(sampler, Parallel):
        steps = list(sampler(plan))
    else:
        steps = list(sampler(plan, Stopper(run, plan, request.stop) if request.stop else None))
    return _decoded(run, plan, request, steps, len(plan.which))


def _searched(run: LoadedRun, request: Request) -> dict[str, list[Any]]:
    """The likeliest records instead of drawn ones, the best first."""
    plan = plan_of(run, request, 0, 1)
    search = BeamSearch(Autoregressive(run.network, run.vocabulary, run.objective.columns))
    found = search(plan)
    if len(found[0]) < request.num:
        raise RequestError(f"n = {request.num}: there are only {len(found[0])} different records")
    steps = list(as_steps(found, request.num))
    return _decoded(run, plan, request, steps, request.num)


def _decoded(
    run: LoadedRun, plan: Plan, request: Request, steps: Sequence[Any], num: int
) -> dict[str, list[Any]]:
    """What a sampler chose for `num` rows -> canonical values by wanted field."""
    part = request.part
    whole = whole_ones(run, part, request.want)
    out = {name: decode_field(run, steps, name, num) for name in whole}
    answers = isinstance(request.prompt, Templated)
    if request.prompt is not None and not run.vocabulary.canvas and not answers:
        name = request.want[0]
        out[name] = [joined(run, plan, name, steps, i) for i in range(num)]
    if part is not None:
        out[part.field] = completed(run, part, out.get(part.field), steps, num)
    for name in request.want if request.stop else []:
        if run.vocabulary[name].slots is None:
            given = len(request.prompt or "") if name == request.want[0] and not answers else 0
            out[name] = [
                None if text is None else text[:given] + cut_at(text[given:], request.stop)
                for text in out[name]
            ]
    return out
