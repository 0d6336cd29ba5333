"""What people ask of a trained model, turned into plans for the sampler and back into records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.data.source import Source
from omnifill.data.values import parse_many, parse_value, to_native, to_text
from omnifill.errors import DataError, RequestError, ValueRefused, unknown_name
from omnifill.form.encode import encode_records, whole_stream
from omnifill.form.layout import Former, Orders, ask_one, missing_in, schema_order
from omnifill.form.vocabulary import CODE_COLUMN, END, MISSING
from omnifill.generate.autoregressive import Autoregressive, Plan
from omnifill.generate.filters import Sampling
from omnifill.schema import FieldSpec
from omnifill.types import Ints

ROWS = 512
"""Rows of a batch."""


@dataclass(frozen=True, eq=False)
class Request:
    """Records to generate: n rows with the same given and wanted fields."""

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


def build(
    run: LoadedRun, num: int, given: Mapping[str, Any], want: Sequence[str] | None,
    prompt: str | None, *, seed: int, max_tokens: int, no_missing: Sequence[str],
    stop: Sequence[str], sampling: Sampling,
) -> Request:  # fmt: skip
    """Check a request against the model's fields; RequestError or ValueRefused says what is off."""
    schema = run.schema
    for name in [*given, *(want or []), *no_missing]:
        schema[name]
    if num < 1 or max_tokens < 1:
        raise RequestError(f"n = {num}, max_tokens = {max_tokens}: must be 1 or more")
    if not 0 <= seed < 2**64:
        raise RequestError(f"seed = {seed}: must be from 0 to 2^64 - 1")
    if "" in stop:
        raise RequestError("stop: an empty string would end every text before it begins")
    if len(set(want or [])) < len(want or []):
        raise RequestError(f"want = {list(want or [])}: names a field twice")
    both = set(given) & set(want or [])
    if both:
        raise RequestError(f"{sorted(both)}: given and wanted at once; leave it out of one")
    parsed = {name: _parse(run, schema[name], value) for name, value in given.items()}
    wanted = list(want) if want else [n for n in schema.names if n not in parsed]
    if not wanted:
        raise RequestError("every field is given; there is nothing to generate")
    wanted = run.vocabulary.in_order(wanted)
    if prompt is not None:
        texts = [n for n in wanted if run.vocabulary[n].slots is None]
        if not texts:
            raise RequestError("--prompt continues a text, and no text is wanted")
        wanted = [texts[0], *(n for n in wanted if n != texts[0])]
    if stop and not any(run.vocabulary[n].slots is None for n in wanted):
        raise RequestError("stop strings end texts, and no text is wanted")
    return Request(
        num, parsed, wanted, prompt, seed, max_tokens, list(no_missing), list(stop), sampling
    )


def _parse(run: LoadedRun, spec: FieldSpec, value: Any) -> Any:
    """A user's value -> canonical; a category's value must be one that was seen."""
    if value is None:
        return None
    parsed = parse_value(spec, value)
    if parsed is not None:
        try:
            run.vocabulary[spec.name].codec.encode(parsed)
        except ValueRefused as error:
            raise ValueRefused(f"field {spec.name!r}: {error}") from None
    return parsed


def _plan(run: LoadedRun, request: Request, first: int, num: int) -> Plan:
    """Rows first … first + num of a request."""
    values = {name: [value] for name, value in request.given.items()}
    if request.prompt is not None:
        values[request.want[0]] = [request.prompt]
    shard, _ = encode_records(run.vocabulary, values or {run.schema.names[0]: [None]})
    if request.prompt is not None:
        shard = _open_end(run, shard, request.want[0])
    names = run.vocabulary.in_order(request.given)
    row = np.full(len(run.vocabulary.fields) + 1, -1, np.int64)
    wanted = np.zeros(len(row), bool)
    given = [*names, *([request.want[0]] if request.prompt is not None else [])]
    order = [run.vocabulary[n].index for n in [*given, *request.want]]
    row[: len(order)] = order
    wanted[len(given) : len(order)] = True
    forbid = np.array([n in request.no_missing for n in run.schema.names])
    return Plan(
        shard, np.zeros(num, np.int64), Orders(np.tile(row, (num, 1)), np.tile(wanted, (num, 1))),
        np.arange(first, first + num), request.seed, request.sampling, request.max_tokens,
        forbid, partial=request.prompt is not None,
    )  # fmt: skip


