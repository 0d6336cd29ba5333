"""The training loop. It is handed a model, a stream of batches and a loss, and knows none of them.

Everything that chance or time decides is a function of the step and the seed, or is written into
the checkpoint before it is used; so a resumed run gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from omnifill.errors import Interrupted, RunError, TrainingStopped
from omnifill.model.products import by_onednn
from omnifill.train.checkpoint import Checkpoint, load_newest, save_checkpoint
from omnifill.train.kept import apart, average_in, copies, digest_of_frozen, learned, put
from omnifill.train.optim import OptimConfig, Optimizer, clip_gradient


class LossSum(Protocol):
    """A loss as a sum and the weight it is summed over."""

    @property
    def total(self) -> Tensor: ...
    @property
    def count(self) -> Tensor: ...


class Splittable(Protocol):
    """A batch, to be cut in parts that add up to the same loss."""

    def split(self, micro_tokens: int | None) -> Sequence[Any]: ...


Loss = Callable[[nn.Module, Any], LossSum]
Stream = Callable[[dict[str, int]], Iterator[tuple[Splittable, dict[str, int]]]]
Knots = list[tuple[int, float]]


@dataclass(frozen=True)
class TrainPlan:
    """What is fixed before step one."""

    steps: int
    schedule: Knots
    """(step, share of the peak rate), linear between; the last one is (steps, 0)."""
    optim: OptimConfig
    clip: float = 1.0
    ema: float = 0.0
    settle: float = 0.0
    """Share of the peak rate below which there is no dropout."""
    bf16: bool = False
    compile: bool = False
    micro_tokens: int | None = None
    eval_every: int = 100
    save_every: int = 500
    patience: int = 4
    """Validations that are clearly worse after which the run ends; 0: it never does, and the last
    weights are kept."""
    margin: float = 0.005
    """A validation loss within this share of the best one is noise, not over-fitting."""
    seed: int = 0
    decay: float = 0.6
    """Share of the steps over which the rate falls, where a deadline moves the end."""
    deadline: float | None = None
    """time.monotonic() at which the last step must be done; the schedule is moved for it."""


@dataclass
class Progress:
    """Where a run stands: plain data, written into every checkpoint."""

    step: int = 0
    position: dict[str, int] = field(default_factory=dict)
    schedule: Knots = field(default_factory=list)
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    """Validations clearly worse than the best one, since then."""
    over_fitted: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    cut: int | None = None
    """The step that over-fitting ended the run at, before the schedule did."""

    @property
    def end(self) -> int:
        return self.schedule[-1][0] if self.cut is None else self.cut


@dataclass(frozen=True)
class Report:
    """One line of `metrics.jsonl`: what a listener is told after a step."""

    step: int
    steps: int
    loss: float
    """Mean nats per weighted target since the last report."""
    valid: float | None
    rate: float
    tokens_per_second: float
    seconds: float
    grad_norm: float


class Working:
    """The weights that the forward pass sees: the fp32 ones, or a bf16 copy refreshed each step.

    The optimiser always works on the fp32 weights.
    """

    def __init__(self, model: nn.Module, plan: TrainPlan) -> None:
        self.model = model
        self.copy = copy.deepcopy(model).bfloat16() if plan.bf16 else model
        self.pairs = list(zip(self.copy.parameters(), model.parameters(), strict=True))
        self.bf16 = plan.bf16
        if plan.compile and can_compile():
            self.copy.compile()

    @torch.no_grad()
    def refresh(self) -> None:
        if self.bf16:
            torch._foreach_copy_([c for c, _ in self.pairs], [m for _, m in self.pairs])

    @torch.no_grad()
    def take_gradient(self) -> None:
        """Hand the copy's gradients to the fp32 weights."""
        if self.bf16:
            for working, master in self.pairs:
                master.grad = None if working.grad is None else working.grad.float()
                working.grad = None


