"""Beam search finds the likeliest records; re-ranking keeps what most candidates agree with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import mixed_table

from omnifill import api
from omnifill.errors import RequestError
from omnifill.form.layout import Orders
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.beam import BeamSearch
from omnifill.generate.filters import Sampling
from omnifill.generate.given import encoded
from omnifill.generate.plan import Plan
from omnifill.generate.rerank import most_agreed
from omnifill.generate.state import State
from omnifill.generate.tables import frame_columns


def planned(model: api.Model, table: pd.DataFrame, want: list[str], **sampling: Any) -> Plan:
    """Rows of a table, whose columns are given but for those that are wanted."""
    run = model.run
    columns = frame_columns(run, table)
    laid = [*(n for n in run.vocabulary.in_order(columns) if n not in want), *want]
    order = np.full(len(run.schema.fields), -1)
    order[: len(laid)] = [run.schema.index(n) for n in laid]
    wanted = np.isin(order, [run.schema.index(n) for n in want])
    num = len(table)
    return Plan(
        encoded(run, columns), np.arange(num),
        Orders(np.tile(order, (num, 1)), np.tile(wanted, (num, 1))), np.arange(num), 0,
        Sampling(**sampling), 12, np.zeros(len(order), bool),
    )  # fmt: skip


def search(model: api.Model, table: pd.DataFrame, want: list[str], **sampling: Any) -> list[Any]:
    """Beams of every row of a table."""
    run = model.run
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    return BeamSearch(sampler)(planned(model, table, want, **sampling))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Two categories that go together, so that what is best first is not best in all."""
    rng = np.random.default_rng(0)
    first = rng.choice(list("abcd"), 400, p=[0.4, 0.3, 0.2, 0.1])
    second = np.where(first == "b", "z", rng.choice(list("wxyz"), 400))
    # The number keeps records that are alike from falling into one part together.
    table = pd.DataFrame({"first": first, "second": second, "x": rng.integers(0, 10**6, 400)})
    out = tmp_path_factory.mktemp("runs") / "pairs"
    return api.train(table, out, steps=150, recipe={"model": {"size": "nano"}})


def test_a_wide_beam_finds_every_record_in_the_order_of_its_likelihood(pairs: api.Model) -> None:
    values = [pairs.run.vocabulary[n].codec.values for n in ("first", "second")]  # type: ignore[attr-defined]
    every = pd.DataFrame(list(itertools.product(*values)), columns=["first", "second"])
    every["row"] = pairs.score(every)["row"]
    every = every.sort_values("row", ascending=False, ignore_index=True)
    both = ["first", "second"]
    found = pairs.generate(len(every), want=both, beams=len(every))
    assert found.to_numpy().tolist() == every[both].to_numpy().tolist()
    greedy = pairs.generate(1, want=both, temperature=0)
    assert greedy["first"][0] == "a" and found["first"][0] == "b"  # a alone is likelier, b with z


def test_a_beam_of_one_is_greedy(model: api.Model) -> None:
    table = mixed_table(6, seed=8)[["kind", "size", "note"]]  # notes of unequal length
    given = table.drop(columns=["kind"])
    kinds = model.run.vocabulary["kind"]
    answers = [kinds.codec.decode(f[0].id - kinds.first) if f[0].id[0] >= kinds.first else None
               for f in search(model, given, ["kind"], beams=1)]  # fmt: skip
    compared = 0
    for row, answer in enumerate(answers):
        known = {n: v for n, v in given.iloc[row].items() if v == v and v is not None}
        if len(known) == 2:  # a blank that is given is read as one; left out, it is not
            alone = model.generate(1, given=known, want="kind", temperature=0)["kind"][0]
            assert alone == answer or (alone != alone and answer is None)
            compared += 1
    assert compared >= 2


def test_a_row_is_searched_the_same_alone_and_in_a_batch(model: api.Model) -> None:
    table = mixed_table(5, seed=9)[["kind", "size", "count"]]
    together = search(model, table, ["day", "note"], beams=3)
    for row in range(len(table)):
        alone = search(model, table.iloc[[row]], ["day", "note"], beams=3)[0]
        assert [f.id.tolist() for f in alone] == [f.id.tolist() for f in together[row]]
        assert [f.score for f in alone] == pytest.approx([f.score for f in together[row]], abs=1e-4)
        assert len({tuple(f.id.tolist()) for f in alone}) == len(alone) == 3