def _open_end(run: LoadedRun, shard: Shard, name: str) -> Shard:
    """The shard's one record with the <end> of a text taken off: a beginning, not a whole."""
    index = run.schema.index(name)
    lens = np.asarray(shard.lens).copy()
    last = int(lens[0, : index + 1].sum()) - 1
    lens[0, index] -= 1
    return Shard(np.delete(shard.ids, last), np.delete(shard.rows, last), lens)


def run(run: LoadedRun, request: Request) -> pd.DataFrame:
    """All records of a request: given, prompted and wanted fields, in schema order."""
    columns: dict[str, list[Any]] = {name: [] for name in request.want}
    for first in range(0, request.num, ROWS):
        num = min(ROWS, request.num - first)
        values = _values(run, _plan(run, request, first, num), request)
        for name in request.want:
            columns[name].extend(values[name])
    out = {}
    for spec in run.schema.fields:
        if spec.name in request.given:
            values_ = [request.given[spec.name]] * request.num
        elif spec.name in columns:
            values_ = columns[spec.name]
        else:
            continue
        out[spec.name] = native_column(spec, values_)
    return pd.DataFrame(out)


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
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    if request.stop:
        texts = _stopped_texts(run, sampler, plan, request)
    steps = [] if request.stop else list(sampler(plan))
    out: dict[str, list[Any]] = {}
    for name in request.want:
        if request.stop and run.vocabulary[name].slots is None:
            out[name] = texts[name]
            continue
        out[name] = decode_field(run, steps if not request.stop else texts["__steps__"], name,
                                 len(plan.which))  # fmt: skip
    if request.prompt is not None and not request.stop:
        name = request.want[0]
        out[name] = [_joined(run, plan, request, name, steps, i) for i in range(len(plan.which))]
    return out


def decode_field(run: LoadedRun, steps: Sequence[Any], name: str, num: int) -> list[Any]:
    """What the steps chose for one field -> canonical values by row."""
    field = run.vocabulary[name]
    rows = np.concatenate([s.row[s.field == field.index] for s in steps])
    ids = np.concatenate([s.id[s.field == field.index] for s in steps])
    order = np.argsort(rows, kind="stable")
    rows, ids = rows[order], ids[order]
    if field.slots is not None and len(ids) == num * field.slots:
        grid = ids.reshape(num, field.slots)
        known = grid[:, 0] != MISSING
        decode_many = getattr(field.codec, "decode_many", None)
        codes = grid[known] - field.first
        values = decode_many(codes) if decode_many else [field.codec.decode(c) for c in codes]
        out: list[Any] = [None] * num
        for i, value in zip(np.flatnonzero(known), values, strict=True):
            out[i] = value
        return out
    starts = np.searchsorted(rows, np.arange(num + 1))
    return [run.vocabulary.decode(name, _no_end(ids[a:b])) for a, b in pairwise(starts)]


def _no_end(ids: Ints) -> Ints:
    return ids[:-1] if len(ids) and ids[-1] == END else ids


def _joined(run: LoadedRun, plan: Plan, request: Request, name: str, steps: Any, i: int) -> str:
    """A prompted text: the prompt's codes and the new ones, decoded together."""
    field = run.vocabulary[name]
    ids = [s.id[(s.row == i) & (s.field == field.index)] for s in steps]
    start = int(plan.shard.starts[0] + plan.shard.lens[0, : field.index].sum())
    given = np.asarray(plan.shard.ids[start : start + int(plan.shard.lens[0, field.index])])
    whole: str = run.vocabulary.decode(name, _no_end(np.concatenate([given, *ids])))
    return whole


