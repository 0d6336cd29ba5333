"""Masked models: a bound that is one, any slots from any others, and always valid values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import mixed_table
from tests.test_skeleton import StopAt, weights

from omnifill import api
from omnifill.codecs.support import of_length
from omnifill.errors import Interrupted, RecipeError, RequestError
from omnifill.evaluate import measures
from omnifill.evaluate import run as evaluation
from omnifill.evaluate.run import render
from omnifill.form.encode import encode_records
from omnifill.form.layout import Former, schema_order
from omnifill.form.vocabulary import END, MISSING, SIZES
from omnifill.generate import wishes
from omnifill.generate.lattice import OPEN, Lattice
from omnifill.generate.tables import frame_columns
from omnifill.objectives.causal import target_nats
from omnifill.objectives.corruption import Schedule
from omnifill.objectives.masked import MaskedObjective
from omnifill.types import Grammar

MASKED: dict[str, Any] = {"objective": {"name": "masked"}, "model": {"size": "nano"}}
schedules = pytest.mark.parametrize("name", ["linear", "cosine"])


@pytest.fixture(scope="module")
def masked(table_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    out = tmp_path_factory.mktemp("runs") / "masked"
    return api.train(table_csv, out, steps=40, recipe=MASKED)


# --- the schedule --------------------------------------------------------------------------


@schedules
def test_every_slot_counts_once_on_average_under_any_schedule(name: str) -> None:
    torch.manual_seed(0)
    rows = 40_000
    wanted = torch.tensor([[True, False, True, True, False, True, True]]).expand(rows, -1)
    hidden, weight = Schedule(name).corrupt(wanted, torch.rand(rows), torch.rand(rows, 7))
    assert not hidden[~wanted].any() and hidden.any(dim=1).all()
    assert weight.std() > 0.1, "the bound weighs"
    for some in (weight, Schedule(name).even(wanted)):
        each = (hidden * some).mean(dim=0)
        torch.testing.assert_close(each[wanted[0]], torch.ones(5), rtol=0.05, atol=0)
    alone = torch.tensor([[True, False], [False, False], [True, True]])
    linear = {"linear": 4 / 3, "cosine": 6 / 5}[name]
    expected = torch.tensor([[1.0], [1.0], [linear]])
    torch.testing.assert_close(Schedule(name).even(alone), expected)


def test_what_is_learned_counts_alike_and_what_is_known_is_a_bound(
    small: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, run = batch_of(small, small.generate(60, seed=1)), small.run
    torch.manual_seed(0)
    with torch.no_grad():
        known = float(run.objective.loss(run.network, batch).total)
        again = float(run.objective.loss(run.network, batch).total)
    learned = [float(run.objective.loss(run.network, batch).total.detach()) for _ in range(80)]
    assert known == again and np.std(learned) > 0
    assert 0.5 < np.mean(learned) / known < 1.5
    real = Schedule.corrupt

    def heavier(self: Schedule, *told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, weight = real(self, *told)
        return hidden, 1000 * weight

    monkeypatch.setattr(Schedule, "corrupt", heavier)
    torch.manual_seed(0)
    assert float(run.objective.loss(run.network, batch).total.detach()) < 10 * known
    with torch.no_grad():
        assert float(run.objective.loss(run.network, batch).total) > 500 * known


@schedules
@given(num=st.integers(1, 70), steps=st.integers(1, 80))
def test_all_slots_are_known_after_the_last_step_and_none_is_forgotten(
    name: str, num: int, steps: int
) -> None:
    known = [Schedule(name).known(step, steps, num) for step in range(steps + 1)]
    assert known[0] == 0 and known[-1] == num and known == sorted(known)


# --- the bound -----------------------------------------------------------------------------


def batch_of(model: api.Model, table: pd.DataFrame) -> Any:
    run = model.run
    shard, _ = encode_records(run.vocabulary, frame_columns(run, table))
    orders = schema_order(len(shard), run.vocabulary)
    return Former(run.vocabulary).records(shard, np.arange(len(shard)), orders, weighted=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Three categories that depend on each other."""
    rng = np.random.default_rng(0)
    a = rng.choice(list("xyz"), 600, p=[0.5, 0.3, 0.2])
    b = np.where(a == "x", "p", rng.choice(list("pqr"), 600))
    c = np.where(b == "q", "u", rng.choice(list("uv"), 600))
    out = tmp_path_factory.mktemp("runs") / "small"
    # The number keeps records that are alike from falling into one part together.
    table = pd.DataFrame({"a": a, "b": b, "c": c, "n": rng.integers(0, 10**3, 600)})
    return api.train(table, out, steps=200, recipe={**MASKED, "form": {"mix": {
        "schema_order": 0, "random_order": 1, "one_last": 0}}})  # fmt: skip


