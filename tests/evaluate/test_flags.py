"""Planted defects are named; sound records raise no flag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from omnifill.evaluate.evaluation import Evaluation
from omnifill.evaluate.flags import (
    disobeyed,
    flags,
    shown,
    worse_than_plain,
    worse_than_usual,
)
from omnifill.evaluate.intervals import interval
from omnifill.evaluate.memory import copied_rows
from omnifill.evaluate.rows import as_arrays, two_sample
from omnifill.evaluate.texts import text_figures
from omnifill.schema import FieldSpec, Schema
from omnifill.types import ABSENT

Columns = dict[str, list[Any]]
SCHEMA = Schema(
    fields=tuple(
        FieldSpec(name=name, type=kind, codec=kind)
        for name, kind in (
            ("colour", "category"), ("taste", "category"), ("size", "number"), ("note", "text"),
        )
    )
)  # fmt: skip
WORDS = [f"word{i}" for i in range(400)]


def records(num: int, seed: int) -> Columns:
    """Colour and taste hang together, size follows colour, notes are long and free."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 3, num)
    taste = np.where(rng.random(num) < 0.7, colour, rng.integers(0, 3, num))
    return {
        "colour": [["red", "green", "blue"][i] for i in colour],
        "taste": [["sweet", "sour", "salty"][i] for i in taste],
        "size": np.round(colour + rng.normal(0, 0.4, num), 3).tolist(),
        "note": [" ".join(rng.choice(WORDS, 12)) for _ in range(num)],
    }


def sound() -> dict[str, Columns]:
    return {"train": records(900, 1), "held_out": records(250, 2), "made": records(900, 3)}


def found(parts: dict[str, Columns], **changes: Any) -> list[dict[str, str]]:
    """The flags of these records, as if a decent model had made the figures of held-out ones."""
    coded = as_arrays(SCHEMA, parts["train"], parts["held_out"], parts["made"])
    figures: dict[str, Any] = {"fields": {}, "rows": {}, "baselines": {"held_out": {
        "fields": {}, "rows": {}}}, "groups": changes.pop("groups", [])}  # fmt: skip
    for place, part in ((figures, "made"), (figures["baselines"]["held_out"], "held_out")):
        copies = copied_rows(parts[part], parts["train"]).astype(float)
        place["rows"]["copied"] = interval(copies)
        place["fields"]["note"] = text_figures([t for t in parts[part]["note"] if t][:250])
    figures["rows"]["two_sample"] = two_sample(coded[1], coded[2])
    rng = np.random.default_rng(0)
    samples = {}
    for name in ("colour", "taste"):
        num = len(parts["held_out"][name])
        samples[name, "accuracy"] = (rng.random(num) < 0.75).astype(float)
        samples[name, "log_loss"] = rng.gamma(2, 0.35, num)
    plain = {n: {"accuracy": interval((rng.random(250) < 0.36).astype(float))}
             for n in ("colour", "taste")}  # fmt: skip
    figures["baselines"]["most_frequent_or_median"] = {"fields": plain, "rows": {}}
    for path, value in changes.items():
        field, _, measure = path.partition("__")
        samples[field, measure] = value.astype(float)
    for (field, measure), value in samples.items():
        figures["fields"].setdefault(field, {})[measure] = interval(value)
    return flags(Evaluation(SCHEMA, figures, **parts, coded=tuple(coded), samples=samples))


def change(part: str, field: str, value: Callable[[int, Columns], Any]) -> dict[str, Columns]:
    """Sound records with one column of one part (or of all) put in another way."""
    parts = sound()
    for name, columns in parts.items():
        if part in (name, "all"):
            columns[field] = [value(i, columns) for i in range(len(columns[field]))]
    return parts


def test_sound_records_raise_no_flag() -> None:
    assert found(sound()) == []
    assert shown([]) == ""


def leaked() -> dict[str, Columns]:
    parts = sound()
    for name in parts["train"]:
        parts["held_out"][name][:60] = parts["train"][name][:60]
    return parts


def copies() -> dict[str, Columns]:
    parts = sound()
    return parts | {"made": {n: list(v) for n, v in parts["train"].items()}}


def repeats() -> dict[str, Columns]:
    parts = sound()
    for name, values in parts["train"].items():
        parts["train"][name] = values[:300] * 3
    return parts


