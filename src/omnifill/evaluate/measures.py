"""How good a model is on records that it has not seen, field by field.

Text: bits per byte and perplexity per token, in schema order (the exact likelihood). Category:
accuracy and log loss given all other fields. Number and datetime: mean absolute error of the
median given all other fields, as it is and as a share of the values' standard deviation. Rows:
nats of the whole record. Every measure has a 95 % interval and its number of samples. Beside
them stand the plainest baselines: the most frequent category, the median.
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
from omnifill.evaluate.intervals import Measure, interval, interval_of
from omnifill.form.encode import without_unknown
from omnifill.form.layout import Former
from omnifill.form.stream import is_text, plan_batches
from omnifill.generate.filters import Sampling
from omnifill.generate.likelihood import category_log_probs, schema_nats
from omnifill.generate.tables import encoded, fill_columns
from omnifill.progress import Progress
from omnifill.types import ABSENT, Floats

GROUPS = 20
"""Values of a category that get figures of their own: the most frequent ones."""
GROUP_ROWS = 10
"""Records below which a group gets none."""


def evaluate_known(
    run: LoadedRun, columns: Mapping[str, list[Any]],
    train: Mapping[str, Sequence[Any]] | None = None, limit: int = 2000,
) -> dict[str, Any]:  # fmt: skip
    """All measures on canonical columns; conditional ones on at most `limit` rows.

    The plain baseline of a number is the median of `train`, or without it that of the rows.
    """
    known = train or {}
    num = len(next(iter(columns.values()))) if columns else 0
    if num == 0:
        raise DataError("nothing to evaluate on: there are no rows (the test part is empty?)")
    out: dict[str, Any] = {"fields": {}, "rows": {}, "baselines": {}, "calibration": {}}
    if is_text(run.vocabulary):
        name = run.schema.names[0]
        out["fields"][name] = text_measures(run, encoded(run, columns), columns[name])
        return out
    columns, _ = without_unknown(run.vocabulary, columns)
    nats = schema_nats(run, encoded(run, columns), columns)
    out["rows"]["nats"] = interval(nats.sum(axis=1))
    out["groups"] = group_figures(run, columns, nats)
    some = {n: v[:limit] for n, v in columns.items()}
    base: dict[str, Any] = {}
    for spec in run.schema.fields:
        if spec.name not in columns:
            continue
        values = columns[spec.name]
        if all(value is None for value in values):
            continue  # nothing to compare with
        if run.vocabulary[spec.name].slots is None:
            own = nats[:, run.schema.index(spec.name)]
            out["fields"][spec.name] = bits_per_byte(own, values)
        elif spec.type == "category":
            found, base[spec.name], points = category_measures(run, some, spec.name)
            out["fields"][spec.name], out["calibration"][spec.name] = found, points
        elif spec.type in ("number", "datetime"):
            out["fields"][spec.name], base[spec.name] = number_measures(
                run, some, spec.name, known.get(spec.name, ())
            )
        else:
            there = [i for i, v in enumerate(values) if v is not None]
            own = nats[there, run.schema.index(spec.name)] / math.log(2)
            out["fields"][spec.name] = {"bits": interval(own)}
    out["baselines"]["most_frequent_or_median"] = {"fields": base, "rows": {}}
    return out


def group_figures(
    run: LoadedRun, columns: Mapping[str, list[Any]], nats: Floats
) -> list[dict[str, Any]]:
    """Who is it worse for? Nats of the records of each category value, and of all others; the
    category itself does not count, since a rare value is unlikely by nature."""
    out = []
    for spec in run.schema.fields:
        if spec.type != "category" or spec.name not in columns:
            continue
        rest = nats.sum(axis=1) - nats[:, run.schema.index(spec.name)]
        values = columns[spec.name]
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
    starts, lens, skips = half_overlapping(shard, context)
    former = Former(run.vocabulary)
    sums: list[Floats] = []
    with Progress("scoring", int(lens.sum()), "tokens") as progress:
        for rows in plan_batches(lens, 16 * context, None):
            batch = former.pieces(shard, starts[rows], lens[rows])
            nats = run.objective.nats(run.network, batch).view(batch.ids.shape)
            slot = torch.arange(batch.ids.shape[1])
            fresh = (slot >= torch.from_numpy(skips[rows])[:, None]) & (batch.weight > 0)
            sums.append((nats * fresh).double().sum(dim=1).numpy())
            progress.advance(int(lens[rows].sum()))
    pieces = np.concatenate(sums)
    num_bytes = sum(len(t.encode()) for t in texts if t)
    chars = sum(len(t) for t in texts if t)
    tokens = int((lens - skips).sum())
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


def half_overlapping(shard: Shard, context: int) -> tuple[Any, Any, Any]:
    """Windows that cover every id once: starts, lengths, and how many ids each only looks at."""
    starts, lens, skips = [], [], []
    half = max(1, context // 2)
    for begin, size in zip(shard.starts.tolist(), shard.sizes.tolist(), strict=True):
        at = 0
        while at < size:
            back = 0 if at == 0 else half
            take = min(context - back, size - at)
            starts.append(begin + at - back)
            lens.append(take + back)
            skips.append(back)
            at += take
    return np.array(starts), np.array(lens), np.array(skips)


def bits_per_byte(nats: Floats, texts: Sequence[str | None]) -> dict[str, Measure]:
    """Bits per byte of one text field among others, over its rows that are not missing."""
    there = np.array([isinstance(t, str) for t in texts], bool)
    size = np.array([len(t.encode()) if isinstance(t, str) else 0 for t in texts], float)
    bits, size = nats[there] / math.log(2), size[there]
    return {"bits_per_byte": interval_of(
        lambda i: float(bits[i].sum() / max(size[i].sum(), 1)), len(bits)
    )}  # fmt: skip


# --- categories, numbers and dates ---------------------------------------------------------


def category_measures(
    run: LoadedRun, columns: Mapping[str, list[Any]], name: str
) -> tuple[dict[str, Measure], dict[str, Measure], list[tuple[float, float, int]]]:
    """The model, the most frequent training value, and the calibration curve of the former."""
    field = run.vocabulary[name]
    there = [i for i, v in enumerate(columns[name]) if v is not None]
    unseen = [i for i in there if columns[name][i] is ABSENT]
    there = [i for i in there if columns[name][i] is not ABSENT]
    # A value that training never saw cannot be named: a wrong answer, of no likelihood.
    wrong = np.zeros(len(unseen))
    if not there:
        return {"accuracy": interval(wrong)}, {"accuracy": interval(wrong)}, []
    some = {n: [v[i] for i in there] for n, v in columns.items()}
    codes = field.codec.encode_many(some[name])[0]
    log_probs = category_log_probs(run, encoded(run, some), name)
    right = (log_probs.argmax(axis=1) == codes).astype(float)
    sure = np.exp(log_probs.max(axis=1))
    ours = {
        "accuracy": interval(np.append(right, wrong)),
        "log_loss": interval(-log_probs[np.arange(len(codes)), codes]),
        "calibration_error": interval_of(lambda i: off_by(reliability(sure[i], right[i])),
                                         len(right), 100),
    }  # fmt: skip
    commonest = np.append(codes == 0, wrong).astype(float)  # codes are in order of frequency
    return ours, {"accuracy": interval(commonest)}, reliability(sure, right)


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


def number_measures(
    run: LoadedRun, columns: Mapping[str, list[Any]], name: str, known: Sequence[Any]
) -> tuple[dict[str, Measure], dict[str, Measure]]:
    """Absolute error of the median given the other fields, and of the median of the `known`."""
    there = [i for i, v in enumerate(columns[name]) if v is not None]
    some = {n: [v[i] for i in there] for n, v in columns.items()}
    truth = np.array(some[name], float)
    asked: dict[str, list[Any]] = {**some, name: [None] * len(there)}
    # Other blanks of the row stay blank: only this field is asked for.
    answers = fill_columns(run, asked, draw=False, seed=0, sampling=Sampling(), only=name)[name]
    error = np.abs(np.array([answers[i] for i in range(len(there))], float) - truth)
    spread = float(truth.std()) or 1.0
    plain = [v for v in known if v is not None]
    base = np.abs(np.median(np.array(plain, float) if plain else truth) - truth)
    return (
        {"absolute_error": interval(error), "normalised_error": interval(error / spread)},
        {"absolute_error": interval(base), "normalised_error": interval(base / spread)},
    )
