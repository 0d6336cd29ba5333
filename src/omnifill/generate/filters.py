"""From scores to one choice: pure functions over (n, C) scores, and a sampler without state.

Barred columns are -inf on the way in and stay so. Chance comes in as numbers in [0, 1), made from
(seed, row, slot) alone, so that a row draws the same alone and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from omnifill.errors import RequestError, check_kind
from omnifill.types import Ints

TEXT_MIN_P = 0.125
"""In texts one slip spoils what follows, so the tail of each step is cut (Nguyen et al. 2024,
arXiv 2407.01082). `min_p=0` draws from the whole distribution."""
MEDIA_MIN_P = {"image": 0.02, "audio": 0.1}
"""The same of pictures and sounds: more of them are what was asked for, and pictures differ less
from each other (docs/log.md)."""
MEDIA_GUIDANCE = 2.0
"""A picture has many slots, and in each of them what was asked for says less than its neighbours:
without guidance one in three is of something else (docs/log.md)."""
ORDERS = ("random", "confidence")
"""Which slots of a masked model come next."""
MOST_BEAMS = 64
"""A beam's rows are read at once."""


FINITE = torch.finfo(torch.float32)


@dataclass(frozen=True)
class Sampling:
    """How the next slot is chosen."""

    temperature: float = 1.0
    """0: always the most likely one."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    """Bars what is less likely than this share of the likeliest; left open: `TEXT_MIN_P` for texts,
    `MEDIA_MIN_P` for pictures and sounds, nothing for other fields, whose rare values are data."""
    repetition_penalty: float = 1.0
    """Above 1: scores of ids that the text already holds are lowered (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Taken from the scores of ids that were written already; below 0: added to them."""
    frequency_penalty: float = 0.0
    """The same once for each time that they were."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the scores of tokens of a text, by their codes (of an imported checkpoint: the ids
    of its tokenizer)."""
    no_repeat_ngram: int = 0
    """No run of that many text tokens occurs twice in a value; 0: no limit."""
    guidance: float | None = None
    """How strongly the given fields count; 1: as they do, above: more (see `guided`). Left open:
    `MEDIA_GUIDANCE` where nothing but pictures and sounds is wanted, else 1."""
    beams: int = 1
    """Above 1: search for the likeliest records instead of drawing (see `generate.beam`)."""
    length_penalty: float = 0.6
    """How far beam search makes up for length; 0: not at all, and short texts win."""
    steps: int | None = None
    """Of masked models: passes over a record, from 1 (everything at once) up; left open: as many as
    it has slots to choose."""
    order: str | None = None
    """Of masked models: which slots come next, those drawn at `random`, also where it is left
    open, or the surest ones (`confidence`)."""
    remask: float = 0.0
    """Of masked models: share of what was chosen that is taken back in every step but the last."""

    @property
    def strength(self) -> float:
        """That of guidance."""
        return 1.0 if self.guidance is None else self.guidance

    @property
    def heat(self) -> float:
        """The temperature, as far as numbers of 32 bits can be divided by it."""
        return min(max(self.temperature, FINITE.tiny), FINITE.max) if self.temperature else 0.0

    def __post_init__(self) -> None:
        numbers, wholes = (int, float), ("top_k", "no_repeat_ngram", "beams", "steps")
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in ("order", "logit_bias"):
                continue
            if value is not None or option.default is not None:
                kinds = int if option.name in wholes else numbers
                allowed = "a whole number" if option.name in wholes else "a number"
                check_kind(option.name, value, kinds, allowed)
        checks = [
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            ("logit_bias", _is_bias(self.logit_bias), "numbers from -100 to 100 by token"),
            ("no_repeat_ngram", self.no_repeat_ngram >= 0, "0 or more"),
            ("guidance", 0 <= self.strength < math.inf, "0 or more"),
            ("beams", 1 <= self.beams <= MOST_BEAMS, f"from 1 to {MOST_BEAMS}"),
            ("length_penalty", 0 <= self.length_penalty < math.inf, "0 or more"),
            ("steps", self.steps is None or self.steps >= 1, "1 or more"),
            ("order", self.order is None or self.order in ORDERS, " or ".join(ORDERS)),
            ("remask", 0 <= self.remask < 1, "at least 0, below 1"),
        ]
        for name, good, allowed in checks:
            if not good:
                raise RequestError(f"{name} = {getattr(self, name)}: must be {allowed}")
        drawn = ("temperature", "top_k", "top_p", "min_p")
        usual = {option.name: option.default for option in fields(self)}
        if self.beams > 1:
            for name in drawn:
                if getattr(self, name) != usual[name]:
                    raise RequestError(f"{name}: is for draws, and beams search; leave one out")
        elif self.length_penalty != usual["length_penalty"]:
            raise RequestError("length_penalty: is for beam search; say how many beams, too")


def _is_bias(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(
        isinstance(token, int) and not isinstance(token, bool)
        and isinstance(bias, int | float) and -100 <= bias <= 100
        for token, bias in value.items()
    ))  # fmt: skip


COLD = 1e-3
"""Temperatures below are so low that hardly anything but the likeliest is drawn."""


def guided(given: Tensor, plain: Tensor, strength: float) -> Tensor:
    """Scores (n, C) that lean towards what the given fields ask for: `plain` are those of the same
    slots without them (classifier-free guidance: Ho and Salimans 2022, arXiv 2207.12598).

    At strength 1 the given scores' own distribution, at 0 the plain one.
    """
    with_, without = given.log_softmax(dim=1), plain.log_softmax(dim=1)
    return torch.where(with_.isinf(), with_, without + strength * (with_ - without))


def filtered(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores (n, C) with temperature applied and unlikely columns barred."""
    if sampling.temperature == 0:
        return scores
    if sampling.temperature < COLD:  # or else the scores would be infinite
        scores = scores - scores.amax(dim=1, keepdim=True)
    scores = scores / sampling.heat
    if sampling.top_k is not None and sampling.top_k < scores.shape[1]:
        least = scores.topk(sampling.top_k, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if sampling.min_p:
        least = scores.amax(dim=1, keepdim=True) + math.log(sampling.min_p)
        scores = scores.masked_fill(scores < least, float("-inf"))
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, at = scores.softmax(dim=1).sort(dim=1, descending=True, stable=True)
        # A column stays while the mass before it is below top_p; so the first always stays.
        out = (ordered.cumsum(dim=1) - ordered) >= sampling.top_p
        out[:, 0] = False  # also where top_p is nothing in 32 bits
        scores = scores.masked_fill(out.scatter(1, at, out), float("-inf"))
    return scores


def remembers(sampling: Sampling) -> bool:
    """Whether what comes next depends on what was written."""
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.no_repeat_ngram)
    return sampling.repetition_penalty != 1 or any(penalties)


