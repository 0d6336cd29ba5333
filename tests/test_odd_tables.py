"""Tables as people have them: refused with one message, or carried through the whole program.

Made by hypothesis: encodings, delimiters, quoting, line ends, odd names, types that change half
way, extreme numbers, dates before 1900 and with zones, scripts from right to left, combining
marks, blanks of all kinds, columns that say nothing.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from omnifill import api
from omnifill.data import inspect
from omnifill.data.source import open_source
from omnifill.data.stage import open_staged
from omnifill.errors import UserError

NANO = {"model": {"size": "nano"}}

# --- cells, by what a column is --------------------------------------------------------------

WORDS = st.sampled_from([
    "yes", "no", "Grüße", "Gru\u0308\u00dfe", "שלום עולם", "مرحبا", "नमस्ते", "咖啡", "👩‍👩‍👧",
    "a,b", 'say "x"', "l1\nl2", "<bos>", "NaN", "None", "-", "0", "=1+1", "'", "\ufeff",
    "\u202eabc", "a;b|c\td", " lead", "trail ", "\u3000",
])  # fmt: skip
TEXTS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), min_size=1, max_size=60
)
CELLS: dict[str, st.SearchStrategy[str]] = {
    "small": st.integers(-9, 9).map(str),
    "whole": st.integers(-(2**53), 2**53).map(str),
    "huge": st.integers(-(10**30), 10**30).map(str),
    "decimal": st.decimals(-1000, 1000, places=2).map(str),
    "decimal comma": st.decimals(-1000, 1000, places=2).map(lambda d: str(d).replace(".", ",")),
    "float": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "not finite": st.sampled_from(["inf", "-inf", "nan", "1", "2.5"]),
    "code": st.integers(0, 99999).map(lambda n: f"{n:05d}"),
    "day": st.dates().map(str),
    "moment": st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat()),
    "german day": st.dates().map(lambda d: d.strftime("%d.%m.") + f"{d.year:04d}"),
    "truth": st.booleans().map(str),
    "word": WORDS,
    "text": TEXTS,
    "constant": st.just("same"),
    "blank": st.just(""),
    "changing": st.one_of(st.integers(0, 99).map(str), WORDS),
}
ODD_NAMES = [
    "id", "row", "text", "nan", "<bos>", "a b", "é", "e\u0301", "שם", "名前", "x,y", "a.b", "🙂",
    'q"q',
    "__class__", "../up", "con", "x" * 300,
]  # fmt: skip
LETTERS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
NAMES = st.one_of(st.sampled_from(ODD_NAMES), LETTERS)


@dataclass
class OddTable:
    """A file's name and bytes, and what it should hold."""

    name: str
    data: bytes
    rows: int
    columns: list[str]
    defect: str

    def __repr__(self) -> str:  # what hypothesis prints of a failure
        return f"OddTable({self.name!r}, {self.data!r}, defect={self.defect!r})"


