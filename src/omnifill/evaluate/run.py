"""All figures of a trained run, each with its interval, its number of samples and its baselines.

Two questions: how well unseen records are known (`measures`), and whether what the model makes is
like them without being copied (`rows`, `texts`, `memory`). The second needs the training part.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError
from omnifill.evaluate import memory, rows
from omnifill.evaluate.baselines import independent, resampled
from omnifill.evaluate.evaluation import Columns, Evaluation, Figures, size
from omnifill.evaluate.flags import flags, shown
from omnifill.evaluate.intervals import Measure, interval
from omnifill.evaluate.measures import MOST_ROWS as MOST_ASKED
from omnifill.evaluate.measures import bits_per_byte, evaluate_known, text_measures
from omnifill.evaluate.media import media_figures
from omnifill.evaluate.ngram import Ngram
from omnifill.evaluate.predictors import iterative, logistic
from omnifill.evaluate.reference import answered, has_reference, likeness
from omnifill.evaluate.template import Template
from omnifill.evaluate.texts import text_figures
from omnifill.form.encode import without_unknown
from omnifill.form.stream import is_text
from omnifill.form.tasks import unread, wanted_fields
from omnifill.generate import requests, wishes
from omnifill.generate.filters import Sampling
from omnifill.generate.given import encoded
from omnifill.generate.likelihood import schema_nats
from omnifill.generate.tables import fill_columns
from omnifill.progress import Progress
from omnifill.schema import MEDIA

MOST_ROWS = 10_000
MOST_TEXTS = 500
"""Records to generate: tables without and with texts."""
FEWER_TEXTS, STEPS = 200, 64
"""The same of masked models, which read a whole text again for every step; and the steps, whose
texts are as good as those of one slot at a time (benchmarks/results/steps-ag_news.md)."""
LONG_TEXTS = 32
"""Longest texts whose tokens are counted."""
STREAM_TEXTS, STREAM_TOKENS = 50, 256
"""Pieces to generate where all text is one stream, and their length."""
STREAM_CHARS = 50_000
"""Characters of the training part that are scored beside the held-out ones."""
TRAINING_CHARS = 500_000
"""Characters of training records that are scored beside the held-out ones."""
CLOSEST = 500
"""Rows whose distance to the training part is measured."""
FEWEST = 10
"""Held-out rows below which no classifier is grown."""


def evaluate_run(
    run: LoadedRun, held_out: Mapping[str, list[Any]], train: Columns | None = None,
    valid: Columns | None = None, *, vae: float = 0.0,
) -> Evaluation:  # fmt: skip
    """Every figure on canonical columns that training has not seen.

    `train`: the training part, for baselines, copies and generated records; without it only the
    likelihoods and errors on `held_out` are measured. `vae`: seconds for which a VAE is trained
    beside, for each field of pictures or sounds; RequestError where there is none to draw.
    """
    drawn = {n for n in wanted_fields(run.vocabulary, run.recipe.form) if n in held_out}
    if vae and not (train and any(run.schema[name].type in MEDIA for name in drawn)):
        raise RequestError(
            "--vae: this run has no training part with pictures or sounds that it makes"
        )
    known = evaluate_known(run, held_out, train)
    out = known.figures
    if train is None or not size(train):
        return Evaluation(run.schema, out, {}, held_out, {}, ({}, {}, {}), known.samples)
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    task = run.recipe.form.tasks[0] if run.recipe.form.tasks else None
    asked = [*task.given, *task.want] if task else learned
    names = [
        spec.name for spec in run.schema.fields if spec.name in held_out and spec.name in asked
    ]
    _add_training(out, run, {name: train[name] for name in held_out})
    train = {name: train[name] for name in names}
    valid = {name: valid[name] for name in names} if valid else {n: [] for n in names}
    texts = [n for n in names if run.vocabulary[n].slots is None]
    unseen = {n: held_out[n] for n in names}
    made = _generated(run, unseen, size(train), bool(texts))
    copied: dict[str, dict[str, str]] = {}
    with Progress("evaluating", len(names) + 1, "parts") as progress:
        for name in [n for n in names if n in learned]:
            if name in texts:
                copied[name] = _add_texts(out, run, name, made, unseen, train, valid)
            elif run.schema[name].type in MEDIA:
                for kind, figures in media_figures(run, name, train, unseen, made, vae).items():
                    _place(out, kind)["fields"].setdefault(name, {}).update(figures)
            elif extra_there():
                _add_predictor(out, run, name, *(_read_for(run, name, p) for p in (train, unseen)))
            progress.advance()
        if not is_text(run.vocabulary):
            _add_rows(out, run, made, unseen, train)
    coded = rows.as_arrays(run.schema, train, unseen, made)
    found = Evaluation(
        run.schema, out, train, unseen, made, (coded[0], coded[1], coded[2]), known.samples, copied
    )
    out["flags"] = flags(found)
    return found


def _read_for(run: LoadedRun, name: str, part: Columns) -> Columns:
    """The columns that a field is told from, and the field itself."""
    silent = unread(run.vocabulary, run.recipe.form, name, [n for n in part if n != name])
    return {n: v for n, v in part.items() if not silent[run.schema.index(n)]}


def _generated(
    run: LoadedRun, unseen: Columns, train_rows: int, texts: bool
) -> dict[str, list[Any]]:
    """As many records as the training part has, but no more than need be; of a named task, what
    it wants of what unseen records give."""
    stream, names, canvas = is_text(run.vocabulary), list(unseen), run.vocabulary.canvas
    most = (FEWER_TEXTS if canvas else MOST_TEXTS) if texts else MOST_ROWS
    num = STREAM_TEXTS if stream else min(train_rows, most)
    most_tokens = STREAM_TOKENS if stream else _most_tokens(run, unseen)
    slots = sum(field.slots or most_tokens for field in run.vocabulary.fields)
    sampling = Sampling(steps=min(STEPS, slots) if canvas and not stream else None)
    if run.recipe.form.tasks and run.recipe.form.tasks[0].given:
        want = run.recipe.form.tasks[0].want
        some = {n: [None] * len(v[:num]) if n in want else list(v[:num]) for n, v in unseen.items()}
        known, _ = without_unknown(run.vocabulary, some)
        drawn = fill_columns(run, known, draw=True, seed=0, sampling=sampling, only=want,
                             max_tokens=most_tokens)  # fmt: skip
        return some | {n: [drawn[n][i] for i in range(len(some[n]))] for n in names if n in want}
    wish = wishes.Wish(num, max_tokens=most_tokens, sampling=sampling)
    made = requests.canonical(run, wishes.build(run, wish))
    return {name: made[name] for name in names}


def _most_tokens(run: LoadedRun, unseen: Columns) -> int:
    """Twice what the longest real text has: one that goes on is too long, however long it gets."""
    longest = 0
    for field in run.vocabulary.fields:
        if field.slots is None and field.name in unseen:
            texts = sorted((t for t in unseen[field.name] if t), key=len)[-LONG_TEXTS:]
            longest = max([longest, *field.codec.encode_many(texts)[1].tolist()])
    return min(512, 2 * longest + 16)


def _add_training(out: Figures, run: LoadedRun, train: Columns) -> None:
    """The same likelihoods on training records: what a model knows better, it has by heart."""
    place = _place(out, "training")
    if is_text(run.vocabulary):
        name = run.schema.names[0]
        texts = [text for text in train[name] if text]  # a table of one text has blanks
        if run.schema.stream:
            some = ["".join(texts)[:STREAM_CHARS]]
        else:
            far = np.cumsum([len(text) for text in texts])
            some = texts[: 1 + int(np.searchsorted(far, STREAM_CHARS))]
        place["fields"][name] = text_measures(run, encoded(run, {name: some}), some)
        return
    # Of records that are alike all are in one part: each counts once, or the two differ in kind.
    different = list(dict.fromkeys(zip(*train.values(), strict=True)))
    chosen = np.random.default_rng(0).permutation(len(different))[:MOST_ASKED].tolist()
    chars = np.cumsum([sum(len(v) for v in different[i] if isinstance(v, str)) for i in chosen])
    chosen = chosen[: max(FEWEST, int(np.searchsorted(chars, TRAINING_CHARS)))]
    part = {n: [different[i][at] for i in chosen] for at, n in enumerate(train)}
    place["rows"]["nats"] = interval(schema_nats(run, encoded(run, part), part).sum(axis=1))


def _add_predictor(
    out: Figures, run: LoadedRun, name: str, train: Columns, unseen: Columns
) -> None:
    """The usual model of one column, on the rows that ours was asked about."""
    some = {n: v[:MOST_ASKED] for n, v in unseen.items()}
    kind = {"category": logistic, "number": iterative, "datetime": iterative}
    spec = run.schema[name]
    figures = kind[spec.type](run.schema, train, some, name) if spec.type in kind else {}
    if figures:
        label = "logistic" if spec.type == "category" else "iterative"
        _place(out, label)["fields"][name] = figures


# --- texts ---------------------------------------------------------------------------------


def _add_texts(
    out: Figures, run: LoadedRun, name: str, made: Columns, held_out: Columns, train: Columns,
    valid: Columns,
) -> dict[str, str]:  # fmt: skip
    """One text field: what was generated, by us and by the baselines, beside real texts. The
    longest copied piece of each generated text."""
    corpus, unseen, ours = ([t for t in part[name] if t] for part in (train, held_out, made))
    if not corpus or not unseen or not ours:
        return {}
    ngram, template = Ngram.fit(corpus, [t for t in valid[name] if t]), Template.fit(corpus)
    real = list(unseen)
    if is_text(run.vocabulary):  # pieces as long as ours, from anywhere
        real = _pieces("".join(unseen), int(np.mean([len(t) for t in ours])), len(ours))
    num = min(len(ours), len(real))
    mine = list(dict.fromkeys(ours))
    # A longer text has longer spans in common with others: all are compared as far as ours go.
    far = max(len(text) for text in ours)
    parts = {
        "": ours[:num], "held_out": real[:num],
        "ngram": ngram.generate(num, 0, _most_bytes(real)), "template": template.generate(num, 0),
    }  # fmt: skip
    parts = {kind: [text[:far] for text in texts] for kind, texts in parts.items()}
    longest = memory.Spans(corpus).longest([t for part in (*parts.values(), mine) for t in part])
    for place, (kind, texts) in enumerate(parts.items()):
        spans = [len(span) for span in longest[place * num : (place + 1) * num]]
        figures = text_figures(texts) | {"copied_span": interval(np.array(spans, float))}
        _place(out, kind)["fields"].setdefault(name, {}).update(figures)
    if extra_there() and has_reference(run, name):
        truth, answers = answered(run, name, held_out)
        other = np.random.default_rng(0).integers(0, len(corpus), len(truth)).tolist()
        for kind, texts in (("", answers), ("resampled", [corpus[i] for i in other])):
            _place(out, kind)["fields"].setdefault(name, {}).update(likeness(truth, texts))
    known = [t if isinstance(t, str) else None for t in held_out[name]]
    nats = np.zeros(len(known))
    there = [i for i, t in enumerate(known) if t is not None]
    nats[there] = ngram.nats([known[i] or "" for i in there])
    out["baselines"]["ngram"]["fields"][name]["bits_per_byte"] = bits_per_byte(nats, known)
    return dict(zip(mine, longest[len(parts) * num :], strict=True))


def _pieces(text: str, size: int, num: int) -> list[str]:
    """At most `num` pieces of a text that do not overlap: what they share would count twice."""
    size = max(1, min(size, len(text)))
    places = np.random.default_rng(0).permutation(len(text) // size)[:num]
    return [text[i * size : (i + 1) * size] for i in places.tolist()]


def _most_bytes(texts: Sequence[str]) -> int:
    """Nearly all texts are shorter; a text of the n-gram model that is not ends there."""
    return 1 + int(np.quantile([len(t.encode()) for t in texts], 0.99))


# --- rows ----------------------------------------------------------------------------------


def _add_rows(
    out: Figures, run: LoadedRun, made: Columns, held_out: Columns, train: Columns
) -> None:
    """Whole rows: what was generated, and the plain models, beside real rows."""
    num = size(made)
    parts: dict[str, Columns] = {
        "": made, "held_out": held_out, "independent": independent(train, num, 0),
        "resampled": resampled(train, num, 0),
    }  # fmt: skip
    coded = rows.as_arrays(run.schema, train, *parts.values())
    real, unseen = coded[0], coded[2]
    # Texts count in a distance: alike or not.
    some = [{n: v[:CLOSEST] for n, v in part.items()} for part in parts.values()]
    whole, *others = rows.as_arrays(run.schema, train, *some, texts=True)
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    for (kind, part), arrays, close in zip(parts.items(), coded[1:], others, strict=True):
        figures: dict[str, Measure] = _place(out, kind)["rows"]
        copies = memory.copied_rows({n: part[n] for n in train}, train)
        figures["copied"] = interval(copies.astype(float))
        if len(arrays) < 2:  # beside texts, one column is no row to compare
            continue
        figures |= rows.quality(real, arrays)
        figures["distance_to_training"] = interval(memory.nearest(close, whole)[0])
        if size(held_out) < FEWEST or not extra_there():
            continue
        if kind != "held_out":
            figures["two_sample"] = rows.two_sample(unseen, arrays)
        if kind in ("", "resampled"):
            for name in [n for n in rows.targets(unseen) if n in learned]:
                fields = _place(out, kind)["fields"].setdefault(name, {})
                fields["learnt_from_it"] = rows.learnt(arrays, unseen, name)


def extra_there() -> bool:
    """Whether the extra `evaluate` is installed."""
    return importlib.util.find_spec("xgboost") is not None


def _place(out: Figures, kind: str) -> Figures:
    """Where the figures of the model ('') or of a baseline belong."""
    if not kind:
        return out
    place: Figures = out["baselines"].setdefault(kind, {"fields": {}, "rows": {}})
    return place


# --- to read -------------------------------------------------------------------------------

SHORT = {"most_frequent_or_median": "plain", "held_out": "real"}


def render(result: Mapping[str, Any]) -> str:
    """The figures as an aligned table, what the baselines reach beside each."""
    lines = [f"{'field':20} {'measure':20} {'value':>9} {'95 % interval':>21} {'n':>8}  beside"]
    groups = {**result["fields"], **({"(row)": result["rows"]} if result["rows"] else {})}
    for name, measures in groups.items():
        for kind, m in measures.items():
            beside = []
            for label, base in result["baselines"].items():
                part = base["rows"] if name == "(row)" else base["fields"].get(name, {})
                if kind in part:
                    beside.append(f"{SHORT.get(label, label)} {part[kind]['value']:.4g}")
            span = f"{m['low']:.4g} … {m['high']:.4g}"
            lines.append(
                f"{name[:20]:20} {kind:20} {m['value']:>9.4g} {span:>21} {m['n']:>8}  "
                f"{' · '.join(beside)}".rstrip()
            )
    if result.get("bound"):
        lines.append(result["bound"])
    if result["rows"] and result["baselines"].get("resampled") and not extra_there():
        lines.append(
            "two_sample, logistic and iterative are not measured: pip install 'omnifill[evaluate]'"
        )
    return "\n".join([*lines, shown(result.get("flags", []))]).rstrip()
