"""Several slots read at once, for one row: what is likely to be chosen next, before it is.

Foretold is what a rule forces, or what followed the last few tokens where they stood before (prompt
lookup: Saxena 2023; speculative decoding: Leviathan et al. 2023, arXiv 2211.17192). Each slot is
then chosen as ever, from the scores behind what was really chosen and with its own chance; what was
foretold wrongly is taken back. So what comes out is what would have come out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnifill.generate.alone import CLOSE, Alone
from omnifill.generate.plan import Plan
from omnifill.generate.state import State
from omnifill.model.cache import StandingCache
from omnifill.model.mask import Mask
from omnifill.model.network import Network

LONGEST, SHORTEST = 4, 2
"""Tokens that must have stood together before."""
MOST = 16
"""Slots that are read ahead."""
LONGEST_REST = 6
"""At most 2 ** 6 - 1 readings go by without looking ahead."""
KEPT = 4096
"""Ids that are looked through, so that an endless text needs no more memory."""


class Lookahead:
    """Reads the slots of one row."""

    def __init__(self, network: Network, plan: Plan) -> None:
        """Where there are no coordinates, and one branch is read (see `looks_ahead`)."""
        self.network, self.leaning = network, plan.leaning
        self.ids: list[int] = []
        """What was read and chosen."""
        self.behind: dict[tuple[int, ...], int] = {}
        """A few ids -> where what last followed them stands."""
        first = int(plan.shard.starts[int(plan.which[0])])
        self._remember(
            plan.shard.ids[first : first + int(plan.shard.sizes[plan.which[0]])].tolist()
        )
        self.draft: list[int] = []
        self.hidden = torch.empty(0)
        """(1, 1 + draft, D) of the last block."""
        self.columns: list[int] = []
        """Or what was chosen behind each slot of the block (see `pick`)."""
        self.at = self.start = self.field = 0
        """How many of the draft were chosen; the cache's slots before the block; of which field."""
        self.pays, self.rest, self.misses = SHORTEST, 0, 0
        """How far it pays to look; readings without looking that are left; drafts of which nothing
        came, one after another."""

    def read(self, cache: StandingCache, id_: int, field: int, left: int) -> Tensor:
        """Hidden (1, D) that predict the slot behind the id that was chosen last. `field`: of that
        slot; `left`: how many may follow it in a text, 0 where it is none of a text."""
        self._remember([id_])
        if field == self.field and self.draft[self.at : self.at + 1] == [id_]:
            self.at += 1
            return self.hidden[:, self.at]
        self._take_back(cache)
        cache.make_room(1)
        self._begin(int(cache.lengths[0]), field, min(left, cache.room - 1))
        ids = torch.tensor([[id_, *self.draft]])
        self.hidden = self.network(ids, torch.full_like(ids, field), None, Mask("causal"), cache)
        return self.hidden[:, 0]

    def pick(self, alone: Alone, state: State, left: int) -> int:
        """The column behind the id that was chosen last, of a text that is written by `alone`;
        `left`: as of `read`, no less than `CLOSE`."""
        id_ = int(state.id[0])
        self._remember([id_])
        if self.at + 1 < len(self.columns):  # the rest of what was chosen at once
            self.at += 1
        else:
            self._take_back(alone.cache)
            room = alone.room()
            self._begin(alone.start, int(state.field[0]), min(left - CLOSE, room - 1))
            ids = [id_, *self.draft]
            self.columns = alone.write(ids, int(state.state[0]), int(state.total[0]))
        return self.columns[self.at]

    def _begin(self, start: int, field: int, most: int) -> None:
        """A block of what was chosen last, and of up to `most` slots that are foretold."""
        self.start, self.field, self.at = start, field, 0
        self.draft, self.columns = self._foretold(min(most, MOST)), []

    def _take_back(self, cache: StandingCache) -> None:
        if not self.draft:
            return
        if self.at < len(self.draft):
            cache.rewind(torch.tensor([self.start + 1 + self.at]))
        self.pays = min(2 * self.pays, MOST) if self.at == len(self.draft) else max(1, self.at)
        # A slot more makes a reading slower, so what never comes is looked for ever less.
        self.misses = 0 if self.at else self.misses + 1
        self.rest = 2 ** min(self.misses, LONGEST_REST) - 1

    def _foretold(self, most: int) -> list[int]:
        if most <= 0:
            return []
        if self.leaning is not None and (forced := self.leaning.ahead(0, self.field)):
            return forced[:most]
        if self.rest:
            self.rest -= 1
            return []
        for size in range(LONGEST, SHORTEST - 1, -1):
            at = self.behind.get(tuple(self.ids[-size:]))
            if at is not None:
                return self.ids[at : at + min(most, self.pays)]
        return []

    def _remember(self, ids: list[int]) -> None:
        """Add some ids, and say of those before each that it follows them."""
        if len(self.ids) > 2 * KEPT:
            ids, self.ids, self.behind = self.ids[-KEPT:] + ids, [], {}
        for id_ in ids:
            end = len(self.ids)
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self.behind[tuple(self.ids[end - size :])] = end
            self.ids.append(id_)


def looks_ahead(plan: Plan) -> bool:
    """Whether slots of a plan can be read ahead: of one row, whose scores come from one reading."""
    return len(plan.which) == 1 and plan.sampling.strength == 1 and plan.quantile is None
