"""Pictures by way of what nobody told: a label first, and then what that and all else says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.test_images import NANO, bars

from omnifill import api
from omnifill.generate import likelihood
from omnifill.generate.ways import ways, with_ways

GREY = np.full((6, 6), 255, np.uint8)


def pairs(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    """Two pictures of a kind: bars as they are, and squares that are dark above or on the left."""
    table = bars(rows, seed)
    squares = []
    for number, label in enumerate(table["label"]):
        grid = np.zeros((6, 6), np.uint8)
        grid[: 3 + number % 2] = 255
        squares.append(grid.T.copy() if label == "upright" else grid)
    return table.assign(square=squares)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    fields = {name: {"codec": "pixels"} for name in ("image", "square")}
    recipe = {**NANO, "schema": {"fields": fields}}
    return api.train(pairs(), tmp_path_factory.mktemp("runs") / "both", steps=240, recipe=recipe)


def kinds(squares: pd.Series) -> list[str]:
    grids = [np.asarray(square) for square in squares]
    return ["upright" if grid[:, 0].all() else "lying" for grid in grids]


def test_a_picture_is_drawn_from_another_by_way_of_their_label(both: api.Model) -> None:
    asked = pairs(40, seed=1)
    filled = both.fill(asked[["image"]].assign(square=None), draw=True)
    assert list(filled) == ["image", "square"]
    right = np.array(kinds(filled["square"])) == asked["label"].to_numpy()
    assert right.mean() > 0.9


def test_what_is_drawn_first_is_an_answer_where_it_was_asked_for(both: api.Model) -> None:
    asked = pairs(30, seed=2)
    asked.loc[::2, "label"] = None
    filled = both.fill(asked.assign(square=None), draw=True)
    assert filled["label"].notna().all()
    assert (filled["label"][1::2] == asked["label"][1::2]).all()
    assert (np.array(kinds(filled["square"])) == filled["label"]).mean() > 0.9


def test_categories_are_drawn_as_likely_as_the_model_says(
    both: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = 4000
    monkeypatch.setattr(likelihood, "MOST_VALUES", 0)  # directly, as what is drawn
    codec = both.run.vocabulary["image"].codec
    picture = codec.decode(codec.encode(GREY.tobytes()))  # no bar: it may be either
    numbers = np.arange(num)
    told = with_ways(both.run, {"image": [picture] * num}, ["label"], numbers, 0, 1.0)["label"]
    share = both.probabilities(pd.DataFrame({"image": [GREY]}), "label")["upright"][0]
    drawn = np.mean([label == "upright" for label in told])
    assert abs(drawn - share) < 5 * np.sqrt(share * (1 - share) / num) + 1e-9


def test_rows_are_the_same_alone_and_in_a_batch(both: api.Model) -> None:
    given = {"image": pairs(1)["image"][0]}
    many = both.generate(5, given=given, want="square", seed=3)["square"]
    few = both.generate(2, given=given, want="square", seed=3)["square"]
    assert [np.asarray(one).tobytes() for one in many[:2]] == [
        np.asarray(one).tobytes() for one in few
    ]


def test_nothing_is_drawn_first_where_tasks_say_what_is_read(
    both: api.Model, tmp_path: Path
) -> None:
    assert ways(both.run, ["square"]) == ["label"]
    assert ways(both.run, ["label"]) == []
    recipe = {**NANO, "schema": {"fields": {"square": {"codec": "pixels"}}}}
    table = pairs(30).drop(columns="image")
    narrow = api.train(table, tmp_path / "run", steps=2, given="label", want="square",
                       recipe=recipe)  # fmt: skip
    assert ways(narrow.run, ["square"]) == []