@st.composite
def odd_tables(draw: st.DrawFn) -> OddTable:
    """A table file of a few columns, sound or with one defect."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.strip))
    num = draw(st.integers(0, 40))
    rare = draw(st.sampled_from([0, 0, 3, 9]))
    columns: dict[str, list[str]] = {}
    for name in names:
        cells = CELLS[draw(st.sampled_from(sorted(CELLS)))]
        few = draw(st.lists(cells, min_size=1, max_size=12))
        blank = draw(st.sampled_from(["", "", " ", "NA", "?"]))
        picks = draw(st.lists(st.integers(0, 99), min_size=num, max_size=num))
        columns[name] = [
            blank if rare and (p + i) % rare == 1 else few[p % len(few)]
            for i, p in enumerate(picks)
        ]
    kind = draw(st.sampled_from(["csv", "csv", "csv", "jsonl", "parquet"]))
    if kind == "csv":
        return draw(odd_csv(columns, num))
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({n: pa.array(v, pa.string()) for n, v in columns.items()}), sink)
        return OddTable("odd.parquet", sink.getvalue(), num, names, "")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in rows]
    return OddTable("odd.jsonl", "".join(f"{x}\n" for x in lines).encode(), num, names, "")


@st.composite
def odd_csv(draw: st.DrawFn, columns: dict[str, list[str]], num: int) -> OddTable:
    """The columns as CSV in one of its many ways, sound or with one defect."""
    out = io.StringIO()
    delimiter = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(list(columns))
    writer.writerows(zip(*columns.values(), strict=True))
    text = out.getvalue()
    defect = draw(st.sampled_from([""] * 6 + ["ragged", "nul", "cut", "quote", "latin"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    if defect == "ragged":
        # Of one column only the ending .tsv tells the delimiter: else "||" is a cell, ",," three.
        between = delimiter if len(columns) > 1 or delimiter == "\t" else ","
        text += between * (len(columns) + 1) + end
    if defect == "nul":
        text += "\x00" + end
    if defect == "quote":
        text += '"never closed' + end
    data = text.encode(encoding)
    if defect == "latin":
        data = text.encode("utf-8") + "é".encode("latin-1") * len(columns)
    packed = draw(st.booleans()) or defect == "cut"
    if packed:
        data = gzip.compress(data, mtime=0)
    if defect == "cut":
        data = data[: len(data) // 2]
    ending = "tsv" if delimiter == "\t" else "csv"
    return OddTable(f"odd.{ending}{'.gz' * packed}", data, num, list(columns), defect)


# --- the whole program -----------------------------------------------------------------------


def carried_through(table: OddTable, folder: Path) -> bool:
    """Take a table through every action; False if it was refused, with one message."""
    path = folder / table.name
    path.write_bytes(table.data)
    try:
        assert inspect.render(api.inspect(path))
        model = api.train(path, folder / "run", steps=2, recipe=NANO)
    except UserError as error:
        assert str(error) and "Traceback" not in str(error)
        left = [p.name for p in folder.iterdir() if p.name not in (table.name, "run")]
        assert not left, f"left behind: {left}"
        return False
    check_rows(model, path, table)
    check_generated(model)
    check_filled(model, path, folder)
    result = model.evaluate(path)
    assert json.loads(json.dumps(result))["fields"] is not None
    return True


def check_rows(model: api.Model, path: Path, table: OddTable) -> None:
    """No row was lost; every column is a field or was named as left out."""
    staged = open_staged(model.run.folder.staged)
    if not model.run.schema.stream and len(table.columns) > 1:
        assert sum(staged.rows.values()) == table.rows
    said = {problem.where for problem in api.inspect(path).problems}
    assert set(table.columns) - set(model.fields) <= said


def check_generated(model: api.Model) -> None:
    """Values are valid for their field, and come out the same twice and alone."""
    made = model.generate(3, seed=1, max_tokens=20)
    assert list(made.columns) == model.fields and len(made) == 3
    pd.testing.assert_frame_equal(made, model.generate(3, seed=1, max_tokens=20))
    for spec in model.run.schema.fields:
        codec: Any = model.run.vocabulary[spec.name].codec
        for value in made[spec.name].dropna().tolist():
            if spec.type == "category":
                assert str(value) in codec.values
            if spec.type == "number":
                assert codec.low <= value <= codec.high if hasattr(codec, "low") else True
    likely = model.score(made.dropna())
    assert likely.iloc[:, 0].notna().all()


def check_filled(model: api.Model, path: Path, folder: Path) -> None:
    """`fill` leaves no blank and touches nothing else."""
    source = open_source(path, model.run.recipe.data)
    out = folder / "whole.jsonl"
    api.fill_file(model, path, out)
    cells = [c.columns for c in source.chunks()]
    raw = {n: [v for c in cells for v in c[n]] for n in source.names}
    whole = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    for name in set(source.names) - set(model.fields):
        assert [row[name] for row in whole] == raw[name]
    for name in model.fields:
        spec = model.run.schema[name]
        for before, row in zip(raw[name], whole, strict=True):
            blank = before is None or str(before).strip() in spec.blank_marks
            assert row[name] is not None
            assert blank or row[name] == before


def try_table(table: OddTable) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is tested elsewhere
        done = carried_through(table, Path(folder))
        if table.defect in ("ragged", "nul", "cut", "quote"):
            assert not done, f"a file with a defect ({table.defect}) was taken as it is"


def odd(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate],  # to shrink takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


@odd(40)
@given(odd_tables())
@example(OddTable("odd.csv", b"a\r1\r2\r3\r4\r5\r", 5, ["a"], ""))
def test_odd_tables_are_carried_through_or_refused(table: OddTable) -> None:
    try_table(table)


@pytest.mark.slow
@odd(1000)
@given(odd_tables())
def test_a_thousand_odd_tables(table: OddTable) -> None:
    try_table(table)


def test_a_column_that_says_nothing_is_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["x", "y"] * 40, "the same": 7, "seldom": [None, "z"] * 40})
    model = api.train(table, tmp_path / "run", steps=2)
    unvalidated, said = model.run.folder.read_state()["notes"]
    assert unvalidated.startswith("no rows are left to validate on"), (
        "two kinds of rows, both needed"
    )
    assert said == (
        "'the same' has one value only in all training rows, so there is nothing to learn from it "
        """(without it: --set 'data.drop=["the same"]')"""
    )
