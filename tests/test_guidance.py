"""Guidance: what is given counts for more, exactly as stated, alone and in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill import api
from omnifill.errors import RequestError
from omnifill.form.layout import draw_orders
from omnifill.generate.filters import guided
from omnifill.settings import FormSettings, Task

WORDS = {"sea": ["wave", "salt", "fish", "tide"], "hill": ["rock", "goat", "snow", "peak"]}


def table(rows: int = 300) -> pd.DataFrame:
    """The place says which words come, most of the time."""
    rng = np.random.default_rng(0)
    place = rng.choice(list(WORDS), rows)
    text = [
        " ".join(rng.choice(WORDS[p if rng.random() < 0.7 else "sea"], rng.integers(2, 7)))
        for p in place
    ]
    return pd.DataFrame({"place": place, "note": text})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {"note": {"type": "text"}}}}
    return api.train(table(), tmp_path_factory.mktemp("runs") / "p", steps=150, recipe=recipe)


@settings(max_examples=50)
@given(strength=st.floats(0, 5), seed=st.integers(0, 99))
def test_guided_scores_are_the_stated_mixture_and_bar_what_was_barred(
    strength: float, seed: int
) -> None:
    torch.manual_seed(seed)
    with_, without = torch.randn(4, 7), torch.randn(4, 7)
    with_[:, 2] = without[:, 2] = float("-inf")
    out = guided(with_, without, strength).softmax(dim=1)
    p, q = with_.softmax(dim=1), without.softmax(dim=1)
    expected = torch.where(p > 0, p**strength * q ** (1 - strength), 0.0)
    torch.testing.assert_close(out, expected / expected.sum(dim=1, keepdim=True), rtol=1e-3,
                               atol=1e-5)  # fmt: skip
    assert (out[:, 2] == 0).all()


def hill_words(texts: pd.Series) -> float:
    words = " ".join(texts.fillna("")).split()
    return float(np.mean([word in WORDS["hill"] for word in words]))


def test_more_guidance_obeys_what_is_given_more(places: api.Model) -> None:
    shares = [
        hill_words(places.generate(200, given={"place": "hill"}, seed=1, guidance=g)["note"])
        for g in (0.0, 1.0, 2.5)
    ]
    assert shares[0] < shares[1] < shares[2]


def test_guidance_of_one_is_what_comes_without(places: api.Model) -> None:
    plain = places.generate(4, given={"place": "sea"}, seed=3)
    pd.testing.assert_frame_equal(
        plain, places.generate(4, given={"place": "sea"}, seed=3, guidance=1)
    )


def test_no_guidance_forgets_what_is_given(places: api.Model) -> None:
    made = [
        places.generate(5, given={"place": p}, seed=2, guidance=0)["note"].tolist() for p in WORDS
    ]
    assert made[0] == made[1]


def test_guided_texts_come_out_alike_alone_together_and_in_a_stream(places: api.Model) -> None:
    for prompt in (None, "rock "):
        asked = {"given": {"place": "hill"}, "prompt": prompt, "seed": 4, "guidance": 2.0}
        many = places.generate(5, **asked, missing=False)["note"].tolist()
        assert many[0] == places.generate(1, **asked, missing=False)["note"][0]
        assert (prompt or "") + "".join(places.stream(**asked)) == many[0]
        assert prompt is None or all(text.startswith(prompt) for text in many)


def test_rows_drawn_for_blanks_can_be_guided(places: api.Model) -> None:
    holes = pd.DataFrame({"place": ["sea", "hill", None], "note": [None, None, "snow peak"]})
    filled = places.fill(holes, draw=True, guidance=2.0, seed=1)
    assert not filled.isna().any().any()
    with pytest.raises(RequestError, match="sampling options are for draws"):
        places.fill(holes, guidance=2.0)


def test_guidance_without_anything_given_is_refused(places: api.Model) -> None:
    with pytest.raises(RequestError, match="nothing is given"):
        places.generate(1, guidance=2.0)
    with pytest.raises(RequestError, match="guidance = -1"):
        places.generate(1, given={"place": "sea"}, guidance=-1)


def test_a_task_is_sometimes_read_without_what_is_given(places: api.Model) -> None:
    vocabulary = places.run.vocabulary
    form = FormSettings(tasks=[Task(given=["place"], want=["note"])], drop_given=0.3)
    missing = np.zeros((4000, 2), bool)
    orders = draw_orders(missing, vocabulary, form, np.random.default_rng(0))
    gone = (orders.fields[:, 0] == -1).mean()
    assert abs(gone - 0.3) < 0.03
    assert (orders.fields[:, 1] == vocabulary["note"].index).all() and orders.wanted[:, 1].all()


def test_a_task_that_always_saw_what_is_given_cannot_be_guided(tmp_path: Path) -> None:
    recipe = {"model": {"size": "nano"}, "form": {"drop_given": 0.0},
              "schema": {"fields": {"note": {"type": "text"}}}}  # fmt: skip
    model = api.train(table(), tmp_path / "run", steps=2, recipe=recipe, given="place", want="note")
    with pytest.raises(RequestError, match=r"form\.drop_given above 0"):
        model.generate(1, given={"place": "sea"}, want="note", guidance=2.0)
