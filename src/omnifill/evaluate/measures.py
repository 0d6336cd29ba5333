"""How good a model is on records that it has not seen, field by field.

Text: bits per byte and perplexity per token, in schema order (the exact likelihood). Category:
accuracy, log loss, calibration and confusion given all other fields. Of named tasks, the fields
that they want are measured, given what they give. Number and datetime: mean
absolute error of the median given all other fields, as it is and as a share of the values'
standard deviation, and how often the truth lies between the model's 5 % and 95 % quantiles.
Rows: nats of the whole record. Likelihoods that are bounds are of at most `MOST_BOUNDS` records.
Every measure has a 95 % interval and its number of samples. Beside them stand the plainest
baselines: the most frequent category; the training quantiles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.errors import DataError
from omnifill.evaluate.evaluation import Columns, Figures, Samples
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.form.encode import without_unknown
from omnifill.form.layout import Former, schema_order
from omnifill.form.stream import is_text, plan_batches
from omnifill.form.tasks import wanted_fields
from omnifill.form.windows import overlapping
from omnifill.generate.filters import Sampling
from omnifill.generate.given import encoded, encoded_to_ask
from omnifill.generate.likelihood import category_log_probs, schema_nats
from omnifill.generate.tables import fill_columns
from omnifill.progress import Progress
from omnifill.types import ABSENT, Floats, Ints

GROUPS = 20
"""Values of a category that get figures of their own: the most frequent ones."""
GROUP_ROWS = 10
"""Records below which a group gets none."""
MOST_ROWS = 1000
"""Records that fields are asked for, each given the others."""
MOST_BOUNDS = 2000
"""Records whose likelihood is measured where it is a bound, which takes many readings of each."""
OUTER = (0.05, 0.95)
"""Quantiles that nine truths of ten should lie between."""
MOST_SHOWN = 12
"""Values of a category in its table of confusion; the rest are one."""


class Known:
    """Figures as they come in, and the samples that each is the mean of."""

    def __init__(self) -> None:
        self.figures: Figures = {
            "fields": {}, "rows": {}, "baselines": {}, "calibration": {}, "confusion": {},
        }  # fmt: skip
        self.samples: Samples = {}

    def add(self, field: str, measure: str, samples: Floats) -> None:
        """(N,): what each record says; NaN: nothing. `field` '': whole records."""
        self.samples[field, measure] = samples
        part = self.figures["fields"].setdefault(field, {}) if field else self.figures["rows"]
        part[measure] = interval(samples[~np.isnan(samples)])

    def plain(self, field: str, measure: str, samples: Floats) -> None:
        """The same of the plainest baseline."""
        base = self.figures["baselines"].setdefault(
            "most_frequent_or_median", {"fields": {}, "rows": {}}
        )
        part = base["fields"].setdefault(field, {})
        part[measure] = interval(samples[~np.isnan(samples)])


BOUND = (
    "bits per byte, perplexity and nats are upper bounds: a masked model knows its likelihood no "
    "better"
)


def evaluate_known(run: LoadedRun, columns: Columns, train: Columns | None = None) -> Known:
    """All measures on canonical columns; those of fields on at most `MOST_ROWS` rows.

    The plain baseline of a number is the median of `train`, or without it that of the rows.
    """
    num = len(next(iter(columns.values()))) if columns else 0
    if num == 0:
        raise DataError(
            "nothing to evaluate on: there are no rows. Where training kept none aside, name some "
            "that it has not seen: omnifill evaluate RUN DATA"
        )
    out = Known()
    if run.vocabulary.canvas:
        out.figures["bound"] = BOUND
    if is_text(run.vocabulary):
        name = run.schema.names[0]
        out.figures["fields"][name] = text_measures(run, encoded(run, columns), columns[name])
        return out
    columns, _ = without_unknown(run.vocabulary, {n: list(v) for n, v in columns.items()})
    # Rows may be sorted by one of their fields, as files in folders are.
    order = np.random.default_rng(0).permutation(num)
    nats = _nats(run, columns, order[:MOST_BOUNDS] if run.vocabulary.canvas else order)
    out.add("", "nats", nats.sum(axis=1))
    out.figures["groups"] = group_figures(run, columns, nats)
    chosen = np.sort(order[:MOST_ROWS]).tolist()
    some = {n: [v[i] for i in chosen] for n, v in columns.items()}
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    for spec in run.schema.fields:
        if spec.name not in columns or spec.name not in learned:
            continue
        values = columns[spec.name]
        if all(value is None for value in values):
            continue  # nothing to compare with
        own = nats[:, run.schema.index(spec.name)]
        if run.vocabulary[spec.name].slots is None:
            add_bits(out, spec.name, own, values)
        elif spec.type == "category":
            add_category(out, run, some, spec.name)
        elif spec.type in ("number", "datetime"):
            add_number(out, run, some, spec.name, (train or {}).get(spec.name, ()))
        else:
            there = np.array([v is not None for v in values], bool)
            out.add(spec.name, "bits", np.where(there, own / math.log(2), np.nan))
    return out


def _nats(run: LoadedRun, columns: Columns, rows: Ints) -> Floats:
    """(N, F): nats of every field of some of the records; NaN: of another record."""
    rows = np.sort(rows)
    some = {n: [v[i] for i in rows.tolist()] for n, v in columns.items()}
    nats = np.full((len(next(iter(columns.values()))), len(run.schema.names)), np.nan)
    nats[rows] = schema_nats(run, encoded(run, some), some)
    return nats


def group_figures(
    run: LoadedRun, columns: Mapping[str, list[Any]], nats: Floats
) -> list[dict[str, Any]]:
    """Who is it worse for? Nats of the records of each category value, and of all others; the
    category itself does not count, since a rare value is unlikely by nature."""
    out = []
    read = ~np.isnan(nats).any(axis=1)
    nats = nats[read]
    for spec in run.schema.fields:
        if spec.type != "category" or spec.name not in columns:
            continue
        rest = nats.sum(axis=1) - nats[:, run.schema.index(spec.name)]
        values = [columns[spec.name][i] for i in np.flatnonzero(read)]
        counts = Counter(v for v in values if v is not None and v is not ABSENT)
        for value, num in counts.most_common(GROUPS):
            if GROUP_ROWS <= num <= len(values) - GROUP_ROWS:
                inside = np.array([v == value for v in values], bool)
                out.append(
                    {
                        "field": spec.name,
                        "value": value,
                        "nats": interval(rest[inside]),
                        "others": interval(rest[~inside]),
                    }
                )
    return out


# --- text ----------------------------------------------------------------------------------


@torch.no_grad()
def text_measures(run: LoadedRun, shard: Shard, texts: Sequence[str | None]) -> dict[str, Measure]:
    """Every token once; in documents longer than the context with at least half of it before."""
    context = run.network.config.context
    windows = overlapping(shard.sizes, context, 0)
    lens = windows.lens(0)
    former = Former(run.vocabulary)
    sums: list[Floats] = []
    with Progress("scoring", int(lens.sum()), "tokens") as progress:
        for rows in plan_batches(lens, 16 * context, None):
            part, orders = windows[rows], schema_order(len(rows), run.vocabulary)
            batch = former.records(shard, part.record, orders, weighted=False, windows=part)
            nats = run.objective.nats(run.network, batch).view(batch.ids.shape)
            sums.append((nats * (batch.weight > 0)).double().sum(dim=1).numpy())
            progress.advance(int(lens[rows].sum()))
    pieces = np.concatenate(sums)
    num_bytes = sum(len(t.encode()) for t in texts if t)
    chars = sum(len(t) for t in texts if t)
    tokens = int(shard.sizes.sum())
    total = interval(pieces)
    scale = len(pieces) / math.log(2) / max(num_bytes, 1)

    def scaled(factor: float, num: int) -> Measure:
        ends = {k: float(total[k]) * factor for k in ("value", "low", "high")}
        return {**ends, "n": num}

    per_char = scaled(len(pieces) / max(chars, 1), chars)
    per_token = scaled(len(pieces) / max(tokens, 1), tokens)
    perplexity = {k: math.exp(min(v, 700)) if k != "n" else v for k, v in per_token.items()}
    return {
        "bits_per_byte": scaled(scale, num_bytes),
        "nats_per_character": per_char,
        "perplexity": perplexity,
    }


def bits_per_byte(nats: Floats, texts: Sequence[str | None]) -> Measure:
    """Bits per byte of one text field among others, over its rows that are not missing."""
    there = np.array([isinstance(t, str) for t in texts], bool) & ~np.isnan(nats)
    size = np.array([len(t.encode()) if isinstance(t, str) else 0 for t in texts], float)
    bits, size = nats[there] / math.log(2), size[there]
    return interval_of(lambda i: float(bits[i].sum() / max(size[i].sum(), 1)), len(bits))


def add_bits(out: Known, name: str, nats: Floats, texts: Sequence[str | None]) -> None:
    """Bits per byte; a record's sample is its bits by the mean size, so that they add up."""
    size = np.array([len(t.encode()) if isinstance(t, str) else np.nan for t in texts], float)
    out.figures["fields"].setdefault(name, {})["bits_per_byte"] = bits_per_byte(nats, texts)
    scale = math.log(2) * max(float(np.nanmean(size)), 1.0)
    out.samples[name, "bits_per_byte"] = np.where(np.isnan(size), np.nan, nats / scale)


