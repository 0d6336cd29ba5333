"""One of some texts, chosen by how likely each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.chance import uniforms
from omnifill.errors import RequestError, check_kind
from omnifill.generate.given import parse_given
from omnifill.generate.likelihood import choice_log_probs


def parse_choices(run: LoadedRun, field: str, choices: Sequence[str]) -> list[str]:
    """Texts to choose among, as the field holds them; RequestError where there is no choice."""
    spec = run.schema[field]
    if spec.type != "text" or run.schema.stream:
        kind = "one stream of text" if run.schema.stream else f"a {spec.type}"
        raise RequestError(f"field {field!r} is {kind}; choices are for texts beside other fields")
    check_kind("choices", choices, (list, tuple), "a list of texts")
    for choice in choices:
        check_kind("choices", choice, str, "a list of texts")
    parsed = [parse_given(run, spec, choice) for choice in choices]
    if len(set(parsed)) < max(2, len(parsed)):
        raise RequestError(f"choices = {list(choices)}: name two or more different texts")
    return parsed


def choose(
    run: LoadedRun, field: str, choices: Sequence[str], given: Mapping[str, Any], num: int,
    seed: int, temperature: float,
) -> list[str]:  # fmt: skip
    """`num` of the texts, each drawn by how likely it is after what is given; at temperature 0 the
    likeliest."""
    columns = {**{name: [value] for name, value in given.items()}, field: [None]}
    log_prob = choice_log_probs(run, columns, field, choices)[0]
    if temperature == 0:
        return [choices[int(log_prob.argmax())]] * num
    prob = np.exp((log_prob - log_prob.max()) / temperature)
    chance = uniforms(seed, np.arange(num), np.zeros(num, np.int64))
    places = np.searchsorted(prob.cumsum() / prob.sum(), chance, "right")
    return [choices[place] for place in places.tolist()]
