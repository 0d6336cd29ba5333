"""What to distrust: plain rules over the figures and the records, each with its reason.

A rule fires only where chance is ruled out (intervals that do not touch, enough rows), so that a
sound run has no flags. `flags` gives them worst first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import log
from typing import Any

import numpy as np

from omnifill.evaluate.associations import hang_together
from omnifill.evaluate.evaluation import Columns, Evaluation
from omnifill.evaluate.intervals import interval
from omnifill.evaluate.rows import column_shapes, is_number
from omnifill.types import ABSENT

ENOUGH = 100
"""Records below which most rules keep silent: anything may be chance."""
BY_HEART = 1.5
"""How much less likely unseen records are than training ones where a model has over-fitted."""
FAR = 0.1
"""Share of accuracy by which the usual model is far better."""
HEEDED = 0.7
"""Share of real pictures' recognised labels below which drawn ones are of something else."""
NO_GAIN = 0.1
"""Share of a column's log loss that the other columns save where they tell anything at all."""
NO_SPAN = 10
"""Characters that say nothing when they stand in training too: a word."""


@dataclass(frozen=True)
class Flag:
    """One reason for distrust."""

    name: str
    field: str
    """The field it is about; '' for whole records."""
    why: str


def flags(found: Evaluation) -> list[dict[str, str]]:
    """Every rule that fires, as plain data."""
    rules = [
        leaked_rows, leaked_column, over_fitted, copied, collapsed, worse_than_plain,
        worse_than_usual, disobeyed, unlearnable,
        unseen_group, failed_group, drifted, repeated_rows, constant, told_apart,
    ]  # fmt: skip
    return [asdict(flag) for rule in rules for flag in rule(found)]


# --- the split -----------------------------------------------------------------------------


def leaked_rows(e: Evaluation) -> Iterator[Flag]:
    """Held-out records that training saw, far more than training repeats itself."""
    train, unseen = _tuples(e.train), _tuples(e.held_out)
    if len(unseen) < 10:
        return
    count = Counter(train)
    # A record picked at random would be met in the rest of training this often by nature.
    natural = sum(c for c in count.values() if c > 1) / len(train)
    found = np.mean([row in count for row in unseen])
    spread = 3 * (max(natural * (1 - natural), 0.01) / len(unseen)) ** 0.5
    if found > natural + spread + 0.02:
        yield Flag("rows of the training part are in the test", "",
                   f"{found:.1%} of the held-out records stand in the training part too (within "
                   f"it, {natural:.1%} are repeated): every figure here flatters")  # fmt: skip


def repeated_rows(e: Evaluation) -> Iterator[Flag]:
    """Records given several times, where chance would not bring them together."""
    rows = _tuples(e.train)
    repeated = 1 - len(set(rows)) / max(len(rows), 1)
    bits = sum(_entropy(Counter(values)) for values in e.train.values())
    if len(rows) >= ENOUGH and repeated > 0.2 and bits > 1.5 * np.log2(len(rows)):
        yield Flag("repeated records", "", f"{repeated:.1%} of the training records repeat an "
                   "earlier one; what is repeated is learned by heart")  # fmt: skip


def drifted(e: Evaluation) -> Iterator[Flag]:
    """A column of the held-out records that is not distributed as in training."""
    train, unseen, _ = e.coded
    for name, score in column_shapes(train, unseen).items():
        num = len(unseen[name])
        kinds = 2 if is_number(train[name]) else len(np.unique(train[name]))
        noise = 2 * (kinds / num) ** 0.5 + 0.05
        if num >= ENOUGH and 1 - score > max(noise, 0.15):
            yield Flag("unlike the training part", name, f"its values in the held-out records "
                       f"overlap with training by {score:.0%} only; the model saw other "
                       f"records")  # fmt: skip


# --- columns -------------------------------------------------------------------------------


def leaked_column(e: Evaluation) -> Iterator[Flag]:
    """Two categories that say the same in other words: one gives the other away."""
    codes = {n: v for n, v in e.coded[0].items() if not is_number(v)}
    few = {n: v for n, v in codes.items() if 2 <= len(np.unique(v)) <= 50}
    for a, b in combinations(few, 2):
        if len(few[a]) >= ENOUGH and min(_told_by(few[a], few[b]), _told_by(few[b], few[a])) > 0.99:
            yield Flag("a column that gives another away", b,
                       f"{a} and {b} say the same in {_told_by(few[a], few[b]):.1%} of the records:"
                       f" predicting one from the other proves nothing")  # fmt: skip


def constant(e: Evaluation) -> Iterator[Flag]:
    """A column with one value only."""
    for name, values in e.train.items():
        if len(values) >= 2 and len(set(values)) == 1:
            yield Flag("a constant column", name, "it has one value only, so its figures are "
                       "perfect and say nothing")  # fmt: skip