# --- categories, numbers and dates ---------------------------------------------------------


def add_category(out: Known, run: LoadedRun, columns: Mapping[str, list[Any]], name: str) -> None:
    """The model, the most frequent training value, calibration and confusion."""
    codec = run.vocabulary[name].codec
    values = columns[name]
    there = np.array([v is not None and v is not ABSENT for v in values], bool)
    # A value that training never saw cannot be named: a wrong answer, of no likelihood.
    right = np.where([v is ABSENT for v in values], 0.0, np.nan)
    plain, loss = right.copy(), np.full(len(values), np.nan)
    if there.any():
        some = {n: [v[i] for i in np.flatnonzero(there)] for n, v in columns.items()}
        codes = codec.encode_many(some[name])[0]
        log_probs = category_log_probs(run, encoded_to_ask(run, some), name)
        answers = log_probs.argmax(axis=1)
        right[there] = answers == codes
        plain[there] = codes == 0  # codes are in order of frequency
        loss[there] = -log_probs[np.arange(len(codes)), codes]
    out.add(name, "accuracy", right)
    out.plain(name, "accuracy", plain)
    if not there.any():
        return
    out.add(name, "log_loss", loss)
    sure, hit = np.exp(log_probs.max(axis=1)), right[there]
    out.figures["fields"][name]["calibration_error"] = interval_of(
        lambda i: off_by(reliability(sure[i], hit[i])), len(hit), 200
    )
    out.figures["calibration"][name] = reliability(sure, hit)
    labels = [str(codec.decode(np.array([code]))) for code in range(codec.size)]
    out.figures["confusion"][name] = confusion(labels, codes, answers)


