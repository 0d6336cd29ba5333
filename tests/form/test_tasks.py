"""A run of named tasks generates, fills, scores and measures what its tasks want, from what they
give, and says so where more is asked."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import mixed_table

from omnifill import api


@pytest.fixture(scope="module")
def task(table_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    out = tmp_path_factory.mktemp("runs") / "task"
    recipe = {"model": {"size": "nano"}}
    return api.train(table_csv, out, steps=20, given=["kind", "day"], want=["note", "count"],
                     recipe=recipe)  # fmt: skip


@pytest.fixture(scope="module")
def ways(table_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    tasks = [{"given": ["kind"], "want": ["note"]}, {"given": ["note"], "want": ["kind"]}]
    out = tmp_path_factory.mktemp("runs") / "ways"
    return api.train(table_csv, out, steps=20, recipe={"model": {"size": "nano"},
                                                       "form": {"tasks": tasks}})  # fmt: skip


def test_what_is_generated_by_default_is_what_the_task_wants(task: api.Model) -> None:
    made = task.generate(2, given={"kind": "tea", "day": "2024-02-03"})
    assert list(made) == ["kind", "count", "day", "note"]
    assert list(task.generate(1)) == ["count", "note"]


def test_of_several_tasks_the_one_that_fits_is_taken(ways: api.Model) -> None:
    assert list(ways.generate(1, given={"kind": "tea"})) == ["kind", "note"]
    assert list(ways.generate(1, given={"note": "warm"})) == ["kind", "note"]


def test_fields_outside_the_tasks_are_warned_of(task: api.Model) -> None:
    with pytest.warns(UserWarning, match="'size' is wanted by none of the tasks"):
        task.generate(1, given={"kind": "tea"}, want=["size"])
    with pytest.warns(UserWarning, match="'size' is given by none of the tasks"):
        task.generate(1, given={"size": 3.5})
    with pytest.warns(UserWarning, match="'size' is wanted by none of the tasks"):
        task.fill(pd.DataFrame({"kind": ["tea"], "size": [None], "note": ["warm"], "count": [3]}))


def test_what_the_task_does_not_give_makes_no_difference(task: api.Model) -> None:
    table = mixed_table(7, seed=3).drop(columns=["note"]).assign(count=None, size=2.0)
    table["kind"] = table["kind"].fillna("tea")
    filled, same = (task.fill(t)["count"] for t in (table, table.assign(size=1.5)))
    assert filled.tolist() == same.tolist()
    fewer = task.score(mixed_table(7, seed=3).drop(columns=["size"]))
    pd.testing.assert_frame_equal(task.score(mixed_table(7, seed=3)), fewer)


def test_the_score_is_that_of_what_is_wanted(task: api.Model, ways: api.Model) -> None:
    table = mixed_table(9, seed=4)  # notes of unequal length
    scores = task.score(table)
    assert list(scores) == ["row", "count", "note"]
    np.testing.assert_allclose(scores["row"], scores["count"] + scores["note"])
    alone = pd.concat([task.score(table.iloc[[i]]) for i in range(len(table))])
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    known = table.dropna(subset=["kind", "note"])
    told = ways.probabilities(known, "kind").to_numpy()
    names = ways.probabilities(known, "kind").columns
    own = told[np.arange(len(known)), names.get_indexer(known["kind"])]
    # The score counts the blank, too, that the kind might have been.
    assert (np.exp(ways.score(known)["kind"]) <= own + 1e-6).all()


def test_only_the_task_is_measured(task: api.Model, ways: api.Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing outside the task is asked for
        found = task.evaluate()
    assert set(found["fields"]) == {"count", "note"}
    assert {group["field"] for group in found["groups"]} <= {"kind"}
    assert "copied" in found["rows"]
    assert set(ways.evaluate()["fields"]) == {"kind", "note"}
