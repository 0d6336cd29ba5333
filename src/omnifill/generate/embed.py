"""Records as vectors: the mean of what a network makes of their slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.errors import RequestError
from omnifill.form.batch import Batch
from omnifill.form.layout import Former
from omnifill.form.vocabulary import PAD
from omnifill.generate.given import encoded
from omnifill.generate.likelihood import batches, present_order
from omnifill.generate.turns import pause
from omnifill.model.mask import Mask


@torch.no_grad()
def embedded(run: LoadedRun, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float32]:
    """(N, D) float32 of N records; a network with an encoder reads them there. RequestError for a
    record that is longer than what is in view at once, or holds nothing."""
    num, config = len(next(iter(columns.values()))), run.network.config
    # A record is read behind a slot that opens it: learned positions must have one for each.
    most = config.context if config.most_slots is None else config.most_slots - 1
    former, out = Former(run.vocabulary), np.zeros((num, config.dim), np.float32)
    for first, shard in _shards(run, columns, num):
        wrong = np.flatnonzero((shard.sizes == 0) | (shard.sizes > most))
        if len(wrong):
            raise RequestError(f"row {first + wrong[0]}: has {shard.sizes[wrong[0]]} tokens, and a "
                               f"vector is made of 1 to {most}")  # fmt: skip
        for at in batches(shard.sizes):
            pause()
            orders = present_order(run, columns, len(at))
            batch = former.records(shard, at, orders, weighted=False)
            out[first + at] = _read(run, batch).numpy()
    return out


def _shards(
    run: LoadedRun, columns: Mapping[str, Sequence[Any]], num: int
) -> Iterator[tuple[int, Shard]]:
    """All records together; in a run over one text each by itself."""
    if not run.schema.stream:
        yield 0, encoded(run, columns)
        return
    for row in range(num):
        yield row, encoded(run, {name: [values[row]] for name, values in columns.items()})


def _read(run: LoadedRun, batch: Batch) -> Tensor:
    """(B, D): mean over all slots of a record; of what stands in front of it alone, none."""
    network, inside = run.network, batch.target != PAD
    if network.encoder is not None:
        opened = batch.opened()
        lengths = inside.sum(dim=1) + 1
        memory = network.encode(opened.target, opened.field, opened.coord, Mask("full", lengths))
        states = memory.states[:, 1:]
    elif run.vocabulary.canvas:
        mask = Mask("full", inside.sum(dim=1))
        states = network.states(batch.target, batch.field, batch.coord, mask)
    else:
        opened = batch.opened()
        states = network.states(opened.target, opened.field, opened.coord, Mask())[:, 1:]
    weight = inside[..., None].float()
    return (states * weight).sum(dim=1) / weight.sum(dim=1)
