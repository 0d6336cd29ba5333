"""Aims steer what is drawn, choose among candidates, and say so where they are not met."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from omnifill import api
from omnifill.cli import app
from omnifill.errors import RequestError, UserError
from omnifill.generate.aims import best_of, fluency, parse_aims, reading_ease, scored, unbeaten

WORDS = {"sports": ["goal", "match", "team", "coach"], "news": ["vote", "court", "tax", "minister"]}
AIMS = ["domain=news:2", "length<=40", "contains=rain"]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Texts of 5 to 20 words about their domain; one in ten has rain in it."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        domain = str(rng.choice(["sports", "news"], p=[0.75, 0.25]))
        words = rng.choice([*WORDS[domain], "the", "and", "a"], rng.integers(5, 21)).tolist()
        if rng.random() < 0.1:
            words[int(rng.integers(len(words)))] = "rain"
        rows.append({"domain": domain, "text": " ".join(words)})
    out = tmp_path_factory.mktemp("runs") / "writer"
    table = pd.DataFrame(rows)
    table["text"] = table["text"].where(rng.random(400) > 0.03, None)
    return api.train(table, out, steps=150, recipe={"model": {"size": "nano"}})


def met(model: api.Model, made: pd.DataFrame, goals: list[Any]) -> np.ndarray:
    columns = {n: [None if v is None or v != v else v for v in made[n]] for n in made}
    return scored(parse_aims(model.run, goals, ["text"]), columns)[1]


def test_three_aims_are_met_together_far_more_often_than_by_chance(writer: api.Model) -> None:
    plain = met(writer, writer.generate(200, seed=1), AIMS)
    assert (plain.mean(axis=0) < 0.4).all() and plain.all(axis=1).mean() < 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = writer.generate(40, aims=AIMS, seed=2)
    assert (made["domain"] == "news").all()  # what is aimed at is given while drawing
    assert met(writer, made, AIMS).all(axis=1).mean() > 0.6
    assert (made["text"].str.len() <= 40).mean() > 0.8
    assert made["text"].str.contains("rain").mean() > 0.8


def test_a_record_with_aims_is_the_same_alone_and_among_others(writer: api.Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        many = writer.generate(4, aims=AIMS, candidates=3, seed=5)
        again = writer.generate(4, aims=AIMS, candidates=3, seed=5)
        one = writer.generate(1, aims=AIMS, candidates=3, seed=5)
    pd.testing.assert_frame_equal(many, again)
    assert one.iloc[0].tolist() == many.iloc[0].tolist()


def test_aims_that_are_not_met_are_told_of(writer: api.Model) -> None:
    with pytest.warns(UserWarning, match=r"of 2 records, not all meet: pattern=\^zebra \(2\)"):
        writer.generate(2, aims="pattern=^zebra", candidates=2)


def test_an_aim_may_be_a_function_of_the_record(writer: api.Model) -> None:
    def short(record: Any) -> float:
        return 1 / (1 + len(record["text"] or "")) ** 0.5

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = writer.generate(12, want="text", given={"domain": "news"}, seed=3)["text"]
        made = writer.generate(12, want="text", given={"domain": "news"}, aims=short, seed=3)[
            "text"
        ]
    assert made.str.len().mean() < 0.7 * plain.dropna().str.len().mean()
    with pytest.raises(RequestError, match="a score is from 0 to 1"):
        writer.generate(1, aims=lambda record: 7.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"aims": ["domain=sport"]}, "sport"),
        ({"aims": ["colour=red"]}, "is no aim; write field=value"),
        ({"aims": ["length<=x"]}, "is no aim"),
        ({"aims": ["pattern=("]}, "no regular expression"),
        ({"aims": ["length<=20", "length>=30"]}, "that long and that short"),
        ({"aims": ["length<=3", "contains=rain"]}, "longer than it may be"),
        ({"aims": ["domain=news", "domain=sports"]}, "another aim wants another"),
        ({"aims": ["domain=news"], "given": {"domain": "sports"}}, "is given another value"),
        ({"aims": ["length<=20", "length<=20"]}, "twice"),
        ({"aims": ["length<=20:0"]}, "a weight is above 0"),
        ({"aims": ["length<=20"], "want": "domain"}, "no text is wanted"),
        ({"aims": ["length<=20"], "temperature": 0}, "leave out"),
        ({"aims": ["length<=20"], "beams": 2}, "leave out"),
        ({"candidates": 3, "want": "domain"}, "name aims"),
        ({"aims": ["domain=news"], "want": "domain"}, "nothing else is wanted"),
        ({"aims": ["length<=20"], "candidates": 0}, "candidates = 0"),
    ],
)
def test_an_aim_that_cannot_be_met_or_computed_is_refused(
    writer: api.Model, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        writer.generate(**options)


def test_candidates_that_none_beats_come_with_their_scores(
    writer: api.Model, tmp_path: Path
) -> None:
    table = writer.pareto(["length<=30", "words>=12", "domain=news"], n=4, seed=1,
                          plot=tmp_path / "front.svg")  # fmt: skip
    scores = table[["length<=30", "words>=12", "domain=news"]].to_numpy()
    assert unbeaten(scores) == list(range(len(table)))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (tmp_path / "front.svg").read_text("utf-8").startswith("<svg")
    result = CliRunner().invoke(app, [
        "generate", str(writer.run.folder.path), "-n", "2", "--aim", "length<=30", "--aim",
        "words>=12", "--pareto", "--format", "csv",
    ])  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "domain,text,length<=30,words>=12"
    for wrong in (["--aim", "length<=30"], ["--aim", "length<=30", "--stop", "x"]):
        path = str(writer.run.folder.path)
        bad = CliRunner().invoke(app, ["generate", path, "--pareto", *wrong])
        assert isinstance(bad.exception, RequestError)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_what_is_unbeaten_is_beaten_by_none_and_beats_all_else(rows: list[Any]) -> None:
    scores = np.array(rows) / 3
    kept = unbeaten(scores)
    for i, row in enumerate(scores):
        better = [
            j for j in range(len(rows)) if (scores[j] >= row).all() and (scores[j] > row).any()
        ]
        assert (i in kept) <= (not better)
        assert any((scores[j] >= row).all() for j in kept)


def test_the_candidate_that_meets_most_by_weight_is_kept(writer: api.Model) -> None:
    aims = parse_aims(writer.run, ["length<=10:3", "words>=2", "contains=x"], ["text"])
    scores = np.array([[1, 0.2, 0.0], [0.9, 1, 1], [0.9, 1, 0.0], [0.2, 0.2, 0.1]])
    none = np.zeros(4)
    assert best_of(aims, scores, scores >= 1, none, 2) == [0, 2]
    # Among those that meet all, the most fluent.
    assert best_of(aims, np.ones((4, 3)), np.ones((4, 3), bool), -np.arange(4.0), 4) == [0]
    assert best_of(aims, np.ones((4, 3)), np.ones((4, 3), bool), np.arange(4.0), 2) == [1, 3]


def test_reading_ease_tells_easy_from_difficult() -> None:
    easy = "The cat sat. The dog ran. We all had fun."
    hard = "Institutional considerations necessitate comprehensive interdisciplinary evaluation."
    assert reading_ease(easy) > 90 > 30 > reading_ease(hard)
    assert reading_ease("…") == 0


def test_a_value_with_a_colon_is_no_weight_and_functions_see_the_sources_types(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "time": rng.choice(["12:30", "12", "12:45"], 200), "on": rng.random(200) < 0.5,
        "day": pd.date_range("2024-01-01", periods=200), "note": rng.choice(["a b", "c d e"], 200),
    })  # fmt: skip
    model = api.train(table, tmp_path / "run", steps=5, recipe={
        "model": {"size": "nano"},
        "schema": {"fields": {"time": {"type": "category"}, "note": {"type": "text"}}},
    })  # fmt: skip
    assert parse_aims(model.run, ["time=12:30"], ["note"])[0].value == "12:30"
    weighted = parse_aims(model.run, ["time=12:45:3"], ["note"])[0]
    assert weighted.value == "12:45" and weighted.weight == 3
    seen: list[Any] = []

    def watch(record: Any) -> float:
        seen.append(record)
        return 1.0

    model.generate(2, aims=watch)
    assert {type(record["on"]) for record in seen} == {bool}
    assert all(isinstance(record["day"], pd.Timestamp) for record in seen)


def test_the_most_fluent_of_those_that_meet_all_is_kept(writer: api.Model) -> None:
    given = {"domain": "news"}
    drawn = writer.generate(18, given=given, no_missing="text", seed=4)
    kept = writer.generate(3, given=given, aims="length>=1", seed=4)["text"].tolist()
    nats = writer.score(drawn)["text"] / drawn["text"].str.len()
    best = [drawn["text"][int(nats[i : i + 6].to_numpy().argmax()) + i] for i in (0, 6, 12)]
    assert kept == best


def test_the_texts_of_a_stream_are_each_as_fluent_as_alone(tmp_path: Path) -> None:
    """And not, all of them, as the one text that they would be together."""
    (tmp_path / "book.txt").write_text("the rain in the sun and the wind. " * 80, encoding="utf-8")
    recipe = {"model": {"size": "nano"}}
    book = api.train(tmp_path / "book.txt", tmp_path / "book", steps=60, recipe=recipe)
    texts = ["the rain in", "xq zzj kk qqqq wwww vv", "the sun and the"]
    found = fluency(book.run, {"text": texts}, np.ones((3, 1), bool))
    alone = [fluency(book.run, {"text": [t]}, np.ones((1, 1), bool))[0] for t in texts]
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    assert found.argmin() == 1
    score = book.score(pd.DataFrame({"text": texts}))["text"]
    np.testing.assert_allclose(score, found * [len(t) for t in texts], rtol=1e-5)
    made = book.generate(1, aims=["contains=rain"], max_tokens=40)["text"][0]
    assert "rain" in made


def test_a_run_over_one_text_has_no_cells_to_fill(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("the rain in the sun and the wind. " * 80, encoding="utf-8")
    recipe = {"model": {"size": "nano"}}
    book = api.train(tmp_path / "book.txt", tmp_path / "book", steps=2, recipe=recipe)
    with pytest.raises(RequestError, match="no cells to fill"):
        book.fill(pd.DataFrame({"text": ["a", None]}))


def test_a_category_that_no_task_told_cannot_be_judged(tmp_path: Path) -> None:
    table = pd.DataFrame({"domain": ["a", "b"] * 60, "text": [f"t {i}" for i in range(120)]})
    told = api.train(table, tmp_path / "run", steps=2, given=["domain"], want=["text"],
                     recipe={"model": {"size": "nano"}})  # fmt: skip
    with pytest.raises(RequestError, match=r"no task .* tells 'domain'.*give it: domain=a"):
        told.generate(1, aims=["domain=a"])


def test_a_number_behind_what_is_looked_for_is_said_to_be_a_weight(writer: api.Model) -> None:
    with pytest.warns(UserWarning, match="30 is read as its weight.*contains=12:30:1"):
        (aim,) = parse_aims(writer.run, ["contains=12:30"], ["text"])
    assert (aim.contains, aim.weight) == ("12", 30)
    with pytest.warns(UserWarning, match="30 is read as its weight"):
        parse_aims(writer.run, ["pattern=^\\d\\d:30"], ["text"])
    clear = ["contains=12:30:1", "contains=rain:2"]
    found = parse_aims(writer.run, clear, ["text"])
    assert [(a.contains, a.weight) for a in found] == [("12:30", 1), ("rain", 2)]


def test_the_shortest_lengths_are_aims_like_others(writer: api.Model) -> None:
    for goal in ("length<=0", "length<1", "length<=1"):
        with warnings.catch_warnings(action="ignore"):  # not all are met
            assert len(writer.generate(2, aims=[goal], want=["text"])) == 2


def test_prompt_and_aims_are_about_the_same_text(tmp_path: Path) -> None:
    """The first that is wanted, as it is said."""
    table = pd.DataFrame({"a": [f"one {i} two" for i in range(120)],
                          "b": [f"a sun {i} of rain" for i in range(120)]})  # fmt: skip
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {n: {"type": "text"} for n in "ab"}}}
    both = api.train(table, tmp_path / "run", steps=2, recipe=recipe)
    made = both.generate(2, want=["b", "a"], prompt="It was", aims=["length<=40"])
    assert made["b"].str.startswith("It was").all()
    assert not made["a"].astype(str).str.startswith("It was").any()
