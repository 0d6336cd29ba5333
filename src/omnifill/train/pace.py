"""How long a step takes here: measured on the real batches, before anything is decided."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import nn

from omnifill.train.loop import Loss, Trainer, TrainPlan

WARM, TIMED = 2, 5


def measure_pace(
    model: nn.Module, plan: TrainPlan, batches: Iterator[tuple[Any, Any]], loss: Loss
) -> float:
    """Seconds of one training step: the median of a few. The model is used up."""
    trainer = Trainer(model, plan, None)
    model.train()
    times: list[float] = []
    for number, (batch, _) in enumerate(islice(batches, WARM + TIMED)):
        before = time.monotonic()
        trainer.step(batch, loss)
        if number >= WARM or not times:
            times.append(time.monotonic() - before)
    return sorted(times)[len(times) // 2]
