"""Several aims at once: what a generated record is to be like, beside what is given.

`field=value` is met where the model itself thinks that value the most probable of its field, given
the rest of the record; `length<=80`, `words>=12`, `readability>60`, `contains=rain` and
`pattern=^The` are measured on the text. Each aim says how far a record meets it, from 0 to 1, and
whether it does.
"""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.data.values import to_native
from omnifill.errors import RequestError, ValueRefused
from omnifill.form.tasks import wanted_fields
from omnifill.generate.given import encoded_to_ask, parse_given
from omnifill.generate.likelihood import category_log_probs, record_nats
from omnifill.generate.sandbox import SANDBOX
from omnifill.types import Bools, Floats

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
MEASURED = re.compile(r"(length|words|readability)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)")
KINDS = ("length", "words", "readability", "contains", "pattern")
WEIGHT = re.compile(r"^(.*\S):(\d+(?:\.\d+)?)$", re.S)
Goal = str | Callable[[Mapping[str, Any]], float]
"""An aim as it is written, or a function of a record (its values as in the source; None: blank)
that gives a number from 0 to 1."""


@dataclass(frozen=True)
class Aim:
    """One aim. `of` scores canonical columns: (scores from 0 to 1, whether each is met)."""

    name: str
    weight: float
    of: Callable[[Mapping[str, Sequence[Any]]], tuple[Floats, Bools]]
    field: str
    """The field it is about."""
    value: Any = None
    """The value that a category is to have; it is given while records are drawn."""
    most: float = math.inf
    """Most characters of the text."""
    least: float = 0.0
    contains: str = ""


def parse_aims(run: LoadedRun, goals: Sequence[Goal], want: Sequence[str]) -> list[Aim]:
    """Aims from how they are written; RequestError for one that cannot be computed, or for two
    that no record can meet."""
    texts = [name for name in want if run.vocabulary[name].slots is None]
    aims = [_parse(run, goal, texts) for goal in goals]
    names = [aim.name for aim in aims]
    for aim in aims:
        if names.count(aim.name) > 1:
            raise RequestError(f"aim {aim.name}: stands there twice")
        same = [a for a in aims if a.field == aim.field]
        if len({a.value for a in same if a.value is not None}) > 1:
            raise RequestError(f"aim {aim.name}: another aim wants another value of {aim.field!r}")
        if max(a.least for a in same) > min(a.most for a in same):
            raise RequestError(f"aim {aim.name}: no text is that long and that short at once")
        if any(len(a.contains) > min(b.most for b in same) for a in same):
            raise RequestError(f"aim {aim.name}: what it is to contain is longer than it may be")
    return aims


def _parse(run: LoadedRun, goal: Goal, texts: Sequence[str]) -> Aim:
    if callable(goal):
        return _function(run, goal)
    weighted = None if _is_value(run, goal) else WEIGHT.match(goal)
    body, weight = (weighted[1], float(weighted[2])) if weighted else (goal, 1.0)
    if weight <= 0:
        raise RequestError(f"aim {goal}: a weight is above 0")
    name, equals, value = body.partition("=")
    unclear = name == "pattern" or (name == "contains" and value[-1:].isdigit())
    if weighted and unclear and not WEIGHT.match(body):
        warnings.warn(
            f"aim {goal}: {weighted[2]} is read as its weight; if it is part of what is looked "
            f"for, write {goal}:1",
            stacklevel=3,
        )
    if equals and name in run.schema.names and not MEASURED.fullmatch(body):
        return _category(run, body, weight, name, value)
    if not texts:
        raise RequestError(f"aim {goal}: is about a text, and no text is wanted")
    field, measured = texts[0], MEASURED.fullmatch(body.strip())
    if measured:
        return _measured(body, weight, field, measured[1], measured[2], float(measured[3]))
    if name == "contains" and value:
        found = _each(field, lambda text: float(value in text))
        return Aim(body, weight, found, field, contains=value)
    if name == "pattern" and value:
        return _pattern(body, weight, field, value)
    word = re.match(r"\w*", goal)
    near = get_close_matches(word[0] if word else "", KINDS, n=1, cutoff=0.6)
    meant = f" (did you mean {near[0]}?)" if near and word and near[0] != word[0] else ""
    raise RequestError(
        f"aim {goal}: is no aim{meant}; write field=value, length<=80, words>=5, readability>60, "
        f"contains=word or pattern=regex, and a weight behind it as :2 (fields: "
        f"{', '.join(run.schema.names)})"
    )


def _is_value(run: LoadedRun, goal: str) -> bool:
    """Whether all of it names a value, such as time=12:30, so that no weight stands behind it."""
    name, _, value = goal.partition("=")
    if name not in run.schema.names or run.schema[name].type != "category":
        return False
    try:
        parse_given(run, run.schema[name], value)
    except ValueRefused:
        return False
    return True


def _category(run: LoadedRun, body: str, weight: float, name: str, value: str) -> Aim:
    spec = run.schema[name]
    if spec.type != "category":
        raise RequestError(f"aim {body}: {name!r} is a {spec.type}; give it instead")
    if name not in wanted_fields(run.vocabulary, run.recipe.form):
        raise RequestError(
            f"aim {body}: no task of this run tells {name!r}, so that the model cannot judge it; "
            f"give it: {name}={value}"
        )
    wanted = parse_given(run, spec, value)
    code = int(run.vocabulary[name].codec.encode(wanted)[0])

    def found(columns: Mapping[str, Sequence[Any]]) -> tuple[Floats, Bools]:
        num = len(next(iter(columns.values())))
        rest = {n: list(v) for n, v in columns.items() if n != name}
        shard = encoded_to_ask(run, {**rest, name: [None] * num})
        log_probs = category_log_probs(run, shard, name)
        return np.exp(log_probs[:, code]), log_probs.argmax(axis=1) == code

    return Aim(body, weight, found, name, value=wanted)


