"""Whatever is wrong with the input: one clear message, exit status 2, and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import mixed_table

from omnifill import api, cli
from omnifill.errors import DataError, RequestError, UserError
from omnifill.paths import parse_sets

Run = Callable[..., str]
QUICK = ("--steps", "2", "--set", "model.size=nano")
GOOD = "colour,age\n" + "".join(f"{'red' if i % 3 else 'blue'},{i % 17}\n" for i in range(60))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text(GOOD, encoding="utf-8")
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must fail with status 2, print only a message, and leave no file."""

    def run(*args: object) -> str:
        before = tree(here)
        monkeypatch.setattr(sys, "argv", ["omnifill", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capsys.readouterr()
        assert leaving.value.code == 2, err
        assert out == "" and "Traceback" not in err
        assert tree(here) == before
        return err

    return run


def train(*data: object) -> list[object]:
    return ["train", *data, "--out", "run", *QUICK]


# --- files ---------------------------------------------------------------------------------

FILES: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "empty.csv: the file is empty"),
    ("empty.txt", b"", "the file is empty"),
    ("empty.jsonl", b"", "the file is empty"),
    ("empty.parquet", b"", "is no readable Parquet file"),
    ("header.csv", b"a,b\n", "there are no rows"),
    ("one.csv", b"a,b\n1,2\n", "1 row; at least 2"),
    ("blank.csv", b"a,b\n" + b",\n" * 30, "is blank throughout"),
    ("spaces.csv", b"a,b\n" + b" , \n" * 30, "is blank throughout"),
    ("blank.txt", b" \n\n \n", "is blank throughout"),
    ("nul.csv", b"a,b\n1,x\x00y\n2,z\n", "nul.csv:2: holds a NUL byte"),
    ("nul.txt", b"one\ntwo\x00\n", "nul.txt:2: holds a NUL byte"),
    ("late.csv", b"a,b\n" + b"1,x\n" * 30_000 + b"2,\x00\n", "late.csv:30002: holds a NUL byte"),
    ("wide.csv", b",".join(b"c%d" % i for i in range(5000)) + b"\n", "5,000 columns; at most"),
    ("twice.csv", b"a,b,a\n1,2,3\n4,5,6\n", "'a' stands twice in the header"),
    ("noname.csv", b"a,,c\n1,2,3\n4,5,6\n", "column 2 has no name"),
    ("ragged.csv", b"a,b\n1,2\n3\n4,5,6\n", "ragged.csv:3: 1 cell where the header has 2; also "
     "line 4 (3 cells)"),
    ("open.csv", b'a,b\n1,"x\n2,y\n', 'open.csv:2: a quote (") is opened here and never closed'),
    ("gb.csv", ("颜色,年龄\n" + "红色,3\n蓝色,4\n" * 50).encode("gb18030"), "--encoding gb18030"),
    ("cafe.csv", "a,b\ncafé,1\nnaïve,2\n".encode("cp1252"), "guess is --encoding cp1252, "),
    ("lateb.csv", b"a,b\n" + b"1,x\n" * 30_000 + b"2,\xe9\n", "lateb.csv:30002: is not UTF-8"),
    ("bad.jsonl", b'{"a":1}\n{"a":\n', "bad.jsonl:2: is no JSON object"),
    ("list.jsonl", b"[1]\n[2]\n", "list.jsonl:1: is no JSON object (a list"),
    ("nest.jsonl", b'{"a":[1,2]}\n{"a":[3]}\n', "nest.jsonl:1, column 'a': a list that holds a "
     "int"),
    ("half.jsonl", b'{"a":"x"}\n{"a":"x\\ud800y"}\n' * 9, "half.jsonl:2, column 'a': '\\ud800' at "
     "character 2 is half a surrogate pair"),
    ("name.jsonl", b'{"a\\ud800":1}\n' * 9, "column 'a\\ud800': '\\ud800' at character 2"),
    ("whole.json", b'[{"a":1}]', "one JSON object a line"),
    ("fake.parquet", b"hello", "is no readable Parquet file"),
    ("cut.csv.gz", gzip.compress(GOOD.encode())[:-20], "cannot be unpacked"),
    ("picture.csv", b"\x89PNG\r\n\x1a\n", "this is a PNG file"),
    ("sheet.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "says"), FILES, ids=[f[0] for f in FILES])
def test_a_bad_file_is_named_with_the_place_and_the_way_out(
    refused: Run, name: str, data: bytes, says: str
) -> None:
    Path(name).write_bytes(data)
    message = refused(*train(name))
    assert message.startswith(f"error: {name}") and says in message


@pytest.mark.parametrize("name", ["big.csv", "big.jsonl"])
def test_a_cell_of_50_megabytes_is_refused_with_its_line(refused: Run, name: str) -> None:
    cell = "x" * 50_000_000
    rows = ["a,b", "1,2", "3,4", f"{cell},5"]
    if name == "big.jsonl":
        rows = [json.dumps({"a": a}) for a in ["y", "z", "y", cell]]
    Path(name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    message = refused(*train(name))
    assert f"{name}:4" in message and "32,000,000" in message


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([[1, 2], [3]] * 9, "a list that holds a int"),
        ([[[["x"]]]] * 18, "a list that holds a list"),
        ([b"\x00\x01"] * 18, "a bytes"),
    ],
)
def test_a_parquet_file_of_nested_types_names_the_column(
    refused: Run, column: list[Any], says: str
) -> None:
    pq.write_table(pa.table({"v": column, "n": list(range(18))}), "t.parquet")
    message = refused(*train("t.parquet"))
    assert "t.parquet:1, column 'v'" in message and says in message and "data.drop=[v]" in message


def test_paths_that_are_no_data(refused: Run) -> None:
    Path("pics").mkdir()
    Path("empty").mkdir()
    Path("pics/a.png").write_bytes(b"\x89PNG")
    assert "did you mean 'good.csv'?" in refused(*train("god.csv"))
    assert "nor a folder" in refused(*train("nowhere/x.csv"))
    assert "holds no pictures or sounds" in refused(*train("empty"))
    assert "1 row; at least 2 are needed" in refused(*train("pics"))
    Path("pics/b.png").write_bytes(b"\x89PNG")
    assert "none of 2 files can be read" in refused(*train("pics"))
    assert "there is no such file" in refused(*train("pic*"))
    assert "there is no such file" in refused(*train("*.nope"))
    assert "did you mean 'builtin:unicode'" in refused(*train("builtin:unicod"))
    Path("other.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    assert "its columns differ from those of good.csv" in refused(*train("good.csv", "other.csv"))
    Path("text.txt").write_text("hello\n", encoding="utf-8")
    assert "different kinds" in refused(*train("good.csv", "text.txt"))


def test_a_file_that_may_not_be_read(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def guarded(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == "good.csv":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(Path, "open", guarded)
    monkeypatch.setattr("tests.test_bad_input.tree", lambda _: {})
    assert "good.csv: cannot be opened (permission denied" in refused(*train("good.csv"))


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("gb18031", "no such encoding"),
        ("hex", "no such encoding"),
        ("ascii", "gb.csv:1: is not ascii"),
        ("utf-16", "gb.csv: is not utf-16"),
    ],
)
def test_a_wrong_encoding_is_refused(refused: Run, encoding: str, says: str) -> None:
    Path("gb.csv").write_bytes("颜色,年龄\n红色,3\n".encode("gb18030"))
    assert says in refused(*train("gb.csv"), "--encoding", encoding)


def test_inspect_lists_every_bad_row_and_goes_on(here: Path) -> None:
    Path("ragged.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n", encoding="utf-8")
    where = [p.where for p in api.inspect("ragged.csv").problems]
    assert where[:2] == ["ragged.csv:3", "ragged.csv:4"]
    Path("odd.csv").write_text("a,b\n1,x\noops,y\n3,x\n", encoding="utf-8")
    recipe = api.build_recipe(None, **{"schema.fields.a.type": "number"})
    found = api.inspect("odd.csv", recipe).problems
    assert any("odd.csv:3" in p.where and "'oops'" in p.what for p in found)


# --- settings ------------------------------------------------------------------------------

SETTINGS: list[tuple[list[str], str]] = [
    (["--stepz", "5"], "--steps"),
    (["--buget", "5m"], "--budget"),
    (["--field", "agee:text"], "no field called 'agee'; did you mean 'age'?"),
    (["--field", "age:numbr"], "did you mean 'number'?"),
    (["--field", "age"], "write it as name:type"),
    (["--field", "colour:number"], "good.csv:2, column 'colour': 'blue' is not a number"),
    (["--field", "colour:datetime"], "good.csv:2, column 'colour': 'blue' is not a date"),
    (["--set", "train.lrr=1"], "no setting called 'lrr'; did you mean 'lr'?"),
    (["--set", "trian.lr=1"], "did you mean 'train'?"),
    (["--set", "train.lr"], "write it as key.path=value"),
    (["--set", "train.lr=abc"], "train.lr = 'abc'"),
    (["--set", "train=1"], "must be a group of settings"),
    (["--set", "train.lr.x=1"], "train.lr: must be a number"),
    (["--set", "train.clip.x=1"], "'clip' holds a value"),
    (["--set", "model.layers=[2]"], "model.layers = [2]: must be a whole number"),
    (["--set", "train.schedule=[[0,1]]"], "must be knots"),
    (["--set", "model.size=huge"], "'nano', 'tiny'"),
    (["--set", "model.backbone=transfomer"], "did you mean 'transformer'?"),
    (["--set", "objective.name=casual"], "did you mean 'causal'?"),
    (["--set", "data.drop=age"], "must be a list"),
    (["--set", "data.drop=[agee]"], "did you mean 'age'?"),
    (["--set", "data.delimiter=xx"], "must be one character"),
    (["--set", "data.columns=[a]"], "names 1 columns, but there are 2"),
    (["--set", "data.explode=age"], "csv files hold no lists"),
    (["--set", "data.split.column=coluor"], "did you mean 'colour'?"),
    (["--set", "data.split.column=colour"], "good.csv:2, column 'colour': 'blue' names no part"),
    (["--set", "schema.fields.age.codec=nope"], "no codec called 'nope'"),
    (["--set", "schema.fields.age.codec=nope:Nope"], "cannot be imported"),
    (["--set", "schema.fields.age.codec=category"], "a number field takes"),
    (["--set", "schema.fields.age.options={cels: 3}"], "schema.fields.age.options.cels: no option "
     "called 'cels'; did you mean 'cells'?"),
    (["--valid", "gone.csv"], "gone.csv: there is no such file"),
    (["--given", "age"], "--given needs --want"),
    (["--want", "agee"], "no field called 'agee'"),
    (["--want", "age,age"], "names age twice"),
    (["--want", " "], "names nothing"),
    (["--given", "age", "--want", "age"], "given and wanted at once"),
    (["--budget", "5s"], "train: budget and steps both set the length"),
    (["--recipe", "gone.yaml"], "recipe gone.yaml: cannot be read"),
    (["--seed", "-1"], "--seed"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "says"), SETTINGS, ids=[" ".join(s[0]) for s in SETTINGS])
def test_a_wrong_flag_or_setting_is_refused_with_the_near_one(
    refused: Run, args: list[str], says: str
) -> None:
    assert says in refused(*train("good.csv"), *args)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"train: [unclosed\n  x: {", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML in UTF-8"),
        (b"- a\n- b\n", "must hold keys such as 'train:'"),
        (b"train:\n  stepz: 3\n", "did you mean 'steps'?"),
        (b"train:\n  budget: soon\n", "write 90s, 10m or 2h"),
    ],
)
def test_a_recipe_that_cannot_be_read(refused: Run, data: bytes, says: str) -> None:
    Path("r.yaml").write_bytes(data)
    args = ["train", "good.csv", "--out", "run", "--recipe", "r.yaml"]
    assert says in refused(*args)


