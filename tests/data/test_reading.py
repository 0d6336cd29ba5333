"""Encodings, gzip and delimiters: the same table however it is written down."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from omnifill.data.source import Source, open_source
from omnifill.errors import DataError
from omnifill.settings import DataSettings

ROWS = [["颜色", "note"], ["红", "a, b"], ["青", "two\nlines"], ["", 'say "hi"'], ["مرحبا", "🍵"]]


def written(delimiter: str = ",") -> str:
    """ROWS as CSV, every cell in quotes."""
    quoted = [['"' + cell.replace('"', '""') + '"' if cell else "" for cell in r] for r in ROWS]
    return "".join(delimiter.join(row) + "\r\n" for row in quoted)


def cells(source: Source) -> dict[str, list[object]]:
    """All cells by column."""
    out: dict[str, list[object]] = {name: [] for name in source.names}
    for chunk in source.chunks():
        for name, values in chunk.columns.items():
            out[name].extend(values)
    return out


EXPECTED = {
    name: [row[i] or None for row in ROWS[1:]] for i, name in enumerate(ROWS[0])
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv"])
def test_a_table_reads_the_same_in_every_encoding_delimiter_and_packing(
    tmp_path: Path, encoding: str, delimiter: str, ending: str
) -> None:
    delimiter = "\t" if ending == ".tsv" else delimiter
    data = written(delimiter).encode(encoding)
    path = tmp_path / f"table{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    assert cells(open_source(path, DataSettings())) == EXPECTED


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le"])
def test_another_encoding_is_read_when_it_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(written().encode(encoding))
    assert cells(open_source(path, DataSettings(encoding=encoding))) == EXPECTED


def test_rows_know_the_line_they_start_on(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(written(), encoding="utf-8", newline="")
    chunk = next(open_source(path, DataSettings()).chunks())
    assert chunk.lines == [2, 3, 5, 6]
    assert chunk.where(2, "note") == f"{path}:5, column 'note'"


def test_a_delimiter_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a:b\n1:2\n3:4\n", encoding="utf-8")
    found = cells(open_source(path, DataSettings(delimiter=":")))
    assert found == {"a": ["1", "3"], "b": ["2", "4"]}


def test_a_gzip_that_breaks_off_late_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    text = "a,b\n" + "".join(f"{i * i},{i % 7}\n" for i in range(100_000))
    path.write_bytes(gzip.compress(text.encode())[:-200])
    with pytest.raises(DataError, match=r"table\.csv\.gz: cannot be read to its end"):
        cells(open_source(path, DataSettings()))
