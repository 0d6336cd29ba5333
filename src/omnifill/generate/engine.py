"""Plans of many people, slot by slot side by side: continuous batching.

Each plan keeps a state of its own; what they share is the reading of the network and its head,
which cost little more for several rows than for one. Chance is drawn by (seed, row, slot), and so
what a plan brings does not hang on who else is there. Networks with an encoder, and masked ones,
take turns instead, and so does whatever else is done step by step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifill.artifact import LoadedRun
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.filters import Sampling, drawn
from omnifill.generate.plan import Plan, Step, Stopper
from omnifill.generate.prefixes import SIZE, Prefixes
from omnifill.generate.samplers import build_sampler
from omnifill.generate.state import State, chances, kinds
from omnifill.generate.turns import READ
from omnifill.model.slots import Slots, padded
from omnifill.types import Ints


@dataclass(eq=False)
class Job:
    """Something under way."""

    turns: Generator[Any, None, Any]
    """What it does by itself: all of it, or the reading of what is given before it shares."""
    rows: int
    """How many rows of the engine it has."""
    result: Any = None
    """What came of the turns of a job that never shares."""


@dataclass(eq=False)
class Shared(Job):
    """A plan whose slots are chosen beside those of others."""

    plan: Plan = None  # type: ignore[assignment]
    stopper: Stopper | None = None
    state: State | None = None
    """None while it reads what is given."""
    hidden: Sequence[Tensor] = ()
    """(n, D) of each branch: what predicts the next slot of the rows at work."""

    @property
    def portion(self) -> int:
        """Slots that it reads in a turn, while it reads."""
        most = SIZE if len(self.plan.which) == 1 else READ * self.rows
        return min(most, (1 + int(self.plan.shard.sizes[self.plan.which].max())) * self.rows)

    @property
    def now(self) -> State:
        """Where its rows stand."""
        assert self.state is not None, "it has not read yet"
        return self.state


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a job whose next slots are in one block, as they are drawn."""

    job: Shared
    at: Ints
    """(m,): rows of its state."""
    scores: Tensor
    """(m, C)."""
    chance: Tensor
    """(m,)."""
    sampling: Sampling

    @property
    def kind(self) -> tuple[Any, ...]:
        """Parts of one kind can be drawn together."""
        s = self.sampling
        return self.scores.shape[1], s.temperature, s.top_k, s.top_p, s.min_p


