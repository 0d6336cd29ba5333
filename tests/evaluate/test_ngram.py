"""The n-gram baseline is exact Kneser-Ney, a proper distribution, and generates valid texts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnifill.evaluate.ngram import BASE, BOUNDARY, Ngram, _discounts, count, sweep
from omnifill.evaluate.template import Template

TEXTS = ["abracadabra", "abra", "", "cadabra abra", "naïve 汉字", "汉字 abra", "banana bandana"] * 3


def slow_nats(train: list[str], text: str, order: int) -> float:
    """The textbook's recursion, gram by gram."""
    pad = (BOUNDARY,) * (order - 1)
    streams = [(*pad, *t.encode(), BOUNDARY) for t in train]
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    for symbols in streams:
        for end in range(len(pad), len(symbols)):
            for k in range(1, order + 1):
                counts[k][symbols[end - k + 1 : end + 1]] += 1
    tables = []
    for k in range(1, order + 1):
        kinds: Counter[tuple[int, ...]] = Counter()
        if k == order:
            kinds = counts[k]
        else:
            for gram in counts[k + 1]:
                kinds[gram[1:]] += 1
        num = np.bincount([c for c in kinds.values() if c < 5], minlength=5)
        off = _discounts(num)
        after: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for gram, c in kinds.items():
            after[gram[:-1]].append((gram[-1], c))
        tables.append((kinds, off, after))

    def prob(gram: tuple[int, ...]) -> float:
        if not gram:
            return 1 / BASE
        kinds, off, after = tables[len(gram) - 1]
        seen = after.get(gram[:-1], [])
        total = sum(c for _, c in seen)
        if not total:
            return prob(gram[1:])
        c = kinds.get(gram, 0)
        rest = sum(float(off[min(c, 3)]) for _, c in seen) / total
        return (c - float(off[min(c, 3)])) / total + rest * prob(gram[1:])

    symbols = (*pad, *text.encode(), BOUNDARY)
    return -sum(
        math.log(prob(symbols[end - order + 1 : end + 1])) for end in range(len(pad), len(symbols))
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_fast_counts_give_the_textbooks_likelihood(order: int) -> None:
    asked = ["abra", "", "cab", "汉字", "zzz", "an naïve banana"]
    fast = sweep(count(TEXTS, order), asked)[-1]
    assert np.allclose(fast, [slow_nats(TEXTS, text, order) for text in asked])


def test_every_order_is_what_a_model_of_that_order_says() -> None:
    together = sweep(count(TEXTS, 5), TEXTS[:7])
    for order in (2, 3, 4):
        assert np.allclose(together[order - 1], sweep(count(TEXTS, order), TEXTS[:7])[-1])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6), st.text(max_size=8))
def test_what_may_come_next_adds_up_to_one_and_agrees_with_the_likelihood(
    train: list[str], text: str
) -> None:
    model = Ngram(count(train, 4), 4)
    contexts, nats = model._start(1), 0.0
    for symbol in (*text.encode(), BOUNDARY):
        prob = model._next(contexts)[0]
        assert prob.sum() == pytest.approx(1) and (prob > 0).all()
        nats -= math.log(prob[symbol])
        contexts = model._pushed(contexts, np.array([symbol]))
    assert nats == pytest.approx(float(model.nats([text])[0]))


def test_the_order_is_the_best_on_validation_texts() -> None:
    rng = np.random.default_rng(0)
    noise = ["".join(rng.choice(list("ab"), 40)) for _ in range(60)]
    assert Ngram.fit(noise[:50], noise[50:]).order == 2
    cycle = ["".join("abcabdabe"[(i + k) % 9] for i in range(60)) for k in range(9)]
    assert Ngram.fit(cycle, cycle).order > 2


@pytest.mark.parametrize("kind", ["ngram", "template"])
def test_the_same_seed_gives_the_same_valid_texts(kind: str) -> None:
    model = Ngram(count(TEXTS, 3), 3) if kind == "ngram" else Template.fit(TEXTS)
    made = model.generate(50, seed=7)
    assert made == model.generate(50, seed=7) != model.generate(50, seed=8)
    assert len(made) == 50 and all("�" not in text for text in made)
    assert any("abra" in text for text in made)


def test_a_template_keeps_what_is_frequent_and_changes_what_is_rare() -> None:
    names = [f"name{i}" for i in range(40)]
    texts = [f"Dear {name}, your order {i * 7919} is ready." for i, name in enumerate(names)]
    made = Template.fit(texts).generate(30, seed=0)
    assert all(t.startswith("Dear name") and t.endswith(" is ready.") for t in made)
    assert not set(made) <= set(texts)


def test_a_template_of_unspaced_text_works_by_characters() -> None:
    made = Template.fit([f"你好{c}先生再见" for c in "王李张刘陈杨黄赵吴周"]).generate(5, seed=0)
    assert all(t.startswith("你好") and t.endswith("先生再见") and len(t) == 7 for t in made)


def test_nothing_to_learn_from_gives_empty_texts() -> None:
    assert Template.fit([]).generate(2, seed=0) == ["", ""]
