"""Tables that are there already: blanks filled, rows scored, categories told by probability."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnifill.artifact import LoadedRun
from omnifill.data.audio import library
from omnifill.data.clean import read_cells
from omnifill.data.media import MediaFile
from omnifill.data.results import check_folder
from omnifill.data.shards import Shard
from omnifill.data.source import Source
from omnifill.data.values import to_native, to_text
from omnifill.errors import DataError, RequestError, check_kind, unknown_name
from omnifill.form.encode import first_refused, without_unknown
from omnifill.form.layout import Orders
from omnifill.form.tasks import best_task, tell_untrained, unread, wanted_fields
from omnifill.generate.beam import BeamSearch, as_steps
from omnifill.generate.checks import check_sampler, check_steps, usual_guidance
from omnifill.generate.choices import parse_choices
from omnifill.generate.decoding import decoded_values
from omnifill.generate.embed import embedded
from omnifill.generate.filters import Sampling
from omnifill.generate.given import encoded_to_ask
from omnifill.generate.likelihood import category_log_probs, choice_log_probs, record_nats
from omnifill.generate.plan import Plan
from omnifill.generate.requests import tell_moved
from omnifill.generate.samplers import ROWS, build_sampler
from omnifill.generate.ways import draw_ways, ways
from omnifill.schema import MEDIA
from omnifill.types import ABSENT, Bools, Ints

Where = Callable[[str, int], str]
MOST_TOKENS = 512
"""Of a text, unless more are asked for."""
"""(field, row from 0) -> how a message calls that cell."""


def frame_columns(run: LoadedRun, table: pd.DataFrame) -> dict[str, list[Any]]:
    """A DataFrame's fields as canonical values; unknown columns are refused."""
    out = {}
    check_kind("table", table, pd.DataFrame, "a DataFrame")
    table = named(table)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"table: two columns are called {str(twice[0])!r}; rename one")
    for name in fields_among(run, table.columns, "table"):
        spec = run.schema[name]
        cells = [None if _is_blank(v) else v for v in table[name].tolist()]
        where = partial(_frame_cell, str(name))
        out[name] = read_cells(spec, cells, where, run.recipe.data.clean, run.schema.stream)
    tell_moved(run, out)
    return out


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns called as training called them: by text, be they numbers or
    tuples."""
    return table.set_axis([str(name) for name in table.columns], axis=1)


def _frame_cell(name: str, row: int) -> str:
    return f"row {row + 1}, column {name!r}"


def _is_blank(value: Any) -> bool:
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and value != value)
    )


def fields_among(run: LoadedRun, names: Iterable[str], label: str) -> list[str]:
    """The columns that are fields; DataError for one that training knew nothing of."""
    out = []
    for name in names:
        if name in run.schema.names:
            out.append(name)
        elif name not in run.schema.left_out:
            raise DataError(f"{label}: " + unknown_name("field", str(name), run.schema.names))
    return out


def read_columns(run: LoadedRun, source: Source) -> dict[str, list[Any]]:
    """The fields of a whole source as canonical values; unknown columns are refused."""
    names = fields_among(run, source.names, source.label)
    if not names:
        raise DataError(f"{source.label}: has none of the fields {', '.join(run.schema.names)}")
    out: dict[str, list[Any]] = {name: [] for name in names}
    for chunk in source.chunks():
        for name in names:
            out[name].extend(read_cells(
                run.schema[name], chunk.columns[name], partial(chunk.where, column=name),
                run.recipe.data.clean, run.schema.stream, folder=chunk.folder,
            ))  # fmt: skip
    return out


def without_unseen(
    run: LoadedRun, columns: Mapping[str, list[Any]], where: Where
) -> dict[str, list[Any]]:
    """Columns with ABSENT for categories that training never saw, and a warning if there are any.

    Rare values are seldom in the training part of a table; its other cells still tell enough.
    """
    known, num = without_unknown(run.vocabulary, columns)
    if num:
        name, row, why = first_refused(run.vocabulary, columns)
        more = f" ({num} such cells)" if num > 1 else ""
        warnings.warn(f"{where(name, row)}: {why}. Nothing is told from it{more}", stacklevel=2)
    return known


def fill(
    run: LoadedRun, table: pd.DataFrame, *, draw: bool, seed: int, sampling: Sampling
) -> pd.DataFrame:
    """Every blank cell filled from its row's known ones; other blanks are not conditioned on."""
    check_fill(run, draw, sampling)
    check_kind("table", table, pd.DataFrame, "a DataFrame")
    labels, table = table.columns, named(table)
    columns = without_unseen(run, frame_columns(run, table), _frame_cell)
    out = table.copy()
    _check_blanks(run, columns, sampling)
    filled = fill_columns(run, columns, draw=draw, seed=seed, sampling=sampling)
    for name, values in filled.items():
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
    return out.set_axis(labels, axis=1)


