"""What many ask for at once is what each would get alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import mixed_table

from omnifill import api
from omnifill.generate import requests, wishes
from omnifill.generate.decoding import Stopper, decode_field
from omnifill.generate.engine import Engine, Job, rows_of
from omnifill.generate.prefixes import Prefixes
from omnifill.generate.trace import Trace
from omnifill.generate.wishes import Request, Wish, sampling_of
from omnifill.model.network import Network

WISHES: list[dict[str, Any]] = [
    {"num": 2, "seed": 1},
    {"num": 1, "seed": 2, "given": {"kind": "tea"}, "sampling": {"temperature": 0}},
    {"num": 3, "seed": 3, "want": ["note"], "max_tokens": 9},
    {"num": 1, "seed": 4, "prompt": "warm ", "stop": ["a"]},
    {"num": 2, "seed": 5, "given": {"count": 7}, "sampling": {"guidance": 2.0, "top_k": 5}},
    {"num": 1, "seed": 6, "want": ["note"], "sampling": {"repetition_penalty": 1.5}},
]


@pytest.fixture(scope="module", params=["transformer", "rnn", "cnn"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    out = tmp_path_factory.mktemp("engine") / request.param
    small = {"backbone": request.param, "dim": 32, "layers": 2}
    return api.train(mixed_table(), out, steps=12, recipe={"model": small})


def asked(model: api.Model, wish: dict[str, Any]) -> Request:
    sampling = sampling_of(model.run, wish.get("sampling", {}))
    return wishes.build(model.run, Wish(**(wish | {"sampling": sampling})))


def through(
    model: api.Model, wanted: Sequence[Request], rows: int, gone: Sequence[int] = ()
) -> list[dict[str, list[Any]]]:
    """What an engine makes of requests that come one after another, some of which leave."""
    engine, steps, jobs = Engine(model.run, rows), {}, {}
    waiting, turn = list(enumerate(wanted)), 0
    while waiting or engine.jobs:
        if waiting and turn % 2 == 0:
            number, request = waiting[0]
            plan = requests.plan_of(model.run, request, 0, request.num)
            if engine.used + rows_of(request.sampling, request.num) <= engine.rows:
                stopper = Stopper(model.run, plan, request.stop) if request.stop else None
                jobs[engine.add(plan, stopper)] = number
                steps[number] = []
                waiting.pop(0)
        for job, step in engine.step():
            if step is not None:
                steps[jobs[job]].append(step)
        for number in gone:
            leaving = [job for job, n in jobs.items() if n == number and len(steps[n]) > 3]
            for job in leaving:
                engine.drop(job)
        turn += 1
    assert engine.used == 0 and (engine.slots is None or engine.slots.free == rows)
    return [
        {} if n in gone else requests.decoded(model.run, requests.plan_of(model.run, r, 0, r.num),
                                              r, steps[n], r.num).columns
        for n, r in enumerate(wanted)
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [4, pytest.param(32, marks=pytest.mark.slow)])
def test_batched_with_others_is_alone(trained: api.Model, rows: int) -> None:
    """Requests of other settings, lengths and fields, which begin and end at different times."""
    wanted = [asked(trained, wish) for wish in WISHES]
    for request, made in zip(wanted, through(trained, wanted, rows), strict=True):
        assert made == requests.canonical(trained.run, request)


def test_who_leaves_changes_nothing_for_others(trained: api.Model) -> None:
    wanted = [asked(trained, wish) for wish in WISHES]
    for number, made in enumerate(through(trained, wanted, 32, gone=[0, 4])):
        if number not in (0, 4):
            assert made == requests.canonical(trained.run, wanted[number])


@pytest.mark.parametrize("backbone", ["transformer", "rnn"])
def test_texts_longer_than_what_is_in_view_go_on_side_by_side(
    backbone: str, tmp_path: Path
) -> None:
    """Old slots fall out of each row at its own time; prompts are read piece by piece."""
    book = tmp_path / "book.txt"
    rng = np.random.default_rng(0)
    book.write_text(" ".join(rng.choice(["rain", "sun", "wind", "热"], 3000)), encoding="utf-8")
    small = {"backbone": backbone, "dim": 32, "layers": 2, "context": 64}
    model = api.train(book, tmp_path / "run", steps=5, recipe={"model": small})
    wanted = [
        asked(model, {"prompt": "rain " * size, "max_tokens": most, "seed": size})
        for size, most in ((1, 300), (40, 40), (500, 150), (7, 9))
    ]
    for request, made in zip(wanted, through(model, wanted, 3), strict=True):
        assert made == requests.canonical(model.run, request)


@pytest.mark.parametrize("objective", ["seq2seq", "masked"])
def test_models_that_do_not_share_take_turns(objective: str, tmp_path: Path) -> None:
    recipe = {
        "model": {"dim": 32, "layers": 2}, "objective": {"name": objective},
        "form": {"tasks": [{"given": ["kind"], "want": ["note"]}]},
    }  # fmt: skip
    model = api.train(mixed_table(), tmp_path / "run", steps=5, recipe=recipe)
    wanted = [asked(model, {"num": 2, "seed": s, "given": {"kind": "tea"}}) for s in (1, 2)]
    for request, made in zip(wanted, through(model, wanted, 8), strict=True):
        assert made == requests.canonical(model.run, request)


def test_what_is_lent_has_its_turns_and_a_result(model: api.Model) -> None:
    engine = Engine(model.run, 4)

    def counting() -> Any:
        yield from range(3)
        return "done"

    job: Job = engine.lend(counting(), 1)
    seen = []
    while engine.jobs:
        seen += [found for _, found in engine.step()]
    assert seen == [0, 1, 2, None] and job.result == "done"


def told_beside(
    model: api.Model, request: Request, others: Sequence[Request], exact: bool
) -> list[float]:
    """Log-probabilities of all that a request chooses, beside others that come before it, while it
    is under way, and leave."""
    engine = Engine(model.run, 32, exact)
    for other in others[::2]:
        engine.add(requests.plan_of(model.run, other, 0, 1))
        engine.step()
    plan = requests.plan_of(model.run, request, 0, 1)
    trace = Trace(model.run, 1, plan.leaning)
    job = engine.add(replace(plan, leaning=trace))
    late = list(others[1::2])
    while job in engine.jobs:
        engine.step()
        if late:
            engine.add(requests.plan_of(model.run, late.pop(), 0, 1))
    return [token.log_prob for token in trace.rows[0]]


@pytest.mark.parametrize(
    "backbone", ["transformer", "rnn", pytest.param("cnn", marks=pytest.mark.slow)]
)
def test_exact_is_the_same_to_the_last_bit_beside_any_others(backbone: str, tmp_path: Path) -> None:
    """With a control: without it some bits are others (so the comparison can fail)."""
    book = tmp_path / "book.txt"
    rng = np.random.default_rng(0)
    book.write_text(" ".join(rng.choice(["rain", "sun", "wind", "热"], 3000)), encoding="utf-8")
    small = {"backbone": backbone, "dim": 64, "layers": 2, "context": 64}
    model = api.train(book, tmp_path / "run", steps=10, recipe={"model": small})
    one = asked(model, {"prompt": "rain sun", "max_tokens": 90, "seed": 1})
    crowd = [asked(model, {"prompt": "wind " * (1 + i % 9), "max_tokens": 5 + 3 * i, "seed": i})
             for i in range(30)]  # fmt: skip
    alone = told_beside(model, one, [], exact=True)
    assert len(alone) > 60
    for some in (crowd[:1], crowd[:6], crowd[3:11], crowd):
        assert told_beside(model, one, some, exact=True) == alone
    plain = told_beside(model, one, [], exact=False)
    assert plain == pytest.approx(alone, abs=1e-4)
    assert any(told_beside(model, one, some, exact=False) != plain for some in (crowd[:6], crowd))


def test_who_writes_does_not_wait_for_the_prompts_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of them are read between two of its slots, the first that came first."""
    book = tmp_path / "book.txt"
    book.write_text("rain sun wind " * 300, encoding="utf-8")
    small = {"dim": 32, "layers": 1, "context": 64}
    model = api.train(book, tmp_path / "run", steps=3, recipe={"model": small})
    monkeypatch.setattr("omnifill.generate.engine.READ", 20)
    engine, read = Engine(model.run, 16), list[int]()
    network, forward = model.run.network, model.run.network.forward
    monkeypatch.setattr(
        network, "forward", lambda ids, *more: (read.append(ids.numel()), forward(ids, *more))[1]
    )

    def began(prompt: str) -> Any:
        plan = requests.plan_of(model.run, asked(model, {"prompt": prompt, "max_tokens": 50}), 0, 1)
        return engine.add(plan)

    writer = began("rain")
    while writer.state is None:
        engine.step()
    others = [began("sun wind " * 5) for _ in range(8)]
    joined = list[Any]()
    for _ in range(30):
        read.clear()
        found = [job for job, step in engine.step() if step is not None]
        assert writer in found or writer not in engine.jobs, "it writes in every step"
        assert sum(read) <= 20 + 64 + 16, (
            "a part of one prompt more than there is room for, at most"
        )
        joined += [job for job in others if job.state is not None and job not in joined]
    assert joined == others


