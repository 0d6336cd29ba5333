"""Long records are read in windows: every slot counts once, and each window knows its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill import api
from omnifill.data.shards import Shard
from omnifill.form.layout import Former, Orders
from omnifill.form.windows import Windows, cut, head_size, last_ones, overlapping
from omnifill.generate.given import encoded
from omnifill.generate.likelihood import field_nats, schema_nats
from omnifill.generate.tables import frame_columns

SIZES = st.lists(st.integers(0, 90), min_size=1, max_size=8).map(np.array)
SHAPE = st.tuples(st.integers(0, 9), st.integers(3, 40)).map(lambda t: (t[0] + t[1], t[0]))
"""(context, head)"""


def counted(windows: Windows, sizes: np.ndarray) -> list[np.ndarray]:
    """How often each slot of each record is counted."""
    out = [np.zeros(n, int) for n in sizes]
    for i in range(len(windows.record)):
        start = int(windows.start[i] + windows.seen[i])
        out[windows.record[i]][start : windows.stop[i]] += 1
    return out


@given(sizes=SIZES, shape=SHAPE, seed=st.integers(0, 99) | st.none())
def test_cuts_show_every_slot_once_and_fit_into_the_context(
    sizes: np.ndarray, shape: tuple[int, int], seed: int | None
) -> None:
    context, head = shape
    rng = None if seed is None else np.random.default_rng(seed)
    windows = cut(sizes, context, head, 0, rng)
    assert all((c == 1).all() for c in counted(windows, sizes))
    assert (windows.lens(head) <= context).all()
    assert ((windows.start == 0) | (windows.start > head)).all()


@given(sizes=SIZES, shape=SHAPE)
def test_scoring_counts_every_slot_once_with_half_a_window_before_it(
    sizes: np.ndarray, shape: tuple[int, int]
) -> None:
    context, head = shape
    windows = overlapping(sizes, context, head)
    assert all((c == 1).all() for c in counted(windows, sizes))
    assert (windows.lens(head) <= context).all()
    later = windows.start > 0
    assert (windows.seen[later] == max(1, (context - head) // 2)).all()
    assert (windows.start[later] >= head).all()
    few = overlapping(sizes, context, head, most=2)
    assert (np.bincount(few.record, minlength=1) <= 2).all()


@given(sizes=SIZES, shape=SHAPE)
def test_the_last_window_ends_with_the_record(sizes: np.ndarray, shape: tuple[int, int]) -> None:
    context, head = shape
    windows = last_ones(sizes, context, head)
    assert (windows.stop == sizes).all() and (windows.lens(head) <= context).all()


WORDS = ["rain", "sun", "wind", "снег", "雪", "fog"]


def letters(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Long texts of unequal length beside a category and a number."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(3, 160, rows)]
    return pd.DataFrame(
        {"kind": rng.choice(["a", "b"], rows), "letter": texts, "n": rng.integers(0, 9, rows)}
    )


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    out = tmp_path_factory.mktemp("runs") / "letters"
    recipe = {
        "model": {"size": "nano", "context": 40},
        "schema": {"fields": {"letter": {"type": "text"}}},
    }
    return api.train(letters(), out, steps=30, recipe=recipe)


def shard_of(model: api.Model, table: pd.DataFrame) -> Shard:
    return encoded(model.run, frame_columns(model.run, table))


def test_nothing_of_a_long_text_is_cut_away(long: api.Model) -> None:
    assert long.run.network.config.context == 40
    assert not long.run.folder.read_state()["notes"]
    shard = shard_of(long, letters(9, seed=3))
    assert shard.sizes.max() > 80


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_window_shows_its_head_and_its_piece_of_the_record(long: api.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    former, shard = Former(long.run.vocabulary), shard_of(long, letters(4, seed=1))
    fields = rng.permuted(np.tile(np.arange(3), (4, 1)), axis=1)
    fields[rng.random((4, 3)) < 0.2] = -1
    orders = Orders(fields, rng.random((4, 3)) < 0.7)
    head = head_size(long.run.vocabulary)
    windows = cut(shard.sizes, 40, head, 1, rng)
    rows = windows.record
    whole = former.records(shard, np.arange(4), orders)
    batch = former.records(shard, rows, Orders(fields[rows], orders.wanted[rows]), windows=windows)
    text = long.run.vocabulary["letter"].index
    for i, record in enumerate(rows.tolist()):
        start, stop = int(windows.start[i]), int(windows.stop[i])
        size = int(sum(shard.lens[record][f] for f in fields[record] if f >= 0))
        leading = 0
        if start > 0:
            for f in fields[record]:
                if f == text:
                    break
                leading += int(shard.lens[record][f]) if f >= 0 else 0
        places = [*range(leading), *range(min(start, size), min(stop, size))]
        for name in ("target", "field", "allow"):
            expected = getattr(whole, name)[record, places]
            assert torch.equal(getattr(batch, name)[i, : len(places)], expected)
        weight = whole.weight[record, places].clone()
        weight[: leading + (start > 0)] = 0
        assert torch.equal(batch.weight[i, : len(places)], weight)
        assert not batch.weight[i, len(places) :].any()


def test_a_long_record_is_scored_alike_alone_and_among_others(long: api.Model) -> None:
    table = letters(7, seed=5)
    whole = long.score(table)
    alone = pd.concat([long.score(table.iloc[[i]]) for i in range(7)], ignore_index=True)
    pd.testing.assert_frame_equal(whole, alone, rtol=1e-5)


def test_records_that_fit_are_scored_in_one_piece(long: api.Model) -> None:
    table = letters(5, seed=2).assign(letter="rain sun")
    columns = frame_columns(long.run, table)
    shard = encoded(long.run, columns)
    former, orders = Former(long.run.vocabulary), long.run.vocabulary.order
    batch = former.records(
        shard, np.arange(5), Orders(np.tile(orders, (5, 1)), np.ones((5, 3), bool))
    )
    with torch.no_grad():
        nats = long.run.objective.nats(long.run.network, batch).view(batch.ids.shape).sum(dim=1)
    np.testing.assert_allclose(schema_nats(long.run, shard, columns).sum(axis=1), nats, rtol=1e-5)


def test_the_end_of_a_long_record_depends_on_its_head(long: api.Model) -> None:
    """A window far behind the head still sees it."""
    table = letters(1, seed=4).assign(letter=" ".join(["rain", "fog"] * 60))
    nats = []
    for kind in "ab":
        shard = shard_of(long, table.assign(kind=kind))
        order = Orders(long.run.vocabulary.order[None], np.ones((1, 3), bool))
        windows = overlapping(shard.sizes, 40, head_size(long.run.vocabulary))
        last = windows[np.array([len(windows.record) - 1])]
        batch = Former(long.run.vocabulary).records(shard, np.array([0]), order, windows=last)
        with torch.no_grad():
            nats.append(long.run.objective.nats(long.run.network, batch).sum().item())
    assert nats[0] != nats[1]
    assert field_nats(long.run, shard, order, np.array([0])).shape == (1, 3)


def test_texts_past_the_context_come_out_alike_alone_and_together(long: api.Model) -> None:
    for given_ in ({"kind": "a"}, {"kind": "b", "n": 3}, {}):
        many = long.generate(3, given=given_, seed=7, max_tokens=150)
        one = long.generate(1, given=given_, seed=7, max_tokens=150)
        pd.testing.assert_frame_equal(many.iloc[[0]], one)


def test_a_long_text_tells_its_category(long: api.Model) -> None:
    probabilities = long.probabilities(letters(4, seed=6), "kind")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_resolved_recipe_repeats_a_run_over_long_records_to_the_byte(
    tmp_path: Path, long: api.Model
) -> None:
    recipe = long.run.folder.path / "recipe.yaml"
    again = api.train(letters(), tmp_path / "again", recipe=recipe)
    weights = [m.run.folder.path / "model.safetensors" for m in (long, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def windows_of(tmp_path: Path, table: pd.DataFrame, **tasks: object) -> bool | None:
    texts = {n: {"type": "text"} for n in table if n.startswith("text")}
    recipe = {"model": {"size": "nano"}, "schema": {"fields": texts}, "form": tasks}
    return api.train(table, tmp_path / "run", steps=1, recipe=recipe).run.recipe.form.windows


def test_windows_are_for_one_long_text_that_nothing_must_see_whole(tmp_path: Path) -> None:
    table = letters(40).rename(columns={"letter": "text"})
    long_texts = table["text"].map(lambda t: " ".join(f"{w}{i}" for i, w in enumerate(t.split())))
    table["text"] = long_texts + " " + long_texts
    assert windows_of(tmp_path / "one", table)
    names = [f"n{i}" for i in range(40)]
    assert windows_of(tmp_path / "named", table.assign(text_name=names))
    assert not windows_of(tmp_path / "two", table.assign(text_too=table["text"].str.upper()))
    task = {"given": ["text"], "want": ["kind"]}
    assert not windows_of(tmp_path / "task", table, tasks=[task])
    assert windows_of(tmp_path / "said", table, tasks=[task], windows=True)
    assert not windows_of(tmp_path / "none", pd.DataFrame({"a": [1, 2, 3] * 20}))