@torch.no_grad()
def in_all_orders(model: api.Model, batch: Any) -> float:
    """Nats of one record, slot after slot, on average over all orders: what the bound is of."""
    run, num = model.run, batch.target.shape[1]
    total = 0.0
    for k in range(1, num + 1):
        subsets = list(itertools.combinations(range(num), k))
        hidden = torch.zeros(len(subsets), num, dtype=torch.bool)
        for i, subset in enumerate(subsets):
            hidden[i, list(subset)] = True
        many = batch.rows(torch.zeros(len(subsets), dtype=torch.long))
        states = run.objective.read(run.network, replace(many, weight=hidden.float()))
        nats = target_nats(run.objective.columns, run.network, states, many, hidden, 1.0)
        total += float(nats.sum()) / len(subsets) / k
    return total


@schedules
@torch.no_grad()
def test_the_score_is_the_mean_over_all_orders(small: api.Model, name: str) -> None:
    objective = MaskedObjective(small.run.vocabulary, name)
    torch.manual_seed(1)
    for row in ({"a": "x", "b": "p", "c": "v", "n": 3}, {"a": "z", "b": "q", "c": "u", "n": 900}):
        batch = batch_of(small, pd.DataFrame([row]))
        exact, rows = in_all_orders(small, batch), 20_000
        many = batch.rows(torch.zeros(rows, dtype=torch.long))
        (view,) = objective._views(many, torch.zeros_like(many.weight > 0))
        chance = torch.rand(rows), torch.rand(many.target.shape)
        drawn = objective._told(small.run.network, view, *chance, 1.0).sum(dim=1)
        assert float(drawn.mean()) == pytest.approx(exact, abs=5 * float(drawn.std()) / rows**0.5)
        scored = -float(small.score(pd.DataFrame([row]))["row"][0])
        assert scored == pytest.approx(exact, rel=0.25)


def test_what_is_hidden_is_not_seen(masked: api.Model) -> None:
    run = masked.run
    batch = batch_of(masked, mixed_table().tail(8))
    states = run.objective.read(run.network, batch)
    other = batch.with_target(torch.where(batch.weight > 0, batch.target.roll(1, 0), batch.target))
    inside = (batch.target > 0) & (other.target > 0)
    same = run.objective.read(run.network, other)
    rows = (inside == (batch.target > 0)).all(dim=1) & (inside == (other.target > 0)).all(dim=1)
    assert rows.any()
    torch.testing.assert_close(states[rows], same[rows])


def test_a_row_scores_the_same_alone_and_among_longer_ones(masked: api.Model) -> None:
    table = mixed_table(9, seed=5)
    table["note"] = [("warm kalt " * n).strip() for n in range(1, 10)]
    whole = masked.score(table)
    for row in range(len(table)):
        alone = masked.score(table.iloc[[row]])
        np.testing.assert_allclose(alone.to_numpy(), whole.iloc[[row]].to_numpy(), rtol=1e-4)


