"""Texts of one row that loops write are those that are written step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.test_exchange import Pair, pair, tokenizer  # noqa: F401

from omnifill import api
from omnifill.generate.alone import Alone
from omnifill.generate.filters import Sampling, drawn
from omnifill.model import native, packed

pytest.importorskip("numba", reason="compiled loops are Numba's")

WAYS: list[dict[str, Any]] = [
    {"temperature": 0}, {"seed": 2}, {"seed": 3, "min_p": 0.0}, {"seed": 4, "temperature": 0.3},
    {"seed": 5, "temperature": 1e-9}, {"seed": 6, "temperature": 3.0, "min_p": 1.0},
    {"seed": 7, "temperature": 1e300},
]  # fmt: skip


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Checks that something is the same on both ways, and counts the calls of loops for it."""
    calls, write = [0], Alone.write

    def written(self: Alone, *args: Any) -> list[int]:
        calls[0] += 1
        return write(self, *args)

    def check(make: Callable[[], Any]) -> int:
        calls[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(Alone, "write", written)
            found = make()
        with monkeypatch.context() as patch:
            patch.setattr(Alone, "can", lambda *args: False)
            known = make()
        assert found == known
        return calls[0]

    return check


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """Texts of letters that take several bytes, beside values that stay in view."""
    rng = np.random.default_rng(0)
    words = ["größe", "naïve", "日本", "tea", "пирог", "🍰 cake"]
    rows = [{"n": int(n), "kind": "ab"[n % 2], "one": f"{words[n]} {words[n - 1]}",
             "two": " ".join(words[:n])} for n in rng.integers(0, 6, 300)]  # fmt: skip
    out = tmp_path_factory.mktemp("alone") / "run"
    fields = {name: {"type": "text"} for name in ("one", "two")}
    recipe = {"model": {"size": "nano"}, "schema": {"fields": fields}}
    run = api.train(pd.DataFrame(rows), out, steps=80, recipe=recipe)
    with torch.no_grad():  # so that it matters which values stay in view, those just chosen, too
        run.run.network.standing.weight[1:].normal_(std=2.0)
    return run


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_texts_of_a_table(table: api.Model, way: dict[str, Any], both: Callable[..., int]) -> None:
    def texts(**more: Any) -> Any:
        return [table.generate(1, **(way | {"seed": seed} | more)).iloc[0].tolist()
                for seed in range(6)]  # fmt: skip

    assert both(texts) > 0
    for most in (1, 4, 5, 6, 9):  # the end, where letters have to be closed
        both(lambda most=most: texts(max_tokens=most))
    both(lambda: texts(stop=["e", "本"]))
    both(lambda: [[*table.stream(want="two", given={"n": n}, **way)] for n in range(6)])


@pytest.mark.parametrize("kind", ["gpt2", "llama 3", "mistral", "qwen 3"])
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_texts_of_a_checkpoint(
    kind: str, weights: str, pair: Callable[[str], Pair], both: Callable[..., int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(packed, "LEAST", 1)
    ours = pair(kind)[1]
    if weights != "fp32":
        ours.convert(tmp_path / "few", weights)
        ours = api.load(tmp_path / "few")
    for way in WAYS:
        options = way | {"prompt": "the cat sat on", "max_tokens": 30}
        assert both(lambda options=options: ours.generate(1, **options)["text"][0]) > 0


def test_what_loops_do_not_know_is_not_theirs(
    pair: Callable[[str], Pair], both: Callable[..., int]
) -> None:
    ours = pair("qwen 3")[1]
    others: list[dict[str, Any]] = [
        {"top_k": 3}, {"top_p": 0.5}, {"repetition_penalty": 1.3}, {"logit_bias": {5: 3.0}},
        {"no_repeat_ngram": 2}, {"frequency_penalty": 0.5},
    ]  # fmt: skip
    for other in others:
        options: dict[str, Any] = {"prompt": "the cat sat on", "max_tokens": 20, **other}
        assert both(lambda options=options: ours.generate(1, **options)["text"][0]) == 0


def test_a_text_beyond_the_context(
    tmp_path_factory: pytest.TempPathFactory, both: Callable[..., int]
) -> None:
    """Old slots fall out of view on both ways."""
    path = tmp_path_factory.mktemp("long") / "a.txt"
    path.write_text("so it goes, and on it goes, so. " * 90, encoding="utf-8")
    recipe = {"model": {"size": "nano", "context": 64}}
    run = api.train(path, path.parent / "run", steps=30, recipe=recipe)
    for way in WAYS[:4]:
        options = way | {"prompt": "so it goes", "max_tokens": 200}
        assert both(lambda options=options: run.generate(1, **options)["text"][0]) > 0


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12), st.data(),
    st.sampled_from([0.0, 1e-9, 0.01, 0.7, 1.0, 5.0]),
    st.sampled_from([0.0, 1e-3, 0.1, 0.5, 1.0]),
)  # fmt: skip
def test_a_choice_is_that_of_the_filters(
    scores: list[float], data: st.DataObject, temperature: float, min_p: float
) -> None:
    """Whatever is barred; for chances all over, so that every column that may come does."""
    kernels = native.kernels()
    assert kernels is not None
    size = len(scores) + 2
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    allowed[data.draw(st.integers(0, size - 1))] = True
    ends = np.array([data.draw(st.floats(-30, 30, width=32)) for _ in range(3)], np.float32)
    codes = np.array(scores, np.float32)
    whole = np.concatenate([ends[[0, 2]], codes])
    whole[~allowed] = -np.inf
    chances = (np.arange(40) + 0.5) / 40
    sampling = Sampling(temperature=temperature, min_p=min_p)
    known = drawn(torch.from_numpy(whole).expand(40, -1), torch.from_numpy(chances), sampling)
    heat = sampling.heat
    found = [kernels._choose(ends, codes, allowed, heat, min_p, chance) for chance in chances]
    # What stands at a bound to the last bit may fall on either side of it.
    prob = torch.from_numpy(whole).double().div(heat or 1).softmax(0).numpy()
    on_edge = np.isclose(prob, min_p * prob.max(), rtol=1e-4, atol=0).any() if min_p < 1 else False
    assert on_edge or (np.array(found) == known).mean() > 0.97
    assert allowed[found].all()