@pytest.mark.parametrize(
    ("parts", "name", "field"),
    [
        (leaked(), "rows of the training part are in the test", ""),
        (copies(), "copied records", ""),
        (repeats(), "repeated records", ""),
        (change("all", "taste", lambda i, c: "t" + c["colour"][i]),
         "a column that gives another away", "taste"),
        (change("made", "size", lambda i, c: 1.0), "a collapsed column", "size"),
        (change("made", "note", lambda i, c: "word1 word2 word3 word4 word5 word6"),
         "texts that repeat one another", "note"),
        (change("made", "note", lambda i, c: f"{c['note'][i]} a a a"), "texts in loops", "note"),
        (change("all", "colour", lambda i, c: "red"), "a constant column", "colour"),
        (change("held_out", "size", lambda i, c: c["size"][i] + 2), "unlike the training part",
         "size"),
        (change("held_out", "taste", lambda i, c: "umami" if i < 30 else c["taste"][i]),
         "a group without data", "taste"),
        (change("held_out", "taste", lambda i, c: ABSENT if i < 30 else c["taste"][i]),
         "a group without data", "taste"),
        (change("made", "size", lambda i, c: -c["size"][i]), "told from real records", ""),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_a_planted_defect_of_the_records_is_named(
    parts: dict[str, Columns], name: str, field: str
) -> None:
    assert (name, field) in {(f["name"], f["field"]) for f in found(parts)}
    assert f"! {name}" in shown(found(parts))


@pytest.mark.parametrize(
    ("changes", "name", "field"),
    [
        ({"taste__accuracy": np.arange(250) % 5 == 0}, "worse than a plain baseline",
         "taste"),
        ({"groups": [{"field": "colour", "value": "blue", "nats": interval(np.full(40, 9.0)),
                      "others": interval(np.full(200, 4.0))}]}, "a group it fails", "colour"),
    ],
)  # fmt: skip
def test_a_planted_defect_of_the_model_is_named(
    changes: dict[str, Any], name: str, field: str
) -> None:
    assert {(f["name"], f["field"]) for f in found(sound(), **changes)} == {(name, field)}


def test_a_column_is_called_unlearnable_only_where_nothing_tells_it() -> None:
    no_gain = {"taste__log_loss": np.full(250, 1.1)}
    assert found(sound(), **no_gain) == []  # the colour tells: it is the model that fails
    rng = np.random.default_rng(0)
    shuffled = change("all", "taste", lambda i, c: ["sweet", "sour", "salty"][rng.integers(3)])
    assert {(f["name"], f["field"]) for f in found(shuffled, **no_gain)} == {
        ("nothing tells this column", "taste")
    }


def test_few_records_raise_no_flag_by_chance() -> None:
    parts = {"train": records(40, 1), "held_out": records(12, 2), "made": records(40, 3)}
    assert [f for f in found(parts) if f["name"] != "a group without data"] == []


@pytest.mark.parametrize(
    ("ours", "named"),
    [((30.0, 0.2), {"worse than a plain baseline", "not what was asked for"}),
     ((5.0, 0.2), {"not what was asked for"}), ((5.0, 0.55), set())],
)  # fmt: skip
def test_drawings_that_are_of_something_else_or_no_better_than_noise_are_named(
    ours: tuple[float, float], named: set[str]
) -> None:
    def drawn(distance: float, told: float) -> dict[str, Any]:
        right = interval((np.arange(400) < told * 400).astype(float))
        off = {"value": distance, "low": distance - 0.5, "high": distance + 0.5, "n": 400}
        return {"fields": {"colour": {"frechet": off, "label_recovered": right}}, "rows": {}}

    figures = drawn(*ours) | {"baselines": {
        "held_out": drawn(0.1, 0.6), "noise": drawn(12.0, 0.1), "mean": drawn(60.0, 0.1),
    }}  # fmt: skip
    parts = sound()
    coded = as_arrays(SCHEMA, parts["train"], parts["held_out"], parts["made"])
    evaluation = Evaluation(SCHEMA, figures, parts["train"], parts["held_out"], parts["made"],
                            (coded[0], coded[1], coded[2]))  # fmt: skip
    found = [*worse_than_plain(evaluation), *disobeyed(evaluation)]
    assert {flag.name for flag in found} == named


@pytest.mark.parametrize(("right", "named"), [(0.5, True), (0.8, False), (0.95, False)])
def test_a_category_that_logistic_regression_tells_far_better_is_named(
    right: float, named: bool
) -> None:
    def accuracy(share: float) -> dict[str, Any]:
        return {"colour": {"accuracy": interval(np.arange(400) < share * 400)}}

    figures = {
        "fields": accuracy(right), "rows": {},
        "baselines": {"logistic": {"fields": accuracy(0.9), "rows": {}}},
    }  # fmt: skip
    parts = sound()
    coded = as_arrays(SCHEMA, parts["train"], parts["held_out"], parts["made"])
    evaluation = Evaluation(SCHEMA, figures, parts["train"], parts["held_out"], parts["made"],
                            (coded[0], coded[1], coded[2]))  # fmt: skip
    assert [flag.field for flag in worse_than_usual(evaluation)] == ["colour"] * named
