"""A text is chosen among some by likelihood, told directly or by what is told from it; also one
that was never seen, or never asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from omnifill import api
from omnifill.errors import RequestError

TOPICS = {"weather": "rain cloud sun storm", "sport": "ball goal team race",
          "kitchen": "salt pan soup bread"}  # fmt: skip


def talks(num: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    topics = [str(t) for t in rng.choice(list(TOPICS), num)]
    notes = [" ".join(rng.choice(TOPICS[t].split(), rng.integers(2, 7))) for t in topics]
    return pd.DataFrame({"topic": topics, "note": notes})


def trained(folder: Path, **more: Any) -> api.Model:
    fields = {name: {"type": "text"} for name in ("topic", "note")}
    recipe = {"model": {"size": "nano"}, "schema": {"fields": fields}}
    return api.train(talks(800), folder / "run", steps=120, recipe=recipe, **more)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Learned any field from any other."""
    return trained(tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Learned notes from topics, and never a topic."""
    return trained(tmp_path_factory.mktemp("notes"), given="topic", want="note")


def right(prob: pd.DataFrame, topics: pd.Series) -> float:
    return float((prob.idxmax(axis=1) == topics).mean())


def test_the_text_that_fits_is_likeliest(both: api.Model) -> None:
    unseen = talks(40, seed=1)
    prob = both.probabilities(unseen, "topic", choices=list(TOPICS))
    np.testing.assert_allclose(prob.sum(axis=1), 1)
    assert list(prob) == list(TOPICS) and right(prob, unseen["topic"]) > 0.9


def test_a_text_that_was_never_a_target_is_told_by_what_is_told_from_it(notes: api.Model) -> None:
    unseen = talks(40, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prob = notes.probabilities(unseen, "topic", choices=list(TOPICS))
        one = notes.generate(given={"note": "storm sun"}, want="topic", choices=list(TOPICS),
                             temperature=0)  # fmt: skip
    assert right(prob, unseen["topic"]) > 0.9 and one["topic"][0] == "weather"


def test_a_text_that_was_never_seen_has_its_probability(both: api.Model) -> None:
    prob = both.probabilities(talks(3), "topic", choices=["weather", "wether, and more", "天气"])
    assert (prob > 0).all(axis=None) and (prob["weather"] > prob["天气"]).all()


@pytest.mark.parametrize("field", ["topic", "note"])
def test_rows_are_weighed_the_same_alone(both: api.Model, field: str) -> None:
    table, choices = talks(5, seed=2), ["weather", "goal goal goal goal race", "ball"]
    whole = both.probabilities(table, field, choices=choices)
    for row in range(len(table)):
        alone = both.probabilities(table.iloc[[row]], field, choices=choices)
        pd.testing.assert_frame_equal(alone, whole.iloc[[row]], check_exact=False, rtol=1e-5)


def test_what_is_told_last_is_weighed_as_it_is_scored(both: api.Model) -> None:
    table, choices = talks(4, seed=3), ["rain", "ball goal team", "bread bread salt soup pan"]
    prob = both.probabilities(table, "note", choices=choices)
    scores = [both.score(table.assign(note=choice))["note"] for choice in choices]
    raw = np.exp(np.stack(scores, axis=1))
    np.testing.assert_allclose(prob, raw / raw.sum(axis=1, keepdims=True), rtol=1e-4)


def test_records_are_drawn_by_these_probabilities(both: api.Model) -> None:
    given, choices = {"topic": "sport"}, ["goal race", "race goal", "salt"]
    prob = both.probabilities(pd.DataFrame([given]), "note", choices=choices).iloc[0]
    ask: dict[str, Any] = {"given": given, "want": "note", "choices": choices}
    drawn = both.generate(2000, seed=1, **ask)
    assert list(drawn) == ["topic", "note"]
    shares = drawn["note"].value_counts(normalize=True).reindex(choices, fill_value=0)
    np.testing.assert_allclose(shares, prob, atol=0.05)
    pd.testing.assert_frame_equal(drawn.head(7), both.generate(7, seed=1, **ask))
    assert both.generate(temperature=0, **ask)["note"][0] == prob.idxmax()


@pytest.mark.parametrize(("options", "message"), [
    ({"choices": ["a"]}, "two or more"),
    ({"choices": ["a", "a"]}, "two or more"),
    ({"choices": ["a", " a "]}, "two or more"),
    ({"choices": "ab"}, "a list of texts"),
    ({"choices": ["a", 1]}, "a list of texts"),
    ({"choices": ["a", "b"], "prompt": "a"}, "leave out"),
    ({"choices": ["a", "b"], "top_k": 3}, "leave out"),
    ({"choices": ["a", "b"], "want": ["topic", "note"]}, "one field"),
])  # fmt: skip
def test_choices_that_cannot_be_weighed_are_refused(
    both: api.Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        both.generate(**{"want": "topic", **options})


def test_only_texts_beside_others_are_chosen_among(table_csv: Path, tmp_path: Path) -> None:
    model = api.train(table_csv, tmp_path / "run", steps=2, recipe={"model": {"size": "nano"}})
    with pytest.raises(RequestError, match=r"kind.*category"):
        model.generate(want="kind", choices=["tea", "sea"])
    with pytest.raises(RequestError, match=r"kind.*category"):
        model.probabilities(pd.DataFrame({"note": ["x"]}), "kind", choices=["tea", "sea"])


def test_rows_with_blanks_are_weighed_as_they_would_be_alone(
    both: api.Model, notes: api.Model
) -> None:
    """A blank says nothing, also where training never saw one."""
    rows = talks(4, seed=3)
    rows.loc[[1, 3], "note"] = None
    for model in (both, notes):
        prob = model.probabilities(rows, "topic", choices=list(TOPICS))
        assert bool(np.isfinite(prob).all(axis=None))
        np.testing.assert_allclose(prob.sum(axis=1), 1)
        for row in range(4):
            alone = model.probabilities(rows.iloc[[row]], "topic", choices=list(TOPICS))
            np.testing.assert_allclose(alone, prob.iloc[[row]], rtol=1e-4)
