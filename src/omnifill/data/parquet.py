"""Parquet files, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from omnifill.data.cells import Chunk, Problem
from omnifill.data.media import MOST_HELD, as_cells
from omnifill.errors import DataError
from omnifill.settings import DataSettings

if TYPE_CHECKING:
    import pyarrow.parquet as pq

CHUNK_ROWS = 8192


def names_of(path: Path, settings: DataSettings) -> list[str]:
    """Names of the columns."""
    with _open(path) as file:
        return list(file.schema_arrow.names)


def read(
    path: Path, names: list[str], settings: DataSettings, problems: list[Problem] | None
) -> Iterator[Chunk]:
    """Chunks of rows."""
    at = 0
    with _open(path) as file:
        try:
            for batch in file.iter_batches(_rows_at_once(file)):
                columns = {}
                for i, name in enumerate(names):
                    cells = [None if c != c else c for c in batch.column(i).to_pylist()]
                    columns[name] = as_cells(cells, str(path), at + 1)
                yield Chunk(columns, str(path), list(range(at + 1, at + 1 + len(batch))))
                at += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: row {at + 1} cannot be read ({error})") from None


def _rows_at_once(file: pq.ParquetFile) -> int:
    """Fewer rows where they are large: they may hold pictures or sounds."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    largest = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=0)
    return max(1, min(CHUNK_ROWS, MOST_HELD // max(1, largest)))


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq  # slow to import

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no readable Parquet file ({error})") from None
