"""Slot by slot: given fields are read at once, wanted ones are chosen one slot at a time.

Rows of a batch may stand in different fields and have different lengths. In each step the rows
are grouped by block, scored against that block's columns, and every choice is kept inside the
field's grammar; so what comes out decodes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from omnifill.form.layout import Former, Orders
from omnifill.form.vocabulary import (
    BOS,
    CODE_COLUMN,
    END_COLUMN,
    MISSING_COLUMN,
    Vocabulary,
)
from omnifill.generate.alone import CLOSE, Alone
from omnifill.generate.filters import Sampling, choose, drawn, guided, penalised
from omnifill.generate.lookahead import Lookahead, looks_ahead
from omnifill.generate.plan import Plan, Step, Stopper, beginning, branches
from omnifill.generate.prefixes import Prefixes
from omnifill.generate.state import State, chances, kinds
from omnifill.generate.turns import READ, paused, shared
from omnifill.model.cache import StandingCache
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.objectives.causal import Columns
from omnifill.objectives.seq2seq import encode
from omnifill.types import NEVER, Bools, Ints

CHUNK = 64
"""Slots read at once when a prompt is longer than the context."""
Reading = tuple[Tensor, StandingCache]
"""Hidden (n, D) that predict the next slot, and the cache of what was read."""


class Autoregressive:
    """The sampler of causal models."""

    def __init__(self, network: Network, vocabulary: Vocabulary, columns: Columns) -> None:
        self.network, self.vocabulary, self.columns = network, vocabulary, columns
        self.former = Former(vocabulary)
        self.ordered = [f.cells > 0 for f in vocabulary.fields]
        self.row_block = vocabulary.row_block
        fields = vocabulary.fields
        self.start_row, self.state_row, self.rest_row = (
            np.array([getattr(f, name) for f in fields])
            for name in ("start_row", "state_row", "rest_row")
        )
        self.varying = np.array([f.slots is None for f in fields])
        self.prefixes: Prefixes | None = None
        """What is kept of the prompts of many, if it is to be."""

    @torch.no_grad()
    def __call__(self, plan: Plan, stopper: Stopper | None = None) -> Iterator[Step]:
        """Steps until every row has all its wanted fields."""
        state, readings = self.begin(plan)
        if looks_ahead(plan) and self.former.coords is None:
            yield from self._of_one(plan, state, *readings[0], stopper)
            return
        while True:
            yield self._choose(plan, state, [hidden for hidden, _ in readings], stopper)
            going = (state.field >= 0).nonzero()[0]
            if len(going) == 0:
                return
            if len(going) <= len(state.row) // 2:  # copying the cache pays only now and then
                state.keep(going)
                readings = [(h, c.select(torch.from_numpy(going))) for h, c in readings]
            readings = [(self.read_one(state, cache), cache) for _, cache in readings]

    def _of_one(self, plan: Plan, state: State, hidden: Tensor, cache: StandingCache,
                stopper: Stopper | None) -> Iterator[Step]:  # fmt: skip
        """The steps of one row, with several slots read at once where they are foretold."""
        ahead, writers = Lookahead(self.network, plan), dict[int, Alone | None]()
        yield self._choose(plan, state, [hidden], stopper)
        while (field := int(state.field[0])) >= 0:
            left = self._left(state)
            inside = state.slot[0] > 0 and left >= CLOSE and not state.missing[0]
            if inside and field not in writers:  # all before it was read, and stays in view
                writers[field] = self._alone(plan, state, field, cache)
            alone = writers.get(field)
            if inside and alone is not None:
                yield from self._text(plan, state, ahead, alone, left, stopper)
            else:
                hidden = ahead.read(cache, int(state.id[0]), field, left)
                yield self._choose(plan, state, [hidden], stopper)

    def _text(self, plan: Plan, state: State, ahead: Lookahead, alone: Alone, left: int,
              stopper: Stopper | None) -> Iterator[Step]:  # fmt: skip
        """The steps of a text that one row is in, as far as loops write it."""
        for rest in range(left, CLOSE - 1, -1):
            column = ahead.pick(alone, state, rest)
            if column < CODE_COLUMN or stopper is not None:
                yield self.settle(plan, state, np.array([column]), stopper)
                if column < CODE_COLUMN or state.slot[0] == 0:
                    return
            else:
                yield state.go_on(column - CODE_COLUMN)

    def _alone(self, plan: Plan, state: State, field: int, cache: StandingCache) -> Alone | None:
        """What writes a text by itself, if that can be done."""
        wanted, sampling = self.vocabulary.fields[field], state.sampling[field]
        if not Alone.can(self.network, wanted, plan, sampling):
            return None
        return Alone(self.network, self.vocabulary, plan, field, sampling, cache)

    def begin(self, plan: Plan) -> tuple[State, list[Reading]]:
        """Where the rows stand when all that is given has been read, in each of the branches."""
        return paused(self.beginning(plan, READ if shared() else None))

    def beginning(
        self, plan: Plan, most: int | None = None
    ) -> Generator[None, None, tuple[State, list[Reading]]]:
        """The same, at most so many slots at a time."""
        state, readings = State(self.vocabulary, plan), []
        if plan.partial:
            self._continue_prompt(state)
        for orders in branches(plan):
            readings.append((yield from self._read_given(plan, orders, state, most)))
        return state, readings

    def read_one(self, state: State, cache: StandingCache) -> Tensor:
        """Read the ids chosen last -> hidden (n, D) that predict the next slot."""
        cache.make_room(1)
        hidden: Tensor = self.network(*self.asked(state), Mask("causal"), cache)
        return hidden[:, 0]

    def asked(self, state: State) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is read of the rows next: ids and fields (n, 1), coordinates (n, 1, 3)."""
        ids, field = torch.from_numpy(state.id), torch.from_numpy(np.maximum(state.field, 0))
        return ids[:, None], field[:, None], self._coord(state)

    def _read_given(
        self, plan: Plan, orders: Orders, state: State, most: int | None
    ) -> Generator[None, None, Reading]:
        """Read `<bos>` and the given values -> hidden (n, D) that predict the first wanted slot.

        Where there is an encoder, it reads them, and the decoder the beginning of the wanted text.
        """
        given = Orders(np.where(orders.wanted, -1, orders.fields), orders.wanted)
        memory = None
        if self.network.encoder is not None:
            begun = beginning(plan, orders)
            source = Orders(np.where(begun, -1, given.fields), given.wanted)
            memory = encode(
                self.network, self.former.records(plan.shard, plan.which, source, weighted=False)
            )
            given = Orders(np.where(begun, given.fields, -1), given.wanted)
        batch = self.former.records(plan.shard, plan.which, given, weighted=False)
        num, width = batch.target.shape
        sizes = torch.zeros(num, dtype=torch.long)
        lens = np.asarray(plan.shard.lens[plan.which], np.int64)
        absent = given.fields < 0
        part = np.take_along_axis(lens, np.where(absent, 0, given.fields), axis=1)
        sizes = torch.from_numpy(np.where(absent, 0, part).sum(axis=1))
        ids = torch.full((num, width + 1), BOS)
        ids[:, 1:] = batch.target
        field = torch.zeros((num, width + 1), dtype=torch.long)
        field[:, :width] = batch.field
        field[torch.arange(num), sizes] = torch.from_numpy(state.field)
        coord = None
        if self.former.coords is not None:
            assert batch.coord is not None, "coordinates are there or not for a whole vocabulary"
            coord = torch.zeros((num, width + 1, 3), dtype=torch.long)
            coord[:, :width] = batch.coord
            coord[torch.arange(num), sizes] = torch.from_numpy(
                self.former.coords[state.field, self._slot(state)]
            )
        need = width + 1 + self._room(plan)
        capacity = min(need, max(self.network.config.context, 2 * CHUNK))
        first = np.where(beginning(plan, orders), -1, orders.fields)  # it stands behind, once more
        sinks = self._sinks(plan, Orders(first, orders.wanted) if memory is None else given)
        sinks = sinks.clamp(max=max(1, capacity - CHUNK))
        capacity = min(capacity, self.network.config.most_slots or capacity)
        cache = self.network.new_cache(num, capacity, sinks, memory)
        if coord is None and self.prefixes is not None and self.prefixes.fits(cache, width + 1):
            return (yield from self._read_kept(self.prefixes, ids, field, sizes, cache)), cache
        if width + 1 <= min(capacity, most or capacity):
            hidden = self.network(ids, field, coord, Mask("causal"), cache)
            cache.rewind(sizes + 1)
            return hidden[torch.arange(num), sizes], cache
        size = CHUNK if width + 1 > capacity or most is None else most
        return (yield from self._read_long(ids, field, coord, sizes, cache, size)), cache

    def _read_kept(
        self, prefixes: Prefixes, ids: Tensor, field: Tensor, sizes: Tensor, cache: StandingCache
    ) -> Generator[None, None, Tensor]:
        """Read one row chunk by chunk, but what was read before."""
        told, size = torch.stack([ids[0], field[0]], dim=1), int(sizes[0]) + 1
        first = prefixes.restore(told[:size], cache)
        for at in range(first, size, prefixes.size):
            end = min(at + prefixes.size, size)
            if at > first:
                yield
            part = (ids[:, at:end], field[:, at:end])
            hidden = self.network(*part, None, Mask("causal"), cache)
            if end - at == prefixes.size:
                prefixes.keep(told[:end], cache)
        last: Tensor = hidden[:, -1]
        return last

    def _read_long(self, ids: Tensor, field: Tensor, coord: Tensor | None, sizes: Tensor,
                   cache: StandingCache, size: int) -> Generator[None, None, Tensor]:  # fmt: skip
        """Read chunk by chunk; what is more than the cache holds falls out behind the sinks."""
        num = len(ids)
        last = torch.zeros(num, self.network.config.dim)
        for at in range(0, ids.shape[1], size):
            end = min(at + size, ids.shape[1])
            if at:
                yield
            cache.make_room(end - at)
            before = cache.lengths.clone()
            part = None if coord is None else coord[:, at:end]
            hidden = self.network(ids[:, at:end], field[:, at:end], part, Mask("causal"), cache)
            read = (sizes + 1 - at).clamp(0, end - at)
            cache.rewind(before + read)
            here = (sizes >= at) & (sizes < end)
            last[here] = hidden[here, (sizes - at)[here]]
        return last

    def _sinks(self, plan: Plan, orders: Orders) -> Tensor:
        """(n,): `<bos>` and the fields before the first text: what every window opens with."""
        fields, there = orders.fields, np.maximum(orders.fields, 0)
        slots = np.array([f.slots or 0 for f in self.vocabulary.fields])[there]
        slots[fields < 0] = 0
        leading = np.logical_and.accumulate((fields < 0) | (slots > 0), axis=1)
        lens = np.asarray(plan.shard.lens[plan.which], np.int64)
        given = np.minimum(slots, np.take_along_axis(lens, there, axis=1))  # a sound may be short
        return torch.from_numpy(1 + (np.where(orders.wanted, slots, given) * leading).sum(axis=1))

    def _room(self, plan: Plan) -> int:
        """Most slots that the wanted fields can take."""
        most = np.array([f.slots or plan.max_tokens + 1 for f in self.vocabulary.fields])
        fields = plan.orders.fields
        return int((most[np.where(fields < 0, 0, fields)] * plan.orders.wanted).sum(axis=1).max())

    def _coord(self, state: State) -> Tensor | None:
        if self.former.coords is None:
            return None
        found = self.former.coords[np.maximum(state.field, 0), self._slot(state)]
        return torch.from_numpy(found)[:, None]

    def _slot(self, state: State) -> Ints:
        """(n,): the slot of each row's value, as far as there are coordinates."""
        assert self.former.coords is not None, "asked only where there are some"
        out: Ints = np.minimum(state.slot, self.former.coords.shape[1] - 1)
        return out

    def _continue_prompt(self, state: State) -> None:
        """The first wanted text starts where its given beginning ends."""
        plan = state.plan
        for i, record in enumerate(plan.which):
            field = self.vocabulary.fields[int(state.field[i])]
            lens = np.asarray(plan.shard.lens[record], np.int64)
            start = int(plan.shard.starts[record] + lens[: field.index].sum())
            ids = np.asarray(plan.shard.ids[start : start + lens[field.index]], np.int64)
            codes = ids - field.first
            for code in codes.tolist():
                state.state[i] = field.grammar.step[state.state[i], code]
            state.seen[i] = [int(c) + CODE_COLUMN for c in codes]
            state.slot[i] = state.begun[i] = len(codes)

    def rows(self, state: State) -> Ints:
        """(n,): the vocabulary's row that applies to each row's next slot."""
        field = state.field
        inside = np.where(
            state.slot == 0, self.start_row[field], self.state_row[field] + state.state
        )
        return np.where(state.missing, self.rest_row[field], inside)

    def _choose(
        self, plan: Plan, state: State, hidden: Sequence[Tensor], stopper: Stopper | None
    ) -> Step:
        """Choose the next id of every row and move the rows on."""
        column = np.zeros(len(state.row), np.int64)
        for at, scores in self.scored(plan, state, hidden):
            column[at] = self._pick(plan, state, at, scores)
        return self.settle(plan, state, column, stopper)

    def settle(self, plan: Plan, state: State, column: Ints, stopper: Stopper | None) -> Step:
        """What was picked, (n,) columns, is chosen, unless what leans has it otherwise."""
        if plan.leaning is not None:
            column = plan.leaning.settle(state.row, state.field, column)
        step = self.move(plan, state, column, stopper)
        if plan.leaning is not None:
            plan.leaning.tell(step.row, step.field, step.id)
        return step

    def scored(
        self, plan: Plan, state: State, hidden: Sequence[Tensor]
    ) -> Iterator[tuple[Ints, Tensor]]:
        """(rows at work, their scores (n, C)) of every block. hidden (n, D): with all that is
        given, and if that is to count more or less, without it."""
        alive = (state.field >= 0).nonzero()[0]
        rows = self.rows(state)
        blocks = self.row_block[rows]
        for block in kinds(blocks[alive]):
            at = alive[blocks[alive] == block]
            pick = torch.from_numpy(at)
            allow = torch.from_numpy(rows[at])
            scores, *plain = (
                self.columns.scores(self.network, h[pick], int(block), allow) for h in hidden
            )
            yield at, self.ruled(plan, state, at, scores, *plain)

    def ruled(
        self, plan: Plan, state: State, at: Ints, scores: Tensor, plain: Tensor | None = None
    ) -> Tensor:
        """Scores (n, C) of some rows with all that the plan says of them. `plain`: without what is
        given."""
        if plain is not None:
            scores = guided(scores, plain, plan.sampling.strength)
        if self._bar(plan, state, at, scores):
            stuck = ~torch.isfinite(scores).any(dim=1)
            scores[stuck, END_COLUMN] = 0.0  # no room left for any code: the value ends here
        if plan.leaning is not None:
            scores = plan.leaning.lean(state.row[at], state.field[at], scores)
        return scores

    def _bar(self, plan: Plan, state: State, at: Ints, scores: Tensor) -> bool:
        """Bar <missing> where it is forbidden, and codes after which no end would be in reach; in
        place. Whether a code was barred."""
        fields, any_barred = state.field[at], False
        if plan.forbid_missing is not None:
            barred = plan.forbid_missing[fields] & ~state.missing[at]
            if barred.any():
                scores[torch.from_numpy(barred), MISSING_COLUMN] = float("-inf")
        for index in kinds(fields):
            field = self.vocabulary.fields[index]
            if field.slots is not None:
                continue
            mine = (fields == index).nonzero()[0]
            here = at[mine]
            for token, bias in (plan.sampling.logit_bias or {}).items():
                scores[torch.from_numpy(mine), field.column(token)] += bias
            if field.grammar.min_left[0] >= NEVER:  # no text of it ends by itself
                continue
            room = plan.max_tokens - (state.slot[here] - self._prompted(plan, state, here))
            tight = (room <= 4).nonzero()[0]
            any_barred |= len(tight) > 0
            for i in tight:
                after = field.grammar.min_left[field.grammar.step[state.state[here[i]]]]
                far = torch.from_numpy(after > room[i] - 1)
                scores[mine[i], CODE_COLUMN:][far] = float("-inf")
        return any_barred

    def _prompted(self, plan: Plan, state: State, at: Ints) -> Ints:
        """(n,): slots of the current value that the user gave."""
        if not plan.partial:
            return np.zeros(len(at), np.int64)
        first = plan.orders.wanted.argmax(axis=1)[state.row[at]]
        return np.where(state.place[at] == first, state.slot[at] - state.total[at], 0)

    def _pick(self, plan: Plan, state: State, at: Ints, scores: Tensor) -> Ints:
        """(n, C) scores -> (n,) columns."""
        if plan.quantile is not None:
            return self._pick_best(plan.quantile, state, at, scores)
        scores, sampling = self.weighed(plan, state, at, scores)
        return drawn(scores, chances(plan, state, at, sampling), sampling)

    def weighed(
        self, plan: Plan, state: State, at: Ints, scores: Tensor
    ) -> tuple[Tensor, Sampling]:
        """Scores (n, C) of rows in one block, with the repetition controls; and how their next slot
        is drawn."""
        scores = penalised(scores, [state.seen[i] for i in at], plan.sampling, state.begun[at])
        return scores, state.sampling[state.field[at[0]]]

    def _pick_best(self, quantile: float, state: State, at: Ints, scores: Tensor) -> Ints:
        """The quantile of ordered fields, the mode of the others."""
        ordered = np.array(self.ordered)[state.field[at]]
        mode = choose(scores, torch.zeros(len(at)), greedy=True)[0].numpy()
        value, left = choose(scores, torch.from_numpy(state.left[at]), greedy=False)
        state.left[at] = np.where(ordered, left.numpy(), quantile)
        return np.where(ordered, value.numpy(), mode)

    def move(self, plan: Plan, state: State, column: Ints, stopper: Stopper | None) -> Step:
        """Write the chosen columns down and move every row that is at work to its next slot."""
        if len(column) == 1 and stopper is None and self._goes_on(state, column[0]):
            return state.go_on(int(column[0]) - CODE_COLUMN)
        fields = state.field
        alive = (fields >= 0).nonzero()[0]
        done = np.zeros(len(column), bool)
        for index in kinds(fields[alive]):
            at = alive[fields[alive] == index]
            field = self.vocabulary.fields[index]
            chosen = column[at]
            state.id[at] = self.vocabulary.blocks[field.block].ids[chosen]
            is_code = chosen >= CODE_COLUMN
            code = np.where(is_code, chosen - CODE_COLUMN, 0)
            stepped = field.grammar.step[state.state[at], code]
            state.state[at] = np.where(is_code, stepped, state.state[at])
            state.missing[at] |= chosen == MISSING_COLUMN
            if field.slots is None:
                done[at] = ~is_code
                for i, c in zip(at[is_code], chosen[is_code], strict=True):
                    if state.remembers:
                        state.seen[i].append(int(c))
            else:
                done[at] = state.slot[at] + 1 == field.slots
                if field.settles:
                    done[at] |= field.grammar.settled[state.state[at]] | state.missing[at]
        state.slot[alive] += 1
        state.total[alive] += 1
        cut = self._out_of_room(plan, state, fields, done)
        if stopper is not None:
            cut[alive] |= stopper(state.row[alive], fields[alive], state.id[alive])
        over = alive[(done | cut)[alive]]
        if len(over):
            state.next_field(over)
        state.slot[over], state.state[over], state.missing[over] = 0, 0, False
        state.left[over], state.begun[over] = state.plan.quantile or 0.0, 0
        for i in over:
            state.seen[i] = []
        return Step(
            state.row[alive], fields[alive], state.id[alive], (done | cut)[alive], cut[alive]
        )

    def _goes_on(self, state: State, column: np.int64) -> bool:
        """Whether the only row's text just has one code more: most slots of most texts."""
        inside = bool(self.varying[state.field[0]] and state.field[0] >= 0 and not state.missing[0])
        return (
            inside and bool(column >= CODE_COLUMN) and not state.remembers and self._left(state) > 0
        )

    def _left(self, state: State) -> int:
        """Tokens that may follow the next one in the only row's text; 0: it is in none."""
        if self.vocabulary.fields[state.field[0]].slots is not None:
            return 0
        used = state.slot[0] - self._prompted(state.plan, state, np.zeros(1, np.int64))[0]
        return int(state.plan.max_tokens - used - 1)

    def _out_of_room(self, plan: Plan, state: State, fields: Ints, done: Bools) -> Bools:
        """(n,): texts that have all their tokens and have not ended by themselves."""
        varying = self.varying[fields]
        if not varying.any():
            return np.zeros(len(fields), bool)
        used = state.slot - self._prompted(plan, state, np.arange(len(fields)))
        return varying & (fields >= 0) & ~done & (used >= plan.max_tokens)