def check_fill(run: LoadedRun, draw: bool, sampling: Sampling) -> None:
    """RequestError for sampling options that filling would not heed."""
    if run.schema.stream:
        raise RequestError(
            "this run learned one text, which has no cells to fill: continue it with `omnifill "
            "generate --prompt`"
        )
    searched = Sampling(beams=sampling.beams, length_penalty=sampling.length_penalty)
    if not draw and sampling != searched:
        raise RequestError("sampling options are for draws: pass draw=True, or leave them out")
    if draw and sampling.beams > 1:
        raise RequestError("beams search, and draw=True draws; leave one out")
    if sampling.beams > 1 and all(f.slots is not None for f in run.vocabulary.fields):
        raise RequestError("beams search for texts, and this model has none")
    check_sampler(run, sampling)


def fill_columns(
    run: LoadedRun, columns: Mapping[str, list[Any]], *, draw: bool, seed: int,
    sampling: Sampling, only: Collection[str] | None = None, quantile: float = 0.5,
    max_tokens: int = MOST_TOKENS,
) -> dict[str, dict[int, Any]]:  # fmt: skip
    """Blank cells of canonical columns (of the fields `only`) -> {field: {row: value}}.

    Each blank is asked for by itself, given all known cells of its row, and a category gets its
    most probable value, a number or date its median (or another `quantile`), a text its likeliest
    tokens one after another, or with `sampling.beams` the likeliest whole; with `draw` the blanks
    of a row are drawn one after another, so that they fit together; pictures and sounds by way of
    what is short and not known of their rows.
    """
    laid = run.vocabulary.in_order(run.schema.names)
    asked = [n for n in laid if n in columns and (only is None or n in only)]
    result: dict[str, dict[int, Any]] = {}
    shard = encoded_to_ask(run, columns)
    index = {name: run.schema.index(name) for name in run.schema.names}
    blanks = {n: np.array([v is None for v in columns[n]], bool) for n in columns}
    place = np.arange(len(shard))
    if draw:
        shard, place, result = _by_way(run, columns, shard, blanks, asked, seed, sampling)
    for name in [] if draw else [n for n in asked if run.schema[n].type == "category"]:
        rows = np.flatnonzero(blanks[name])
        best = category_log_probs(run, shard, name, rows).argmax(axis=1)
        decode = run.vocabulary[name].codec.decode
        result[name] = {
            row: decode(np.array([code])) for row, code in zip(rows.tolist(), best, strict=True)
        }
    asks = _asks(run, asked, blanks, () if draw else result, draw)
    first = 0
    for part, search in _parts(run, asks, sampling.beams):
        fields = np.full((len(part), len(run.vocabulary.fields)), -1, np.int64)
        wanted = np.zeros_like(fields, dtype=bool)
        for i, (row, names) in enumerate(part):
            there = [n for n in laid if n in blanks and not blanks[n][row]]
            silent = unread(run.vocabulary, run.recipe.form, names[-1], there)
            known = [index[n] for n in there if not silent[index[n]]]
            order = [*known, *(index[n] for n in names)]
            fields[i, : len(order)] = order
            wanted[i, len(known) : len(order)] = True
        chosen = usual_guidance(run, sampling, part[0][1]) if draw else sampling
        plan = Plan(
            shard, place[[row for row, _ in part]], Orders(fields, wanted),
            np.arange(first, first + len(part)), seed, chosen, max_tokens,
            np.ones(len(run.vocabulary.fields), bool),
            quantile=None if draw or search else quantile,
        )  # fmt: skip
        first += len(part)
        sampler = build_sampler(run)
        steps = list(as_steps(BeamSearch(sampler)(plan), 1) if search else sampler(plan))
        for i, name, value in decoded_values(run, steps):
            result.setdefault(name, {})[part[i][0]] = value
    return result


