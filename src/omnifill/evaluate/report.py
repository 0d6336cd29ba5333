"""`report.html`: one page, one file, readable offline and in print (needs the extra `report`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.data.values import to_native, to_text
from omnifill.evaluate import plots
from omnifill.evaluate.associations import associations
from omnifill.evaluate.evaluation import Columns, Evaluation, size
from omnifill.evaluate.flags import ENOUGH, NO_SPAN
from omnifill.evaluate.memory import nearest
from omnifill.evaluate.rows import as_arrays, pair_trends
from omnifill.evaluate.sheets import embedded, sheets
from omnifill.files import write_atomic
from omnifill.form.encode import encode_records
from omnifill.generate.likelihood import schema_nats
from omnifill.schema import MEDIA
from omnifill.types import Floats, Ints

MOST_FIELDS = 40
"""Columns that are drawn."""
MOST_GROUPS = 12
MOST_CONFUSED = 12
"""Groups, and categories with a table of confusion."""
CELL = 600
"""Characters of a cell that are shown."""
RANKS = ("likeliest", "middle", "least likely")
MOST_SCORED = 500
"""Generated records that samples are picked from."""
EACH = 3
"""Samples of each rank."""
ORDER = (
    "most_frequent_or_median", "logistic", "iterative", "ngram", "template", "training",
    "held_out", "independent", "resampled", "mean", "noise", "vae",
)  # fmt: skip
"""Baselines from left to right."""
LABELS = {"most_frequent_or_median": "plain", "held_out": "real", "": "value"}


def write_report(run: LoadedRun, found: Evaluation, path: Path) -> None:
    """Write the page, whole or not at all."""
    from jinja2 import Environment

    text = resources.files("omnifill.evaluate").joinpath("report.html.j2").read_text("utf-8")
    # Every value is escaped; only our own pictures are marked safe.
    template = Environment(autoescape=True, trim_blocks=True).from_string(text)
    page = template.render(**contents(run, found))
    write_atomic(path, page.encode("utf-8", "surrogatepass"))


def contents(run: LoadedRun, found: Evaluation) -> dict[str, Any]:
    """All that stands on the page."""
    state = run.folder.read_state()
    metrics = [json.loads(line) for line in run.folder.read("metrics.jsonl").splitlines()]
    labels = sorted(found.figures["baselines"], key=ORDER.index)
    return {
        "title": run.folder.path.resolve().name,
        "summary": _summary(run, state),
        "flags": found.figures.get("flags", []),
        "few": size(found.held_out) < ENOUGH and not run.schema.stream,
        "sizes": _sizes(found),
        "fields": run.schema.fields,
        "notes": state.get("notes", []),
        "trained": _trained(run, state["training"], metrics),
        "curves": plots.curves(metrics) if metrics else "",
        "labels": [LABELS.get(label, label) for label in labels],
        "figures": list(_rows(found, labels)),
        "groups": _groups(found),
        "has_groups": bool(found.figures.get("groups")),
        "distributions": list(_distributions(found)),
        "pairs": list(_pairs(found)),
        "confusion": [
            plots.confusion(name, table)
            for name, table in list(found.figures.get("confusion", {}).items())[:MOST_CONFUSED]
        ],
        "sheets": list(sheets(run, found)),
        "calibration": plots.calibration(found.figures["calibration"])
        if found.figures.get("calibration") else "",
        "samples": list(_samples(run, found)),
        "names": list(found.made),
        "has_texts": any(run.vocabulary[name].slots is None for name in found.made),
        "commands": _commands(run),
        "real_colour": plots.REAL,
        "made_colour": plots.MADE,
    }  # fmt: skip


def _summary(run: LoadedRun, state: Mapping[str, Any]) -> str:
    num = len(run.schema.fields)
    kinds = Counter(spec.type for spec in run.schema.fields)
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    return f"{num} field{'s' * (num > 1)} ({listed}) · Omnifill {state['omnifill']}"


def _sizes(found: Evaluation) -> str:
    parts = {"training": found.train, "held-out": found.held_out, "generated": found.made}
    sizes = [f"{len(next(iter(p.values()))):,} {label}" for label, p in parts.items() if p]
    return f"Records behind the figures: {' · '.join(sizes)}."


def _trained(
    run: LoadedRun, training: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> str:
    config = run.network.config
    if "imported" in training:
        return f"Imported: {training['imported']}, width {config.dim}, {config.layers} layers."
    size = sum(p.numel() for p in run.network.parameters())
    spent = metrics[-1]["seconds"] / max(metrics[-1]["step"], 1) if metrics else 0.0
    ended = "; it stopped early, since validation got worse" if training["over_fitted"] else ""
    return (
        f"{config.backbone}, {size:,} weights: width {config.dim}, {config.layers} layers, context "
        f"{config.context}. {training['steps']} steps in {training['seconds']:.0f} s, "
        f"{1000 * spent:.0f} ms a step; the weights of step {training['best_step']} were kept "
        f"(validation loss {training['valid'] or float('nan'):.4f} nats a target){ended}."
    )


def _rows(found: Evaluation, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    groups = [*found.figures["fields"].items(), ("", found.figures["rows"])]
    for field, measures in groups:
        for measure, figure in measures.items():
            beside = [found.baseline(label, field, measure) for label in labels]
            yield {
                "field": field or "whole records", "measure": measure.replace("_", " "),
                "value": f"{figure['value']:.4g}", "n": f"{figure['n']:,}",
                "interval": f"{figure['low']:.4g} … {figure['high']:.4g}",
                "beside": [_beside(b) for b in beside],
            }  # fmt: skip


def _beside(figure: Mapping[str, float] | None) -> tuple[str, str]:
    """A baseline's figure, and how sure it is."""
    if figure is None:
        return "", ""
    span = f"{figure['low']:.4g} … {figure['high']:.4g}"
    return f"{figure['value']:.4g}", f"{span} (n = {figure['n']:,})"


