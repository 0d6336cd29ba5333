"""Tokens with their probabilities, what leans on them, the best of several, and vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.test_exchange import Pair, pair, tokenizer  # noqa: F401

from omnifill import api
from omnifill.errors import RequestError
from omnifill.generate.filters import Sampling, penalised
from omnifill.generate.given import encoded
from omnifill.generate.tables import frame_columns


def test_tokens_are_what_is_generated_with_their_likelihood(
    pair: Callable[[str], Pair], tokenizer: Any
) -> None:  # fmt: skip
    """Beside `transformers`: the same log-probabilities, chosen and likeliest."""
    model, ours, _ = pair("llama")
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 12, "seed": 3}
    found, texts = ours.tokens(3, top=4, **options), ours.generate(3, **options)["text"]
    assert len({tuple(t.code for t in row) for row in found}) > 1
    begun = [0, *tokenizer.encode("the cat").ids]
    for tokens, text in zip(found, texts, strict=True):
        assert ("the cat" + "".join(t.text for t in tokens)).startswith(text[:10])
        codes = [t.code for t in tokens if t.code is not None]
        with torch.no_grad():
            log_probs = model(torch.tensor([begun + codes])).logits[0].log_softmax(dim=-1)
        for i, token in enumerate(tokens):
            there = log_probs[len(begun) - 1 + i]
            code = 1 if token.code is None else token.code
            assert token.log_prob == pytest.approx(float(there[code]), abs=1e-3)
            best = there.topk(4)
            assert [p for *_, p in token.likeliest] == pytest.approx(best.values.tolist(), abs=1e-3)
            assert [1 if c is None else c for _, c, _ in token.likeliest] == best.indices.tolist()


def test_tokens_add_up_to_the_score(model: api.Model) -> None:
    """Of our own records, each field's tokens are as likely as its score says."""
    made, tokens = model.generate(4, seed=5), model.tokens(4, seed=5)
    scores = model.score(made)
    for row, some in enumerate(tokens):
        for name in made:
            told = sum(t.log_prob for t in some if t.field == name)
            assert told == pytest.approx(scores[name][row], abs=1e-3)


@pytest.mark.parametrize(("settings", "want"), [
    ({"presence_penalty": 0.5}, [0.0, 1.5, 2.5, 4.0]),
    ({"frequency_penalty": 0.5}, [0.0, 1.0, 2.5, 4.0]),
    ({"presence_penalty": -1.0, "frequency_penalty": 1.0}, [0.0, 1.0, 3.0, 4.0]),
])  # fmt: skip
def test_penalties_count_what_was_written(settings: dict[str, float], want: list[float]) -> None:
    """Columns 1, 1 and 2 were written behind a given 3."""
    scores = torch.tensor([[0.0, 2.0, 3.0, 4.0]])
    made = penalised(scores, [[3, 1, 1, 2]], Sampling(**settings), np.array([1]))
    assert made[0].tolist() == want
    assert scores[0].tolist() == [0.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_prompt_is_not_what_was_written(
    penalty: str, pair: Callable[[str], Pair]
) -> None:  # fmt: skip
    """A token of the prompt that is just the likeliest stays so, and is not written twice."""
    _, ours, _ = pair("gpt2")
    code = int(ours.run.vocabulary["text"].codec.encode("the cat")[0])

    def codes(bias: float, **more: float) -> list[int | None]:
        made = ours.tokens(1, prompt="the cat", max_tokens=2, temperature=0,
                           logit_bias={code: bias}, **more)  # fmt: skip
        return [token.code for token in made[0]]

    least = next(bias for bias in np.arange(0.5, 30, 0.5).tolist() if codes(bias)[0] == code)
    assert codes(least, **{penalty: 2.0})[0] == code
    twice = next(bias for bias in np.arange(0.5, 30, 0.5).tolist() if codes(bias) == [code] * 2)
    assert codes(twice, **{penalty: 2.0}) != [code] * 2


def test_a_bias_bars_or_forces_a_token(
    pair: Callable[[str], Pair], tokenizer: Any
) -> None:  # fmt: skip
    _, ours, _ = pair("qwen 3")
    plain = ours.tokens(1, prompt="the cat", max_tokens=6, temperature=0)[0]
    first = plain[0].code
    other = ours.tokens(1, prompt="the cat", max_tokens=6, temperature=0, logit_bias={first: -100})
    assert first not in [t.code for t in other[0]]
    assert other[0][0].code == plain[0].likeliest[1][1]
    want = tokenizer.encode("mat").ids[0]
    forced = ours.generate(2, prompt="the cat", max_tokens=3, logit_bias={want: 100})
    assert forced["text"].tolist() == ["the cat" + tokenizer.decode([want]) * 3] * 2
    ended = ours.generate(1, prompt="the cat", max_tokens=5, logit_bias={1: 100})
    assert ended["text"][0] == "the cat"
    beams = ours.generate(1, prompt="the cat", max_tokens=3, beams=3, logit_bias={want: 100})
    assert beams["text"][0] == forced["text"][0]


def test_the_best_of_several_is_the_likeliest(pair: Callable[[str], Pair]) -> None:
    _, ours, _ = pair("gpt2")
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 8, "seed": 1}
    drawn = ours.generate(8, **options)
    each = ours.score(drawn)["text"] / drawn["text"].str.len()
    best = ours.generate(2, candidates=4, **options)["text"].tolist()
    assert best == [drawn["text"][int(each[:4].argmax())], drawn["text"][4 + each[4:].argmax()]]