def penalised(
    scores: Tensor, seen: Sequence[Sequence[int]], sampling: Sampling, begun: Ints
) -> Tensor:
    """Repetition controls; `seen` are the columns that each row's text holds so far, in order, and
    the first `begun` of them were given, not written."""
    if not remembers(sampling):
        return scores
    scores = scores.clone()
    for row, columns in enumerate(seen):
        if not columns:
            continue
        if sampling.repetition_penalty != 1:
            at = torch.tensor(sorted(set(columns)))
            old = scores[row, at]
            factor = sampling.repetition_penalty
            scores[row, at] = torch.where(old > 0, old / factor, old * factor)
        if sampling.presence_penalty or sampling.frequency_penalty:
            times = torch.bincount(torch.tensor(columns[int(begun[row]) :], dtype=torch.long))
            less = sampling.presence_penalty * (times > 0) + sampling.frequency_penalty * times
            scores[row, : len(times)] -= less
        barred = _would_repeat(columns, sampling.no_repeat_ngram)
        # If every way on would repeat, repeating is better than an invalid value.
        left = torch.isfinite(scores[row])
        left[barred] = False
        if barred and bool(left.any()):
            scores[row, barred] = float("-inf")
    return scores


def _would_repeat(columns: Sequence[int], size: int) -> list[int]:
    """What would complete a run of `size` that is already there."""
    if size == 0 or len(columns) < size - 1:
        return []
    tail = tuple(columns[len(columns) - size + 1 :])
    starts = range(len(columns) - size + 1)
    return sorted(
        {columns[i + size - 1] for i in starts if tuple(columns[i : i + size - 1]) == tail}
    )


def choose(scores: Tensor, chance: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
    """(n, C) scores and (n,) numbers in [0, 1) -> (n,) columns, and what is left of each number.

    The choice inverts the distribution function over the columns in their order; what is left
    is again uniform, so that a value of several ordered slots can be read off at a quantile.
    """
    if greedy:
        return scores.argmax(dim=1), chance
    prob = scores.double().softmax(dim=1)
    cdf = prob.cumsum(dim=1)
    point = chance.double()[:, None] * cdf[:, -1:]
    # The first column whose mass reaches beyond the point; columns of no mass are never first.
    column = torch.searchsorted(cdf, point, right=True).clamp(max=prob.shape[1] - 1)
    mass = prob.gather(1, column)
    left = (point - (cdf.gather(1, column) - mass)) / mass.clamp(min=1e-300)
    return column[:, 0], left[:, 0].clamp(0, 1 - 1e-9)


def drawn(scores: Tensor, chance: Tensor, sampling: Sampling) -> Ints:
    """(n, C) scores -> (n,) columns."""
    columns = choose(filtered(scores, sampling), chance, sampling.temperature == 0)[0]
    out: Ints = columns.numpy()
    return out
