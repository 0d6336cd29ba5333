"""Pictures by way of what nobody told: a label first, and then what that and all else says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.test_images import NANO, bars

from omnifill import api
from omnifill.generate import likelihood
from omnifill.generate import ways as ways_module
from omnifill.generate.filters import Sampling
from omnifill.generate.given import in_view
from omnifill.generate.ways import draw_ways, ways

GREY = np.full((6, 6), 255, np.uint8)


def pairs(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    """Two pictures of a kind: bars as they are, and squares that are dark above or on the left."""
    table = bars(rows, seed)
    squares = []
    for number, label in enumerate(table["label"]):
        grid = np.zeros((6, 6), np.uint8)
        grid[: 3 + number % 2] = 255
        squares.append(grid.T.copy() if label == "upright" else grid)
    return table.assign(square=squares, number=np.arange(rows) % 2 + 3)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    fields = {name: {"codec": "pixels"} for name in ("image", "square")}
    recipe = {**NANO, "schema": {"fields": fields}}
    return api.train(pairs(), tmp_path_factory.mktemp("runs") / "both", steps=600, recipe=recipe)


def kinds(squares: pd.Series) -> list[str]:
    grids = [np.asarray(square) for square in squares]
    return ["upright" if grid[:, 0].all() else "lying" for grid in grids]


def test_a_picture_is_drawn_from_another_by_way_of_their_label(both: api.Model) -> None:
    asked = pairs(40, seed=1)
    filled = both.fill(asked[["image"]].assign(square=None), draw=True)
    assert list(filled) == ["image", "square"]
    right = np.array(kinds(filled["square"])) == asked["label"].to_numpy()
    assert right.mean() > 0.8


def test_what_is_drawn_first_is_what_the_picture_is_of(
    both: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a picture of neither kind come those of the label that was drawn, in both verbs: the
    same as where it is given."""
    decode, made = ways_module.decode_field, []
    for label in ("upright", "lying"):
        short = {"label": label, "number": "3"}

        def drawn(
            run: Any, steps: Any, name: str, num: int, short: dict[str, str] = short
        ) -> list[Any]:
            return [short[name]] * num if name in short else decode(run, steps, name, num)

        asked = pd.DataFrame({"image": [GREY] * 30, "square": None})
        given = {"image": GREY, **short}
        told = [both.generate(30, given=given, want="square"),
                both.fill(asked.assign(**short), draw=True)]  # fmt: skip
        monkeypatch.setattr(ways_module, "decode_field", drawn)
        ours = [both.generate(30, given={"image": GREY}, want="square"),
                both.fill(asked, draw=True)]  # fmt: skip
        monkeypatch.undo()
        for one, other in zip(ours, told, strict=True):
            assert same(one["square"], other["square"])
        made.append(ours[0]["square"])
    assert not same(*made)


def same(one: pd.Series, other: pd.Series) -> bool:
    both = zip(one, other, strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in both)


def test_what_is_drawn_first_is_an_answer_where_it_was_asked_for(both: api.Model) -> None:
    asked = pairs(30, seed=2)
    asked.loc[::2, "label"] = None
    filled = both.fill(asked.assign(square=None), draw=True)
    assert filled[["label", "number"]].notna().all().all()
    assert (filled["label"][1::2] == asked["label"][1::2]).all()
    assert (np.array(kinds(filled["square"])) == filled["label"]).mean() > 0.8
    same = both.fill(asked.assign(square=None), draw=True)
    pd.testing.assert_series_equal(filled["number"], same["number"])


