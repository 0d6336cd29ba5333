"""Which rows are trained on: by hash, by a column, by a file, by place in a stream."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnifill.data.infer import infer_schema
from omnifill.data.profile import profile
from omnifill.data.source import open_source
from omnifill.data.split import part_of, stream_parts
from omnifill.data.stage import Staged, stage
from omnifill.errors import DataError
from omnifill.recipe import Recipe, from_dict
from omnifill.settings import SplitSettings

TABLE = pd.DataFrame({"k": [f"k{i % 40}" for i in range(400)], "n": [i % 100 for i in range(400)]})


def staged(table: pd.DataFrame, folder: Path, recipe: Recipe, valid: str | None = None) -> Staged:
    """Stage a table as training does."""
    source = open_source(table, recipe.data)
    schema = infer_schema(profile(source, recipe), recipe)
    other = open_source(valid, recipe.data) if valid else None
    return stage(source, schema, recipe, folder, other)


def rows_of(part: Staged, name: str) -> set[tuple[object, ...]]:
    """The distinct rows of a part."""
    return {row for chunk in part.chunks(name) for row in zip(*chunk.values(), strict=True)}


def test_equal_rows_stay_on_one_side_and_parts_have_about_their_share(tmp_path: Path) -> None:
    recipe = from_dict({"data": {"split": {"valid": 0.2, "test": 0.2}}})
    parts = staged(TABLE, tmp_path, recipe)
    assert sum(parts.rows.values()) == len(TABLE)
    sets = [rows_of(parts, name) for name in ("train", "valid", "test")]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert 0.1 < parts.rows["valid"] / len(TABLE) < 0.3


def test_a_row_keeps_its_part_when_rows_are_added(tmp_path: Path) -> None:
    recipe = from_dict({"data": {"split": {"valid": 0.2, "test": 0.2}}})
    few = staged(TABLE.head(150), tmp_path / "few", recipe)
    many = staged(TABLE, tmp_path / "many", recipe)
    for name in ("train", "valid", "test"):
        assert rows_of(few, name) <= rows_of(many, name)


def test_a_column_can_name_the_parts(tmp_path: Path) -> None:
    table = TABLE.assign(part=["train", "Dev", "test", "train"] * 100)
    recipe = from_dict({"data": {"split": {"column": "part"}}})
    parts = staged(table, tmp_path, recipe)
    assert parts.rows == {"train": 200, "valid": 100, "test": 100}
    assert set(next(parts.chunks("train"))) == {"k", "n"}
    with pytest.raises(DataError, match=r"DataFrame:1.*names no part"):
        staged(table.assign(part="here"), tmp_path / "bad", recipe)


def test_a_file_can_be_the_validation_part(tmp_path: Path) -> None:
    TABLE.head(30).to_csv(tmp_path / "valid.csv", index=False)
    parts = staged(TABLE, tmp_path / "out", Recipe(), str(tmp_path / "valid.csv"))
    assert parts.rows == {"train": 400, "valid": 30, "test": 0}


@given(st.lists(st.text() | st.integers() | st.none()), st.floats(0, 0.4), st.floats(0, 0.4))
def test_more_for_the_test_never_moves_a_row_out_of_it(
    row: list[object], small: float, more: float
) -> None:
    first = part_of(row, SplitSettings(valid=0.1, test=small))
    second = part_of(row, SplitSettings(valid=0.1, test=small + more))
    assert first != "test" or second == "test"


@given(st.lists(st.integers(1, 100), min_size=1))
def test_a_stream_ends_with_validation_and_test(sizes: list[int]) -> None:
    parts = stream_parts(sizes, SplitSettings(valid=0.2, test=0.2))
    rank = {"train": 0, "valid": 1, "test": 2}
    assert [rank[p] for p in parts] == sorted(rank[p] for p in parts)


def test_pictures_are_split_by_what_they_show() -> None:
    settings = SplitSettings(valid=0.3, test=0.3)
    parts = [part_of(("cat", bytes([i, i])), settings) for i in range(200)]
    assert parts == [part_of(("cat", bytes([i, i])), settings) for i in range(200)]
    assert all(40 < parts.count(part) < 110 for part in ("train", "valid", "test"))
