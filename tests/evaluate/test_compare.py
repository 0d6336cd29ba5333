"""Two runs side by side: the same records, paired differences, and no winner by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import mixed_table
from typer.testing import CliRunner

from omnifill import api
from omnifill.cli import app
from omnifill.errors import RequestError
from omnifill.evaluate.compare import paired


@pytest.fixture(scope="module")
def weaker(table_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    out = tmp_path_factory.mktemp("weaker") / "run"
    return api.train(table_csv, out, steps=2, recipe={"model": {"size": "nano"}})


def test_a_difference_is_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 300)  # what makes a record hard is shared, and cancels out
    a, b = hard + rng.normal(0, 0.5, 300), hard + 0.2 + rng.normal(0, 0.5, 300)
    found = paired(a, b, higher_is_better=False)
    assert found is not None and found["p"] < 0.01 and found["better"] == "a"
    assert found["difference"]["low"] > 0 and found["difference"]["n"] == 300
    same = paired(a, hard + rng.normal(0, 0.5, 300), higher_is_better=False)
    assert same is not None and same["better"] is None
    turned = paired(a, b, higher_is_better=True)
    assert turned is not None and turned["better"] == "b"


def test_chance_alone_is_seldom_called_a_difference() -> None:
    rng = np.random.default_rng(1)
    ps = [paired(rng.normal(size=40), rng.normal(size=40), False) for _ in range(60)]
    assert sum(p is not None and p["p"] < 0.05 for p in ps) <= 9


def test_records_that_one_run_says_nothing_of_do_not_count() -> None:
    found = paired(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, np.nan]), False)
    assert found is None
    found = paired(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, 4.0]), False)
    assert found is not None and found["difference"]["n"] == 2


def test_the_better_run_is_named_and_a_run_beside_itself_never(
    model: api.Model, weaker: api.Model
) -> None:
    table = mixed_table(200, seed=9)
    result = model.compare(weaker, table)
    assert result["rows"]["nats"]["better"] == "a" and result["rows"]["nats"]["p"] < 0.01
    assert weaker.compare(model, table)["rows"]["nats"]["better"] == "b"
    itself = model.compare(model)
    figures = [m for part in [*itself["fields"].values(), itself["rows"]] for m in part.values()]
    assert figures
    assert all(m["p"] == 1 and m["better"] is None and m["a"] == m["b"] for m in figures)


def test_the_means_are_the_figures_that_each_run_has_alone(
    model: api.Model, weaker: api.Model
) -> None:
    result, alone = model.compare(weaker), model.evaluate()
    for name, measures in result["fields"].items():
        for measure, figure in measures.items():
            assert figure["a"] == pytest.approx(alone["fields"][name][measure]["value"])


def test_runs_that_kept_other_records_aside_need_data(model: api.Model, tmp_path: Path) -> None:
    other = api.train(mixed_table(200, seed=5), tmp_path / "other", steps=2,
                      recipe={"model": {"size": "nano"}})  # fmt: skip
    with pytest.raises(RequestError, match="different records aside"):
        model.compare(other)
    assert model.compare(other, mixed_table(30, seed=9))["rows"]["nats"]["difference"]["n"] == 30


def test_texts_in_one_stream_are_compared_piece_by_piece(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was so, and so it was. " * 2000, encoding="utf-8")
    runs = [
        api.train(book, tmp_path / f"run{steps}", steps=steps, recipe={"model": {"size": "nano"}})
        for steps in (2, 40)
    ]
    figure = runs[0].compare(runs[1])["fields"]["text"]["bits_per_byte"]
    assert figure["b"] < figure["a"] and figure["difference"]["n"] >= 2


def test_the_command_sets_two_runs_side_by_side(model: api.Model, weaker: api.Model) -> None:
    a, b = (str(m.run.folder.path) for m in (model, weaker))
    done = CliRunner().invoke(app, ["evaluate", a, b])
    assert done.exit_code == 0
    assert any(x.startswith("(row)") and "nats" in x for x in done.stdout.splitlines())
    refused = CliRunner().invoke(app, ["evaluate", a, b, "--report", "x.html"])
    assert isinstance(refused.exception, RequestError)
