"""The sampler of masked models: all slots are there from the start, and are chosen in a few steps.

First the sizes of the wanted texts, then `steps` passes over everything: in each of them the next
slots are chosen, in an order drawn at random (so that with as many steps as slots a record comes
straight from the model) or the surest ones first (MaskGIT: Chang et al. 2022, arXiv 2202.04200).
`remask` takes some of what was chosen back in every step (Wang et al. 2025, arXiv 2503.00307).
Slots that are chosen at once do not see each other; those that do not fit together under the
field's grammar are chosen again, one after another, from the same scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnifill.chance import uniforms
from omnifill.errors import RequestError
from omnifill.form.layout import Former, Orders
from omnifill.form.vocabulary import (
    CODE_COLUMN,
    END,
    END_COLUMN,
    MASK,
    MISSING,
    MISSING_COLUMN,
    PAD,
    SIZES,
    FieldIds,
    Vocabulary,
)
from omnifill.generate.asks import Ask
from omnifill.generate.filters import choose, filtered, guided
from omnifill.generate.lattice import OPEN, Lattice
from omnifill.generate.plan import Plan, Step, branches
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.objectives.causal import Columns
from omnifill.objectives.corruption import Schedule
from omnifill.types import Bools, Floats, Ints

ORDER, AGAIN = 1 << 33, 1 << 34
"""Chance for orders and for taking back is drawn for slots from here on, `STRIDE` for each step."""
STRIDE = 1 << 20
READ = 16_384
"""Slots that are read at once."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """The slots of n rows. All (n, W); the arrays change, and parts of them are views."""

    id: Ints
    field: Ints
    """-1 behind a row's end."""
    slot: Ints
    """Which slot of its value; -1: the size of a text."""
    mine: Bools
    """Whether it belongs to a wanted value."""
    free: Bools
    """Whether the sampler chooses it."""

    @classmethod
    def empty(cls, rows: int, width: int) -> Canvas:
        shape = (rows, width)
        pad, none = np.full(shape, PAD, np.int64), np.full(shape, -1, np.int64)
        zero, no = np.zeros(shape, np.int64), np.zeros(shape, bool)
        return cls(pad, none, zero, no, no.copy())

    @property
    def open(self) -> Bools:
        return np.asarray(self.free & (self.id == MASK))

    def between(self, first: int, last: int) -> Canvas:
        return Canvas(*(getattr(self, name)[:, first:last] for name in vars(self)))