def unlearnable(e: Evaluation) -> Iterator[Flag]:
    """A category about which the other columns say nothing: shuffled labels, or pure chance."""
    for name in e.names:
        loss = e.samples.get((name, "log_loss"))
        if e.schema[name].type != "category" or loss is None or len(e.names) < 2:
            continue
        counts = Counter(v for v in e.train[name] if v is not None)
        share = {value: num / counts.total() for value, num in counts.items()}
        asked = [i for i in np.flatnonzero(~np.isnan(loss)).tolist()
                 if e.held_out[name][i] in share]  # fmt: skip
        if len(asked) < ENOUGH or _entropy(counts) * log(2) < 0.3:
            continue
        plain = np.array([-log(share[e.held_out[name][i]]) for i in asked])
        gain = interval(plain - loss[asked])
        usual = e.baseline("logistic", name, "log_loss")
        others = [v for other, v in e.coded[0].items() if other != name]
        if (usual and usual["high"] < plain.mean()) or any(
            hang_together(e.coded[0][name], other) for other in others
        ):
            continue  # the columns do tell, if little; what is wrong is the model
        if gain["high"] < NO_GAIN * plain.mean():
            yield Flag("nothing tells this column", name,
                       f"log loss {loss[asked].mean():.3f}, and {plain.mean():.3f} by its "
                       "frequencies alone: are its labels shuffled, or joined to the wrong "
                       "records?")  # fmt: skip


# --- the model -----------------------------------------------------------------------------


def copied(e: Evaluation) -> Iterator[Flag]:
    """Generated records, or long spans of texts, that stand in the training part."""
    ours, real = e.ours("", "copied"), e.baseline("held_out", "", "copied")
    if ours and real and ours["low"] > real["high"] + 0.02:
        yield Flag("copied records", "", f"{ours['value']:.1%} of the generated records stand in "
                   f"the training part, {real['value']:.1%} of the held-out ones")  # fmt: skip
    for name in e.names:
        span, beside = e.ours(name, "copied_span"), e.baseline("held_out", name, "copied_span")
        if span and beside and span["low"] > max(1.5 * beside["high"], NO_SPAN):
            yield Flag("copied texts", name, f"their longest copied span has {span['value']:.0f} "
                       f"characters on average, real ones' {beside['value']:.0f}")  # fmt: skip


def over_fitted(e: Evaluation) -> Iterator[Flag]:
    """Training records far more likely to the model than unseen ones: it has them by heart."""
    measures = [("", "nats"), *((name, "bits_per_byte") for name in e.names)]
    for name, measure in measures:
        unseen, seen = e.ours(name, measure), e.baseline("training", name, measure)
        if unseen and seen and unseen["low"] > BY_HEART * seen["high"]:
            yield Flag("over-fitting", name, f"{measure.replace('_', ' ')}: {seen['value']:.3g} "
                       f"on training records, {unseen['value']:.3g} on unseen ones")  # fmt: skip


def collapsed(e: Evaluation) -> Iterator[Flag]:
    """A generated column, or text, of far less variety than the real one."""
    real, _, made = e.coded
    for name in real:
        there, ours = _shares(real[name]), _shares(made[name])
        rest = (1 - there.max()) * len(made[name])  # records that should have another value
        if rest >= 10 and ours.max() > 0.5 + 0.5 * there.max():
            yield Flag("a collapsed column", name, f"one value fills {ours.max():.0%} of what is "
                       f"generated, the commonest real one {there.max():.0%}")  # fmt: skip
    for name in e.names:
        ours_, beside = e.ours(name, "distinct_4"), e.baseline("held_out", name, "distinct_4")
        if ours_ and beside and ours_["high"] < 0.7 * beside["low"]:
            yield Flag("texts that repeat one another", name, "distinct 4-grams: "
                       f"{ours_['value']:.2f}, of real texts {beside['value']:.2f}")  # fmt: skip
        loops, real_ = e.ours(name, "loops"), e.baseline("held_out", name, "loops")
        if loops and real_ and loops["low"] > real_["high"] + 0.05:
            yield Flag("texts in loops", name, f"{loops['value']:.0%} of the texts repeat a run "
                       f"three times, of held-out texts {real_['value']:.0%}")  # fmt: skip