def test_categories_are_drawn_as_likely_as_the_model_says(
    both: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = 4000
    monkeypatch.setattr(likelihood, "MOST_VALUES", 0)  # directly, as what is drawn
    codec = both.run.vocabulary["image"].codec
    picture = codec.decode(codec.encode(GREY.tobytes()))  # no bar: it may be either
    known = np.tile([name == "image" for name in both.fields], (num, 1))
    shard, values = draw_ways(
        both.run, in_view(both.run, {"image": [picture]}), np.zeros(num, np.int64), known,
        ["label", "number"], np.arange(num), 0, Sampling(guidance=3.0), np.ones(4, bool),
    )  # fmt: skip
    assert len(shard) == num and known.sum() == 3 * num
    for name, drawn in values.items():
        one = shard.lens[:, both.run.schema.index(name)]
        assert (one == both.run.vocabulary[name].slots).all() and None not in drawn
    told = values["label"]
    share = both.probabilities(pd.DataFrame({"image": [GREY]}), "label")["upright"][0]
    drawn = np.mean([label == "upright" for label in told])
    assert abs(drawn - share) < 5 * np.sqrt(share * (1 - share) / num) + 1e-9


def test_rows_are_the_same_alone_and_in_a_batch(both: api.Model) -> None:
    given = {"image": pairs(1)["image"][0]}
    many = both.generate(5, given=given, want="square", seed=3)["square"]
    few = both.generate(2, given=given, want="square", seed=3)["square"]
    assert list(many[:2].map(bytes_of)) == list(few.map(bytes_of))


def test_a_batch_may_be_smaller(both: api.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pairs(9, seed=4)[["image"]].assign(square=None, label=None)
    whole = both.fill(asked, draw=True)
    monkeypatch.setattr(ways_module, "ROWS", 4)
    parts = both.fill(asked, draw=True)
    pd.testing.assert_series_equal(whole["label"], parts["label"])
    assert list(whole["square"].map(bytes_of)) == list(parts["square"].map(bytes_of))


def test_what_is_not_known_says_nothing(tmp_path: Path) -> None:
    """Where <missing> is drawn, a picture is drawn from the other alone."""
    table = pairs(60)
    table.loc[::2, "label"] = None
    fields = {name: {"codec": "pixels"} for name in ("image", "square")}
    recipe = {**NANO, "schema": {"fields": fields}}
    model = api.train(table, tmp_path / "run", steps=20, recipe=recipe)
    num = 60
    known = np.tile([name == "image" for name in model.fields], (num, 1))
    picture = in_view(model.run, {"image": [GREY.tobytes()]})
    _, values = draw_ways(model.run, picture, np.zeros(num, np.int64), known, ["label"],
                          np.arange(num), 0, Sampling(), np.zeros(4, bool))  # fmt: skip
    missing = np.array([value is None for value in values["label"]])
    assert 0 < missing.sum() < num
    assert (known[:, model.run.schema.index("label")] == ~missing).all()
    made = model.generate(20, given={"image": GREY}, want="square", no_missing="square")
    assert made["square"].notna().all()


def test_masked_models_go_by_way_of_what_is_short_too(tmp_path: Path) -> None:
    fields = {name: {"codec": "pixels"} for name in ("image", "square")}
    recipe = {**NANO, "schema": {"fields": fields}, "objective": {"name": "masked"}}
    model = api.train(pairs(60), tmp_path / "run", steps=20, recipe=recipe)
    given = {"image": pairs(1)["image"][0]}
    made = model.generate(3, given=given, want="square", steps=2, seed=1)["square"]
    again = model.generate(2, given=given, want="square", steps=2, seed=1)["square"]
    assert list(made[:2].map(bytes_of)) == list(again.map(bytes_of))


def bytes_of(picture: Any) -> bytes:
    return np.asarray(picture).tobytes()


def test_nothing_is_drawn_first_where_tasks_say_what_is_read(
    both: api.Model, tmp_path: Path
) -> None:
    assert ways(both.run, ["image"], ["square"]) == ["label", "number"]
    assert ways(both.run, ["image"], ["label"]) == [], "no picture is wanted"
    assert ways(both.run, ["image", "label"], ["square"]) == [], (
        "it has been before one in training"
    )
    assert ways(both.run, [], ["square"]) == []
    recipe = {**NANO, "schema": {"fields": {"square": {"codec": "pixels"}}}}
    table = pairs(30).drop(columns="image")
    narrow = api.train(table, tmp_path / "run", steps=2, given="label", want="square",
                       recipe=recipe)  # fmt: skip
    assert ways(narrow.run, ["square"], ["square"]) == []