def test_scores_are_the_same_every_time(masked: api.Model) -> None:
    table = mixed_table(5, seed=6)
    pd.testing.assert_frame_equal(masked.score(table), masked.score(table))


# --- canvases ------------------------------------------------------------------------------


def test_a_text_comes_back_from_its_canvas_whatever_its_size(masked: api.Model) -> None:
    vocabulary = masked.run.vocabulary
    texts = ["", "a", "warm 热 🍵", "kalt " * 30, None]
    column = vocabulary.encode_column("note", texts)
    starts = np.cumsum(column.lens) - column.lens
    for text, start, size in zip(texts, starts, column.lens, strict=True):
        ids = column.ids[start : start + size]
        if text is None:
            assert ids.tolist() == [MISSING]
            continue
        assert SIZES[ids[0] - vocabulary.first_size] == size - 1 and ids[-1] == END
        assert vocabulary.decode("note", ids[1:][ids[1:] != END]) == text


@settings(max_examples=60)
@given(data=st.data())
def test_slots_chosen_in_any_order_under_a_lattice_make_a_valid_value(
    masked: api.Model, data: st.DataObject
) -> None:
    run = masked.run
    name = data.draw(st.sampled_from(["note", "size", "day", "kind"]))
    field = run.vocabulary[name]
    lattice = Lattice(field, run.schema[name].optional, endless=False)
    num = field.slots or data.draw(st.integers(1, 7))
    columns = np.full((1, num), OPEN)
    for slot in data.draw(st.permutations(range(num))):
        fit, whole = lattice.fits(columns)
        assert whole.all()
        allowed = np.flatnonzero(fit[0, slot][lattice.kind])
        # Rare kinds of column are where mistakes hide.
        kinds = np.unique(lattice.kind[allowed])
        kind = data.draw(st.sampled_from(kinds.tolist()))
        fitting = allowed[lattice.kind[allowed] == kind]
        columns[0, slot] = fitting[data.draw(st.integers(0, len(fitting) - 1))]
    ids = run.vocabulary.blocks[field.block].ids[columns[0]]
    run.vocabulary.decode(name, ids[: int((ids != END).sum())])
    assert (ids[int((ids != END).sum()) :] == END).all()


# --- generation ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"steps": 1}, {"steps": 4}, {"steps": 3, "order": "confidence"},
    {"steps": 6, "remask": 0.3}, {"steps": 2, "temperature": 2.0, "min_p": 0.0},
    {"guidance": 1.5, "steps": 4}, {"temperature": 0.0},
])  # fmt: skip
def test_whatever_comes_out_is_valid(masked: api.Model, options: dict[str, Any]) -> None:
    given = {"kind": "tea"} if "guidance" in options else None
    made = masked.generate(12, given=given, max_tokens=9, **options)
    kinds = {"tea", "咖啡", "ماء", None}
    assert set(made["kind"]) <= kinds and len(made) == 12
    pd.to_datetime(made["day"])
    for note in made["note"].dropna():
        note.encode("utf-8")
    assert made["count"].dtype.kind == "i"


@pytest.mark.parametrize("options", [{}, {"steps": 3, "order": "confidence", "remask": 0.2}])
def test_a_row_is_drawn_the_same_alone_and_in_a_batch(
    masked: api.Model, options: dict[str, Any]
) -> None:
    many = masked.generate(7, seed=3, max_tokens=12, **options)
    again = masked.generate(7, seed=3, max_tokens=12, **options)
    pd.testing.assert_frame_equal(many, again)
    few = masked.generate(2, seed=3, max_tokens=12, **options)
    assert few.astype(str).to_numpy().tolist() == many.head(2).astype(str).to_numpy().tolist()
    assert not masked.generate(7, seed=4, max_tokens=12, **options).equals(many)