def test_what_is_found_is_valid_and_continues_a_prompt(model: api.Model) -> None:
    made = model.generate(3, want=["note", "count"], prompt="warm", beams=4, max_tokens=10)
    assert len(made) == 3 and made["note"].str.startswith("warm").all()
    assert not made.duplicated().any()


def test_a_higher_penalty_makes_longer_texts(model: api.Model) -> None:
    short, long = (
        model.generate(1, want="note", beams=6, length_penalty=p, no_missing="note",
                       max_tokens=20)["note"][0] for p in (0.0, 3.0)
    )  # fmt: skip
    assert len(long) > len(short)


def test_of_candidates_the_one_most_like_the_others_is_kept(model: api.Model) -> None:
    texts = ["the cat sat on the mat", "a dog barked", "the cat sat on a mat", "the cat sat there"]
    assert most_agreed(texts) in (0, 2)
    assert most_agreed(["x", "y", "y"]) == 1
    drawn = model.generate(12, given={"kind": "tea"}, want=["note"], seed=3)["note"].tolist()
    kept = model.generate(3, given={"kind": "tea"}, want=["note"], seed=3, rerank=4)
    groups = [drawn[i : i + 4] for i in (0, 4, 8)]
    shown = [[text or "" for text in group] for group in groups]
    assert kept["note"].tolist() == [g[most_agreed(s)] for g, s in zip(groups, shown, strict=True)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"beams": 3, "temperature": 0.5}, "temperature: is for draws"),
        ({"beams": 3, "min_p": 0.1}, "min_p: is for draws"),
        ({"beams": 0}, "beams = 0"),
        ({"beams": 2, "n": 3}, "2 beams find no more"),
        ({"beams": 2, "stop": ["."]}, "stop: ends what is drawn"),
        ({"length_penalty": 1.0}, "say how many beams"),
        ({"beams": 60, "n": 60, "want": "kind"}, "only 4 different records"),
        ({"rerank": 0}, "rerank = 0"),
        ({"rerank": 4, "want": "kind"}, "no text is wanted"),
        ({"rerank": 4, "temperature": 0}, "candidates that differ"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    model: api.Model, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        model.generate(**options)


def test_beams_are_refused_where_they_would_do_nothing(model: api.Model, tmp_path: Path) -> None:
    table = mixed_table(3, seed=1)
    with pytest.raises(RequestError, match="beams"):
        model.fill(table, draw=True, beams=3)
    with pytest.raises(RequestError, match="top_k: is for draws"):
        model.fill(table, beams=3, top_k=4)
    with pytest.raises(RequestError, match="streaming"):
        list(model.stream(want="note", beams=3))


def test_two_ways_on_from_one_beginning_do_not_share_what_they_have_said(model: api.Model) -> None:
    state = State(model.run.vocabulary, planned(model, mixed_table(2)[["kind"]], ["note"]))
    state.seen[0].append(5)
    state.keep(np.array([0, 0, 1]))
    state.seen[0].append(6)
    assert state.seen == [[5, 6], [5], []]


def test_blank_texts_are_filled_with_the_likeliest_and_all_else_as_before(
    model: api.Model,
) -> None:
    table = mixed_table(12, seed=8)
    table.loc[:6, "note"] = None
    plain, searched = model.fill(table), model.fill(table, beams=4)
    others = [name for name in table if name != "note"]
    pd.testing.assert_frame_equal(plain[others], searched[others])
    blank = table["note"].isna()
    assert (searched.loc[~blank, "note"] == table.loc[~blank, "note"]).all()
    pair = searched.loc[[0]].assign(**{n: table.loc[[0], n] for n in others})
    known = {n: v for n, v in table.loc[0, others].items() if v == v and v is not None}
    best = model.generate(1, given=known, want="note", beams=4, no_missing="note")["note"][0]
    assert pair["note"][0] == best
