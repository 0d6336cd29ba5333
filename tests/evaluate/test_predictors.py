"""The usual models of one column, texts against references, and how columns hang together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from omnifill import api
from omnifill.evaluate.associations import associations, hang_together
from omnifill.evaluate.predictors import iterative, logistic
from omnifill.evaluate.reference import likeness
from omnifill.schema import FieldSpec, Schema

SCHEMA = Schema(
    fields=tuple(
        FieldSpec(name=name, type=kind, codec=kind)
        for name, kind in (("kind", "category"), ("x", "number"), ("y", "number"), ("t", "text"))
    )
)


def records(num: int, seed: int) -> dict[str, list[object]]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, num)
    x = np.round(rng.normal(0, 1, num), 3)
    y = np.round(2 * x + 5 * kind + rng.normal(0, 0.1, num), 3)
    word = np.where(kind == 1, "sun", "rain")
    return {
        "kind": [["no", "yes"][k] for k in kind],
        "x": [None if i % 10 == 0 else float(v) for i, v in enumerate(x)],
        "y": y.tolist(),
        "t": [f"{w} {rng.integers(0, 9)}" for w in word],
    }


def test_logistic_regression_reads_texts_and_numbers() -> None:
    train, unseen = records(300, 0), records(80, 1)
    assert logistic(SCHEMA, train, unseen, "kind")["accuracy"]["value"] > 0.97
    no_text = Schema(fields=SCHEMA.fields[:3])
    train, unseen = ({n: v for n, v in p.items() if n != "t"} for p in (train, unseen))
    figure = logistic(no_text, train, unseen, "kind")
    assert figure["accuracy"]["value"] > 0.9 and figure["accuracy"]["n"] == 80
    assert figure["log_loss"]["value"] < 0.4


def test_a_category_unseen_by_the_regression_is_a_wrong_answer() -> None:
    train, unseen = records(300, 0), records(80, 1)
    unseen["kind"] = ["new"] * 40 + unseen["kind"][40:]
    assert logistic(SCHEMA, train, unseen, "kind")["accuracy"]["value"] <= 0.5


def test_the_imputer_knows_a_line() -> None:
    figure = iterative(SCHEMA, records(300, 0), records(80, 1), "y")
    assert figure["normalised_error"]["value"] < 0.2  # x is blank in a tenth of the rows
    assert iterative(SCHEMA, records(300, 0), records(80, 1), "t") == {}


def test_likeness_of_texts_is_full_for_the_same_and_small_for_others() -> None:
    real = ["the cat sat on the mat", "a dog ran far away home", "it is what it is today"]
    same, other = likeness(real, real), likeness(real, real[1:] + real[:1])
    assert same["bleu"]["value"] == pytest.approx(100)
    assert same["chrf"]["value"] == pytest.approx(100)
    assert same["rouge_l"]["value"] == pytest.approx(1)
    assert other["bleu"]["value"] < 10 and other["rouge_l"]["value"] < 0.4
    chinese = ["今天天气真好我们去公园吧大家一起走一走", "昨天下了一整天的雨哪里也没有去"]
    assert likeness(chinese, chinese)["bleu"]["value"] == pytest.approx(100)


def test_texts_that_other_texts_foretell_are_held_against_them() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(8)]
    source = [" ".join(rng.choice(words, 3)) for _ in range(200)]
    table = pd.DataFrame({"a": source, "b": [s.upper() for s in source]})
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {
        "a": {"type": "text"}, "b": {"type": "text"}}}}  # fmt: skip
    result = api.train(table, steps=20, recipe=recipe).evaluate()
    for name in ("a", "b"):
        assert {"bleu", "chrf", "rouge_l"} <= set(result["fields"][name])
        assert {"bleu", "chrf"} <= set(result["baselines"]["resampled"]["fields"][name])


def test_columns_hang_together_whatever_their_types() -> None:
    rng = np.random.default_rng(0)
    code = rng.integers(0, 3, 2000)
    x = code + rng.normal(0, 0.1, 2000)
    columns = {"code": code, "same": code, "x": x, "alone": rng.normal(0, 1, 2000),
               "other": rng.integers(0, 3, 2000)}  # fmt: skip
    found = associations(columns)
    assert found["code", "same"] == pytest.approx(1, abs=0.01)
    assert found["code", "x"] > 0.95
    assert found["code", "other"] < 0.1 and found["x", "alone"] < 0.1
    assert hang_together(code, x) and hang_together(x, code)
    assert not hang_together(code, columns["other"])
    assert not hang_together(code, columns["alone"])
