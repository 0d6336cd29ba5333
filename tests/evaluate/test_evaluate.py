"""`evaluate` puts baselines beside every figure; a baseline can be asked for texts of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import mixed_table
from typer.testing import CliRunner

from omnifill import api
from omnifill.cli import app
from omnifill.errors import RequestError
from omnifill.evaluate.measures import confusion
from omnifill.evaluate.run import render
from omnifill.evaluate.texts import distinct, loops, units


@pytest.fixture(scope="module")
def result(model: api.Model) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return model.evaluate()


def test_every_figure_has_an_interval_and_a_number_of_samples(result: dict) -> None:
    groups = [result, *result["baselines"].values()]
    for group in groups:
        for measures in [*group["fields"].values(), group["rows"]]:
            for figure in measures.values():
                assert set(figure) == {"value", "low", "high", "n"} and figure["n"] > 0
                assert figure["low"] <= figure["value"] <= figure["high"]
                assert figure["low"] <= figure["value"] + 1e-9
                assert figure["value"] <= figure["high"] + 1e-9
    json.dumps(result)


def test_copied_training_rows_have_perfect_shapes_and_are_caught(result: dict) -> None:
    rows = result["baselines"]["resampled"]["rows"]
    assert rows["copied"]["value"] == 1 and rows["distance_to_training"]["value"] == 0
    assert rows["column_shapes"]["value"] > 0.9
    assert result["rows"]["copied"]["value"] < 0.2
    assert result["rows"]["distance_to_training"]["value"] > 0


def test_texts_stand_beside_real_ones_and_both_baselines(result: dict) -> None:
    ours = result["fields"]["note"]
    for label in ("held_out", "ngram", "template"):
        beside = result["baselines"][label]["fields"]["note"]
        assert {"distinct_4", "loops", "length", "copied_span"} <= set(beside) & set(ours)
        assert beside["distinct_4"]["n"] <= ours["distinct_4"]["n"] + 20
    assert result["baselines"]["ngram"]["fields"]["note"]["bits_per_byte"]["value"] < 8
    assert "two_sample" in result["rows"]
    assert "learnt_from_it" in result["fields"]["kind"]


def test_the_table_names_the_baselines_beside_each_figure(result: dict) -> None:
    shown = render(result)
    line = next(x for x in shown.splitlines() if x.startswith("note") and "bits_per" in x)
    assert "ngram " in line
    assert any("resampled 1" in x and "copied" in x for x in shown.splitlines())


def test_the_same_run_gives_the_same_figures(model: api.Model, result: dict) -> None:
    assert model.evaluate() == result


def test_a_run_without_its_training_part_is_still_measured(
    model: api.Model, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(model.run.folder.path, moved)
    shutil.rmtree(moved / "data")
    table = mixed_table(30, seed=9)
    alone = api.load(moved).evaluate(table)
    assert "column_shapes" not in alone["rows"]
    assert (
        alone["fields"]["note"]["bits_per_byte"]
        == (model.evaluate(table)["fields"]["note"]["bits_per_byte"])
    )


@pytest.mark.parametrize("name", ["ngram", "template"])
def test_a_baseline_makes_whole_records_from_the_rows_that_fit(model: api.Model, name: str) -> None:
    made = model.baseline(name, 40, given={"kind": "tea"}, seed=3)
    assert list(made.columns) == model.fields and len(made) == 40
    assert set(made["kind"]) == {"tea"}
    assert made.equals(model.baseline(name, 40, given={"kind": "tea"}, seed=3))
    assert not made.equals(model.baseline(name, 40, given={"kind": "tea"}, seed=4))
    assert all(isinstance(note, str) for note in made["note"])


def test_a_baseline_that_has_nothing_to_do_or_to_learn_from_says_so(model: api.Model) -> None:
    with pytest.raises(RequestError, match="did you mean 'ngram'"):
        model.baseline("ngrm")
    with pytest.raises(RequestError, match="no text to make"):
        model.baseline("ngram", given={"note": "warm"})
    with pytest.raises(RequestError, match="no training row has"):
        model.baseline("ngram", given={"day": "2024-02-01", "count": 499, "kind": "tea"})


def test_flags_that_a_baseline_would_ignore_are_refused(model: api.Model) -> None:
    run = str(model.run.folder.path)
    done = CliRunner().invoke(app, ["generate", run, "--baseline", "ngram", "--format", "jsonl"])
    assert done.exit_code == 0 and set(json.loads(done.stdout)) == set(model.fields)
    for extra in (["--top-k", "5"], ["--want", "note"], ["--prompt", "a"], ["--stream"]):
        refused = CliRunner().invoke(app, ["generate", run, "--baseline", "ngram", *extra])
        assert isinstance(refused.exception, RequestError)
        assert "leave out the rest" in str(refused.exception)


def test_loops_and_repetition_are_told_in_words_or_characters() -> None:
    assert loops(units("so it goes so it goes so it goes on"))
    assert not loops(units("so it goes and so it goes on"))
    assert loops(units("春天来了春天来了春天来了今天天气真好我们去公园吧大家一起"))
    assert distinct([list("abcdabcd")], 4)["value"] == pytest.approx(4 / 5)
    assert distinct([["a"]], 4)["n"] == 0


@given(st.integers(2, 40), st.integers(0, 99), st.integers(5, 200))
def test_confusion_counts_every_answer_once_and_hides_no_error(
    kinds: int, seed: int, num: int
) -> None:
    rng = np.random.default_rng(seed)
    truth, answers = rng.integers(0, kinds, (2, num)) // rng.integers(1, 3)
    table = confusion([f"v{i}" for i in range(kinds)], truth, answers)
    counts = np.array(table["counts"])
    assert counts.shape == (len(table["values"]), len(table["answers"]))
    assert counts.sum() == num
    right = sum(
        counts[table["values"].index(name), table["answers"].index(name)]
        for name in set(table["values"]) & set(table["answers"])
    )
    assert right == (truth == answers).sum()
    assert (counts.sum(axis=1) + counts[:, : len(counts)].sum(axis=0) > 0).all()


def test_distinct_texts_are_all_distinct_and_no_more() -> None:
    found = distinct([list("abcdefgh"), list("ijklmnop")], 4)
    assert found["value"] == found["high"] == 1


def test_a_record_of_texts_is_far_from_another_that_shares_its_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["warm", "cold", "sweet", "sour", "dry", "wet", "old", "new"])
    table = pd.DataFrame({
        "kind": rng.choice(["a", "b"], 150), "sort": rng.choice(["x", "y"], 150),
        "note": [" ".join(rng.choice(words, 12)) for _ in range(150)],
    })  # fmt: skip
    run = api.train(table, tmp_path / "run", steps=5, recipe={"model": {"size": "nano"}})
    found = run.evaluate()["rows"]["distance_to_training"]
    assert found["low"] > 0.3  # the columns alone would give 0: there are four kinds of them


def test_a_table_of_one_text_with_blanks_is_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["one", "two", "three"], 6)) for _ in range(80)]
    table = pd.DataFrame({"text": [None if i % 4 == 0 else t for i, t in enumerate(texts)]})
    run = api.train(table, tmp_path / "run", steps=5, recipe={"model": {"size": "nano"}})
    found = run.evaluate()
    seen = found["baselines"]["training"]["fields"]["text"]["bits_per_byte"]["value"]
    assert seen == pytest.approx(found["fields"]["text"]["bits_per_byte"]["value"], rel=0.5)