def test_a_key_twice_in_one_object_is_refused(refused: Run) -> None:
    Path("twin.jsonl").write_text('{"a": 1}\n{"a": 2, "a": 3}\n', encoding="utf-8")
    said = refused("train", "twin.jsonl", "--out", "run", *QUICK)
    assert "twin.jsonl:2: is no JSON object (it has the key 'a' twice)" in said


def test_a_command_that_does_not_exist(refused: Run) -> None:
    assert "Did you mean 'inspect'?" in refused("inspekt", "good.csv")
    assert "DATA" in refused("train")
    assert "--out" in refused("train", "good.csv")


def test_a_folder_that_cannot_be_the_run(refused: Run) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine", encoding="utf-8")
    steps = ["train", "good.csv", *QUICK, "--out"]
    assert "is not empty and not a run folder" in refused(*steps, "full")
    assert "a file stands where a folder is needed" in refused(*steps, "good.csv")
    assert "a file stands where a folder is needed" in refused(*steps, "good.csv/run")


def test_a_budget_too_small_to_do_anything(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for budget, ago in (("0s", 0.0), ("1s", 0.0), ("5s", 60.0)):
        monkeypatch.setattr(cli, "STARTED", time.monotonic() - ago)
        message = refused("train", "good.csv", "--out", "run", "--budget", budget)
        assert "train.budget" in message and "too small" in message


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "where",
    [
        "os.fsync",  # rows, once they are staged
        "omnifill.data.shards.np.lib.format.write_array_header_1_0",  # encoded records
        "omnifill.codecs.category.write_json",  # codecs
    ],
)
def test_a_full_disk_while_preparing_leaves_no_run(
    refused: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, full)
    assert "the disk is full; free some space" in refused(*train("good.csv"))


