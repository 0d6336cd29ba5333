"""Sources: texts, aligned files, JSON Lines, Parquet, DataFrames, several files as one."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnifill.data.source import Source, open_source
from omnifill.errors import DataError, RecipeError
from omnifill.recipe import from_dict
from omnifill.settings import DataSettings


def cells(source: Source) -> dict[str, list[Any]]:
    """All cells by column."""
    out: dict[str, list[Any]] = {name: [] for name in source.names}
    for chunk in source.chunks():
        for name, values in chunk.columns.items():
            out[name].extend(values)
    return out


def jsonl(path: Path, *rows: Any) -> Path:
    """Write rows as JSON Lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def test_globs_and_lists_are_one_table_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"x,y\n{name},1\n", encoding="utf-8")
    assert cells(open_source(str(tmp_path / "*.csv"), DataSettings()))["x"] == ["a", "b"]
    paths = [tmp_path / "b.csv", tmp_path / "a.csv"]
    assert cells(open_source(paths, DataSettings()))["x"] == ["b", "a"]


def test_a_source_can_be_read_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    source = open_source(tmp_path / "a.csv", DataSettings())
    assert cells(source) == cells(source) == {"x": ["1"], "y": ["2"]}


@pytest.mark.parametrize("size", [3, 200_000])
def test_a_text_file_is_one_stream_that_loses_nothing(tmp_path: Path, size: int) -> None:
    path = tmp_path / "book.txt"
    text = "".join(f"line {i}\r\n\n  你好 {i}\t\n" for i in range(size // 10 + 1)) + "no end"
    path.write_text(text, encoding="utf-8", newline="")
    source = open_source(path, DataSettings())
    assert source.stream and "".join(cells(source)["text"]) == text


def test_documents_are_paragraphs_or_lines(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\none\ntwo\n\n \nthree\n", encoding="utf-8")
    found = cells(open_source(path, DataSettings(documents="paragraphs")))
    assert found["text"] == ["one\ntwo", "three"]
    found = cells(open_source(path, DataSettings(documents="lines")))
    assert found["text"] == ["one", "two", "three"]


def test_aligned_files_are_joined_by_line(tmp_path: Path) -> None:
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"one\n\nthree\n"))
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"eins\nzwei\ndrei\n"))
    paths = [tmp_path / "train.en.gz", tmp_path / "train.de.gz"]
    source = open_source(paths, DataSettings())
    assert cells(source) == {"en": ["one", None, "three"], "de": ["eins", "zwei", "drei"]}
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(b"eins\n"))
    with pytest.raises(DataError, match=r"train\.de\.gz: ends after line 1"):
        cells(open_source(paths, DataSettings()))


def test_json_lines_keep_types_and_flatten_by_dots(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "t.jsonl",
        {"a": {"b": 1, "c": {"d": True}}, "tags": ["x", "y"], "n": 1.5},
        {"a": {"b": 2}, "tags": [], "n": None},
    )
    found = cells(open_source(path, DataSettings(join="|")))
    assert found == {
        "a.b": [1, 2], "a.c.d": [True, None], "tags": ["x|y", None], "n": [1.5, None],
    }  # fmt: skip


def test_explode_makes_a_row_of_each_element(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "t.jsonl",
        {"id": 1, "turns": [{"who": "a", "says": "hi"}, {"who": "b", "says": "ho"}]},
        {"id": 2, "turns": [{"who": "a", "says": "ha"}]},
    )
    found = cells(open_source(path, DataSettings(explode="turns")))
    assert found == {
        "id": [1, 1, 2], "turns.who": ["a", "b", "a"], "turns.says": ["hi", "ho", "ha"],
    }  # fmt: skip
    with pytest.raises(DataError, match="did you mean 'turns'"):
        open_source(path, DataSettings(explode="turn"))


def test_a_key_that_comes_too_late_is_refused_with_its_place(tmp_path: Path) -> None:
    rows = [{"a": i} for i in range(2100)] + [{"a": 1, "b": 2}]
    path = jsonl(tmp_path / "t.jsonl", *rows)
    with pytest.raises(DataError, match=r"t\.jsonl:2101: key 'b'"):
        cells(open_source(path, DataSettings()))


def test_parquet_and_a_dataframe_give_the_same_cells(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "n": pd.array([1, None, 3], dtype="Int64"),
        "x": [0.5, np.nan, 2.0],
        "t": ["a", None, "ب"],
        "d": [datetime.date(2024, 1, 2), None, datetime.date(2024, 3, 4)],
    })  # fmt: skip
    path = tmp_path / "t.parquet"
    frame.to_parquet(path)
    expected = {
        "n": [1, None, 3], "x": [0.5, None, 2.0], "t": ["a", None, "ب"],
        "d": [datetime.date(2024, 1, 2), None, datetime.date(2024, 3, 4)],
    }  # fmt: skip
    assert cells(open_source(frame, DataSettings())) == expected
    assert cells(open_source(path, DataSettings())) == expected