def confusion(labels: Sequence[str], truth: Ints, answers: Ints) -> dict[str, Any]:
    """How often each value (`values`, rows) was answered by each (`answers`, columns).

    Values that are neither true nor an answer anywhere are left out; of more than `MOST_SHOWN` the
    rarest are one row, whose right answers and wrong ones among themselves are two columns.
    """
    seen = np.bincount(truth, minlength=len(labels)), np.bincount(answers, minlength=len(labels))
    order = np.lexsort((-seen[1], -seen[0]))
    order = order[(seen[0] + seen[1])[order] > 0]
    shown, rest = order[:MOST_SHOWN], len(order) > MOST_SHOWN
    place = np.full(len(labels), len(shown))
    place[shown] = np.arange(len(shown))
    rows, columns = place[truth], place[answers]
    columns = columns + ((rows == columns) & (truth != answers))  # among the rarest only
    size = len(shown) + 2
    counts = np.bincount(rows * size + columns, minlength=(len(shown) + 1) * size)
    counts = counts.reshape(-1, size)
    names = [labels[code] for code in shown.tolist()]
    if not rest:
        return {"values": names, "answers": names, "counts": counts[:-1, :-2].tolist()}
    return {
        "values": [*names, "(others)"], "answers": [*names, "(others)", "(wrong other)"],
        "counts": counts.tolist(),
    }  # fmt: skip


def reliability(sure: Floats, right: Floats) -> list[tuple[float, float, int]]:
    """(mean probability of the answer, share that is right, how many) in tenths of probability."""
    tenth = np.minimum((sure * 10).astype(int), 9)
    return [
        (float(sure[tenth == t].mean()), float(right[tenth == t].mean()), int((tenth == t).sum()))
        for t in np.unique(tenth)
    ]


def off_by(points: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""
    total = sum(num for _, _, num in points)
    return sum(num * abs(sure - right) for sure, right, num in points) / max(total, 1)


def add_number(
    out: Known, run: LoadedRun, columns: Mapping[str, list[Any]], name: str, known: Sequence[Any]
) -> None:
    """The median and the outer quantiles given the other fields, and those of the `known`."""
    values = columns[name]
    there = np.array([v is not None for v in values], bool)
    truth = np.array([np.nan if v is None else v for v in values], float)
    spread = float(np.nanstd(truth)) or 1.0
    some = {n: [v[i] for i in np.flatnonzero(there)] for n, v in columns.items()}
    # Other blanks of the row stay blank: only this field is asked for.
    asked: dict[str, list[Any]] = {**some, name: [None] * int(there.sum())}

    def at(quantile: float) -> Floats:
        answers = fill_columns(run, asked, draw=False, seed=0, sampling=Sampling(), only=[name],
                               quantile=quantile)[name]  # fmt: skip
        whole = np.full(len(values), np.nan)
        whole[there] = [answers[i] for i in range(int(there.sum()))]
        return whole

    given = np.array([v for v in known if v is not None] or truth[there], float)
    ours = [at(q) for q in (0.5, *OUTER)]
    flat = [np.where(there, np.quantile(given, q), np.nan) for q in (0.5, *OUTER)]
    for add, (middle, low, high) in ((out.add, ours), (out.plain, flat)):
        error = np.abs(middle - truth)
        inside = ((low <= truth) & (truth <= high)).astype(float)
        add(name, "absolute_error", error)
        add(name, "normalised_error", error / spread)
        add(name, "coverage_90", np.where(there, inside, np.nan))
        add(name, "width_90", (high - low) / spread)