# --- a trained model -----------------------------------------------------------------------


@pytest.fixture
def run(model: api.Model) -> Path:
    path: Path = model.run.folder.path
    return path


REQUESTS: list[tuple[list[str], str]] = [
    (["--given", "knid=tea"], "no field called 'knid'; did you mean 'kind'?"),
    (["--given", "kind=teaa"], "did you mean 'tea'?"),
    (["--given", "count=abc"], "field 'count': 'abc' is not a number"),
    (["--given", "count=1e999"], "is not a number"),
    (["--given", "count=3.5"], "field 'count': '3.5' is no whole number"),
    (["--aim", "lenth<=5"], "did you mean length?"),
    (["--stream", "--format", "csv"], "--stream shows one text or sound"),
    (["--given", "day=2024-13-01"], "field 'day': '2024-13-01' is not a date"),
    (["--given", "count"], "write it as field=value"),
    (["--given", "note=@gone.txt"], "there is no such file"),
    (["--given", "kind=tea", "--given", "kind=tea"], "kind has a value already"),
    (["--given", "note=x\udcffy"], "half a surrogate pair"),
    (["--want", "noet"], "did you mean 'note'?"),
    (["--want", "note,note"], "names note twice"),
    (["--given", "kind=tea", "--want", "kind"], "given and wanted at once"),
    (["--no-missing", "knid"], "did you mean 'kind'?"),
    (["--prompt", "x", "--want", "count"], "no text is wanted"),
    (["--stream", "--want", "count"], "needs a wanted text or sound"),
    (["--stream", "-n", "2"], "--stream shows one text or sound"),
    (["--temperature", "-1"], "temperature = -1.0"),
    (["--temperature", "nan"], "temperature = nan"),
    (["--top-p", "2"], "top_p = 2.0"),
    (["--seed", "99999999999999999999"], "--seed"),
    (["--temprature", "1"], "--temperature"),
    (["-n", "0"], "-n"),
    (["--format", "jsonnl"], "did you mean 'jsonl'?"),
    (["--out", "made.xyz"], "name the file .csv"),
    (["--out", "nowhere/made.csv"], "there is no folder nowhere"),
]