class Engine:
    """Writes what many ask for at once. Not for several threads."""

    def __init__(self, run: LoadedRun, rows: int = 8, exact: bool = False) -> None:
        """At most `rows` rows at once: those of plans, and with guidance twice as many. `exact`: a
        plan of one row has the same bits alone and beside any others (see `model.slots`)."""
        self.run, self.sampler = run, build_sampler(run)
        shares = isinstance(self.sampler, Autoregressive) and run.network.encoder is None
        self.slots = Slots(run.network, rows, exact) if shares else None
        if shares:
            self.sampler.prefixes = Prefixes()
        self.rows, self.exact = rows, exact
        self.jobs: list[Job] = []

    @property
    def reused(self) -> int:
        """Slots of prompts that were not read again, since others began alike."""
        prefixes = getattr(self.sampler, "prefixes", None)
        return 0 if prefixes is None else prefixes.reused

    @property
    def most_bytes(self) -> int:
        """What it holds of texts under way and of beginnings of prompts, when it is full. Of those
        that share no cache nothing is known before they are asked."""
        prefixes = getattr(self.sampler, "prefixes", None)
        kept = 0 if prefixes is None else int(prefixes.most)
        return kept if self.slots is None else kept + self.slots.most_bytes

    @property
    def used(self) -> int:
        """Rows of all jobs."""
        return sum(job.rows for job in self.jobs)

    def add(self, plan: Plan, stopper: Stopper | None = None) -> Job:
        """Begin a plan; its steps come from `step`."""
        num = rows_of(plan.sampling, len(plan.which))
        if self.slots is None or plan.quantile is not None:
            more = () if stopper is None else (stopper,)
            return self.lend(self.sampler(plan, *more), num)
        job = Shared(self.sampler.beginning(plan, READ), num, None, plan, stopper)
        self.jobs.append(job)
        return job

    def lend(self, turns: Generator[Any, None, Any], rows: int) -> Job:
        """Begin anything else: it has one turn in each step, and what it yields comes from there;
        what it returns is the job's `result`."""
        job = Job(turns, rows)
        self.jobs.append(job)
        return job

    def drop(self, job: Job) -> None:
        """Nobody waits for it any more."""
        if job in self.jobs:
            self.jobs.remove(job)
            job.turns.close()
            if self.slots is not None:
                self.slots.leave([i for i, o in enumerate(self.slots.owners) if o[0] is job])

    @torch.no_grad()
    def step(self) -> list[tuple[Job, Any]]:
        """One step of every job -> jobs and their `Step`s; (job, None) where one is complete, and
        (job, error) where it cannot go on, which ends it and no other.

        A job that only reads brings nothing. Those that came first read first, about `READ` slots
        in all, so that nobody who writes waits for the prompts of many.
        """
        out: list[tuple[Job, Any]] = []
        left = READ
        for job in [j for j in self.jobs if not isinstance(j, Shared) or j.state is None]:
            if isinstance(job, Shared):
                if left <= 0:
                    continue
                left -= job.portion
            out += self._turn(job)
        sharing = [j for j in self.jobs if isinstance(j, Shared) and j.state is not None]
        if not sharing:
            return out
        steps, failed = self._chosen(sharing)
        for job, error in failed.items():
            self.drop(job)
            out.append((job, error))
        self._read([job for job in sharing if job not in failed])
        for job, step in steps.items():
            out.append((job, step))
            if not job.rows:
                self.jobs.remove(job)
                out.append((job, None))
        return out

    def _turn(self, job: Job) -> list[tuple[Job, Any]]:
        """A turn of a job by itself."""
        try:
            found = next(job.turns)
        except StopIteration as done:
            if isinstance(job, Shared):
                self._join(job, *done.value)
                return []
            job.result = done.value
            self.jobs.remove(job)
            return [(job, None)]
        except Exception as error:  # whoever asks for the impossible is told so, alone
            self.drop(job)
            return [(job, error)]
        return [] if found is None else [(job, found)]

    def _join(self, job: Shared, state: State, readings: Sequence[Any]) -> None:
        """A plan has read what is given: from now on it shares."""
        assert self.slots is not None, "there is something to share"
        job.state, job.hidden = state, [hidden for hidden, _ in readings]
        for branch, (_, cache) in enumerate(readings):
            self.slots.take(cache, [(job, branch, row) for row in state.row.tolist()])

    def _chosen(self, jobs: Sequence[Shared]) -> tuple[dict[Shared, Step], dict[Shared, Exception]]:
        """Choose the next slot of all rows of all jobs; and what kept jobs from it."""
        alike: dict[Any, list[Part]] = {}
        failed: dict[Shared, Exception] = {}
        for part in self._parts(jobs, failed):
            alike.setdefault(part.kind, []).append(part)
        column = {job: np.zeros(len(job.now.row), np.int64) for job in jobs}
        for group in alike.values():
            scores = torch.cat([part.scores for part in group])
            chance = torch.cat([part.chance for part in group])
            chosen = drawn(scores, chance, group[0].sampling)
            first = 0
            for part in group:
                column[part.job][part.at] = chosen[first : first + len(part.at)]
                first += len(part.at)
        steps = {}
        for job in jobs:
            if job not in failed:
                try:
                    steps[job] = self.sampler.settle(job.plan, job.now, column[job], job.stopper)
                except Exception as error:
                    failed[job] = error
        return steps, failed

    def _parts(self, jobs: Sequence[Shared], failed: dict[Shared, Exception]) -> Iterator[Part]:
        """The scores of all next slots, with what each plan says of them; jobs whose plan cannot be
        followed any more go to `failed`."""
        sampler: Autoregressive = self.sampler
        hidden = torch.cat([h for job in jobs for h in job.hidden])
        own = [sampler.rows(job.now) for job in jobs]
        allow = np.concatenate([r for r, job in zip(own, jobs, strict=True) for _ in job.hidden])
        blocks = sampler.row_block[allow]
        for block in kinds(blocks):
            at = np.flatnonzero(blocks == block)
            some, rows = hidden[torch.from_numpy(at)], torch.from_numpy(allow[at])
            if self.exact:
                some = padded(some, self.rows)
                rows = torch.cat([rows, rows[:1].expand(self.rows - len(rows))])
            scores = sampler.columns.scores(sampler.network, some, int(block), rows)
            first = 0
            for job in jobs:
                size = len(job.now.row)
                cuts = np.searchsorted(at, first + size * np.arange(len(job.hidden) + 1))
                mine = at[cuts[0] : cuts[1]] - first
                first += size * len(job.hidden)
                if len(mine):
                    branches = [scores[a:b] for a, b in pairwise(cuts)]
                    try:
                        part = self._part(job, mine, branches)
                    except Exception as error:
                        failed[job] = error
                    else:
                        yield part

    def _part(self, job: Shared, at: Ints, branches: Sequence[Tensor]) -> Part:
        plan, state = job.plan, job.now
        scores = self.sampler.ruled(plan, state, at, *branches)
        scores, sampling = self.sampler.weighed(plan, state, at, scores)
        return Part(job, at, scores, chances(plan, state, at, sampling), sampling)

    def _read(self, jobs: Sequence[Shared]) -> None:
        """Rows that are through leave; the others read what was chosen."""
        assert self.slots is not None, "there is something to share"
        going = {job: np.flatnonzero(job.now.field >= 0) for job in jobs}
        stay = {job: set(job.now.row[at].tolist()) for job, at in going.items()}
        self.slots.leave([
            i for i, (job, _, row) in enumerate(self.slots.owners) if row not in stay[job]
        ])  # fmt: skip
        for job, at in going.items():
            if len(at) < len(job.now.row):
                job.now.keep(at)
            job.rows = len(at) * len(job.hidden)
        jobs = [job for job in jobs if job.rows]
        if not jobs:
            return
        keys = [(job, branch, row) for job in jobs
                for branch in range(len(job.hidden)) for row in job.now.row.tolist()]  # fmt: skip
        place = {key: i for i, key in enumerate(keys)}
        order = torch.tensor([place[owner] for owner in self.slots.owners])
        asked = [self.sampler.asked(job.now) for job in jobs for _ in job.hidden]
        ids, field = (torch.cat([part[i] for part in asked])[order] for i in (0, 1))
        coords = [coord for *_, coord in asked if coord is not None]
        read = self.slots.read(ids, field, torch.cat(coords)[order] if coords else None)
        hidden = torch.empty_like(read)
        hidden[order] = read
        sizes = [len(job.now.row) for job in jobs for _ in job.hidden]
        pieces = iter(torch.split(hidden, sizes))
        for job in jobs:
            job.hidden = [next(pieces) for _ in job.hidden]


def rows_of(sampling: Sampling, num: int) -> int:
    """Rows of the engine that `num` records take."""
    return num * (1 if sampling.strength == 1 else 2)