def _by_way(
    run: LoadedRun, columns: Mapping[str, list[Any]], shard: Shard, blanks: dict[str, Bools],
    asked: Sequence[str], seed: int, sampling: Sampling,
) -> tuple[Shard, Ints, dict[str, dict[int, Any]]]:  # fmt: skip
    """Of rows whose pictures or sounds are drawn from others of these alone: what is short is drawn
    first (see `generate.ways`), and is blank no more. The shard with such records behind its own;
    (N,) where each row is in it; and the values that were asked for, {field: {row: value}}."""
    num, names = len(shard), run.schema.names
    media = np.array([spec.type in MEDIA for spec in run.schema.fields])
    known = np.array([
        [name in columns and columns[name][row] not in (None, ABSENT) for name in names]
        for row in range(num)
    ]).reshape(num, len(names))  # fmt: skip
    makes = [name for name in asked if run.schema[name].type in MEDIA]
    blank = np.array([blanks[name] for name in makes]).any(axis=0)
    rows = np.flatnonzero(known.any(axis=1) & ~known[:, ~media].any(axis=1) & blank)
    place, found = np.arange(num), ways(run, np.array(names)[media].tolist(), makes)
    if not found or not len(rows):
        return shard, place, {}
    every = np.ones(len(names), bool)
    more, values = draw_ways(
        run, shard, rows, known[rows], found, rows, seed, sampling, forbid=every
    )  # fmt: skip
    place[rows] = num + np.arange(len(rows))
    whole = (
        np.concatenate([np.asarray(getattr(one, part)) for one in (shard, more)])
        for part in ("ids", "rows", "lens")
    )
    result = {}
    for name in found:
        blanks.setdefault(name, np.ones(num, bool))[rows] = False
        if name in asked:
            result[name] = dict(zip(rows.tolist(), values[name], strict=True))
    return Shard(*whole), place, result


Blanks = tuple[int, list[str]]
"""(row, fields to answer there, one after another)."""


def _asks(
    run: LoadedRun, asked: Sequence[str], blanks: Mapping[str, Bools], told: Collection[str],
    draw: bool,
) -> list[Blanks]:  # fmt: skip
    """The blank cells that are not told yet: each alone, or if drawn those of a row together, as
    far as one task tells them."""
    out: list[Blanks] = []
    for row in range(len(next(iter(blanks.values()), ()))):
        names = [n for n in asked if blanks[n][row] and n not in told]
        if not draw:
            out.extend((row, [name]) for name in names)
            continue
        known = [n for n in blanks if not blanks[n][row]]
        together: dict[int, list[str]] = {}
        for name in names:
            task = best_task(run.recipe.form, name, known)
            together.setdefault(id(task), []).append(name)
        out.extend((row, some) for some in together.values())
    return sorted(out, key=lambda ask: ask[1])


def _parts(run: LoadedRun, asks: list[Blanks], beams: int) -> Iterator[tuple[list[Blanks], bool]]:
    """Asks to answer at once, and whether to search: for texts, if there is more than one beam.
    Pictures and sounds alone are by themselves, since they are drawn with guidance."""
    alike: dict[tuple[bool, bool], list[Blanks]] = {}
    for ask in asks:
        search = beams > 1 and run.vocabulary[ask[1][0]].slots is None
        media = all(run.schema[name].type in MEDIA for name in ask[1])
        alike.setdefault((search, media), []).append(ask)
    for (search, _), some in alike.items():
        size = ROWS // beams if search else ROWS
        for at in range(0, len(some), size):
            yield some[at : at + size], search


def fill_source(
    run: LoadedRun, source: Source, *, draw: bool, seed: int, sampling: Sampling, files: Path
) -> tuple[int, dict[str, list[Any]]]:
    """Raw cells of a source with the blank ones filled, and how many were. A picture or sound that
    was made stands in its cell as it is; `files` is the new folder where it will go."""
    raw: dict[str, list[Any]] = {name: [] for name in source.names}
    base: Path | None = None
    for chunk in source.chunks():
        base = base or chunk.folder
        for name in source.names:
            raw[name].extend(chunk.columns[name])
    columns = without_unseen(run, read_columns(run, source), source.place)
    tell_moved(run, columns)
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    if lacking := [name for name in learned if name not in columns]:
        warnings.warn(
            f"{source.label} has no {', '.join(lacking)}: nothing is filled there; add a blank "
            f"column of that name to have it filled",
            stacklevel=3,
        )
    _check_blanks(run, columns, sampling)
    for name, cells in columns.items():
        if run.schema[name].type not in MEDIA:
            continue
        if source.kind != "media" and any(isinstance(cell, MediaFile) for cell in raw[name]):
            raise RequestError(
                f"{source.label}: column {name!r} holds files, and not their paths; fill it as a "
                f"DataFrame in Python"
            )
        raw[name] = [cell.name if isinstance(cell, MediaFile) else cell for cell in raw[name]]
        if None in cells:
            check_folder(files)
            if run.schema[name].type == "audio":
                library("soundfile")
            if base is not None and base.resolve() != files.parent.resolve():
                raise RequestError(
                    f"--out in {files.parent}: the filled table names files by their paths from "
                    f"its own folder; write it into that of {source.label}, {base}"
                )
    filled = 0
    for name, values in fill_columns(run, columns, draw=draw, seed=seed, sampling=sampling).items():
        spec = run.schema[name]
        as_text = source.kind in ("csv", "text", "aligned")
        for row, value in values.items():
            cell = to_native(spec, value)
            raw[name][row] = to_text(spec, cell) if as_text and spec.type not in MEDIA else cell
        filled += len(values)
    return filled, raw