@pytest.mark.parametrize(("args", "says"), REQUESTS, ids=[ascii(" ".join(r[0])) for r in REQUESTS])
def test_a_wrong_request_is_refused(refused: Run, run: Path, args: list[str], says: str) -> None:
    assert says in refused("generate", run, *args)


def test_a_temperature_without_end_is_refused(refused: Run, run: Path) -> None:
    assert "temperature = inf" in refused("generate", run, "--temperature", "inf")


def test_an_unseen_given_value_names_its_field(model: api.Model) -> None:
    with pytest.raises(UserError, match="'kind'"):
        model.generate(1, given={"kind": "beer"})


def holes(**changes: Any) -> pd.DataFrame:
    return mixed_table(12, seed=3).assign(**changes)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (holes(extra=1), "holes.csv: no field called 'extra'"),
        (holes().rename(columns={"size": "sise"}), "did you mean 'size'?"),
        (holes(size="big"), "holes.csv:2, column 'size': 'big' is not a number"),
        (holes().iloc[:0], "there are no rows"),
    ],
)
def test_a_table_that_does_not_fit_the_model_is_not_filled(
    refused: Run, run: Path, table: pd.DataFrame, says: str
) -> None:
    table.to_csv("holes.csv", index=False)
    assert says in refused("fill", run, "holes.csv", "--out", "whole.csv")


