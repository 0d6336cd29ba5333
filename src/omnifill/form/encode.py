"""Records -> encoded records: in memory for a request, or as a part on disk for training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnifill.data.shards import Shard, write_shard
from omnifill.errors import ValueRefused
from omnifill.form.vocabulary import Vocabulary, ragged
from omnifill.types import ABSENT, Ints


@dataclass(frozen=True)
class Cuts:
    """How many values were cut, and of how many."""

    fields: dict[str, int]
    unknown: int = 0
    """Values that the training part never saw, left out."""

    def __str__(self) -> str:
        parts = [f"{n} of field {name!r}" for name, n in self.fields.items() if n]
        return ", ".join(parts)


def encode_records(
    vocabulary: Vocabulary, columns: Mapping[str, Sequence[Any]], longest: int | None = None,
    room: int = 0,
) -> tuple[Shard, Cuts]:  # fmt: skip
    """Columns of canonical values -> a shard in memory. Columns that are not there are empty.

    `longest`: most ids of one record; the longest texts of a longer one are cut, and leave `room`.
    """
    num = len(next(iter(columns.values()))) if columns else 0
    encoded, cuts = [], {}
    for spec in vocabulary.schema.fields:
        if spec.name in columns:
            column = vocabulary.encode_column(spec.name, columns[spec.name], spec.max_tokens)
            encoded.append((column.ids, column.rows, column.lens))
            cuts[spec.name] = column.cut
        else:
            empty = np.zeros(0, np.int64)
            encoded.append((empty, empty, np.zeros(num, np.int64)))
    lens = np.stack([e[2] for e in encoded], axis=1)  # (N, F)
    keep = _fit(vocabulary, lens, longest, room, cuts) if longest is not None else lens
    starts = np.cumsum(keep.ravel()) - keep.ravel()
    starts = starts.reshape(keep.shape)
    ids, rows = np.zeros(keep.sum(), np.int64), np.zeros(keep.sum(), np.int64)
    for index, (column_ids, column_rows, column_lens) in enumerate(encoded):
        to = ragged(starts[:, index], keep[:, index])
        source = ragged(np.cumsum(column_lens) - column_lens, keep[:, index])
        ids[to], rows[to] = column_ids[source], column_rows[source]
    return Shard(ids, rows, keep), Cuts(cuts)


def _fit(vocabulary: Vocabulary, lens: Ints, longest: int, room: int, cuts: dict[str, int]) -> Ints:
    """Shorten the longest texts of records of more than `longest` ids to leave some room."""
    keep = lens.copy()
    texts = np.array([f.slots is None for f in vocabulary.fields])
    for record in np.flatnonzero(lens.sum(axis=1) > longest):
        over = int(keep[record].sum()) - longest + room
        while over > 0:
            index = int(np.argmax(np.where(texts, keep[record], -1)))
            second = np.partition(np.append(np.where(texts, keep[record], 1), [1, 1]), -2)[-2]
            less = min(over, max(1, int(keep[record, index] - second)))
            if not texts[index] or keep[record, index] <= 1:
                break  # only texts are cut; the context grows with the rest
            keep[record, index] -= less
            over -= less
    for index, field in enumerate(vocabulary.fields):
        cuts[field.name] = cuts.get(field.name, 0) + int((keep[:, index] < lens[:, index]).sum())
    return keep


def encode_part(
    vocabulary: Vocabulary, chunks: Iterable[Mapping[str, Sequence[Any]]], folder: Path,
    longest: int | None, stream: bool,
) -> Cuts:  # fmt: skip
    """Write one part's records to `folder`; a stream's pieces become one long record."""
    total: dict[str, int] = {}
    unknown = 0
    with write_shard(folder, 1 if stream else len(vocabulary.fields)) as writer:
        for chunk in chunks:
            known, num = without_unknown(vocabulary, chunk)
            unknown += num
            shard, cuts = encode_records(vocabulary, known, longest)
            for name, num in cuts.fields.items():
                total[name] = total.get(name, 0) + num
            if stream:
                writer.add_piece(*_without_ends(shard, vocabulary))
            else:
                writer.add(shard.ids, shard.rows, shard.lens)
        if stream:
            writer.end_record()
    return Cuts(total, unknown)


def without_unknown(
    vocabulary: Vocabulary, columns: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[Any]], int]:
    """Columns with ABSENT where a codec refuses the value, and how many there were.

    A category that training never saw has no likelihood, and nothing can be told from it.
    """
    out, num = {}, 0
    for name, values in columns.items():
        codec = vocabulary[name].codec
        refused = set()
        for value in set(values) - {None} if vocabulary[name].slots == 1 else ():
            try:
                codec.encode(value)
            except ValueRefused:
                refused.add(value)
        num += sum(v in refused for v in values) if refused else 0
        out[name] = [ABSENT if v in refused else v for v in values] if refused else list(values)
    return out, num


def first_refused(
    vocabulary: Vocabulary, columns: Mapping[str, Sequence[Any]]
) -> tuple[str, int, str]:
    """(field, row, reason) of the first value, by field and then by row, that a codec refuses."""
    for name, values in columns.items():
        for row, value in enumerate(values):
            try:
                vocabulary.encode_column(name, [value])
            except ValueRefused as error:
                return name, row, str(error)
    raise AssertionError("asked where a value was refused, and none is")


def _without_ends(shard: Shard, vocabulary: Vocabulary) -> tuple[Ints, Ints]:
    """Pieces of one text follow each other without <end>; the text is open at its end."""
    field = vocabulary.fields[0]
    is_code = (shard.ids >= field.first) & (shard.ids < field.first + field.codec.size)
    ids, rows = shard.ids[is_code], shard.rows[is_code].copy()
    rows[rows == field.start_row] = field.state_row
    return ids, rows


def whole_stream(vocabulary: Vocabulary, columns: Mapping[str, Sequence[Any]]) -> Shard:
    """Pieces of one text -> a shard in memory of one long record."""
    shard, _ = encode_records(vocabulary, columns)
    ids, rows = _without_ends(shard, vocabulary)
    return Shard(ids, rows, np.array([[len(ids)]], np.int64))