def test_parquet_structs_flatten_and_lists_of_strings_join(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"s": [{"x": 1}, {"x": 2}], "l": [["p", "q"], None]}), path)
    found = cells(open_source(path, DataSettings()))
    assert found == {"s.x": [1, 2], "l": ["p\nq", None]}


def test_columns_can_be_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,a,\n1,2,3\n", encoding="utf-8")
    source = open_source(path, DataSettings(columns=["x", "y", "z"], drop=["y"]))
    assert cells(source) == {"x": ["1"], "z": ["3"]}


def test_a_nested_column_that_is_dropped_is_no_fault(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"a": [1, 2], "b": 1}, {"a": [3], "b": 2})
    assert cells(open_source(path, DataSettings(drop=["a"]))) == {"b": [1, 2]}


def test_data_sets_of_their_own_are_joined_with_blanks_where_one_has_no_such_column(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text("en,de\none,eins\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_text("fr\tde\ndeux\tzwei\n", encoding="utf-8")
    rows = jsonl(tmp_path / "c.jsonl", {"fr": "trois", "tags": ["x", "y"]})
    paths = [tmp_path / "a.csv", tmp_path / "b.tsv", rows]
    with pytest.raises(DataError, match=r"different kinds.*data\.union=true"):
        open_source(paths, DataSettings())
    with pytest.raises(DataError, match=r"columns differ.*data\.union=true"):
        open_source(paths[:2], DataSettings())
    source = open_source(paths, DataSettings(union=True))
    assert cells(source) == {
        "en": ["one", None, None], "de": ["eins", "zwei", None], "fr": [None, "deux", "trois"],
        "tags": [None, None, "x\ny"],
    }  # fmt: skip
    assert source.place("fr", 1) == f"{paths[1]}:2, column 'fr'"
    dropped = open_source(paths, DataSettings(union=True, drop=["tags", "en"]))
    assert cells(dropped) == {"de": ["eins", "zwei", None], "fr": [None, "deux", "trois"]}


def test_a_text_kept_as_one_stream_is_no_data_set_beside_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("en,de\none,eins\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("once\n\nupon\n", encoding="utf-8")
    paths = [tmp_path / "a.csv", tmp_path / "b.txt"]
    with pytest.raises(DataError, match=r"b\.txt.*documents=paragraphs"):
        open_source(paths, DataSettings(union=True))
    source = open_source(paths, DataSettings(union=True, documents="paragraphs"))
    assert cells(source)["text"] == [None, "once", "upon"]


def test_rows_are_chosen_by_what_stands_in_them(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text("ask,answer\nWrite an E-mail,x\nSing,e-mail\n,e-mail\nemail me,y\n",
                    encoding="utf-8")  # fmt: skip
    where = {"ask": "(?i)e-?mail"}
    found = cells(open_source(path, DataSettings(where=where, drop=["ask"])))
    assert found == {"answer": ["x", "y"]}
    source = open_source(path, DataSettings(where=where))
    assert source.place("ask", 1).endswith(":5, column 'ask'")
    with pytest.raises(DataError, match="did you mean 'ask'"):
        open_source(path, DataSettings(where={"aks": "x"}))
    with pytest.raises(DataError, match=r"nothing that data\.where finds"):
        list(open_source(path, DataSettings(where={"ask": "^never$"})).chunks())
    with pytest.raises(RecipeError, match="no regular expression"):
        from_dict({"data": {"where": {"ask": "("}}})


def test_in_a_union_a_condition_is_asked_of_the_files_that_have_its_column(tmp_path: Path) -> None:
    asked = jsonl(tmp_path / "a.jsonl", {"ask": "a letter"}, {"ask": "a song"}, {"ask": None})
    told = jsonl(tmp_path / "b.jsonl", {"topic": "dinner"}, {"topic": "a letter"})
    more = jsonl(tmp_path / "c.jsonl", {"topic": "letters", "ask": "a pie"}, {"other": "x"})

    def found(*paths: Path, **where: str) -> dict[str, list[object]]:
        return cells(open_source(list(paths), DataSettings(union=True, where=where)))

    assert found(asked, told, ask="letter") == {
        "ask": ["a letter", None, None], "topic": [None, "dinner", "a letter"]}  # fmt: skip
    assert found(asked, told, ask="letter", topic="letter") == {
        "ask": ["a letter", None], "topic": [None, "a letter"]}  # fmt: skip
    assert found(told, more, topic="letter", ask="pie")["topic"] == ["a letter", "letters"]
    with pytest.raises(DataError, match="did you mean 'topic'"):
        found(asked, told, tpoic="x")
    with pytest.raises(DataError, match=r"nothing that data\.where finds"):
        found(asked, told, ask="never", topic="never")


def test_a_list_of_triples_is_one_text(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "a.jsonl", {"facts": [["a", "is", "b"], ["b", "has", "c"]]},
                 {"facts": []})  # fmt: skip
    assert cells(open_source(rows, DataSettings()))["facts"] == ["a | is | b\nb | has | c", None]