def _measured(body: str, weight: float, field: str, what: str, sign: str, bound: float) -> Aim:
    measure = {"length": len, "words": lambda t: len(t.split()), "readability": reading_ease}[what]

    def near(text: str) -> float:
        value = float(measure(text))
        if OPERATORS[sign](value, bound):
            return 1.0
        return 0.99 / (1 + abs(value - bound) / max(abs(bound), 1.0))

    most, least = math.inf, 0.0
    if what == "length" and sign in ("<=", "<"):
        most = bound - (sign == "<")
    elif what == "length":
        least = bound + (sign == ">")
    return Aim(body, weight, _each(field, near), field, most=most, least=least)


def _pattern(body: str, weight: float, field: str, pattern: str) -> Aim:
    """Some patterns take longer than anybody waits, so that texts are looked through elsewhere."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(f"aim {body}: is no regular expression ({error})") from None

    def found(columns: Mapping[str, Sequence[Any]]) -> tuple[Floats, Bools]:
        texts = [text for text in columns[field] if text is not None]
        out = SANDBOX.ask(pattern=pattern, texts=texts)
        if "error" in out:
            raise RequestError(f"aim {body}: cannot be looked for ({out['error']}); write it so "
                               f"that it repeats nothing that is repeated")  # fmt: skip
        met = iter(out["found"])
        scores = np.array([0.0 if text is None else float(next(met)) for text in columns[field]])
        return scores, scores >= 1.0

    return Aim(body, weight, found, field)


def _each(
    field: str, score: Callable[[str], float]
) -> Callable[[Mapping[str, Sequence[Any]]], tuple[Floats, Bools]]:
    """A measure of every text; a blank one meets nothing."""

    def found(columns: Mapping[str, Sequence[Any]]) -> tuple[Floats, Bools]:
        scores = np.array([0.0 if t is None else score(t) for t in columns[field]])
        return scores, scores >= 1.0

    return found


def _function(run: LoadedRun, goal: Callable[[Mapping[str, Any]], float]) -> Aim:
    name = getattr(goal, "__name__", "function")

    def found(columns: Mapping[str, Sequence[Any]]) -> tuple[Floats, Bools]:
        native = {n: [to_native(run.schema[n], v) for v in values] for n, values in columns.items()}
        rows = [dict(zip(native, row, strict=True)) for row in zip(*native.values(), strict=True)]
        scores = np.array([float(goal(row)) for row in rows])
        if not ((scores >= 0) & (scores <= 1)).all():
            raise RequestError(f"aim {name}: gave {scores.min():g} to {scores.max():g}; a score "
                               f"is from 0 to 1")  # fmt: skip
        return scores, scores >= 1.0

    return Aim(name, 1.0, found, "")


def reading_ease(text: str) -> float:
    """Flesch's reading ease of English (1948): about 100 is very easy, 30 difficult."""
    words = re.findall(r"[^\W\d_]+", text)
    if not words:
        return 0.0
    sentences = max(1, len(re.findall(r"[.!?]+(?=\s|$)", text)))
    sounds = sum(max(1, len(re.findall(r"[aeiouy]+", word.lower()))) for word in words)
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sounds / len(words)


# --- choosing ------------------------------------------------------------------------------


def scored(aims: Sequence[Aim], columns: Mapping[str, Sequence[Any]]) -> tuple[Floats, Bools]:
    """(n, aims) scores of records, and whether each aim is met."""
    num = len(next(iter(columns.values())))
    scores, met = np.zeros((num, len(aims))), np.zeros((num, len(aims)), bool)
    for i, aim in enumerate(aims):
        scores[:, i], met[:, i] = aim.of(columns)
    return scores, met


def fluency(run: LoadedRun, columns: Mapping[str, Sequence[Any]], met: Bools) -> Floats:
    """(n,): log-likelihood of a character of the records' texts, to the model itself; nought where
    no record meets all aims, since it is not asked for then."""
    texts = [n for n in columns if run.vocabulary[n].slots is None]
    if not texts or not met.all(axis=1).any():
        return np.zeros(len(next(iter(columns.values()))))
    nats = record_nats(run, columns)
    size = sum(np.array([len(text or "") for text in columns[name]]) for name in texts)
    told = nats[:, [run.schema.index(name) for name in texts]].sum(axis=1)
    return np.asarray(-told / np.maximum(size, 1))


def best_of(
    aims: Sequence[Aim], scores: Floats, met: Bools, fluent: Floats, group: int
) -> list[int]:
    """Of every `group` records in a row, the one that meets most by weight; among those that meet
    all, the most fluent, and among others the one that comes nearest to the rest."""
    weight = np.array([aim.weight for aim in aims])
    most, near = met @ weight, np.where(met.all(axis=1), fluent, scores @ weight)
    order = np.lexsort((-near, -most))
    first = np.full(len(most) // group, -1)
    for row in order[::-1].tolist():  # the best of each group is written last
        first[row // group] = row
    return [int(row) for row in first]


def unbeaten(scores: Floats) -> list[int]:
    """Rows that no other row beats: as good on all aims and better on one (a Pareto front)."""
    out: list[int] = []
    for i, row in enumerate(scores):
        beaten = ((scores >= row).all(axis=1) & (scores > row).any(axis=1)).any()
        twin = any((scores[j] == row).all() for j in out)
        if not beaten and not twin:
            out.append(i)
    return out
