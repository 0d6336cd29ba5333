"""`--resume` continues the run that was begun, and says so where something else is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import mixed_table
from tests.test_skeleton import StopAt, weights

from omnifill import api
from omnifill.errors import RequestError, RunError

RECIPE = {"model": {"size": "nano"}, "train": {"save_every": 5}}


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A run that was stopped half way."""
    mixed_table(80).to_csv(tmp_path / "drinks.csv", index=False)
    with pytest.raises(KeyboardInterrupt):
        api.train(tmp_path / "drinks.csv", tmp_path / "run", steps=20, recipe=RECIPE,
                  live=StopAt(10))  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "says"),
    [({"steps": 30}, r"train\.steps = 20, and now it is 30"),
     ({"seed": 4}, r"train\.seed = 0, and now it is 4"),
     ({"recipe": {"model": {"size": "tiny"}}}, r"model\.size = 'nano', and now it is 'tiny'")],
)  # fmt: skip
def test_another_setting_is_refused(cut: Path, asked: dict[str, object], says: str) -> None:
    with pytest.raises(RunError, match=says):
        api.train(cut / "drinks.csv", cut / "run", resume=True, **asked)  # type: ignore[arg-type]


def test_other_data_are_refused_and_the_same_go_on(
    cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed_table(81).to_csv(cut / "more.csv", index=False)
    for other in ("more.csv", "gone.csv"):
        with pytest.raises(RunError, match="was begun with other data"):
            api.train(cut / other, cut / "run", resume=True)
    api.train(cut / "drinks.csv", cut / "whole", steps=20, recipe=RECIPE)
    api.train(cut / "drinks.csv", cut / "run", steps=20, recipe=RECIPE, resume=True)
    assert weights(cut / "run") == weights(cut / "whole")
    api.train(cut / "drinks.csv", cut / "run", resume=True)
    assert "nothing is left to do" in capsys.readouterr().err


def test_a_run_that_did_not_note_what_was_asked_goes_on_and_stays_done(cut: Path) -> None:
    path = cut / "run" / "run.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state["asked"]
    path.write_text(json.dumps(state), encoding="utf-8")
    for _ in range(2):
        api.train(cut / "drinks.csv", cut / "run", resume=True)
    assert json.loads(path.read_text(encoding="utf-8"))["state"] == "done"


def test_a_table_is_not_filled_onto_itself(cut: Path) -> None:
    model = api.train(cut / "drinks.csv", cut / "run", steps=20, recipe=RECIPE, resume=True)
    before = (cut / "drinks.csv").read_bytes()
    with pytest.raises(RequestError, match="is the table that is filled"):
        api.fill_file(model, cut / "drinks.csv", cut / "drinks.csv")
    assert (cut / "drinks.csv").read_bytes() == before
