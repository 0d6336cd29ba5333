"""Tables out: CSV, TSV, JSONL, Parquet and a table for the eye, with the source's types."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from omnifill.data.inspect import width_of
from omnifill.data.values import to_text
from omnifill.errors import RequestError
from omnifill.files import atomic_path
from omnifill.schema import FieldSpec

WIDEST = 60
"""Characters of a cell beyond which records stand one below the other."""
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
           ".parquet": "parquet", ".txt": "txt"}  # fmt: skip


def format_of(path: Path) -> str:
    """The format that a file's ending names."""
    suffixes = [s for s in path.suffixes if s != ".gz"]
    found = FORMATS.get(suffixes[-1].lower() if suffixes else "")
    if found is None:
        raise RequestError(f"{path}: name the file .csv, .tsv, .jsonl, .parquet or .txt")
    return found


def check_target(path: Path) -> None:
    """RequestError if a table cannot be written to that path: asked before any work is done."""
    format_of(path)
    check_place(path)


def check_ending(option: str, path: Path, *endings: str) -> None:
    """RequestError if an option's file has none of the endings, or cannot be written."""
    if path.suffix.lower() not in endings:
        raise RequestError(f"{option} {path}: name the file with {endings[0]} at the end")
    check_place(path)


def check_place(path: Path) -> None:
    """RequestError if no file can be written at that path."""
    if path.is_dir():
        raise RequestError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise RequestError(f"{path}: there is no folder {path.parent}; make it first")


def render_table(frame: pd.DataFrame, specs: Sequence[FieldSpec], format_: str) -> str:
    """A DataFrame of native values as text."""
    if format_ in ("csv", "tsv"):
        return _delimited(_cells(frame, specs), list(frame.columns),
                          "," if format_ == "csv" else "\t")  # fmt: skip
    if format_ == "jsonl":
        rows = zip(*(frame[s.name].tolist() for s in specs), strict=True)
        return "".join(
            json_line({s.name: v for s, v in zip(specs, row, strict=True)}) for row in rows
        )
    if format_ == "txt":
        return "\n\n".join("\n".join(row) for row in zip(*_cells(frame, specs), strict=True)) + "\n"
    return _for_the_eye(_cells(frame, specs), [s.name for s in specs])


def _cells(frame: pd.DataFrame, specs: Sequence[FieldSpec]) -> list[list[str]]:
    return [[to_text(s, v) for v in frame[s.name].tolist()] for s in specs]


def _delimited(
    columns: list[list[str]], names: list[str], delimiter: str, line_end: str = "\n"
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def _plain(value: Any) -> Any:
    if value is pd.NA or value is pd.NaT or value is None or value != value:
        return None
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


LINE_ENDS = str.maketrans({c: f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"})
"""Characters of a JSON text that some readers take for the end of a line."""


def json_line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSONL."""
    plain = {name: _plain(value) for name, value in record.items()}
    return json.dumps(plain, ensure_ascii=False).translate(LINE_ENDS) + "\n"


def _for_the_eye(columns: list[list[str]], names: list[str]) -> str:
    """A table; texts that are too long for one stand whole, record by record."""
    if len(columns) == 1:
        return "\n\n".join(visible(text, "\n\t") for text in columns[0]) + "\n"
    rows = list(zip(*columns, strict=True))
    if any(len(cell) > WIDEST or "\n" in cell for row in rows for cell in row):
        return "\n".join(_whole(number, names, row) for number, row in enumerate(rows, 1))
    shown = [[visible(c) for c in [name, *cells]]
             for name, cells in zip(names, columns, strict=True)]  # fmt: skip
    widths = [max(width_of(c) for c in cells) for cells in shown]
    lines = [
        "  ".join(c + " " * (w - width_of(c)) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in zip(*shown, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _whole(number: int, names: Sequence[str], cells: Sequence[str]) -> str:
    lines = [visible(f"{name}: {cell}", "\n\t") for name, cell in zip(names, cells, strict=True)]
    return "\n".join([f"[{number}]", *lines]) + "\n"


def visible(text: str, but: str = "") -> str:
    """The text with its control characters (`but` these) spelled out: they would move a terminal's
    cursor, or give it commands."""
    if text.isprintable():
        return text
    return "".join(
        c if c in but or unicodedata.category(c) != "Cc" else c.encode("unicode_escape").decode()
        for c in text
    )


def write_frame(frame: pd.DataFrame, specs: Sequence[FieldSpec], path: Path) -> None:
    """Write native values to a file, whole or not at all."""
    format_ = format_of(path)
    with atomic_path(path) as beside:
        if format_ == "parquet":
            frame.to_parquet(beside, index=False)
            return
        data = render_table(frame, specs, format_).encode("utf-8")
        beside.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_cells(
    columns: dict[str, list[Any]], path: Path, delimiter: str = ",", line_end: str = "\n"
) -> None:
    """Write raw cells (None: blank) to a file, whole or not at all."""
    format_ = format_of(path)
    names = list(columns)
    with atomic_path(path) as beside:
        if format_ == "parquet":
            pd.DataFrame(columns).to_parquet(beside, index=False)
            return
        if format_ == "jsonl":
            text = "".join(
                json_line(dict(zip(names, row, strict=True)))
                for row in zip(*columns.values(), strict=True)
            )
        else:
            cells = [["" if c is None else str(c) for c in cells] for cells in columns.values()]
            text = _delimited(cells, names, "\t" if format_ == "tsv" else delimiter, line_end)
        data = text.encode("utf-8")
        beside.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