def _groups(found: Evaluation) -> list[dict[str, Any]]:
    """Those that it is worse for beyond chance, the worst first."""
    groups = [g for g in found.figures.get("groups", []) if g["nats"]["low"] > g["others"]["high"]]
    worst = sorted(groups, key=lambda g: g["others"]["value"] - g["nats"]["value"])
    return [
        {
            "field": g["field"], "value": g["value"], "n": g["nats"]["n"],
            "nats": f"{g['nats']['value']:.2f}", "others": f"{g['others']['value']:.2f}",
            "interval": f"{g['nats']['low']:.2f} … {g['nats']['high']:.2f}",
        }
        for g in worst[:MOST_GROUPS]
    ]  # fmt: skip


def _distributions(found: Evaluation) -> Iterator[str]:
    if not found.made:
        return
    real, _, made = found.coded
    for spec in found.schema.fields[:MOST_FIELDS]:
        name = spec.name
        if name not in found.made:
            continue
        if spec.type in ("number", "datetime"):
            yield plots.numbers(name, real[name], made[name], dates=spec.type == "datetime")
        elif spec.type == "category":
            yield plots.categories(name, _shares(found.train[name]), _shares(found.made[name]))
        elif spec.type == "text" and not found.schema.stream:
            real_, made_ = (
                np.array([len(t) for t in part[name] if t], float)
                for part in (found.train, found.made)
            )
            yield plots.numbers(f"{name}: characters", real_, made_)


def _shares(values: Sequence[Any]) -> dict[str, float]:
    counts = Counter("(blank)" if v is None else str(v) for v in values)
    return {value: num / len(values) for value, num in counts.items()}


def _pairs(found: Evaluation) -> Iterator[str]:
    """Maps of all pairs of columns: how they hang together, and how well that was learnt."""
    if not found.made or len(found.coded[0]) < 3:
        return
    real, made = ({n: part[n] for n in list(part)[:MOST_FIELDS]} for part in found.coded[::2])
    for part, title in ((real, "real records"), (made, "generated records")):
        scores = associations(part)
        if scores:
            yield plots.grid(list(real), scores, 0.0, title)
    scores = pair_trends(real, made)
    if scores:
        yield plots.grid(list(real), scores, 0.8, "how much was kept")