def can_compile() -> bool:
    """Whether torch.compile works here; if not, says so: training goes on without it."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception as error:  # whatever a machine without a compiler comes up with
        reason = str(error).strip().splitlines()[0]
        said = f"torch.compile does not work here ({reason}): going on without"
        warnings.warn(said, stacklevel=2)
        return False
    return True


class Trainer:
    """One run: its model, optimiser, averages and progress."""

    def __init__(self, model: nn.Module, plan: TrainPlan, folder: Path | None) -> None:
        self.model, self.plan, self.folder = model, plan, folder
        self.optimizer = Optimizer(model, plan.optim)
        self.working = Working(model, plan)
        self.progress = Progress(schedule=list(plan.schedule))
        self.average = copies(model) if plan.ema else None
        self.best: dict[str, Tensor] = {}
        self.frozen: str | None = None
        self.clock_step, self.clock_time = 0, time.monotonic()
        """Since when the pace is measured; validations are taken out of the time."""
        self.pace: float | None = None
        """Seconds of a step."""
        self.validating = 0.0
        """Seconds of a validation."""
        self.stop_asked = False

    # --- state -----------------------------------------------------------------------------

    def resume(self) -> list[str]:
        """Go back to the newest sound checkpoint, if any; returns what was passed over."""
        if self.folder is None:
            return []
        found, damaged = load_newest(self.folder)
        if found is not None:
            self._load(found)
        return damaged

    def _load(self, found: Checkpoint) -> None:
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in found.tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor
        state = dict(found.state)
        if state.pop("frozen", "") != self._frozen():
            raise RunError(
                f"{self.folder}: the weights that this run builds on are others now than when it "
                f"began; put those back, or begin anew in another folder"
            )
        put(self.model, groups["model"])
        self.optimizer.load(groups["optim"])
        if self.average is not None:
            self.average = groups["average"]
        self.best = groups.get("best", {})
        state["best"] = math.inf if state["best"] is None else state["best"]
        state["schedule"] = [(int(s), float(r)) for s, r in state["schedule"]]
        self.progress = Progress(**state)

    def save(self) -> None:
        """Write a checkpoint of this very step."""
        if self.folder is None:
            return
        tensors = {f"model/{n}": t for n, t in apart(self.model).items()}
        tensors |= {f"optim/{n}": t for n, t in self.optimizer.state().items()}
        tensors |= {f"average/{n}": t for n, t in (self.average or {}).items()}
        tensors |= {f"best/{n}": t for n, t in self.best.items()}
        state = asdict(self.progress)
        state["best"] = None if math.isinf(self.progress.best) else self.progress.best
        if frozen := self._frozen():
            state["frozen"] = frozen
        save_checkpoint(self.folder, self.progress.step, tensors, state)

    def weights(self) -> dict[str, Tensor]:
        """What is learned, as it is to be kept now: the moving average, or the model's own."""
        return self.average if self.average is not None else learned(self.model)

    def finish(self) -> None:
        """Put into the model what is kept of the run: the best weights, or else the last."""
        put(self.model, self.best or self.weights())

    def _frozen(self) -> str:
        """SHA-256 of all that does not learn, which checkpoints leave out; '' if all learns."""
        if self.frozen is None:
            self.frozen = digest_of_frozen(self.model)
        return self.frozen

    # --- steps -----------------------------------------------------------------------------

    @by_onednn()
    def step(self, batch: Splittable, loss: Loss) -> tuple[float, float, float]:
        """One optimiser step -> (loss sum, weight sum, gradient norm)."""
        plan, progress = self.plan, self.progress
        # Dropout draws from the global generator: seeded by the step, it needs no state.
        torch.manual_seed((plan.seed * 1_000_003 + progress.step) % 2**63)
        self.working.refresh()
        micros = batch.split(plan.micro_tokens)
        total, count = 0.0, 0.0
        for micro in micros:
            part = loss(self.working.copy, micro)
            part.total.backward()  # type: ignore[no-untyped-call]
            total, count = total + float(part.total.detach()), count + float(part.count)
        self.working.take_gradient()
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(grads, 1 / max(count, 1e-12))
        norm = clip_gradient(self.model.parameters(), plan.clip)
        if not math.isfinite(total) or not math.isfinite(norm):
            what = "loss" if not math.isfinite(total) else "gradient"
            raise TrainingStopped(
                f"the {what} is not finite at step {progress.step} (no update was made); the last "
                f"checkpoint stands. Try a lower rate: --set train.lr={plan.optim.lr_muon / 2:g} "
                f"--set train.lr_adamw={plan.optim.lr_adamw / 2:g}, or --set train.precision=fp32"
            )
        self.optimizer.step(rate_between(progress.schedule, progress.step))
        for parameter in self.model.parameters():
            parameter.grad = None
        if self.average is not None:
            average_in(self.average, self.model, plan.ema, progress.step)
        progress.step += 1
        return total, count, norm

    def run(
        self, stream: Stream, loss: Loss, evaluate: Callable[[nn.Module], float],
        listen: Callable[[Report], None],
    ) -> Progress:  # fmt: skip
        """Train to the end of the schedule. `evaluate(model)` gives the validation loss."""
        progress, started = self.progress, time.monotonic()
        sums, tokens, since = [0.0, 0.0], 0, started
        batches = stream(progress.position)
        self.clock_step, self.clock_time = progress.step, started
        while progress.step < progress.end:
            batch, position = next(batches)
            # Dropout changes what is predicted on average; the end is learned as it will be used.
            noisy = rate_between(progress.schedule, progress.step) >= self.plan.settle
            self.model.train(noisy)
            self.working.copy.train(noisy)
            total, count, norm = self.step(batch, loss)
            progress.position = position
            sums = [sums[0] + total, sums[1] + count]
            tokens += int(count)
            self._mind_the_clock()
            at_eval = progress.step % self.plan.eval_every == 0 or progress.step >= progress.end
            valid = self._validate(evaluate) if at_eval else None
            if at_eval or progress.step % 10 == 0:
                now = time.monotonic()
                since += self.validating * (valid is not None)  # it is no training
                mean = sums[0] / max(sums[1], 1e-12)
                rate = rate_between(progress.schedule, progress.step)
                speed = tokens / max(now - since, 1e-9)
                if valid is not None:
                    entry = {"step": progress.step, "loss": mean, "valid": valid}
                    progress.history.append(entry)
                    sums = [0.0, 0.0]
                report = Report(
                    progress.step, progress.end, mean, valid, rate, speed, now - started, norm
                )
                listen(report)
                tokens, since = 0, time.monotonic()
            if progress.step % self.plan.save_every == 0 or self.stop_asked:
                self.save()
            if self.stop_asked:
                raise Interrupted(
                    f"stopped at step {progress.step} of {progress.end} and saved; "
                    f"go on with --resume"
                )
        self.save()
        return progress

    @by_onednn()
    def _validate(self, evaluate: Callable[[nn.Module], float]) -> float:
        """Validation loss of the weights that would be kept; remembers the best."""
        progress, started = self.progress, time.monotonic()
        own = copies(self.model) if self.average is not None else None
        if self.average is not None:
            put(self.model, self.average)
        self.model.eval()
        with torch.no_grad():
            valid = evaluate(self.model)
        if own is not None:
            put(self.model, own)
        # At the end the rate is zero: what looks a hair worse there is noise, but settled.
        last, patience = progress.step >= progress.end, self.plan.patience
        limit = progress.best * (1 + self.plan.margin)
        no_worse = valid <= limit or (not patience and not math.isnan(valid))
        if valid < progress.best or (last and no_worse):
            progress.best, progress.best_step, progress.stale = valid, progress.step, 0
            self.best = {n: t.clone() for n, t in self.weights().items()}
        elif patience and valid > limit:
            progress.stale += 1
            if progress.stale >= patience:
                self._over_fitted()
        self.validating = time.monotonic() - started
        self.clock_time += self.validating
        return valid

    def _over_fitted(self) -> None:
        """Validation has stopped improving: once, go back to the best weights and decay from
        there; after that, end."""
        progress = self.progress
        if progress.over_fitted:
            progress.cut = progress.step
            return
        progress.over_fitted, progress.stale = True, 0
        put(self.model, self.best)
        if self.average is not None:
            self.average = {n: t.clone() for n, t in self.best.items()}
        last = progress.step + max(10, progress.best_step // 2)
        if last < progress.end:  # else it is decaying already, as in a run that repeats another
            progress.schedule = bend(progress.schedule, progress.step, last)

    def _mind_the_clock(self) -> None:
        """With a deadline: move the end of the schedule to where it will be.

        The rate must have fallen to zero by then, and the settled weights must be validated, so
        the last validation is kept free. The knots say what was done, so that the run can be
        repeated without a clock.
        """
        progress, deadline, every = self.progress, self.plan.deadline, self.plan.eval_every
        if deadline is None or progress.step >= progress.end:
            return
        now = time.monotonic()
        left = deadline - self.validating - now
        if left <= 0:
            progress.schedule = bend(progress.schedule, progress.step, progress.step)
            return
        steps = progress.step - self.clock_step
        if steps < max(1, every // 8):
            return
        pace = (now - self.clock_time) / steps
        self.pace = pace if self.pace is None else self.pace + 0.25 * (pace - self.pace)
        self.clock_step, self.clock_time = progress.step, now
        end = progress.step + max(1, int(left / (self.pace + self.validating / every)))
        if progress.over_fitted:  # the rest of the time would do harm
            end = min(end, progress.end)
        change, ahead = abs(end - progress.end), progress.end - progress.step
        if change > 0.02 * progress.end or change > 0.1 * ahead:
            progress.schedule = move_end(progress.schedule, progress.step, end, self.plan.decay)


def rate_between(schedule: Knots, step: int) -> float:
    """The schedule at a step, linear between its knots."""
    for (a, low), (b, high) in pairwise(schedule):
        if a <= step < b:
            return low + (high - low) * (step - a) / (b - a)
    return schedule[-1][1]


def bend(schedule: Knots, step: int, end: int, rate: float | None = None) -> Knots:
    """The schedule up to `step`, and from there straight to zero at `end`."""
    now = rate_between(schedule, step) if rate is None else rate
    return [*_before(schedule, step), (step, now), (end, 0.0)]


def move_end(schedule: Knots, step: int, end: int, decay: float) -> Knots:
    """The schedule up to `step`; from there flat until the last `decay` share before `end`.

    Where the decay is under way, or would be, it goes straight to zero.
    """
    now = rate_between(schedule, step)
    start = max(step, round(end * (1 - decay)))
    knots = [*_before(schedule, step), (step, now)]
    warming = [(s, r) for s, r in schedule if s > step and r > now and s < start]
    if now >= 1 or warming:
        knots += [*warming, (start, 1.0 if warming else now)] if start > step else []
    return [*knots, (end, 0.0)]


def _before(schedule: Knots, step: int) -> Knots:
    return [(s, r) for s, r in schedule if s < step]


def default_schedule(steps: int, warmup: int, decay: float) -> Knots:
    """Up over `warmup` steps, flat, and down to zero over the last `decay` share."""
    warmup = min(warmup, steps // 2)
    start = min(steps - 1, max(warmup, round(steps * (1 - decay))))
    knots = [(0, 1.0 / (warmup + 1)), (warmup, 1.0), (start, 1.0), (steps, 0.0)]
    return [k for i, k in enumerate(knots) if i == 0 or k[0] > knots[i - 1][0]]