SOME_BEER = holes(kind=["tea"] * 8 + ["beer"] * 4)


def test_an_unseen_value_is_named_with_its_place_and_tells_nothing(model: api.Model) -> None:
    absent = SOME_BEER.assign(kind=["tea"] * 8 + [None] * 4)
    says = r"row 9, column 'kind': 'beer' was not seen in training; .* \(4 such cells\)"
    with pytest.warns(UserWarning, match=says):
        filled = model.fill(SOME_BEER)
    assert filled["kind"].tolist() == SOME_BEER["kind"].tolist()
    assert filled.drop(columns="kind").equals(model.fill(absent).drop(columns="kind"))
    with pytest.warns(UserWarning, match=says):
        likely = model.score(SOME_BEER)
    assert (likely.loc[8:, ["row", "kind"]] == -np.inf).all(axis=None)
    assert np.isfinite(likely.drop(columns=["row", "kind"])).all(axis=None)
    assert np.isfinite(likely.loc[:7]).all(axis=None)


def test_an_unseen_value_in_a_file_is_named_by_its_line(model: api.Model, here: Path) -> None:
    SOME_BEER.to_csv("holes.csv", index=False)
    with pytest.warns(UserWarning, match=r"holes.csv:10, column 'kind': 'beer' was not seen"):
        api.fill_file(model, "holes.csv", Path("whole.csv"))
    whole = pd.read_csv("whole.csv")
    assert whole["kind"].tolist() == SOME_BEER["kind"].tolist() and not whole.isna().any().any()


def test_columns_may_come_in_another_order_and_those_left_out_are_named(
    model: api.Model, here: Path
) -> None:
    holes()[["note", "kind", "size"]].to_csv("holes.csv", index=False)
    gone = ", ".join(n for n in model.run.schema.names if n not in ("note", "kind", "size"))
    with pytest.warns(UserWarning, match=f"holes.csv has no {gone}: nothing is filled there"):
        api.fill_file(model, "holes.csv", Path("whole.csv"))
    whole = pd.read_csv("whole.csv")
    assert list(whole.columns) == ["note", "kind", "size"] and not whole.isna().any().any()


def test_lines_end_as_they_did(model: api.Model, here: Path) -> None:
    text = holes().to_csv(index=False)
    for end in ("\n", "\r\n"):
        Path("holes.csv").write_bytes(text.replace("\n", end).encode())
        api.fill_file(model, "holes.csv", Path("whole.csv"))
        whole = Path("whole.csv").read_bytes()
        assert whole.count(end.encode()) == whole.count(b"\n") == text.count("\n")


def test_where_a_table_cannot_be_written_is_said_before_the_work(refused: Run, run: Path) -> None:
    holes().to_csv("holes.csv", index=False)
    Path("folder.csv").mkdir()
    assert "there is no folder gone" in refused("fill", run, "holes.csv", "--out", "gone/x.csv")
    assert "is a folder" in refused("fill", run, "holes.csv", "--out", "folder.csv")
    assert "name the file .csv" in refused("fill", run, "holes.csv", "--out", "x.xls")