@pytest.mark.parametrize(("settings", "why"), [
    ({"top": 51}, "top = 51: must be from 0 to 50"),
    ({"beams": 2}, "tokens are told of what is drawn"),
    ({"logit_bias": {10_000: 1}}, "logit_bias: token 10000 is none of the text's"),
    ({"logit_bias": {1: 101}}, "logit_bias = .* must be numbers from -100 to 100 by token"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"presence_penalty": 3}, "presence_penalty = 3: must be from -2 to 2"),
    ({"frequency_penalty": "a"}, "frequency_penalty"),
])  # fmt: skip
def test_what_has_no_effect_is_refused(
    settings: dict[str, Any], why: str, pair: Callable[[str], Pair]
) -> None:  # fmt: skip
    with pytest.raises(RequestError, match=why):
        pair("gpt2")[1].tokens(1, prompt="the", **settings)


def test_a_table_has_no_best_text_and_no_bias(model: api.Model) -> None:
    name = next(f.name for f in model.run.vocabulary.fields if f.slots is not None)
    with pytest.raises(RequestError, match="name aims, or want a text"):
        model.generate(1, want=name, candidates=3)
    with pytest.raises(RequestError, match="no text is wanted"):
        model.generate(1, want=name, logit_bias={0: 1.0})


def test_vectors_are_means_of_what_the_network_makes(
    pair: Callable[[str], Pair], tokenizer: Any
) -> None:  # fmt: skip
    """As the mean of the last hidden states of `transformers` but for `<s>`; alone or together."""
    model, ours, _ = pair("llama")
    texts = ["the cat", "sat on the mat and on the cat", "你好"]
    found = ours.embed(texts)
    assert found.dtype == np.float32 and found.shape == (3, 32)
    for text, vector in zip(texts, found, strict=True):
        ids = torch.tensor([[0, *tokenizer.encode(text).ids, 1]])
        with torch.no_grad():
            states = model.model(ids).last_hidden_state[0, 1:].mean(dim=0)
        np.testing.assert_allclose(vector, states.numpy(), atol=1e-4)
        np.testing.assert_allclose(vector, ours.embed([text])[0], atol=1e-5)
    with pytest.raises(RequestError, match=r"row 1: has \d+ tokens"):
        ours.embed(["the cat", "the cat sat " * 50])
    for bad in ("the cat", [1], [], pd.DataFrame({"text": []})):
        with pytest.raises(RequestError):
            ours.embed(bad)  # type: ignore[arg-type]


def test_records_that_fill_what_is_in_view_have_vectors(tmp_path: Path) -> None:
    """Where all fields are short, every whole record does."""
    table = pd.DataFrame({"a": ["x", "y"] * 30, "b": [1.5, 2.5, 3.5] * 20})
    for name in ("causal", "masked"):
        run = api.train(table, tmp_path / name, steps=2, recipe={"objective": {"name": name}})
        sizes = encoded(run.run, frame_columns(run.run, table)).sizes
        assert int(max(sizes)) == run.run.network.config.context
        assert np.isfinite(run.embed(table)).all()


def test_records_of_a_table_have_vectors_too(model: api.Model) -> None:
    made = model.generate(5, seed=2)
    vectors = model.embed(made)
    assert np.isfinite(vectors).all() and len(np.unique(vectors.round(5), axis=0)) == 5
    assert math.isclose(float(np.abs(vectors - model.embed(made.iloc[::-1])[::-1]).max()), 0,
                        abs_tol=1e-5)  # fmt: skip