def _check_blanks(run: LoadedRun, columns: Mapping[str, Sequence[Any]], sampling: Sampling) -> None:
    """Warn of blank cells in fields that the run has not learned to fill; RequestError for more
    steps than blank cells have slots."""
    blank = [name for name, values in columns.items() if any(v is None for v in values)]
    tell_untrained(run.recipe.form, (), blank)
    check_steps(run, sampling, blank, MOST_TOKENS)


def embed(run: LoadedRun, records: pd.DataFrame | Sequence[str]) -> NDArray[np.float32]:
    """(N, D) vectors of records, or of texts as the first text field's."""
    if not isinstance(records, pd.DataFrame):
        check_kind("records", records, (list, tuple), "a DataFrame or a list of texts")
        for text in records:
            check_kind("records", text, str, "a list of texts")
        texts = [f.name for f in run.vocabulary.fields if f.slots is None]
        if not texts:
            raise RequestError("this model reads no text; give records of its fields")
        records = pd.DataFrame({texts[0]: list(records)})
    columns = frame_columns(run, records)
    if not columns or not len(records):
        raise RequestError("there are no records to make vectors of")
    return embedded(run, columns)


def score(run: LoadedRun, table: pd.DataFrame) -> pd.DataFrame:
    """Log-likelihood in nats of every row and field, in schema order; in a run of named tasks, of
    the fields that they want, given what they give.

    The row's column is 'row', or '(row)' where a field has that name. A category that training
    never saw is impossible to the model: -inf.
    """
    columns = without_unseen(run, frame_columns(run, table), _frame_cell)
    if not columns:
        raise DataError(f"table: has none of the fields {', '.join(run.schema.names)}")
    grid = -record_nats(run, columns)
    for name, values in columns.items():
        grid[[v is ABSENT for v in values], run.schema.index(name)] = -np.inf
    told = [n for n in columns if n in wanted_fields(run.vocabulary, run.recipe.form)]
    out = pd.DataFrame({n: grid[:, run.schema.index(n)] for n in told}, index=table.index)
    out.insert(0, "(row)" if "row" in columns else "row", grid.sum(axis=1))
    return out


def probabilities(
    run: LoadedRun, table: pd.DataFrame, field: str, choices: Sequence[str] | None = None
) -> pd.DataFrame:
    """Probability of each value of a category, or of each of some texts, in each row, given the
    row's other cells.

    Each row sums to 1; of a category, `fill` answers with the greatest.
    """
    check_kind("table", table, pd.DataFrame, "a DataFrame")
    check_kind("field", field, str, "the name of a field")
    spec = run.schema[field]
    if choices is None and spec.type != "category":
        raise RequestError(
            f"field {field!r} is a {spec.type}; probabilities are for categories, or for texts "
            f"among which to choose (choices)"
        )
    texts = None if choices is None else parse_choices(run, field, choices)
    given = frame_columns(run, named(table).drop(columns=[field], errors="ignore"))
    columns = {**without_unseen(run, given, _frame_cell), field: [None] * len(table)}
    if texts is not None:
        prob = np.exp(choice_log_probs(run, columns, field, texts))
        return pd.DataFrame(prob, columns=list(choices or ()), index=table.index)
    codec = run.vocabulary[field].codec
    names = [to_native(spec, codec.decode(np.array([code]))) for code in range(codec.size)]
    prob = np.exp(category_log_probs(run, encoded_to_ask(run, columns), field))
    return pd.DataFrame(prob, columns=names, index=table.index)