# --- samples -------------------------------------------------------------------------------


def _samples(run: LoadedRun, found: Evaluation) -> Iterator[dict[str, Any]]:
    """The likeliest, middle and least likely generated records, each with its nearest real one;
    pictures and sounds have theirs elsewhere on the page."""
    if not found.made:
        return
    some = _different(found.made)
    shard, _ = encode_records(run.vocabulary, some)
    nats = schema_nats(run, shard, some).sum(axis=1)
    order = np.argsort(nats, kind="stable")
    middle = max(0, len(order) // 2 - EACH // 2)
    chosen = {RANKS[0]: order[:EACH], RANKS[1]: order[middle : middle + EACH],
              RANKS[2]: order[-EACH:]}  # fmt: skip
    shown = np.concatenate(list(chosen.values()))
    specs = [run.schema[name] for name in some]
    compared = not run.schema.stream and all(spec.type not in MEDIA for spec in specs)
    apart, place = np.zeros(len(shown)), np.zeros(len(shown), np.int64)
    if compared:
        few = {n: [v[i] for i in shown] for n, v in some.items()}
        apart, place = _closest(run, found.train, few)
    at = iter(zip(apart.tolist(), place.tolist(), strict=True))
    for rank, rows in chosen.items():
        for row in rows.tolist():
            distance, closest = next(at)
            sample = {
                "rank": rank, "nats": f"{nats[row]:.1f}",
                "cells": [
                    _split(cell, found.copied.get(name, {}).get(some[name][row], ""))
                    for name, cell in zip(some, _cells(run, some, row), strict=True)
                ],
                "pictures": [
                    embedded(spec, some[spec.name][row])
                    if spec.type in MEDIA and some[spec.name][row] is not None else ""
                    for spec in specs
                ],
            }  # fmt: skip
            if compared:
                sample["closest"] = _cells(run, {n: found.train[n] for n in some}, closest)
                sample["distance"] = f"{distance:.3f}"
            yield sample


def _closest(run: LoadedRun, train: Columns, made: Columns) -> tuple[Floats, Ints]:
    """(n,) and (n,): how far the closest training record is, texts by what they share, and which
    one it is."""
    real, ours = as_arrays(run.schema, train, made)
    for spec in run.schema.fields:
        if spec.name in made and spec.name not in ours:
            for arrays, table in ((real, train), (ours, made)):
                arrays[spec.name] = np.array(table[spec.name], object)
    return nearest(ours, real)


def _different(made: Columns) -> Columns:
    """The first different ones of the generated records."""
    rows = {row: at for at, row in reversed(list(enumerate(zip(*made.values(), strict=True))))}
    first = sorted(rows.values())[:MOST_SCORED]
    return {name: [values[i] for i in first] for name, values in made.items()}


def _split(cell: str, span: str) -> tuple[str, str, str]:
    """What stands before a copied span, the span, and what stands behind it."""
    if len(span) < NO_SPAN or span not in cell:
        return cell, "", ""
    before, _, after = cell.partition(span)
    return before, span, after


def _cells(run: LoadedRun, columns: Columns, row: int) -> list[str]:
    values = [(run.schema[name], values[row]) for name, values in columns.items()]
    cells = ["" if v is None else to_text(spec, to_native(spec, v)) for spec, v in values]
    return [cell if len(cell) <= CELL else cell[:CELL] + " …" for cell in cells]


def _commands(run: LoadedRun) -> list[str]:
    name = run.folder.path.name
    return [
        f"omnifill train DATA --recipe {name}/recipe.yaml --out again",
        f"omnifill evaluate {name} --report report.html",
        f"omnifill generate {name} -n 10 --seed 0",
    ]
