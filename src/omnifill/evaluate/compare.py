"""Two runs on the same unseen records: each figure's difference, by record, with a paired test.

Both runs are asked about every record, so what makes a record hard cancels out, and differences
far smaller than the figures' own intervals can be told from chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.errors import RequestError
from omnifill.evaluate.evaluation import Columns, Figures, Samples
from omnifill.evaluate.intervals import interval
from omnifill.evaluate.measures import evaluate_known, text_measures
from omnifill.form.stream import is_text
from omnifill.generate.given import encoded
from omnifill.types import Floats

PIECE = 2000
"""Characters of a stream of text that count as one record."""
FLIPS = 4999
"""Random sign flips behind a p-value."""
SURE = 0.05
HIGHER_IS_BETTER = ("accuracy",)
OF_INTEREST = ("nats", "bits_per_byte", "accuracy", "log_loss", "absolute_error", "bits")


def compare_runs(a: tuple[LoadedRun, Columns], b: tuple[LoadedRun, Columns]) -> Figures:
    """Figures by field ('': whole records) and measure: a, b, their difference, p, and which run
    is better (None: chance is not ruled out). The columns are the same records as each run reads
    them. RequestError if there is nothing to compare.
    """
    # Of other fields they are not the same records.
    left_out = None if a[0].schema.names == b[0].schema.names else ("", "nats")
    ours, theirs = _samples(*a), _samples(*b)
    fields: Figures = {}
    rows: Figures = {}
    for key, samples in ours.items():
        field, measure = key
        other = theirs.get(key)
        if measure not in OF_INTEREST or other is None or key == left_out:
            continue
        figure = paired(samples, other, measure in HIGHER_IS_BETTER)
        if figure is not None:
            (fields.setdefault(field, {}) if field else rows)[measure] = figure
    if not fields and not rows:
        raise RequestError("the two runs have no field in common that could be compared")
    return {"fields": fields, "rows": rows}


def paired(a: Floats, b: Floats, higher_is_better: bool) -> dict[str, Any] | None:
    """The two means, the mean difference b - a, and the p-value of a sign-flip permutation test
    (Fisher 1935); None without two records that both speak of."""
    there = ~(np.isnan(a) | np.isnan(b))
    if there.sum() < 2:
        return None
    a, b = a[there], b[there]
    apart = b - a
    rng = np.random.default_rng(0)
    mean = abs(apart.mean())
    beyond = 0
    for _ in range(FLIPS):
        signs = rng.integers(0, 2, len(apart)) * 2 - 1
        beyond += abs((signs * apart).mean()) >= mean * (1 - 1e-12)
    p = (1 + beyond) / (1 + FLIPS)
    better = None
    if p < SURE and mean > 0:
        better = "b" if (apart.mean() > 0) == higher_is_better else "a"
    return {
        "a": float(a.mean()), "b": float(b.mean()), "difference": interval(apart), "p": p,
        "better": better,
    }  # fmt: skip


def _samples(run: LoadedRun, columns: Columns) -> Samples:
    if not is_text(run.vocabulary):
        return evaluate_known(run, columns).samples
    name = run.schema.names[0]
    text = "".join(t for t in columns[name] if t)
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    bits = [
        float(text_measures(run, encoded(run, {name: [piece]}), [piece])["bits_per_byte"]["value"])
        for piece in pieces
    ]
    return {(name, "bits_per_byte"): np.array(bits)}


def render_comparison(result: Figures, names: tuple[str, str]) -> str:
    """The figures as an aligned table."""
    a, b = (name[-16:] for name in names)
    lines = [f"{'field':20} {'measure':16} {a:>16} {b:>16} {'difference':>11} "
             f"{'95 % interval':>23} {'n':>7} {'p':>7}  better"]  # fmt: skip
    for field, measures in [*result["fields"].items(), ("(row)", result["rows"])]:
        for measure, figure in measures.items():
            apart = figure["difference"]
            span = f"{apart['low']:+.4g} … {apart['high']:+.4g}"
            winner = {"a": a, "b": b, None: "-"}[figure["better"]]
            lines.append(
                f"{field[:20]:20} {measure:16} {figure['a']:>16.4g} {figure['b']:>16.4g} "
                f"{apart['value']:>+11.4g} {span:>23} {apart['n']:>7} {figure['p']:>7.2g}  {winner}"
            )
    return "\n".join(lines)
