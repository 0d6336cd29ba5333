"""Codecs that learn: each is trained by the same loop as the model, as a stage before it.

Such a codec has a `learner()`, which turns values into batches, tells the loss of its network on
them, and how good it is at the end. What the values are is not known here.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from omnifill.data.stage import Staged
from omnifill.errors import TrainingStopped
from omnifill.recipe import Recipe
from omnifill.settings import LearnSettings
from omnifill.train.decide import too_small
from omnifill.train.kept import put
from omnifill.train.loop import Trainer, TrainPlan, default_schedule
from omnifill.train.metrics import LiveLine, MetricsFile, clock
from omnifill.train.optim import OptimConfig
from omnifill.train.pace import measure_pace
from omnifill.types import Learner

MOST_VALID = 512
"""Values that a codec is validated on."""
AVERAGE = 0.99
"""Decay of the moving average of its weights."""


@dataclass(frozen=True)
class Stage:
    """Where one codec is trained, and how long it may take."""

    name: str
    """Of its field."""
    folder: Path
    """Of its checkpoints."""
    metrics: Path
    seconds: float | None
    """What is left of the budget for everything; None: there is none."""
    num: int = 1
    """Codecs that learn, in all."""

    @property
    def share(self) -> float:
        """Of what is left, for this one: less where others want some, too."""
        return 0.3 if self.num == 1 else 0.4 / self.num


def teach(
    codec: Any, stage: Stage, staged: Staged, recipe: Recipe, live: LiveLine,
    attach: Callable[[Trainer], None],
) -> Recipe:  # fmt: skip
    """Train a codec, or go on training it, and put its weights in; the recipe with what was done.

    `attach` is told the trainer, which may be asked to stop: Interrupted is raised then.
    """
    asked = recipe.schema_.fields.get(stage.name)
    settings = (asked.learn if asked else None) or LearnSettings()
    torch.manual_seed(recipe.train.seed)  # what a learner has beside the codec begins alike
    learner: Learner = codec.learner()
    values, held = staged.values("train", stage.name), staged.values("valid", stage.name)
    stream = value_batches(values, learner, settings.batch, recipe.train.seed)
    plan = _plan(stage, settings, recipe, learner, stream, len(values))
    trainer = Trainer(learner.network, plan, stage.folder)
    for line in trainer.resume():
        live.say(line)
    attach(trainer)
    shown = held if len(held) else values
    chosen = np.random.default_rng(0).permutation(len(shown))[:MOST_VALID]
    some = [shown[i] for i in chosen.tolist()]
    metrics = MetricsFile(stage.metrics, trainer.progress.step)
    live.begin(f"codec of {stage.name} · ")

    def evaluate(network: nn.Module) -> float:
        parts = [learner.loss(network, learner.batch(some[i : i + settings.batch]))
                 for i in range(0, len(some), settings.batch)]  # fmt: skip
        return sum(float(p.total) for p in parts) / sum(float(p.count) for p in parts)

    def listen(report: Any) -> None:
        metrics(report)
        live(report)

    started = time.monotonic()
    try:
        progress = trainer.run(stream, learner.loss, evaluate, listen)
    except TrainingStopped as error:
        what = str(error).partition(" Try ")[0]
        raise TrainingStopped(
            f"codec of {stage.name}: {what} Try a lower rate: --set "
            f"schema.fields.{stage.name}.learn.lr={settings.lr / 2:g}"
        ) from None
    live.begin()
    # Not the weights of the least error: what a critic asks for costs a little of it.
    put(learner.network, trainer.weights())
    learner.network.eval()
    figures = learner.figures(some)
    live.say(
        f"codec of {stage.name}: {progress.step} steps in {clock(time.monotonic() - started)}, "
        + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
    )
    where = f"schema.fields.{stage.name}.learn"
    schedule = [list(knot) for knot in progress.schedule]
    return recipe.with_values(**{f"{where}.steps": progress.end, f"{where}.schedule": schedule})


def _plan(
    stage: Stage, settings: LearnSettings, recipe: Recipe, learner: Learner, stream: Any, num: int
) -> TrainPlan:
    """How long, and at which rates."""
    train, deadline = recipe.train, None
    steps = settings.steps or train.steps
    draft = TrainPlan(1, [(0, 1.0), (1, 0.0)], OptimConfig(False, lr_adamw=settings.lr))
    if steps is None and train.epochs is not None:
        steps = math.ceil(train.epochs * num / settings.batch)
    if steps is None:
        assert stage.seconds is not None, "a run without steps and epochs has a budget"
        share = settings.share or stage.share
        seconds = stage.seconds * share
        deadline = time.monotonic() + seconds
        batches = ((batch, None) for batch, _ in stream({}))
        pace = measure_pace(copy.deepcopy(learner.network), draft, batches, learner.loss)
        steps = int((deadline - time.monotonic()) / (pace * 1.05))
        if steps < 10:
            why = f"the codec of {stage.name} takes {pace:.2f} s a step"
            raise too_small(train, why, 20 * pace / share - stage.seconds)
    knots = [(int(s), float(r)) for s, r in settings.schedule or []]
    return TrainPlan(
        steps=steps,
        schedule=knots or default_schedule(steps, min(100, max(1, steps // 20)), train.decay),
        optim=OptimConfig(False, lr_adamw=settings.lr, weight_decay=0.0),
        ema=AVERAGE,
        patience=0,
        eval_every=train.eval_every or max(1, steps // 10),
        save_every=train.save_every or max(50, steps // 10),
        seed=train.seed,
        decay=train.decay,
        deadline=deadline,
    )


def value_batches(values: Sequence[Any], learner: Learner, size: int, seed: int) -> Any:
    """Batches of values in an order of each epoch's own, from any position on."""
    num = max(1, len(values) // size)

    def stream(position: Mapping[str, int]) -> Iterator[tuple[Any, dict[str, int]]]:
        epoch, index = position.get("epoch", 0), position.get("index", 0)
        while True:
            order = np.random.default_rng([seed, 3, epoch]).permutation(len(values))
            for number in range(index, num):
                rows = order[number * size : (number + 1) * size].tolist()
                last = number + 1 == num
                after = {"epoch": epoch + last, "index": 0 if last else number + 1}
                yield learner.batch([values[row] for row in rows]), after
            epoch, index = epoch + 1, 0

    return stream