class Parallel:
    """Chooses all wanted slots of the rows of a plan."""

    def __init__(
        self, network: Network, vocabulary: Vocabulary, columns: Columns, schedule: Schedule
    ) -> None:
        self.network, self.vocabulary, self.columns = network, vocabulary, columns
        self.schedule, self.context = schedule, network.config.context
        self.stream = vocabulary.schema.stream
        self.coords = Former(vocabulary).coords
        self.lattices = [
            Lattice(field, spec.optional, self.stream)
            for field, spec in zip(vocabulary.fields, vocabulary.schema.fields, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, plan: Plan) -> Iterator[Step]:
        """The wanted values of all rows, whole: with the beginnings and ends that were given."""
        num, at = len(plan.which), 0
        while at < num:
            rows = np.arange(at, num)
            sizes = self._sizes(plan, rows[: max(1, READ // self.context)])
            rows = rows[: len(sizes)]
            canvas = self._laid(plan, plan.orders, rows, sizes)
            self._fill(plan, rows, canvas, sizes)
            yield _as_step(rows, canvas)
            at += len(rows)

    def _fill(self, plan: Plan, rows: Ints, canvas: Canvas, sizes: Ints) -> None:
        """Choose everything; in a stream, window by window, each half of what was there before."""
        width = canvas.id.shape[1]
        if width <= self.context or not self.stream:
            Run(self, plan, rows, canvas, sizes, 0).steps()
            return
        for first in range(0, width - self.context // 2, max(1, self.context // 2)):
            part = canvas.between(first, first + self.context)
            Run(self, plan, rows, part, sizes, first).steps()

    # --- layout ----------------------------------------------------------------------------

    def _laid(self, plan: Plan, orders: Orders, rows: Ints, sizes: Ints | None) -> Canvas:
        """The rows with what is given. sizes (n, F): slots of wanted texts, -1 for one that is
        missing; None: not known yet, and each wanted text is its size alone."""
        laid = [
            self._row(plan, orders, int(row), None if sizes is None else sizes[i])
            for i, row in enumerate(rows)
        ]
        canvas = Canvas.empty(len(rows), max(1, max(len(ids) for ids, *_ in laid)))
        for i, parts in enumerate(laid):
            for name, values in zip(("id", "field", "slot", "mine"), parts, strict=True):
                getattr(canvas, name)[i, : len(values)] = values
        canvas.free[:] = canvas.mine & (canvas.id == MASK)
        return canvas

    def _row(
        self, plan: Plan, orders: Orders, row: int, sizes: Ints | None
    ) -> tuple[Ints, Ints, Ints, Bools]:
        """(ids, fields, slots, whether they belong to a wanted value) of one row."""
        wanted = set(plan.orders.fields[row][plan.orders.wanted[row]].tolist())
        nothing = np.zeros(0, np.int64)
        ids, field, slot, mine = [nothing], [nothing], [nothing], [nothing.astype(bool)]
        for index, want in zip(orders.fields[row].tolist(), orders.wanted[row], strict=True):
            if index < 0 or (index in wanted and not want):  # a beginning comes with its value
                continue
            where = self.vocabulary.fields[index]
            value, first = self._value(plan, row, where, want, sizes)
            ids.append(value)
            field.append(np.full(len(value), index))
            slot.append(np.arange(len(value)) + first)
            mine.append(np.full(len(value), want))
        if not ids:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing, nothing, nothing.astype(bool)
        return (
            np.concatenate(ids),
            np.concatenate(field),
            np.concatenate(slot),
            np.concatenate(mine),
        )

    def _value(
        self, plan: Plan, row: int, field: FieldIds, want: bool, sizes: Ints | None
    ) -> tuple[Ints, int]:
        """Ids of one value, hidden where they are to be chosen; and its first slot's number."""
        sized = field.slots is None and not self.stream
        if not want:
            return self._given(plan, row, field), -1 if sized else 0
        if field.slots is not None:
            first = plan.orders.fields[row][plan.orders.wanted[row]][0]
            if plan.known is not None and field.index == first:
                return np.where(plan.known >= 0, field.first + plan.known, MASK), 0
            return np.full(field.slots, MASK), 0
        if sizes is None:
            return np.array([MASK]), -1
        size = int(sizes[field.index])
        if size < 0:
            return np.array([MISSING]), 0
        start, end = self._known(plan, row, field)
        tail = np.append(end, END) if len(end) and sized else end
        body = np.full(size - len(start) - len(tail), MASK)
        value = np.concatenate([start, body, tail])
        if not sized:
            return value, 0
        name = self.vocabulary.first_size + int(np.searchsorted(SIZES, size))
        return np.concatenate([[name], value]), -1

    def _given(self, plan: Plan, row: int, field: FieldIds) -> Ints:
        record = plan.which[row]
        lens = np.asarray(plan.shard.lens[record], np.int64)
        start = int(plan.shard.starts[record] + lens[: field.index].sum())
        return np.asarray(plan.shard.ids[start : start + int(lens[field.index])], np.int64)

    def _known(self, plan: Plan, row: int, field: FieldIds) -> tuple[Ints, Ints]:
        """Ids of the beginning and the end of a wanted text, as far as they are given."""
        start = end = np.zeros(0, np.int64)
        first = plan.orders.fields[row][plan.orders.wanted[row]][0]
        if field.index == first and plan.partial:
            ids = self._given(plan, row, field)
            start = ids[(ids >= field.first) & (ids < field.first + field.codec.size)]
            start = start[: len(start) - len(getattr(field.codec, "tail", ()))]
        if field.index == first and plan.suffix is not None:
            end = field.first + plan.suffix[len(getattr(field.codec, "lead", ())) :]
        return start, end

    # --- sizes -----------------------------------------------------------------------------

    def _sizes(self, plan: Plan, rows: Ints) -> Ints:
        """(n, F): slots of the wanted texts, from what is given; -1 for one that is missing."""
        sizes = np.zeros((len(rows), len(self.vocabulary.fields)), np.int64)
        texts = [f.index for f in self.vocabulary.fields if f.slots is None]
        if self.stream:
            for i, row in enumerate(rows.tolist()):
                known = sum(len(part) for part in self._known(plan, row, self.vocabulary.fields[0]))
                sizes[i, 0] = known + plan.max_tokens
            return sizes
        canvas = self._laid(plan, plan.orders, rows, None)
        asked = canvas.open & np.isin(canvas.field, texts)
        while asked.any():
            at = np.flatnonzero(asked.any(axis=1))
            column = asked[at].argmax(axis=1)
            hidden = self.read(canvas, at)[torch.arange(len(at)), torch.from_numpy(column)]
            index = canvas.field[at, column]
            start = np.array([self.vocabulary.fields[i].start_row for i in index])
            scores = self.columns.scores(
                self.network, hidden, self.vocabulary.sizes_block, torch.from_numpy(start)
            )
            least, most = self._bounds(plan, rows[at], index)
            # What is in view at once holds the other values, and the texts that are sized already.
            taken = (canvas.field[at] >= 0).sum(axis=1) + np.maximum(sizes[at], 0).sum(axis=1)
            most = np.minimum(most, self.context - taken)
            smallest = SIZES[np.searchsorted(SIZES, least)]
            fits = (SIZES >= least[:, None]) & (SIZES <= np.maximum(most, smallest)[:, None])
            scores[:, CODE_COLUMN:][torch.from_numpy(~fits)] = float("-inf")
            never = least > 1
            if plan.forbid_missing is not None:
                never = never | plan.forbid_missing[index]
            scores[torch.from_numpy(never), MISSING_COLUMN] = float("-inf")
            chance = uniforms(plan.seed, plan.numbers[rows[at]], column)
            chosen = choose(
                filtered(scores, plan.sampling), torch.from_numpy(chance),
                plan.sampling.temperature == 0 or plan.quantile is not None,
            )[0].numpy()  # fmt: skip
            is_size = chosen >= CODE_COLUMN
            code = np.where(is_size, chosen - CODE_COLUMN, 0)
            canvas.id[at, column] = np.where(is_size, self.vocabulary.first_size + code, MISSING)
            sizes[at, index] = np.where(is_size, SIZES[code], -1)
            asked[at, column] = False
        return sizes

    def _bounds(self, plan: Plan, rows: Ints, fields: Ints) -> tuple[Ints, Ints]:
        """(n,): fewest and most slots of each row's text, with its <end>."""
        known = [
            sum(len(part) for part in self._known(plan, row, self.vocabulary.fields[index]))
            for row, index in zip(rows.tolist(), fields.tolist(), strict=True)
        ]
        least = np.array(known) + 1
        return least, least + plan.max_tokens

    # --- reading ---------------------------------------------------------------------------

    def read(self, canvas: Canvas, rows: Ints) -> Tensor:
        """Hidden states (n, W, D) of some of the rows."""
        ids, field = canvas.id[rows], np.maximum(canvas.field[rows], 0)
        coord = None
        if self.coords is not None:
            slot = np.clip(canvas.slot[rows], 0, self.coords.shape[1] - 1)
            coord = torch.from_numpy(self.coords[field, slot])
        lengths = torch.from_numpy((canvas.field[rows] >= 0).sum(axis=1)).clamp(min=1)
        hidden: Tensor = self.network(
            torch.from_numpy(ids), torch.from_numpy(field), coord, Mask("full", lengths)
        )
        return hidden


class Run:
    """The steps over one canvas."""

    def __init__(
        self, sampler: Parallel, plan: Plan, rows: Ints, canvas: Canvas, sizes: Ints, offset: int
    ) -> None:
        """`offset`: where the canvas starts in a longer one."""
        self.sampler, self.plan, self.canvas = sampler, plan, canvas
        num, width = canvas.id.shape
        if width > max(sampler.context, 2):
            raise RequestError(
                f"a record of {width} tokens is more than this masked model sees at once "
                f"({sampler.context}): lower max_tokens, or train with --set "
                f"model.context={width}"
            )
        self.column = canvas_columns(sampler.vocabulary, canvas)
        self.place = offset + np.arange(width)
        self.number = plan.numbers[rows]
        self.left = np.full((num, len(sampler.vocabulary.fields)), plan.quantile or 0.0)
        self.plain = None
        if plan.sampling.strength != 1:
            _, without = branches(plan)
            self.plain = sampler._laid(plan, without, rows, sizes)
        self.anywhere = offset > 0

    def steps(self) -> None:
        plan, canvas = self.plan, self.canvas
        total = canvas.open.sum(axis=1)
        asked = plan.sampling.steps
        steps = total if asked is None or plan.quantile is not None else np.minimum(total, asked)
        for step in range(int(steps.max(initial=0))):
            at = np.flatnonzero(step < steps)
            known = np.array([
                self.sampler.schedule.known(step + 1, int(steps[i]), int(total[i])) for i in at
            ])  # fmt: skip
            if plan.sampling.remask and step:
                self._take_back(at[known < total[at]], step)
            need = known - (total[at] - canvas.open[at].sum(axis=1))
            at, need = at[need > 0], need[need > 0]
            if len(at):
                self._step(at, need, step)

    def _take_back(self, at: Ints, step: int) -> None:
        """Hide a share of what was chosen."""
        chosen = self.canvas.free[at] & ~self.canvas.open[at]
        num = np.floor(self.plan.sampling.remask * chosen.sum(axis=1))
        key = self._chance(at, AGAIN + step * STRIDE)
        row, slot = np.nonzero(chosen & (_rank(np.where(chosen, key, np.inf)) < num[:, None]))
        self.canvas.id[at[row], slot] = MASK
        self.column[at[row], slot] = OPEN

    def _chance(self, at: Ints, first: int) -> Floats:
        return uniforms(self.plan.seed, self.number[at][:, None], first + self.place[None])

    def _step(self, at: Ints, need: Ints, step: int) -> None:
        """Choose `need` (n,) slots of the rows `at`."""
        open_ = self.canvas.open[at]
        surest = self.plan.sampling.order == "confidence" and self.plan.quantile is None
        if surest:
            pick = open_
        else:
            key = np.broadcast_to(self.place.astype(float), open_.shape)
            if self.plan.quantile is None:
                key = self._chance(at, ORDER + step * STRIDE)
            pick = open_ & (_rank(np.where(open_, key, np.inf)) < need[:, None])
        chance = self._chance(at, step * STRIDE)
        asks = list(self._asks(at, pick, chance))
        if surest:
            sure = np.full(pick.shape, -np.inf)
            for ask in asks:
                sure[ask.row, ask.slot] = ask.choose(self.plan, self.left)[1]
            pick = open_ & (_rank(-sure) < need[:, None])
        for ask in asks:
            ask.commit(self.plan, pick, self.left)
            row, slot = at[ask.row], ask.slot
            self.column[row, slot] = ask.column[ask.span, ask.inside]
        self._write(at)

    def _asks(self, at: Ints, pick: Bools, chance: Floats) -> Iterator[Ask]:
        """What is asked of each field, for values of as many slots together."""
        sampler, canvas = self.sampler, self.canvas
        hidden = [sampler.read(canvas, at)]
        slots = [np.broadcast_to(np.arange(pick.shape[1]), pick.shape)]
        if self.plain is not None:
            mirror = np.zeros_like(canvas.id)
            self.plain.id[self.plain.mine] = canvas.id[canvas.mine]
            mirror[canvas.mine] = np.nonzero(self.plain.mine)[1]
            hidden.append(sampler.read(self.plain, at))
            slots.append(mirror[at])
        for index in np.unique(canvas.field[at][pick]).tolist():
            field = sampler.vocabulary.fields[index]
            inside = (canvas.field[at] == index) & (canvas.slot[at] >= 0)
            num = inside.sum(axis=1)
            for size in np.unique(num[(pick & inside).any(axis=1)]).tolist():
                rows = np.flatnonzero((num == size) & (pick & inside).any(axis=1))
                first = inside[rows].argmax(axis=1)
                grid = np.arange(size) + first[:, None]
                span, local = np.nonzero(pick[rows[:, None], grid])
                row, slot = rows[span], grid[span, local]
                allow = field.state_row if field.slots is None else field.start_row + local
                allow = torch.from_numpy(np.broadcast_to(allow, row.shape).copy())
                scores, *without = (
                    sampler.columns.scores(
                        sampler.network, states[row, at_slot[row, slot]], field.block, allow
                    )
                    for states, at_slot in zip(hidden, slots, strict=True)
                )
                if without:
                    scores = guided(scores, without[0], self.plan.sampling.strength)
                if self.plan.forbid_missing is not None and self.plan.forbid_missing[index]:
                    scores[:, MISSING_COLUMN] = float("-inf")
                yield Ask(
                    field, sampler.lattices[index], at, row, slot, span, local,
                    self.column[at[rows][:, None], grid], scores, chance[row, slot],
                    self.anywhere,
                )  # fmt: skip

    def _write(self, at: Ints) -> None:
        """Columns that were chosen, as ids."""
        for index in np.unique(self.canvas.field[at]).tolist():
            if index < 0:
                continue
            ids = self.sampler.vocabulary.blocks[self.sampler.vocabulary.fields[index].block].ids
            fresh = (self.canvas.field == index) & self.canvas.open & (self.column != OPEN)
            self.canvas.id[fresh] = ids[self.column[fresh]]


def canvas_columns(vocabulary: Vocabulary, canvas: Canvas) -> Ints:
    """(n, W): the column of every known slot within its field's block; `OPEN` for others."""
    first = np.array([f.first for f in vocabulary.fields])[np.maximum(canvas.field, 0)]
    column = canvas.id - first + CODE_COLUMN
    column = np.where(canvas.id == END, END_COLUMN, column)
    column = np.where(canvas.id == MISSING, MISSING_COLUMN, column)
    inside = (canvas.field >= 0) & (canvas.slot >= 0) & (canvas.id != MASK)
    return np.where(inside, column, OPEN)


def _as_step(rows: Ints, canvas: Canvas) -> Step:
    """All slots of wanted values, row by row; of a text up to its first <end>."""
    shown = canvas.mine & (canvas.slot >= 0)
    ended = np.zeros_like(shown)
    ended[:, 1:] = (canvas.id == END)[:, :-1] & (canvas.field[:, 1:] == canvas.field[:, :-1])
    row, slot = np.nonzero(shown & ~ended)
    nothing = np.zeros(len(row), bool)
    return Step(rows[row], canvas.field[row, slot], canvas.id[row, slot], nothing, nothing)


def _rank(key: Floats) -> Ints:
    return np.asarray(key.argsort(axis=1, kind="stable").argsort(axis=1))
