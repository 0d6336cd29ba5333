"""All ids of a model: which field's codes they are, and which may come next.

Ids 0-4 are the special ones; then comes one block of ids for each codec (fields that share a
codec share its block). The columns of a block are <end>, <missing> and its codes; a *row* of a
block says which of its columns are allowed in one state of one field. Loss, score and sampling
all take their softmax over exactly those.

Where slots are not chosen from left to right (a *canvas*), a row says what a slot may hold whatever
stands in the others, and a text opens with its length: one of a few sizes, the least that has room
for it and an <end>. What is left over behind the text is <end>, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnifill.model.config import Alphabet
from omnifill.schema import MEDIA, Schema
from omnifill.types import ABSENT, Bools, Codec, Grammar, Ints

PAD, BOS, END, MASK, MISSING = range(5)
NUM_SPECIAL = 5
END_COLUMN, MISSING_COLUMN, CODE_COLUMN = 0, 1, 2
"""Columns of a block: <end>, <missing>, then the codes."""
MOST_STANDING = 4
"""Values of up to so many slots stay in view of all that comes after them."""
SIZES: Ints = np.unique(np.round(2 ** np.arange(0, 20.25, 0.25)).astype(np.int64))
"""Slots of a text on a canvas: four sizes to a doubling."""


@dataclass(frozen=True, eq=False)
class Block:
    """One range of ids, first … first + size, and the rows of what is allowed in it."""

    first: int
    size: int
    allowed: Bools
    """(R, 2 + size), over the columns."""

    @property
    def ids(self) -> Ints:
        """(2 + size,): the id of every column."""
        return np.concatenate([[END, MISSING], np.arange(self.first, self.first + self.size)])


@dataclass(frozen=True, eq=False)
class FieldIds:
    """Where one field lives in the vocabulary."""

    index: int
    name: str
    type: str
    codec: Codec
    grammar: Grammar
    block: int
    first: int
    """Id of code 0."""
    start_row: int
    """Row of the first slot, where <missing> may be allowed. On a canvas slot s of a value that
    has its slots has row start_row + s; of a text this is the row of its size."""
    state_row: int
    """Row of grammar state 0 (without <missing>); state q has row state_row + q. On a canvas the
    row of every slot of a text."""
    rest_row: int
    """Row of the further slots of a missing value: nothing but <missing>. Not on a canvas."""
    weight: float
    settles: bool
    """Whether a value is laid out only as far as it is open: of a picture or sound, not on a
    canvas, what follows by itself is not read (silence behind a sound's end; a missing one)."""

    @property
    def slots(self) -> int | None:
        return self.codec.slots

    def codes_of(self, ids: Ints) -> Ints:
        """The ids that are laid out of a value -> all of its codes."""
        codes = np.asarray(ids, np.int64) - self.first
        open_ended = self.settles and len(codes) < (self.slots or 0)
        return self.grammar.whole(codes) if open_ended else codes

    def column(self, code: int) -> int:
        """Of the field's block; of a code by which a checkpoint's texts end, <end>."""
        ends = getattr(self.codec, "ends", ())[:1]
        return END_COLUMN if code in ends else CODE_COLUMN + code

    @property
    def cells(self) -> int:
        """How many first codes compare as their values do (numbers, dates); else 0."""
        values = getattr(self.codec, "cell_values", None)
        return len(values()) if values else 0

    @property
    def noisy(self) -> bool:
        """Whether codes may be replaced in training: those of a picture or sound that a codec has
        learned. Exact pixels have few values, of which none looks like noise."""
        return self.settles and hasattr(self.codec, "learner")

    @property
    def axes(self) -> tuple[int, ...]:
        """Steps along each axis of what the first codes stand for, the first axis changing fastest:
        one of a number, several of a learned code; none of a category."""
        return (self.cells,) if self.cells else getattr(self.codec, "axes", ())


class Vocabulary:
    """ids, blocks and rows for a schema and its codecs."""

    def __init__(self, schema: Schema, codecs: Mapping[str, Codec], canvas: bool = False) -> None:
        """`codecs` by field name; fields that share a codec hold the very same object."""
        self.schema, self.canvas = schema, canvas
        self.fields: list[FieldIds] = []
        blocks: dict[int, tuple[int, int, int]] = {}  # codec object -> block, first, size
        rows: list[list[Bools]] = []
        sizes: list[Bools] = []
        row_block: list[int] = []
        self.size = NUM_SPECIAL
        for index, spec in enumerate(schema.fields):
            codec = codecs[spec.name]
            if id(codec) not in blocks:
                blocks[id(codec)] = (len(blocks), self.size, codec.size)
                rows.append([])
                self.size += codec.size
            block, first, _ = blocks[id(codec)]
            grammar = codec.grammar()
            start = len(row_block)
            if canvas:
                masks = _canvas_rows(grammar, codec.slots, spec.optional, not schema.stream)
                if codec.slots is None:  # its length comes first, in a block of its own
                    sizes.append(_size_row(spec.optional))
                    row_block.append(-1)
            else:
                masks = _rows_of(grammar, codec.slots is None, spec.optional)
            rows[block].extend(masks)
            row_block.extend([block] * len(masks))
            self.fields.append(
                FieldIds(
                    index,
                    spec.name,
                    spec.type,
                    codec,
                    grammar,
                    block,
                    first,
                    start,
                    start + 1,
                    len(row_block) - 1,
                    spec.weight,
                    spec.type in MEDIA and not canvas,
                )
            )
        self.sizes_block, self.first_size = len(blocks), self.size
        if sizes:
            rows.append(sizes)
            blocks[0] = (len(blocks), self.size, len(SIZES))
            self.size += len(SIZES)
            row_block = [self.sizes_block if block < 0 else block for block in row_block]
        self.row_block: Ints = np.array(row_block, np.int64)
        """(R,): the block of every row."""
        self.row_local: Ints = np.zeros(len(row_block), np.int64)
        """(R,): its place among the rows of its block."""
        for block in range(len(blocks)):
            mine = self.row_block == block
            self.row_local[mine] = np.arange(mine.sum())
        self.blocks = [
            Block(first, size, np.stack(rows[block])) for block, first, size in blocks.values()
        ]
        self.order: Ints = np.array(sorted(range(len(self.fields)), key=self.leans), np.int64)
        """(F,): the fields in the order they are laid out: that of the schema, but texts behind
        what is short, and pictures and sounds behind texts."""
        self.coord_sizes = self._coord_sizes()

    def __getitem__(self, name: str) -> FieldIds:
        return self.fields[self.schema.index(name)]

    def leans(self, index: int) -> tuple[bool, bool]:
        """(a picture or sound, a text): what is long leans on all else, so it comes later."""
        field = self.fields[index]
        return field.type in MEDIA, field.slots is None

    def _coord_sizes(self) -> tuple[int, int, int]:
        """Size of each coordinate axis over all fields (1: the axis is not used)."""
        top = np.zeros(3, np.int64)
        for field in self.fields:
            if field.slots:
                top = np.maximum(top, field.codec.coords(field.slots).max(axis=0))
        return (int(top[0]) + 1, int(top[1]) + 1, int(top[2]) + 1)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """The names as they are laid out."""
        wanted = set(names)
        return [self.fields[i].name for i in self.order if self.fields[i].name in wanted]

    @property
    def alphabet(self) -> Alphabet:
        """What a network must know. Values of few slots stay in view (see `model.network`)."""
        short = {f.block for f in self.fields if f.slots and f.slots <= MOST_STANDING}
        blocks = [self.blocks[b] for b in sorted(short)] if len(self.fields) > 1 else []
        standing = tuple((b.first, b.size) for b in blocks)
        axes = {f.first: f.axes for f in self.fields if f.axes}
        ordered = tuple((first, *steps) for first, steps in axes.items())
        return Alphabet(self.size, len(self.fields), self.coord_sizes, standing, ordered)

    def encode_column(
        self, name: str, values: Sequence[Any], max_tokens: int | None = None
    ) -> Column:
        """Values of one field (None: missing, ABSENT: no ids) -> ids and the rows they stand under.

        A value of more than `max_tokens` ids is cut there, without <end>.
        """
        field = self[name]
        absent = np.array([v is ABSENT for v in values], bool)
        known = np.array([v is not None for v in values], bool) & ~absent
        codes, lens = field.codec.encode_many([v for v, k in zip(values, known, strict=True) if k])
        if self.canvas:
            return self._on_canvas(field, codes, lens, known, absent, max_tokens)
        states, last = grammar_states(field.grammar, codes, lens)
        ids, rows = field.first + codes, field.state_row + states
        if field.slots is None:
            ids, rows = _close(ids, rows, lens, field.state_row + last)
            lens = lens + 1
        rest = 1 if field.slots is None or field.settles else field.slots
        if field.settles:
            assert field.slots is not None, "pictures and sounds have as many codes each"
            settled = field.grammar.settled[states].reshape(len(lens), field.slots)
            settled[:, :1] = False
            ids, rows, lens = ids[~settled.ravel()], rows[~settled.ravel()], (~settled).sum(axis=1)
        all_lens = np.full(len(values), rest, np.int64)
        all_lens[known] = lens
        all_lens[absent] = 0
        out = np.full(all_lens.sum(), MISSING, np.int64)
        out_rows = np.full(all_lens.sum(), field.rest_row, np.int64)
        inside = np.repeat(known, all_lens)
        out[inside], out_rows[inside] = ids, rows
        first_slots = (np.cumsum(all_lens) - all_lens)[all_lens > 0]
        out_rows[first_slots] = field.start_row
        cut = 0
        varying = field.slots is None
        if varying and max_tokens is not None and (all_lens > max_tokens).any():
            cut = int((all_lens > max_tokens).sum())
            within = ragged(np.zeros_like(all_lens), all_lens) < max_tokens
            out, out_rows = out[within], out_rows[within]
            all_lens = np.minimum(all_lens, max_tokens)
        return Column(out, out_rows, all_lens, cut)

    def _on_canvas(
        self, field: FieldIds, codes: Ints, lens: Ints, known: Bools, absent: Bools,
        max_tokens: int | None,
    ) -> Column:  # fmt: skip
        """Codes of the known values -> a column, each text behind its size and filled up to it."""
        varying = field.slots is None
        most = np.iinfo(np.int64).max if max_tokens is None or not varying else max_tokens
        shown = np.minimum(lens, most)
        size = np.searchsorted(SIZES, shown + (shown == lens)) if varying else np.zeros_like(lens)
        all_lens = np.full(len(known), 1 if varying else field.slots, np.int64)
        all_lens[known] = 1 + SIZES[size] if varying else lens
        all_lens[absent] = 0
        starts = np.cumsum(all_lens) - all_lens
        slot = ragged(np.zeros_like(all_lens), all_lens)
        out = np.full(all_lens.sum(), END if varying else MISSING, np.int64)
        out[starts[~known & ~absent]] = MISSING
        to, source = ragged(starts[known] + varying, shown), ragged(np.cumsum(lens) - lens, shown)
        out[to] = field.first + codes[source]
        if varying:
            out[starts[known]] = self.first_size + size
        rows = field.start_row + (np.minimum(slot, 1) if varying else slot)
        return Column(out, rows, all_lens, int((lens > most).sum()))

    def decode(self, name: str, ids: Ints) -> Any:
        """The ids of one value, without <end> -> the value (None: missing)."""
        field = self[name]
        if len(ids) and ids[0] == MISSING:
            return None
        return field.codec.decode(field.codes_of(ids))


@dataclass(frozen=True, eq=False)
class Column:
    """Encoded values of one field, one after another."""

    ids: Ints
    rows: Ints
    lens: Ints
    """(N,): the number of ids of each value."""
    cut: int
    """How many values were cut."""


def decode_grid(codec: Codec, codes: Ints) -> list[Any]:
    """Codes (N, S) of values of as many slots -> the values, together where the codec can."""
    together = getattr(codec, "decode_many", None)
    return list(together(codes)) if together else [codec.decode(row) for row in codes]


def _rows_of(grammar: Grammar, varying: bool, optional: bool) -> list[Bools]:
    """Rows over (<end>, <missing>, codes): the start, every state, the rest of a missing one."""
    states = np.zeros((len(grammar.allowed), CODE_COLUMN + grammar.allowed.shape[1] - 1), bool)
    states[:, CODE_COLUMN:] = grammar.allowed[:, :-1]
    if varying:
        states[:, END_COLUMN] = grammar.allowed[:, -1]
    start, rest = states[0].copy(), np.zeros_like(states[0])
    start[MISSING_COLUMN] = optional
    rest[MISSING_COLUMN] = True
    return [start, *states, rest]


def _canvas_rows(
    grammar: Grammar, slots: int | None, optional: bool, ends: bool
) -> list[Bools]:  # fmt: skip
    """Rows over the columns for slots of which nothing else is known: one for each slot, or one for
    all slots of a text, which `ends` or goes on behind them."""
    if slots is None:
        return [np.concatenate([[ends, False], grammar.allowed[:, :-1].any(axis=0)])]
    out, states = [], np.zeros(len(grammar.allowed), bool)
    states[0] = True
    for _ in range(slots):
        allowed = grammar.allowed[states][:, :-1]
        out.append(np.concatenate([[False, optional], allowed.any(axis=0)]))
        after = np.unique(grammar.step[states][allowed])
        states = np.isin(np.arange(len(states)), after)
    return out


def _size_row(optional: bool) -> Bools:
    """The row of a text's size, over <end>, <missing> and the sizes."""
    return np.concatenate([[False, optional], np.ones(len(SIZES), bool)])


def grammar_states(grammar: Grammar, codes: Ints, lens: Ints) -> tuple[Ints, Ints]:
    """codes of N values in one line -> the state before each code, and the (N,) last states."""
    last = np.zeros(len(lens), np.int64)
    states = np.zeros(len(codes), np.int64)
    if len(lens) == 0:
        return states, last
    if (lens == lens[0]).all():  # a table: go slot by slot, all values at once
        grid = codes.reshape(len(lens), -1)
        out = states.reshape(grid.shape)
        for slot in range(grid.shape[1]):
            out[:, slot] = last
            last = grammar.step[last, grid[:, slot]]
        return states, last
    # Text: most codes lead from state 0 to state 0, so only the others are walked one by one.
    quiet = grammar.step[0] == 0
    ends = np.cumsum(lens)
    owner = np.repeat(np.arange(len(lens)), lens)
    at = 0
    loud = np.flatnonzero(~quiet[codes])
    loud_list = loud.tolist()
    i = 0
    while i < len(loud_list):
        at = loud_list[i]
        record = int(owner[at])
        end, state = int(ends[record]), 0
        while at < end:
            states[at] = state
            state = int(grammar.step[state, codes[at]])
            at += 1
            if state == 0:
                break
        if at == end:
            last[record] = state
        while i < len(loud_list) and loud_list[i] < at:
            i += 1
    return states, last


def _close(ids: Ints, rows: Ints, lens: Ints, last_rows: Ints) -> tuple[Ints, Ints]:
    """Put <end> behind every value."""
    ends = np.cumsum(lens)
    return np.insert(ids, ends, END), np.insert(rows, ends, last_rows)


def ragged(starts: Ints, lens: Ints) -> Ints:
    """[start, start + 1, … start + len) of every pair, in one line."""
    total = int(lens.sum())
    if total == 0:
        return np.zeros(0, np.int64)
    offset = np.repeat(starts - (np.cumsum(lens) - lens), lens)
    out: Ints = np.arange(total, dtype=np.int64) + offset
    return out
