"""A codec, a backbone and an objective of somebody's own go the whole way unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import kit

from omnifill import api
from omnifill.errors import RecipeError, RunError

FIELD = {"type": "grid", "codec": "tests.kit:GridCodec"}
RECIPE = {
    "schema": {"fields": {"grid": FIELD}},
    "model": {"backbone": "tests.kit:MeanBackbone", "size": "nano"},
    "objective": {"name": "tests.kit:SmoothedObjective"},
}


def grids(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    codec = kit.GridCodec()
    label = rng.integers(0, 2, rows)
    cells = [codec.decode(np.where(rng.random(6) < 0.8, n + 1, 0)) for n in label]
    table = pd.DataFrame({"label": np.array(["o", "x"])[label], "grid": cells})
    table.loc[rng.random(rows) < 0.1, "grid"] = None
    return table


def test_parts_of_ones_own_pass_every_stage(tmp_path: Path) -> None:
    table = grids()
    api.train(table, tmp_path / "run", steps=30, recipe=RECIPE)
    with pytest.raises(RunError, match=r"--allow-code tests\.kit"):
        api.load(tmp_path / "run")
    model = api.load(tmp_path / "run", allow_code=["tests.kit"])
    made = model.generate(30, seed=1)
    codec = kit.GridCodec()
    for grid in made["grid"].dropna():
        assert codec.decode(codec.encode(grid)) == grid
    assert set(made["label"].dropna()) <= {"o", "x"}
    pd.testing.assert_frame_equal(made.head(4), model.generate(4, seed=1))
    filled = model.fill(table.head(40))
    assert not filled.isna().any().any()
    assert np.isfinite(model.score(table.head(9))["row"]).all()
    assert model.evaluate(table)["fields"]["grid"]["bits"]["n"] > 0
    assert model.probabilities(table.head(3), "label").shape == (3, 2)


def test_a_resumed_run_with_parts_of_ones_own_is_exact(tmp_path: Path) -> None:
    from tests.test_skeleton import StopAt, weights

    recipe = {**RECIPE, "train": {"save_every": 5}}
    api.train(grids(), tmp_path / "whole", steps=30, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        api.train(grids(), tmp_path / "cut", steps=30, recipe=recipe, live=StopAt(10))
    api.train(grids(), tmp_path / "cut", resume=True, recipe=recipe)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")


def test_a_combination_that_cannot_work_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit.SmoothedObjective, "needs", frozenset({"full"}))
    with pytest.raises(RecipeError, match="cannot do what objective"):
        api.train(grids(), tmp_path / "run", steps=1, recipe=RECIPE)
    assert not (tmp_path / "run").exists()


def test_the_grid_codec_tells_its_coordinates_to_the_model(tmp_path: Path) -> None:
    model = api.train(grids(), tmp_path / "run", steps=2, recipe=RECIPE)
    assert model.run.network.config.coords == (2, 3, 1)
    assert model.run.network.coords["0"].weight.abs().sum() > 0