def test_a_full_disk_leaves_no_half_table(
    refused: Run, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes().to_csv("holes.csv", index=False)
    monkeypatch.setattr(os, "fsync", full)
    for args in (["fill", run, "holes.csv"], ["generate", run, "-n", "2"]):
        assert "x.csv: cannot be written (the disk is full" in refused(*args, "--out", "x.csv")


def test_evaluate_refuses_what_it_cannot_read(refused: Run, run: Path) -> None:
    Path("empty.csv").write_bytes(b"")
    assert "the file is empty" in refused("evaluate", run, "empty.csv")
    holes().iloc[:0].to_csv("header.csv", index=False)
    assert "there are no rows" in refused("evaluate", run, "header.csv")
    holes(extra=1).to_csv("extra.csv", index=False)
    assert "no field called 'extra'" in refused("evaluate", run, "extra.csv")


def test_evaluate_counts_unseen_values_as_wrong_and_leaves_out_blank_columns(
    model: api.Model,
) -> None:
    fields = model.evaluate(holes(kind="beer", size=None))["fields"]
    assert fields["kind"]["accuracy"]["value"] == 0 and fields["kind"]["accuracy"]["n"] == 12
    assert "size" not in fields


# --- run folders ---------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 0xFF
    path.write_bytes(bytes(data))


def newer(path: Path) -> None:
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**state, "format": 99, "omnifill": "9.0"}), encoding="utf-8")


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("model.safetensors", flip, "model.safetensors: is damaged"),
    ("model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:900]), "is damaged"),
    ("model.safetensors", Path.unlink, "model.safetensors: is missing"),
    ("schema.json", lambda p: p.write_bytes(b"{"), "schema.json: is damaged"),
    ("config.json", Path.unlink, "config.json: is missing"),
    ("recipe.yaml", lambda p: p.write_bytes(b"{"), "recipe.yaml:1: is not YAML"),
    ("recipe.yaml", Path.unlink, "recipe.yaml: cannot be read"),
    ("run.json", newer, "written by a newer Omnifill (9.0, format 99"),
    ("run.json", lambda p: p.write_bytes(b"{"), "run.json: is damaged"),
    ("run.json", lambda p: p.write_bytes(b"\xff"), "run.json: cannot be read"),
    ("run.json", lambda p: p.write_bytes(b'{"format": 1, "state": "done"}'), "is damaged"),
    ("run.json", lambda p: p.write_bytes(b'{"format": 1, "state": "training"}'), "--resume"),
    ("run.json", Path.unlink, "is not a run folder (no run.json in it)"),
    ("codecs", shutil.rmtree, "category.json: is missing"),
    ("sums.json", lambda p: p.write_bytes(b"[]"), "sums.json: is damaged"),
    ("sums.json", lambda p: p.write_bytes(b"{}"), "sums.json: is damaged"),
    ("sums.json", lambda p: p.write_bytes(b"[" * 200_000), "sums.json: is damaged"),
    ("sums.json", lambda p: p.write_bytes(b'{"model.safetensors": {"md5": 1}}'), "sums.json: is"),
    ("run.json", lambda p: p.write_bytes(b"[" * 200_000), "run.json: is damaged"),
    ("recipe.yaml", lambda p: p.write_bytes(b"[" * 20_000), "recipe.yaml: is nested too deeply"),
]


@pytest.mark.parametrize(
    ("name", "damage", "says"), DAMAGES, ids=[f"{i}-{d[0]}" for i, d in enumerate(DAMAGES)]
)
def test_a_damaged_or_newer_run_folder_is_refused_by_name(
    refused: Run, run: Path, name: str, damage: Callable[[Path], object], says: str
) -> None:
    shutil.copytree(run, "copy")
    damage(Path("copy") / name)
    assert says in refused("generate", "copy")


def test_what_is_no_run_folder(refused: Run) -> None:
    assert "there is no such run folder" in refused("generate", "gone")
    assert "good.csv: is a file; a run is the folder" in refused("generate", "good.csv")
    Path("mine").mkdir()
    assert "is not a run folder" in refused("generate", "mine")


# --- small tables that can be learned from -------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "a\n" + "x\ny\nz\n" * 20,
        "a,b\n" + "x,\ny,\n" * 20,
    ],
    ids=["one column", "a blank column"],
)
def test_a_small_table_that_can_be_learned_from_is_learned_from(here: Path, data: str) -> None:
    Path("small.csv").write_text(data, encoding="utf-8")
    model = api.train("small.csv", "run", steps=2, recipe={"model": {"size": "nano"}})
    assert len(model.generate(3)) == 3


# --- the end of a pipe, and the API --------------------------------------------------------