def test_draws_one_slot_at_a_time_follow_the_data(small: api.Model) -> None:
    made = small.generate(3000)
    shares = made["a"].value_counts(normalize=True)
    assert shares["x"] == pytest.approx(0.5, abs=0.08) and shares["z"] == pytest.approx(
        0.2, abs=0.08
    )
    assert (made.loc[made["a"] == "x", "b"] == "p").mean() > 0.9
    # At once the fields do not see each other.
    blind = small.generate(3000, steps=1)
    assert (blind.loc[blind["a"] == "x", "b"] == "p").mean() < 0.85


def test_a_text_keeps_its_given_beginning_and_end(masked: api.Model) -> None:
    made = masked.generate(6, prompt="warm 热", suffix="🍵 kalt", max_tokens=8, steps=5)
    for note in made["note"]:
        assert note.startswith("warm 热") and note.endswith("🍵 kalt")
    ended = masked.generate(4, given={"kind": "tea"}, suffix="kalt", max_tokens=8)["note"]
    assert all(note.endswith("kalt") for note in ended)


def test_blanks_are_filled_and_nothing_else_is_touched(masked: api.Model) -> None:
    table = mixed_table(30, seed=9)
    filled = masked.fill(table)
    known = table.notna()
    assert filled.notna().all().all()
    assert (
        (filled.astype(str).where(known) == table.astype(str).where(known)).to_numpy()[known].all()
    )
    drawn = masked.fill(table, draw=True, steps=2)
    assert drawn.notna().all().all()


def test_probabilities_are_asked_directly_and_sum_to_one(small: api.Model) -> None:
    prob = small.probabilities(pd.DataFrame({"a": ["x", "y"]}), "b")
    np.testing.assert_allclose(prob.sum(axis=1), 1)
    assert prob["p"][0] > 0.9


def test_a_stream_of_text_goes_on_past_what_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "verse.txt"
    path.write_text("the tide comes in 潮が満ちる and the tide goes out; " * 200, encoding="utf-8")
    model = api.train(path, tmp_path / "run", steps=30,
                      recipe={**MASKED, "model": {"size": "nano", "context": 24}})  # fmt: skip
    text = model.generate(2, prompt="the tide", max_tokens=60, steps=4)["text"]
    assert all(t.startswith("the tide") for t in text) and len(set(text)) == 2
    found = model.evaluate()["fields"]["text"]["bits_per_byte"]
    assert 0 < found["value"] < 8


def test_likelihoods_of_a_masked_model_are_called_bounds(masked: api.Model) -> None:
    found = masked.evaluate()
    assert "upper bounds" in found["bound"] and "upper bounds" in render(found)


@pytest.mark.parametrize("backbone", ["rnn", "cnn"])
def test_other_backbones_see_both_ways(table_csv: Path, tmp_path: Path, backbone: str) -> None:
    recipe = {**MASKED, "model": {"size": "nano", "backbone": backbone}}
    model = api.train(table_csv, tmp_path / "run", steps=12, recipe=recipe)
    made = model.generate(5, seed=3, max_tokens=8, steps=3)
    assert made.equals(model.generate(5, seed=3, max_tokens=8, steps=3))
    assert model.fill(mixed_table(9, seed=9)).notna().all().all()
    table = mixed_table().tail(6)
    alone = [model.score(table.iloc[[row]])["row"].iloc[0] for row in range(6)]
    np.testing.assert_allclose(alone, model.score(table)["row"], rtol=1e-4)


# --- training ------------------------------------------------------------------------------


def test_a_resumed_run_is_the_uninterrupted_one(table_csv: Path, tmp_path: Path) -> None:
    recipe = {**MASKED, "train": {"save_every": 4, "eval_every": 5}}
    api.train(table_csv, tmp_path / "whole", steps=16, recipe=recipe)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        api.train(table_csv, tmp_path / "cut", steps=16, recipe=recipe, live=StopAt(9))
    api.train(table_csv, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"beams": 3}, {"repetition_penalty": 1.2}, {"no_repeat_ngram": 3},
])  # fmt: skip
def test_options_of_models_that_write_forwards_are_refused(
    masked: api.Model, options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=r"in any order.*causal"):
        masked.generate(1, **options)