def worse_than_plain(e: Evaluation) -> Iterator[Flag]:
    """A figure that a plain baseline beats beyond chance."""
    for label, measure, better in (
        ("most_frequent_or_median", "accuracy", 1),
        ("most_frequent_or_median", "absolute_error", -1),
        ("ngram", "bits_per_byte", -1),
        ("noise", "frechet", -1),
        ("mean", "frechet", -1),
    ):
        for name in e.names:
            ours, base = e.ours(name, measure), e.baseline(label, name, measure)
            if ours is None or base is None:
                continue
            ends = (ours["high"], base["low"]) if better > 0 else (base["high"], ours["low"])
            if ends[0] < ends[1]:
                yield Flag("worse than a plain baseline", name, f"{measure} {ours['value']:.3g}, "
                           f"{label} {base['value']:.3g}")  # fmt: skip


def disobeyed(e: Evaluation) -> Iterator[Flag]:
    """Pictures or sounds of which the label that they were drawn for is told far less often than of
    real ones."""
    for name in e.names:
        ours, real = (e.ours(name, "label_recovered"),
                      e.baseline("held_out", name, "label_recovered"))  # fmt: skip
        if ours and real and ours["high"] < HEEDED * real["low"]:
            told, beside = f"{ours['value']:.0%}", f"{real['value']:.0%}"
            yield Flag("not what was asked for", name, f"its label is told from {told} of what is "
                       f"drawn for it, of real ones from {beside}: train longer?")  # fmt: skip


def worse_than_usual(e: Evaluation) -> Iterator[Flag]:
    """A category that logistic regression tells far better. IterativeImputer raises no such flag: a
    number that is a straight line of another, it has exactly, and a short training has not."""
    for name in e.names:
        ours, base = e.ours(name, "accuracy"), e.baseline("logistic", name, "accuracy")
        if ours and base and ours["high"] + FAR < base["low"]:
            yield Flag("far worse than the usual model", name, f"accuracy {ours['value']:.3g}, "
                       f"logistic {base['value']:.3g}: train longer?")  # fmt: skip


def told_apart(e: Evaluation) -> Iterator[Flag]:
    """Generated records that a classifier knows from real ones at a glance."""
    score = e.ours("", "two_sample")
    if score and score["n"] >= 2 * ENOUGH and score["high"] < 0.3:
        yield Flag("told from real records", "", f"two-sample score {score['value']:.2f} of 1: a "
                   "classifier knows which records are generated")  # fmt: skip


# --- groups --------------------------------------------------------------------------------


def unseen_group(e: Evaluation) -> Iterator[Flag]:
    """A value that the held-out records have and training has not, or hardly."""
    for name in e.names:
        if e.schema[name].type != "category":
            continue
        known = Counter(e.train[name])
        asked = Counter(v for v in e.held_out[name] if v is not None)
        for value, num in asked.most_common():
            shown = "values that training never saw" if value is ABSENT else repr(value)
            few = known[value] < max(1.0, 0.02 * num / len(e.held_out[name]) * len(e.train[name]))
            if num >= 5 and few:
                yield Flag("a group without data", name, f"{shown}: {num} held-out records and "
                           f"{known[value]} to learn from")  # fmt: skip


def failed_group(e: Evaluation) -> Iterator[Flag]:
    """A group whose records are far less likely to the model than all others."""
    for group in e.figures.get("groups", []):
        if group["nats"]["low"] > 1.5 * group["others"]["high"] and group["nats"]["n"] >= 20:
            yield Flag("a group it fails", group["field"],
                       f"{group['value']!r}: {group['nats']['value']:.1f} nats a record, all "
                       f"others {group['others']['value']:.1f}")  # fmt: skip


def _tuples(columns: Columns) -> list[tuple[Any, ...]]:
    return list(zip(*columns.values(), strict=True))


def _entropy(counts: Mapping[Any, int]) -> float:
    """Bits of a value drawn by these counts."""
    num = np.array(list(counts.values()), float)
    share = num / max(num.sum(), 1)
    return float(-(share * np.log2(share)).sum())


def _told_by(a: Any, b: Any) -> float:
    """Share of the records in which the commonest value of `b` beside `a`'s stands."""
    best: dict[int, int] = {}
    for (left, _), num in Counter(zip(a.tolist(), b.tolist(), strict=True)).items():
        best[left] = max(best.get(left, 0), num)
    return sum(best.values()) / max(len(a), 1)


def _shares(values: Any) -> Any:
    """Share of every different value; blanks are one."""
    if is_number(values):
        values = np.nan_to_num(values, nan=np.inf)
    return np.unique(values, return_counts=True)[1] / max(len(values), 1)


def shown(found: Sequence[Mapping[str, str]]) -> str:
    """Flags as lines to read."""
    lines = [
        f"! {flag['name']}" + (f" ({flag['field']})" if flag["field"] else "") + f": {flag['why']}"
        for flag in found
    ]
    return "\n".join(lines)
