"""The thin path: train, generate, fill, score, evaluate, resume, over all four field types."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import mixed_table

from omnifill import api
from omnifill.errors import DataError, Interrupted, RequestError, RunError, ValueRefused
from omnifill.generate import likelihood
from omnifill.settings import MixSettings, Task
from omnifill.train.checkpoint import hash_file
from omnifill.train.loop import Report
from omnifill.train.metrics import LiveLine


def test_generated_records_have_the_types_and_values_of_the_source(model: api.Model) -> None:
    made = model.generate(60, seed=3)
    source = mixed_table()
    assert list(made.columns) == list(source.columns)
    assert set(made["kind"].dropna()) <= set(source["kind"].dropna())
    assert made["count"].dtype == int
    sizes = made["size"].dropna()
    assert (sizes.round(2) == sizes).all()
    assert sizes.between(source["size"].min(), source["size"].max()).all()
    assert pd.to_datetime(made["day"], format="%Y-%m-%d").between("2024-01-01", "2025-03-01").all()
    assert all(isinstance(t, str) for t in made["note"].dropna())


def test_the_same_seed_gives_the_same_records_and_another_gives_others(model: api.Model) -> None:
    pd.testing.assert_frame_equal(model.generate(9, seed=5), model.generate(9, seed=5))
    assert not model.generate(9, seed=5).equals(model.generate(9, seed=6))


def test_a_record_is_the_same_alone_and_in_a_batch(model: api.Model) -> None:
    many = model.generate(20, seed=5)
    few = model.generate(3, seed=5)
    pd.testing.assert_frame_equal(many.head(3), few, check_dtype=False)


def test_given_values_stand_in_the_result_and_only_wanted_fields_beside_them(
    model: api.Model,
) -> None:
    made = model.generate(4, given={"kind": "tea", "count": 7}, want=["note", "size"])
    assert list(made.columns) == ["kind", "size", "count", "note"]
    assert (made["kind"] == "tea").all() and (made["count"] == 7).all()


def test_missing_can_be_forbidden(model: api.Model) -> None:
    assert model.generate(80, seed=1)["kind"].isna().any()
    made = model.generate(80, seed=1, no_missing=["kind"])
    assert not made["kind"].isna().any()


def test_fill_fills_every_blank_cell_and_touches_no_other(model: api.Model) -> None:
    table = mixed_table(50, seed=9).drop(columns="count")
    for draw in (False, True):
        filled = model.fill(table, draw=draw)
        assert not filled.isna().any().any()
        for name in table.columns:
            known = table[name].notna()
            assert (filled.loc[known, name] == table.loc[known, name]).all()


def test_columns_that_training_left_out_are_handed_through(tmp_path: Path) -> None:
    table = mixed_table(90, seed=2)[["kind", "size"]].assign(
        part=["train", "train", "test"] * 30, id=range(90), blank=None
    )
    recipe = {"model": {"size": "nano"},
              "data": {"drop": ["id"], "split": {"column": "part"}}}  # fmt: skip
    table.to_csv(tmp_path / "table.csv", index=False)
    model = api.train(tmp_path / "table.csv", tmp_path / "run", steps=3, recipe=recipe)
    assert model.fields == ["kind", "size"]
    api.fill_file(model, tmp_path / "table.csv", tmp_path / "whole.csv")
    whole = pd.read_csv(tmp_path / "whole.csv", keep_default_na=False, dtype=str)
    before = pd.read_csv(tmp_path / "table.csv", keep_default_na=False, dtype=str)
    assert list(whole) == list(before) and (whole[["kind", "size"]] != "").all(axis=None)
    left_out = ["part", "id", "blank"]
    pd.testing.assert_frame_equal(whole[left_out], before[left_out])
    assert ((whole == before) | (before == "")).all(axis=None)
    assert model.fill(table)["id"].tolist() == list(range(90))
    pd.testing.assert_frame_equal(model.score(table), model.score(table[["kind", "size"]]))
    assert model.evaluate(tmp_path / "table.csv") == model.evaluate(table[["kind", "size"]])
    with pytest.raises(DataError, match="no field called 'parts'"):
        model.score(table.rename(columns={"part": "parts"}))


def test_fill_of_a_row_does_not_depend_on_its_neighbours(model: api.Model) -> None:
    table = mixed_table(30, seed=9)
    whole = model.fill(table)
    alone = pd.concat([model.fill(table.iloc[i : i + 1]) for i in range(6)])
    pd.testing.assert_frame_equal(whole.head(6), alone, check_dtype=False)


def test_scores_add_up_and_do_not_depend_on_the_batch(model: api.Model) -> None:
    table = mixed_table(24, seed=4)
    scores = model.score(table)
    fields = [c for c in scores.columns if c != "row"]
    assert fields == list(table.columns)
    pd.testing.assert_series_equal(scores["row"], scores[fields].sum(axis=1), check_names=False,
                                   check_dtype=False)  # fmt: skip
    alone = model.score(table.iloc[5:6])
    assert math.isclose(alone["row"].iloc[0], scores["row"].iloc[5], rel_tol=1e-5)


def test_category_scores_agree_with_probabilities(model: api.Model) -> None:
    table = mixed_table(12, seed=4)
    table["kind"] = "tea"
    prob = model.probabilities(table[["kind"]], "kind")
    assert ((prob.sum(axis=1) - 1).abs() < 1e-6).all()
    scores = model.score(table[["kind"]])["kind"]
    with_missing = scores.map(math.exp)
    assert (with_missing <= prob["tea"] + 1e-6).all()


def test_a_category_is_told_by_bayes_rule_and_beside_a_text_directly_too(
    model: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = mixed_table(24, seed=4)[["kind", "size", "note"]]
    prob = model.probabilities(table, "kind")
    assert ((prob.sum(axis=1) - 1).abs() < 1e-9).all()
    monkeypatch.setattr(likelihood, "MOST_VALUES", 0)
    direct = model.probabilities(table, "kind")
    has_text = table["note"].notna()
    assert 0 < has_text.sum() < len(table)
    rows = [*np.flatnonzero(has_text)[:8].tolist(), *np.flatnonzero(~has_text)[:4].tolist()]
    for row in rows:
        known = table.iloc[[row]].dropna(axis=1)
        joint = np.array([model.score(known.assign(kind=v))["row"].iloc[0] for v in prob.columns])
        both = np.exp(joint - joint.max())
        if has_text.iloc[row]:
            both = np.sqrt(both * direct.iloc[row].to_numpy())
        np.testing.assert_allclose(prob.iloc[row], both / both.sum(), rtol=1e-4)


def test_only_likely_values_are_asked_for_by_bayes_rule() -> None:
    log_probs = np.log(np.array([[0.6, 0.399, 0.001], [0.999, 0.0005, 0.0005], [0.3, 0.3, 0.4]]))
    near = likelihood._near(log_probs)
    assert near.tolist() == [[True, True, False], [False, False, False], [True, True, True]]


def test_bayes_rule_is_left_out_where_no_record_is_read_in_schema_order(
    model: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = mixed_table(24, seed=4)[["kind", "size", "note"]]
    with_bayes = model.probabilities(table, "kind")
    for change in ({"mix": MixSettings(schema_order=0)},
                   {"tasks": [Task(given=["size", "note"], want=["kind"])]}):  # fmt: skip
        form = model.run.recipe.form.model_copy(update=change)
        recipe = model.run.recipe.model_copy(update={"form": form})
        other = api.Model(dataclasses.replace(model.run, recipe=recipe))
        alone = other.probabilities(table, "kind")
        assert not np.allclose(alone, with_bayes)
        with monkeypatch.context() as patch:
            patch.setattr(likelihood, "MOST_VALUES", 0)
            pd.testing.assert_frame_equal(model.probabilities(table, "kind"), alone)


def test_fill_answers_with_the_most_probable_category(model: api.Model) -> None:
    table = mixed_table(24, seed=4)
    prob = model.probabilities(table, "kind")
    filled = model.fill(table.assign(kind=None))
    assert filled["kind"].tolist() == prob.idxmax(axis=1).tolist()


def test_evaluate_has_a_measure_for_every_field(model: api.Model) -> None:
    result = model.evaluate()
    assert set(result["fields"]) == set(model.fields)
    assert "bits_per_byte" in result["fields"]["note"]
    assert "accuracy" in result["fields"]["kind"]
    for measures in result["fields"].values():
        for measure in measures.values():
            assert measure["low"] <= measure["value"] <= measure["high"]
            assert measure["n"] > 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.generate(1, given={"knd": "tea"}), "did you mean 'kind'"),
        (lambda m: m.generate(1, want=["nope"]), "no field called 'nope'"),
        (lambda m: m.generate(1, given={"kind": "teaa"}), "did you mean 'tea'"),
        (lambda m: m.generate(1, given={"count": "many"}), "is not a number"),
        (lambda m: m.generate(1, given={"day": "yesterday"}), "is not a date"),
        (lambda m: m.generate(1, temperature=-1), "temperature"),
        (lambda m: m.generate(1, given={"kind": "tea"}, want=["kind"]), "given and wanted"),
        (lambda m: m.fill(pd.DataFrame({"sise": [1]})), "did you mean 'size'"),
        (lambda m: m.probabilities(mixed_table(3), "size"), "is a number"),
    ],
)
def test_a_wrong_request_is_one_clear_error(model: api.Model, call: object, says: str) -> None:
    with pytest.raises((RequestError, ValueRefused, DataError), match=says):
        call(model)  # type: ignore[operator]


def weights(run: Path) -> str:
    """The hash of the weights file."""
    return hash_file(run / "model.safetensors")


RECIPE = {"model": {"size": "nano", "dropout": 0.1}, "train": {"save_every": 7, "ema": 0.9}}


def test_the_same_recipe_gives_the_same_bytes(table_csv: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        api.train(table_csv, tmp_path / name, steps=12, recipe=RECIPE)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    api.train(table_csv, tmp_path / "c", recipe=tmp_path / "a" / "recipe.yaml")
    assert weights(tmp_path / "c") == weights(tmp_path / "a")


def test_an_over_fitted_run_under_a_budget_is_repeated_by_its_resolved_recipe(
    tmp_path: Path,
) -> None:
    recipe = {
        "model": {"size": "nano", "dropout": 0},
        "train": {"eval_every": 5, "patience": 1, "lr": 0.05, "lr_adamw": 0.02},
    }
    first = api.train(mixed_table(60, seed=4), tmp_path / "a", budget="30s", recipe=recipe)
    assert first.run.folder.read_state()["training"]["over_fitted"]
    api.train(mixed_table(60, seed=4), tmp_path / "b", recipe=tmp_path / "a" / "recipe.yaml")
    assert weights(tmp_path / "b") == weights(tmp_path / "a")


class StopAt(LiveLine):
    """Interrupts as Ctrl-C would, when a step has been reported."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def __call__(self, report: Report) -> None:
        if report.step >= self.step:
            raise KeyboardInterrupt


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(
    table_csv: Path, tmp_path: Path
) -> None:
    api.train(table_csv, tmp_path / "whole", steps=40, recipe=RECIPE)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        api.train(table_csv, tmp_path / "cut", steps=40, recipe=RECIPE, live=StopAt(20))
    with pytest.raises(RunError, match="has not finished"):
        api.load(tmp_path / "cut")
    api.train(table_csv, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_run_folder_is_not_written_over(table_csv: Path, model: api.Model) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        api.train(table_csv, model.run.folder.path, steps=1)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2], pd.MultiIndex.from_tuples([("p", "a"), ("p", "b"), ("q", "c")])]
)
def test_columns_called_by_numbers_or_tuples_are_known_again(labels: object) -> None:
    table = mixed_table(60)[["kind", "size", "count"]].set_axis(labels, axis=1)
    model = api.train(table, steps=4, recipe={"model": {"size": "nano"}})
    filled = model.fill(table)
    assert filled.columns.equals(table.columns) and not filled.isna().any(axis=None)
    known = table.notna()
    assert filled[known].equals(table[known])
    assert len(model.score(table)) == len(model.probabilities(table, model.fields[0])) == 60