def _stopped_texts(
    run: LoadedRun, sampler: Autoregressive, plan: Plan, request: Request
) -> dict[str, Any]:
    """Texts cut at the first stop string that they contain."""
    steps = list(sampler(plan))
    out: dict[str, Any] = {"__steps__": steps}
    for name in request.want:
        if run.vocabulary[name].slots is not None:
            continue
        texts = decode_field(run, steps, name, len(plan.which))
        out[name] = [None if t is None else cut_at(t, request.stop) for t in texts]
        if name == request.want[0] and request.prompt is not None:
            out[name] = [request.prompt + t for t in out[name]]
    return out


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    found = [text.find(s) for s in stop if s in text]
    return text[: min(found)] if found else text


def stream(run: LoadedRun, request: Request) -> Iterator[str]:
    """Pieces of the first wanted text as they are chosen; a stop string is never shown in part."""
    texts = [n for n in request.want if run.vocabulary[n].slots is None]
    if not texts:
        raise RequestError("streaming needs a wanted text field")
    field = run.vocabulary[texts[0]]
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    decoder = field.codec.stream_decoder()  # type: ignore[attr-defined]
    held = ""
    longest = max((len(s) for s in request.stop), default=1) - 1
    plan = _plan(run, request, 0, 1)
    if request.prompt is not None:
        start = int(plan.shard.lens[0, : field.index].sum())
        for id_ in plan.shard.ids[start : start + int(plan.shard.lens[0, field.index])]:
            held += decoder.feed(int(id_) - field.first)
        held = held.removeprefix(request.prompt)
    for step in sampler(plan):
        if step.field[0] != field.index:
            continue
        if step.id[0] >= field.first:
            held += decoder.feed(int(step.id[0]) - field.first)
        if any(s in held for s in request.stop):
            yield cut_at(held, request.stop)
            return
        ready = len(held) if step.done[0] else len(held) - longest
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
        if step.done[0]:
            break
    if held:
        yield held


# --- tables: fill, score, probabilities ----------------------------------------------------


def frame_columns(run: LoadedRun, table: pd.DataFrame) -> dict[str, list[Any]]:
    """A DataFrame's columns as canonical values; unknown columns are refused."""
    out = {}
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"table: two columns are called {str(twice[0])!r}; rename one")
    for name in table.columns:
        if name not in run.schema.names:
            raise DataError("table: " + unknown_name("field", str(name), run.schema.names))
        spec = run.schema[name]
        cells = [None if _is_blank(v) else v for v in table[name].tolist()]
        out[name] = parse_many(spec, cells, partial(_frame_cell, str(name)))
    return out


def _frame_cell(name: str, row: int) -> str:
    return f"row {row + 1}, column {name!r}"


def _is_blank(value: Any) -> bool:
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and value != value)
    )


def read_columns(run: LoadedRun, source: Source) -> dict[str, list[Any]]:
    """A whole source as canonical values; unknown columns are refused."""
    unknown = [n for n in source.names if n not in run.schema.names]
    if unknown:
        raise DataError(f"{source.label}: " + unknown_name("field", unknown[0], run.schema.names))
    out: dict[str, list[Any]] = {name: [] for name in source.names}
    for chunk in source.chunks():
        for name in source.names:
            spec = run.schema[name]

            def where(i: int, chunk: Any = chunk, name: str = name) -> str:
                return f"{chunk.file}:{chunk.lines[i]}, column {name!r}"

            out[name].extend(parse_many(spec, chunk.columns[name], where))
    return out


