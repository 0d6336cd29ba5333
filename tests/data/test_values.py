"""Values come back as they were written: zones, places, blanks; and what inspect says is so."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from omnifill import api
from omnifill.data.inspect import render
from omnifill.data.sink import render_table, visible
from omnifill.data.values import parse_value, to_native, to_text
from omnifill.errors import DataError, RequestError
from omnifill.printer import given_values
from omnifill.schema import FieldSpec

QUICK = {"model": {"size": "nano"}}


def schema_of(path: Path, cells: list[str], name: str = "when") -> FieldSpec:
    path.write_text("\n".join([f"{name},x", *(f"{c},{i}" for i, c in enumerate(cells))]) + "\n",
                    encoding="utf-8")  # fmt: skip
    return api.inspect(path).schema[name]


@pytest.mark.parametrize("zone", ["+02:00", "-0330", "+0000", "Z", "+05:45"])
@pytest.mark.parametrize("stem", ["2024-03-0{}T23:30:05", "2024-03-0{} 00:10:59"])
def test_a_time_comes_back_in_the_zone_it_was_written_in(
    tmp_path: Path, zone: str, stem: str
) -> None:
    cells = [stem.format(day) + zone for day in range(1, 9)] * 3
    spec = schema_of(tmp_path / "t.csv", cells)
    assert spec.type == "datetime"
    back = [to_text(spec, to_native(spec, parse_value(spec, cell))) for cell in cells]
    assert back == cells


def test_times_of_different_zones_come_out_in_utc_and_that_is_said(tmp_path: Path) -> None:
    cells = ["2024-03-01T10:00:00+02:00", "2024-03-01T10:00:00-05:00"] * 4
    spec = schema_of(tmp_path / "t.csv", cells)
    assert "UTC" in spec.why
    back = [to_native(spec, parse_value(spec, cell)) for cell in cells[:2]]
    assert back == ["2024-03-01T08:00:00+00:00", "2024-03-01T15:00:00+00:00"]


def test_a_column_of_zoned_timestamps_keeps_its_zone(tmp_path: Path) -> None:
    days = pd.date_range("2024-03-01", periods=60, tz="Europe/Berlin")
    table = pd.DataFrame({"when": days, "x": np.arange(60)})
    model = api.train(table, tmp_path / "run", steps=5, recipe=QUICK)
    made = model.generate(3, no_missing="when")["when"]
    assert {str(moment.tz) for moment in made} == {"Europe/Berlin"}


def test_numbers_of_few_digits_gain_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = [f"{v:.1e}" for v in rng.lognormal(-14, 3, 80)]
    spec = schema_of(tmp_path / "t.csv", cells, "tiny")
    assert spec.type == "number" and spec.options["digits"] == 2
    model = api.train(tmp_path / "t.csv", tmp_path / "run", steps=5, recipe=QUICK)
    for value in model.generate(20, want="tiny", no_missing="tiny")["tiny"]:
        assert float(f"{value:.1e}") == value
    assert [to_native(spec, parse_value(spec, c)) for c in cells] == [float(c) for c in cells]


def test_a_blank_mark_that_training_never_saw_is_a_blank_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.integers(20, 70, 90), "kind": rng.choice(["a", "b"], 90)})
    model = api.train(table, tmp_path / "run", steps=5, recipe=QUICK)
    (tmp_path / "holes.csv").write_text("age,kind\nNA,a\n31,b\nn/a,\n", encoding="utf-8")
    filled = api.fill_file(model, tmp_path / "holes.csv", tmp_path / "whole.csv")
    whole = pd.read_csv(tmp_path / "whole.csv")
    assert filled == 3 and whole["age"].notna().all() and whole["age"][1] == 31
    (tmp_path / "bad.csv").write_text("age,kind\nold,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.csv:2.*'old' is not a number.*leave it blank"):
        api.fill_file(model, tmp_path / "bad.csv", tmp_path / "out.csv")


def test_the_split_that_inspect_tells_is_that_of_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "t.csv"
    pd.DataFrame({"a": rng.integers(0, 40, 400), "b": rng.random(400).round(2)}).to_csv(
        path, index=False
    )
    parts = api.inspect(path).parts
    assert parts is not None and sum(parts.values()) == 400
    model = api.train(path, tmp_path / "run", steps=3, recipe=QUICK)
    train, valid = model._learned_from()
    assert (len(train["a"]), len(valid["a"])) == (parts["train"], parts["valid"])
    assert f"split: {parts['train']} rows to train on" in render(api.inspect(path))


def test_rows_that_cannot_be_read_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n4,5\n7,8\n", encoding="utf-8")
    found = api.inspect(tmp_path / "ragged.csv")
    assert found.found.refused == 1 and found.parts is None
    assert "1 row cannot be read" in render(found)
    assert "1 thing to look at" in render(found)


def test_validation_rows_that_training_has_too_are_told_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(60), "b": rng.random(60)})
    table.to_csv(tmp_path / "train.csv", index=False)
    table.head(5).to_csv(tmp_path / "valid.csv", index=False)
    recipe = QUICK | {"data": {"split": {"valid_file": str(tmp_path / "valid.csv")}}}
    model = api.train(tmp_path / "train.csv", tmp_path / "run", steps=3, recipe=recipe)
    assert any(note.startswith("5 of the 5 validation rows stand in the training part too")
               for note in model.run.folder.read_state()["notes"])  # fmt: skip


def test_control_characters_are_spelled_out_in_a_table() -> None:
    assert visible("a\x1b[2Jb\tc\x85") == "a\\x1b[2Jb\\tc\\x85"
    assert visible("two\nlines\t·\x07", "\n\t") == "two\nlines\t·\\x07"
    assert visible("नमस्ते 👩‍🚀 لا") == "नमस्ते 👩‍🚀 لا"


def test_a_fields_name_may_hold_an_equals_sign() -> None:
    model = cast(api.Model, SimpleNamespace(fields=["a=b", "x"]))
    assert given_values(["a=b=c"], model) == {"a=b": "c"}
    assert given_values(["x=b=c"], model) == {"x": "b=c"}
    with pytest.raises(RequestError, match="field=value"):
        given_values(["x"], model)


def test_a_column_that_was_left_out_is_called_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(60), "none": [None] * 60, "b": rng.random(60)})
    model = api.train(table, tmp_path / "run", steps=3, recipe=QUICK)
    with pytest.raises(RequestError, match="'none' was left out when this model was trained"):
        model.generate(1, want="none")


def test_nothing_is_cut_to_fit_a_table() -> None:
    specs = [FieldSpec(name=name, type="text", codec="bpe") for name in ("kind", "text")]
    short = pd.DataFrame({"kind": ["a", "bb"], "text": ["x y", "z"]})
    assert render_table(short, specs, "table") == "kind  text\na     x y\nbb    z\n"
    long = pd.DataFrame({"kind": ["a", "bb"], "text": ["one\ntwo\x1b", 50 * "ab"]})
    assert render_table(long, specs, "table") == (
        f"[1]\nkind: a\ntext: one\ntwo\\x1b\n\n[2]\nkind: bb\ntext: {50 * 'ab'}\n"
    )


def test_a_json_line_is_one_line_to_every_reader() -> None:
    spec = FieldSpec(name="t", type="text", codec="bpe")
    texts = ["a\x85b", "c\u2028d\u2029e", "f\ng", "é 中"]
    out = render_table(pd.DataFrame({"t": texts}), [spec], "jsonl")
    assert [json.loads(line)["t"] for line in out.splitlines()] == texts
    assert "é 中" in out