@pytest.mark.parametrize("num", [1, 2])
def test_a_long_prompt_is_read_in_parts(
    book: api.Model, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes waits for none of it as a whole."""
    monkeypatch.setattr("omnifill.generate.engine.READ", 20)
    said = {"said": "rain sun wind " * 30}
    request = asked(book, {"given": said, "want": ["told"], "num": num, "max_tokens": 9})
    engine, sizes, steps = Engine(book.run, 4), list[int](), list[Any]()
    engine.sampler.prefixes = Prefixes(20)
    network, forward = book.run.network, book.run.network.forward
    with monkeypatch.context() as patch:
        patch.setattr(
            network, "forward", lambda ids, *m: (sizes.append(ids.shape[1]), forward(ids, *m))[1]
        )
        engine.add(requests.plan_of(book.run, request, 0, num))
        while engine.jobs:
            steps += [step for _, step in engine.step() if step is not None]
    assert max(sizes) == 20 and sizes.count(20) > 3
    whole = requests.canonical(book.run, request)["told"]
    assert decode_field(book.run, steps, "told", num) == whole


class Breaks:
    """Leans on nothing, until it cannot be followed."""

    def __init__(self, where: str, after: int) -> None:
        self.where, self.left = where, after

    def _count(self, where: str) -> None:
        if where == self.where:
            self.left -= 1
            if self.left == 0:
                raise ValueError("cannot be followed")

    def lean(self, rows: Any, fields: Any, scores: Any) -> Any:
        self._count("lean")
        return scores

    def settle(self, rows: Any, fields: Any, columns: Any) -> Any:
        self._count("settle")
        return columns

    def tell(self, rows: Any, fields: Any, ids: Any) -> None:
        self._count("tell")

    def ahead(self, row: int, field: int) -> list[int]:
        return []


@pytest.mark.parametrize("where", ["lean", "settle", "tell", "lent"])
def test_what_one_cannot_do_ends_no_other(model: api.Model, where: str) -> None:
    request = asked(model, {"num": 2, "seed": 3})
    plan = requests.plan_of(model.run, request, 0, 2)
    engine, found, steps = Engine(model.run, 8), [], []

    def failing() -> Any:
        yield None
        raise ValueError("cannot be followed")

    if where == "lent":
        bad = engine.lend(failing(), 1)
    else:
        bad = engine.add(replace(plan, leaning=Breaks(where, 3)))
    good = engine.add(plan)
    while engine.jobs:
        for job, one in engine.step():
            if job is bad and isinstance(one, Exception):
                found.append(str(one))
            elif job is good and one is not None:
                steps.append(one)
    assert found == ["cannot be followed"] and engine.used == 0
    made = requests.decoded(model.run, plan, request, steps, 2)
    assert made.columns == requests.canonical(model.run, request)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A table with a text that is given and one that is wanted, beside what stays in view."""
    rng = np.random.default_rng(0)
    words = ["rain", "sun", "wind", "热"]
    rows = [{"kind": "ab"[i % 2], "said": " ".join(rng.choice(words, 40)),
             "told": " ".join(rng.choice(words, 9))} for i in range(60)]  # fmt: skip
    fields = {name: {"type": "text"} for name in ("said", "told")}
    recipe = {"model": {"dim": 64, "layers": 2, "context": 400}, "schema": {"fields": fields}}
    out = tmp_path_factory.mktemp("prefixes") / "run"
    return api.train(pd.DataFrame(rows), out, steps=12, recipe=recipe)


def read_by(engine: Engine, wanted: Sequence[Request], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What an engine makes of requests one after another: log-probabilities, to the last bit, and
    the slots that were read for each."""
    sizes: list[int] = []
    forward = Network.forward

    def counted(self: Network, ids: Any, *args: Any) -> Any:
        sizes.append(ids.shape[1])
        return forward(self, ids, *args)

    out = []
    for request in wanted:
        plan = requests.plan_of(engine.run, request, 0, 1)
        trace = Trace(engine.run, 1, plan.leaning)
        with monkeypatch.context() as patch:
            patch.setattr(Network, "forward", counted)
            job = engine.add(replace(plan, leaning=trace))
            while job in engine.jobs:
                engine.step()
        out.append(([token.log_prob for token in trace.rows[0]], sum(sizes)))
        sizes.clear()
    return out


@pytest.mark.parametrize("exact", [False, True])
def test_a_beginning_is_read_once_and_changes_nothing(
    book: api.Model, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that begin alike, wholly or in part, and fields that do; also where room is short."""
    long, other = "rain sun wind " * 30, "rain sun sun " * 30
    given = [
        {"said": long, "kind": "a"}, {"said": long, "kind": "b"}, {"said": long, "kind": "a"},
        {"said": other, "kind": "a"}, {"said": long + "sun", "kind": "a"},
        {"said": long[:210] + other, "kind": "a"}, {"said": "sun", "kind": "a"},
    ]  # fmt: skip
    wanted = [asked(book, {"given": one, "want": ["told"], "max_tokens": 12, "seed": i})
              for i, one in enumerate(given)]  # fmt: skip
    wanted.append(asked(book, {"given": given[0], "want": ["told"], "prompt": "sun rain",
                               "max_tokens": 12}))  # fmt: skip

    def engine(**options: int) -> Engine:
        out = Engine(book.run, 4, exact)
        out.sampler.prefixes = Prefixes(**{"size": 16} | options)
        return out

    alone = [read_by(engine(), [one], monkeypatch)[0] for one in wanted]
    whole = engine()
    together = read_by(whole, wanted, monkeypatch)
    assert [told for told, _ in together] == [told for told, _ in alone]
    saved = [one - rest for (_, one), (_, rest) in zip(alone, together, strict=True)]
    assert saved[0] == saved[6] == 0 and whole.reused == sum(saved)
    assert saved[1] == 0, "what stays in view is another from the first slot on"
    assert min(saved[2], saved[4], saved[7]) > 64
    assert 0 < saved[5] < saved[4]
    chunk = next(iter(whole.sampler.prefixes.chunks.values())).bytes
    small = engine(most=3 * chunk)
    assert read_by(small, wanted, monkeypatch)[2][0] == alone[2][0]
    assert small.sampler.prefixes.bytes <= 3 * chunk