class Closed:
    """A standard output whose reader has gone."""

    encoding = "utf-8"

    def write(self, _: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


def test_a_reader_that_leaves_early_is_no_failure(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["omnifill", "inspect", "good.csv"])
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code in (0, None)
    assert capsys.readouterr().err == ""


def test_a_hint_can_be_typed_as_it_stands(here: Path, refused: Run) -> None:
    header = """Preis (€),,"it's",a=b,"x,y",-dash,Preis (€),,column_8,[z]"""
    Path("odd.csv").write_text(header + "\n" + "1,2,3,4,5,6,7,8,9,0\n" * 30, encoding="utf-8")
    hint = refused("inspect", "odd.csv").partition("position: ")[2]
    names = ["Preis (€)", "column_2", "it's", "a=b", "x,y", "-dash", "Preis (€)_7"]
    names += ["column_8_8", "column_8"]
    assert parse_sets([shlex.split(hint)[1]]) == {"data.columns": [*names, "[z]"]}


def test_the_api_raises_our_errors(here: Path, model: api.Model) -> None:
    with pytest.raises(DataError, match="'a' stands twice"):
        api.train(pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "run", steps=1)
    with pytest.raises(DataError, match=r"DataFrame:2, column 't': .* half a surrogate"):
        api.train(pd.DataFrame({"t": ["x", "\ud800", "y"]}, dtype=object), "run", steps=1)
    with pytest.raises(DataError, match="no data"):
        api.train([], "run", steps=1)
    with pytest.raises(DataError, match="data of type dict"):
        api.train({"a": [1]}, "run", steps=1)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="did you mean 'temperature'"):
        model.generate(1, tempratur=1)
    with pytest.raises(RequestError, match="did you mean 'kind'"):
        model.probabilities(holes(), "knd")
    assert not Path("run").exists()


WRONG_TYPES: list[tuple[Callable[[api.Model], Any], str]] = [
    (lambda m: m.generate("3"), "n = '3': is a str, and must be a whole number"),
    (lambda m: m.generate(1.5), "n = 1.5: is a float"),
    (lambda m: m.generate(True), "n = True: is a bool"),
    (lambda m: m.generate(1, seed=None), "seed: is a NoneType"),
    (lambda m: m.generate(1, given=["kind"]), "given: is a list, and must be a dict"),
    (lambda m: m.generate(1, given=pd.DataFrame({"kind": ["tea"]})), "given: is a DataFrame"),
    (lambda m: m.generate(1, given={3: "x"}), "must be names of fields"),
    (lambda m: m.generate(1, want=3), "must be a name or a list of names"),
    (lambda m: m.generate(1, prompt=3), "prompt = 3: is a int"),
    (lambda m: m.generate(1, temperature="hot"), "temperature = 'hot': is a str"),
    (lambda m: m.generate(1, beams=2.5), "beams = 2.5: is a float"),
    (lambda m: m.fill("drinks.csv"), "table = 'drinks.csv': is a str, and must be a DataFrame"),
    (lambda m: m.fill(None), "table: is a NoneType"),
    (lambda m: m.score({"kind": ["tea"]}), "table: is a dict"),
    (lambda m: m.probabilities([1], "kind"), "table: is a list"),
    (lambda m: api.load(3), "run = 3: is a int, and must be the path"),
]


@pytest.mark.parametrize(("ask", "says"), WRONG_TYPES, ids=[w[1] for w in WRONG_TYPES])
def test_a_value_of_the_wrong_type_is_named(
    model: api.Model, ask: Callable[[api.Model], Any], says: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        ask(model)
    assert says in str(refusal.value)


def test_there_must_be_a_run_to_resume(refused: Run, table_csv: Path) -> None:
    assert "no run to go on with" in refused("train", table_csv, "--out", "gone", "--resume")


def test_a_table_does_not_become_a_text_file(refused: Run, run: Path, table_csv: Path) -> None:
    said = refused("fill", run, table_csv, "--out", "filled.txt")
    assert "a text file holds no table" in said


def test_a_field_whose_name_holds_a_comma_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = mixed_table().rename(columns={"kind": "a,b"})
    api.train(table, tmp_path / "run", steps=3, recipe={"model": {"size": "nano"}})
    out = str(tmp_path / "made.csv")
    for want in ("a,b", '"a,b",count'):
        command = ["omnifill", "generate", str(tmp_path / "run"), "--want", want, "--out", out]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code in (0, None)
        assert "a,b" in pd.read_csv(out).columns


def test_one_name_by_itself_is_a_list_of_one(model: api.Model) -> None:
    assert list(model.generate(2, given={"kind": "tea"}, want="count").columns) == ["kind", "count"]