@pytest.mark.parametrize("options", [{"steps": 3}, {"order": "confidence"}, {"remask": 0.1}])
def test_options_of_masked_models_are_refused_by_others(
    model: api.Model, options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=r"left to right.*masked"):
        model.generate(1, **options)
    with pytest.raises(RequestError, match=r"suffix.*masked"):
        model.generate(1, suffix="kalt")


def test_a_masked_model_does_not_stream(masked: api.Model) -> None:
    with pytest.raises(RequestError, match="whole"):
        next(iter(masked.stream(given={"kind": "tea"})))


def test_bad_values_are_named(masked: api.Model) -> None:
    for options in ({"steps": 0}, {"order": "best"}, {"remask": 1.0}):
        with pytest.raises(RequestError, match=next(iter(options))):
            masked.generate(1, **options)


@pytest.mark.parametrize("recipe", [
    {"objective": {"schedule": "cosine"}},
    {"objective": {"name": "masked"}, "model": {"backbone": "tests.kit:MeanBackbone"}},
])  # fmt: skip
def test_combinations_without_sense_are_refused_with_the_reason(
    table_csv: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match=r"schedule|full"):
        api.train(table_csv, tmp_path / "run", steps=2, recipe=recipe)


def test_a_text_is_filled_the_same_alone_and_whatever_the_seed(tmp_path: Path) -> None:
    """Its length, too: the likeliest one, and not one that is drawn."""
    rng = np.random.default_rng(0)
    notes = [" ".join(rng.choice(["sun", "rain"], n)) for n in rng.choice([1, 4, 12, 30], 200)]
    rows = pd.DataFrame({"note": notes, "n": rng.integers(0, 1000, 200)})
    recipe = {**MASKED, "schema": {"fields": {"note": {"type": "text"}}}}
    run = api.train(rows, tmp_path / "run", steps=20, recipe=recipe)
    blank = rows.head(8).assign(note=None)
    whole = run.fill(blank)["note"].tolist()
    assert run.fill(blank.iloc[[4]])["note"].tolist() == [whole[4]]
    for seed in (1, 2):
        assert run.fill(blank, seed=seed)["note"].tolist() == whole


def test_a_long_text_is_cut_to_what_a_canvas_shows(tmp_path: Path) -> None:
    """With room for what is asked for beside it; it is said."""
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta"]
    texts = [" ".join(rng.choice(words, 300)) for _ in range(60)]
    table = pd.DataFrame({"n": rng.integers(0, 1000, 60), "text": texts})
    recipe = {**MASKED, "model": {"size": "nano", "context": 128},
              "schema": {"fields": {"text": {"type": "text"}}}}  # fmt: skip
    run = api.train(table, tmp_path / "run", steps=3, recipe=recipe)
    with pytest.warns(UserWarning, match="cut to fit"):
        filled = run.fill(table.head(3).assign(n=None))
    assert filled["n"].notna().all()
    with pytest.warns(UserWarning, match="cut to fit"):
        run.evaluate(table.head(20))


def test_a_text_that_is_cut_leaves_room_for_one_beside_it(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["tea for two"] * 30, "b": ["two for tea"] * 30})
    fields = {"a": {"type": "text"}, "b": {"type": "text"}}
    recipe = {**MASKED, "schema": {"fields": fields},
              "model": {"size": "nano", "context": 64}}  # fmt: skip
    run = api.train(table, tmp_path / "run", steps=2, recipe=recipe)
    rows = pd.DataFrame({"a": ["tea for two and " * 40, "tea"], "b": [None, None]})
    with pytest.warns(UserWarning, match="cut to fit"):
        filled = run.fill(rows)
    assert filled["b"].notna().all()


# --- what fits beside what is chosen -------------------------------------------------------


