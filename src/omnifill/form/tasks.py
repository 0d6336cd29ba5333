"""Named tasks: which fields are given, and which are generated from them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from omnifill.errors import RecipeError, unknown_name
from omnifill.form.vocabulary import Vocabulary
from omnifill.settings import FormSettings, Task
from omnifill.types import Bools, Ints


def check_tasks(vocabulary: Vocabulary, form: FormSettings) -> None:
    """RecipeError for a task that names no field of the schema, and for settings of the form that
    have no effect with tasks, or without."""
    if form.tasks and form.mix is not None:
        raise RecipeError("form.mix: is about records without named tasks, and form.tasks names "
                          "some; leave one of them out")  # fmt: skip
    if not form.tasks and form.drop_given != FormSettings().drop_given:
        raise RecipeError("form.drop_given: is about what named tasks give (form.tasks, --given), "
                          "and there are none; leave it out")  # fmt: skip
    if form.mix is not None and form.mix.partly and len(vocabulary.fields) < 3:
        raise RecipeError("form.mix.partly: is about some of several other fields, and there are "
                          "no three; leave it out")  # fmt: skip
    if form.noise and not any(f.noisy for f in vocabulary.fields):
        raise RecipeError("form.noise: is about pictures and sounds of causal models whose codec "
                          "learns, and there are none; leave it out")  # fmt: skip
    names = vocabulary.schema.names
    for task in form.tasks:
        against = [] if task.against is None else [task.against]
        for name in [*task.given, *task.want, *against]:
            if name not in names:
                raise RecipeError("form.tasks: " + unknown_name("field", name, names))
        for name in [*against, *task.want] if against else []:
            if vocabulary[name].slots is not None:
                raise RecipeError(
                    f"form.tasks: a text is preferred to a text, and {name!r} is "
                    f"none; say --field {name}:text if it is meant as one"
                )


def task_order(vocabulary: Vocabulary, task: Task) -> tuple[Ints, Bools]:
    """(F,) fields, given ones first, then -1; (F,) which of them are wanted."""
    given, want = vocabulary.in_order(task.given), vocabulary.in_order(task.want)
    fields = np.full(len(vocabulary.fields), -1, np.int64)
    wanted = np.zeros(len(fields), bool)
    names = [*given, *want]
    fields[: len(names)] = [vocabulary[name].index for name in names]
    wanted[len(given) : len(names)] = True
    return fields, wanted


def learned_order(vocabulary: Vocabulary, task: Task) -> tuple[Ints, Bools]:
    """The same in training: behind what is wanted comes what it is preferred to, if anything."""
    fields, wanted = task_order(vocabulary, task)
    if task.against is not None:
        at = len(task.given) + len(task.want)
        fields[at], wanted[at] = vocabulary[task.against].index, True
    return fields, wanted


def wanted_fields(vocabulary: Vocabulary, form: FormSettings) -> list[str]:
    """Fields that were learned: those that a task wants, or all, in the schema's order."""
    names = vocabulary.schema.names
    return [n for n in names if not form.tasks or any(n in task.want for task in form.tasks)]


def wanted_from(vocabulary: Vocabulary, form: FormSettings, given: Collection[str]) -> list[str]:
    """What is generated if nobody says what: all that is not given, of the tasks that need no more
    than this, or else of all tasks."""
    fitting = [task for task in form.tasks if set(task.given) <= set(given)]
    named = {name for task in fitting or form.tasks for name in task.want}
    return [n for n in vocabulary.schema.names if n not in given and (not named or n in named)]


def best_task(form: FormSettings, name: str, known: Collection[str]) -> Task | None:
    """Of the tasks that want a field, the one that gives most of what is known; None, if none gives
    any of it, or there are no tasks."""
    tasks = [t for t in form.tasks if name in t.want]
    task = max(tasks, key=lambda t: len(set(t.given) & set(known)), default=None)
    if task is not None and task.given and not set(task.given) & set(known):
        return None
    return task


def unread(vocabulary: Vocabulary, form: FormSettings, name: str, known: Collection[str]) -> Bools:
    """(F,): fields that its task does not lay before `name`, and that so say nothing of it.

    Its task is the `best_task` for what is known of a record. If there is none, all that is known
    is read: a pair that was never learned together may be answered by way of others.
    """
    task = best_task(form, name, known)
    if task is None:
        return np.zeros(len(vocabulary.fields), bool)
    want = vocabulary.in_order(task.want)
    read = {*task.given, *want[: want.index(name) + 1]}
    return np.array([field not in read for field in vocabulary.schema.names])


def silent_in(vocabulary: Vocabulary, form: FormSettings, name: str, missing: Bools) -> Bools:
    """missing (n, F): what is not known of each record -> (n, F): what says nothing of `name`, as
    `unread` has it."""
    out = missing.copy()
    if not form.tasks:
        return out
    patterns, which = np.unique(missing, axis=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        names = zip(vocabulary.schema.names, pattern.tolist(), strict=True)
        known = [n for n, gone in names if not gone and n != name]
        out[which.ravel() == i] |= unread(vocabulary, form, name, known)
    return out


def tell_untrained(form: FormSettings, given: Iterable[str], want: Iterable[str]) -> None:
    """Warn of fields whose task this run never saw."""
    if not form.tasks:
        return
    known: Mapping[str, set[str]] = {
        "given": {name for task in form.tasks for name in task.given},
        "wanted": {name for task in form.tasks for name in task.want},
    }
    for how, names in (("given", given), ("wanted", want)):
        for name in names:
            if name not in known[how]:
                warnings.warn(
                    f"field {name!r} is {how} by none of the tasks that this run learned "
                    f"({_listed(form)}): what comes of it is chance",
                    stacklevel=3,
                )


def _listed(form: FormSettings) -> str:
    shown = [f"{', '.join(t.given) or 'nothing'} → {', '.join(t.want)}" for t in form.tasks]
    return "; ".join(shown)