def encoded(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Canonical columns -> a shard in memory. DataError for a value that its field cannot hold."""
    if run.schema.stream:
        return whole_stream(run.vocabulary, columns)
    shard, _ = encode_records(run.vocabulary, columns, None)
    return shard


def fill(
    run: LoadedRun, table: pd.DataFrame, *, draw: bool, seed: int, sampling: Sampling
) -> pd.DataFrame:
    """Every blank cell filled from its row's known ones; other blanks are not conditioned on."""
    columns = frame_columns(run, table)
    out = table.copy()
    for name, values in fill_columns(run, columns, draw=draw, seed=seed, sampling=sampling).items():
        rows = [i for i, v in enumerate(columns[name]) if v is None]
        cells = [to_native(run.schema[name], values[i]) for i in rows]
        column = [None if _is_blank(v) else v for v in table[name].tolist()]
        for row, cell in zip(rows, cells, strict=True):
            column[row] = cell
        whole = pd.Series(column, index=table.index)
        same = table[name].dtype if not table[name].isna().all() else whole.dtype
        with suppress(TypeError, ValueError):  # a column of floats that holds 1.5 stays so
            whole = whole.astype(same)
        out[name] = whole
    return out


def fill_columns(
    run: LoadedRun, columns: Mapping[str, list[Any]], *, draw: bool, seed: int,
    sampling: Sampling, only: str | None = None,
) -> dict[str, dict[int, Any]]:  # fmt: skip
    """Blank cells of canonical columns (of field `only`) -> {field: {row: value}}.

    Each blank is asked for by itself, given all known cells of its row; with `draw` the blanks
    of a row are drawn one after another, so that they fit together.
    """
    shard = encoded(run, columns)
    index = {name: run.schema.index(name) for name in columns}
    laid = run.vocabulary.in_order(run.schema.names)
    blanks = {n: np.array([v is None for v in columns[n]], bool) for n in columns}
    num = len(shard)
    asks: list[tuple[int, list[str]]] = []
    for row in range(num):
        open_fields = [n for n in laid if n in columns and blanks[n][row]]
        if only is not None:
            open_fields = [only] if blanks[only][row] else []
        if draw and open_fields:
            asks.append((row, open_fields))
        elif not draw:
            asks.extend((row, [name]) for name in open_fields)
    result: dict[str, dict[int, Any]] = {}
    asks.sort(key=lambda ask: ask[1])
    for first in range(0, len(asks), ROWS):
        part = asks[first : first + ROWS]
        fields = np.full((len(part), len(run.vocabulary.fields)), -1, np.int64)
        wanted = np.zeros_like(fields, dtype=bool)
        for i, (row, names) in enumerate(part):
            known = [index[n] for n in laid if n in columns and not blanks[n][row]]
            order = [*known, *(index[n] for n in names)]
            fields[i, : len(order)] = order
            wanted[i, len(known) : len(order)] = True
        plan = Plan(
            shard, np.array([row for row, _ in part]), Orders(fields, wanted),
            np.arange(first, first + len(part)), seed, sampling, 512,
            np.ones(len(run.vocabulary.fields), bool), best=not draw,
        )  # fmt: skip
        sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
        steps = list(sampler(plan))
        for i, name, value in _decoded(run, steps):
            result.setdefault(name, {})[part[i][0]] = value
    return result


def fill_source(
    run: LoadedRun, source: Source, *, draw: bool, seed: int
) -> tuple[int, dict[str, list[Any]]]:
    """Raw cells of a source with the blank ones filled, and how many were."""
    raw: dict[str, list[Any]] = {name: [] for name in source.names}
    for chunk in source.chunks():
        for name in source.names:
            raw[name].extend(chunk.columns[name])
    columns = read_columns(run, source)
    filled = 0
    for name, values in fill_columns(
        run, columns, draw=draw, seed=seed, sampling=Sampling()
    ).items():
        spec = run.schema[name]
        as_text = source.kind in ("csv", "text", "aligned")
        for row, value in values.items():
            cell = to_native(spec, value)
            raw[name][row] = to_text(spec, cell) if as_text else cell
        filled += len(values)
    return filled, raw


def _decoded(run: LoadedRun, steps: Sequence[Any]) -> Iterator[tuple[int, str, Any]]:
    """(row of the plan, field, value) of everything that was chosen."""
    row = np.concatenate([s.row for s in steps])
    field = np.concatenate([s.field for s in steps])
    ids = np.concatenate([s.id for s in steps])
    order = np.lexsort((np.arange(len(row)), field, row))
    row, field, ids = row[order], field[order], ids[order]
    cuts = np.flatnonzero(np.diff(row) | np.diff(field)) + 1
    for part in np.split(np.arange(len(row)), cuts):
        name = run.schema.names[int(field[part[0]])]
        yield int(row[part[0]]), name, run.vocabulary.decode(name, _no_end(ids[part]))


@torch.no_grad()
def field_nats(run: LoadedRun, shard: Shard, orders: Orders, which: Ints) -> np.ndarray[Any, Any]:
    """(n, F): negative log-likelihood of every field of the records, in nats, under `orders`."""
    batch = Former(run.vocabulary).records(shard, which, orders, weighted=False)
    nats = run.objective.nats(run.network, batch).view(batch.ids.shape)
    out = torch.zeros(len(which), len(run.vocabulary.fields))
    counted = nats * (batch.weight > 0)
    return out.scatter_add(1, batch.field, counted).numpy()


def score(run: LoadedRun, table: pd.DataFrame) -> pd.DataFrame:
    """Log-likelihood in nats of every row and field, in schema order."""
    columns = frame_columns(run, table)
    shard = encoded(run, columns)
    parts = []
    for first in range(0, len(shard), ROWS):
        which = np.arange(first, min(first + ROWS, len(shard)))
        orders = present_order(run, columns, len(which))
        parts.append(-field_nats(run, shard, orders, which))
    grid = np.concatenate(parts) if parts else np.zeros((0, len(run.schema.names)))
    out = pd.DataFrame({n: grid[:, run.schema.index(n)] for n in columns}, index=table.index)
    out.insert(0, "row", grid.sum(axis=1))
    return out


def present_order(run: LoadedRun, columns: Mapping[str, Any], num: int) -> Orders:
    """Schema order over the columns that are there."""
    orders = schema_order(num, run.vocabulary)
    there = np.array([n in columns for n in run.schema.names])[orders.fields]
    return Orders(np.where(there, orders.fields, -1), orders.wanted & there)


def probabilities(run: LoadedRun, table: pd.DataFrame, field: str) -> pd.DataFrame:
    """Probability of each value of a category in each row, given the row's other cells."""
    spec = run.schema[field]
    if spec.type != "category":
        raise RequestError(f"field {field!r} is a {spec.type}; probabilities are for categories")
    columns = frame_columns(run, table.drop(columns=[field], errors="ignore"))
    num = len(table)
    shard = encoded(run, {**columns, field: [None] * num})
    grid = category_log_probs(run, shard, field)
    codec = run.vocabulary[field].codec
    names = [to_native(spec, codec.decode(np.array([code]))) for code in range(codec.size)]
    prob = np.exp(grid)
    return pd.DataFrame(prob / prob.sum(axis=1, keepdims=True), columns=names, index=table.index)


@torch.no_grad()
def category_log_probs(run: LoadedRun, shard: Shard, field: str) -> np.ndarray[Any, Any]:
    """(N, K): log-probability of every code of a one-slot field, given the known others."""
    parts = []
    where = run.vocabulary[field]
    former = Former(run.vocabulary)
    for first in range(0, len(shard), ROWS):
        which = np.arange(first, min(first + ROWS, len(shard)))
        orders = ask_one(missing_in(shard, which), where.index, run.vocabulary)
        batch = former.records(shard, which, orders, weighted=False)
        hidden = run.network(batch.ids, batch.field, batch.coord, run.objective.mask)
        at = (batch.weight > 0).int().argmax(dim=1)
        rows = torch.full((len(which),), where.start_row)
        scores = run.objective.columns.scores(
            run.network, hidden[torch.arange(len(which)), at], where.block, rows
        )
        parts.append(scores.log_softmax(dim=1)[:, CODE_COLUMN:].numpy())
    return np.concatenate(parts)