class Plain:
    """A field's grammar, and how many slots it has."""

    def __init__(self, grammar: Grammar, slots: int | None) -> None:
        self.grammar, self.slots = grammar, slots


def accepted(lattice: Lattice, columns: Sequence[int]) -> bool:
    state = 0
    for column in columns:
        state = int(lattice.step[lattice.kind[column], state])
        if state < 0:
            return False
    return bool(lattice.final[state])


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("case", ["free", "ending"])
def test_what_fits_is_what_some_whole_value_holds(case: str, optional: bool) -> None:
    grammar = of_length(3, 2)
    if case == "ending":  # code 1 is behind the end, and stays there
        step = np.array([[1, 3], [2, 3], [2, 2], [3, 3]])
        allowed = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 1, 1]], bool)
        grammar = Grammar(allowed, step)
    lattice = Lattice(cast(Any, Plain(grammar, 3)), optional, False)
    assert lattice.free == (case == "free")
    every = list(product(range(4), repeat=3))
    whole = [columns for columns in every if accepted(lattice, columns)]
    for some in product((OPEN, 1, 2, 3), repeat=3):
        fit, possible = lattice.fits(np.array([some]))
        there = [w for w in whole if all(s in (OPEN, c) for s, c in zip(some, w, strict=True))]
        assert possible[0] == bool(there)
        for slot, column in product(range(3), range(4)):
            rest = [*some[:slot], column, *some[slot + 1 :]]
            others = [w for w in whole if all(s in (OPEN, c) for s, c in zip(rest, w, strict=True))]
            if some[slot] == OPEN:
                assert fit[0, slot, lattice.kind[column]] == bool(others), (some, slot, column)


def test_a_bound_is_of_some_records_alone_and_the_same_as_theirs(
    masked: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = mixed_table(40, 7)
    table["note"] = table["note"].str[:6]
    columns = frame_columns(masked.run, table)
    every = measures.evaluate_known(masked.run, columns)
    monkeypatch.setattr(measures, "MOST_BOUNDS", 25)
    some = measures.evaluate_known(masked.run, columns)
    nats = some.samples["", "nats"]
    read = ~np.isnan(nats)
    assert read.sum() == 25 == some.figures["rows"]["nats"]["n"]
    np.testing.assert_allclose(nats[read], every.samples["", "nats"][read], rtol=1e-5)
    bits = some.figures["fields"]["note"]["bits_per_byte"]
    assert 0 < bits["value"] < 100 and bits["n"] <= 25 < every.figures["rows"]["nats"]["n"]
    for group in some.figures["groups"]:
        assert group["nats"]["n"] + group["others"]["n"] == 25
        assert np.isfinite(group["nats"]["value"])


def test_more_steps_than_slots_are_refused(masked: api.Model) -> None:
    text = next(f.name for f in masked.run.vocabulary.fields if f.slots is None)
    with pytest.raises(RequestError, match="steps = 99: no more than 9 can be needed"):
        masked.generate(1, want=text, max_tokens=8, steps=99)
    assert len(masked.generate(1, want=text, max_tokens=8, steps=9)) == 1
    short = next(f.name for f in masked.run.vocabulary.fields if f.slots == 1)
    with pytest.raises(RequestError, match="steps = 9: no more than 1 can be needed"):
        masked.fill(pd.DataFrame({short: [None]}), draw=True, steps=9)


def test_evaluation_draws_few_texts_in_few_steps(
    masked: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int | None]] = []
    build = wishes.build

    def noted(run: Any, wish: wishes.Wish) -> Any:
        drawn.append((wish.num, wish.sampling.steps))
        return build(run, wish)

    monkeypatch.setattr(evaluation, "FEWER_TEXTS", 12)
    monkeypatch.setattr(evaluation, "STEPS", 3)
    monkeypatch.setattr(wishes, "build", noted)
    found = masked.evaluate()
    assert drawn == [(12, 3)]
    assert 0 < found["fields"]["note"]["length"]["n"] <= 12
