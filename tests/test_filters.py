"""Sampling against brute force: every filter, the inverse draw, chance without state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omnifill.chance import uniforms
from omnifill.errors import RequestError
from omnifill.generate.filters import Sampling, choose, filtered, penalised

SCORES = torch.tensor([[2.0, 1.0, 0.5, -1.0, float("-inf")], [0.0, 3.0, 0.0, 0.0, 0.0]])
NONE = np.zeros(2, np.int64)
"""How much of each row was given: nothing."""


def kept(scores: Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in scores]


def test_each_filter_keeps_what_its_definition_says() -> None:
    assert kept(filtered(SCORES, Sampling(top_k=2)))[0] == [0, 1]
    # Row 0 has probabilities about .61 .22 .14 .03: the first two reach 0.8 together.
    assert kept(filtered(SCORES, Sampling(top_p=0.8))) == [[0, 1], [1]]
    assert kept(filtered(SCORES, Sampling(top_p=0.01))) == [[0], [1]]
    assert kept(filtered(SCORES, Sampling(min_p=0.3)))[0] == [0, 1]
    assert kept(filtered(SCORES, Sampling(min_p=1.0)))[0] == [0]
    torch.testing.assert_close(filtered(SCORES, Sampling(temperature=0.5)), SCORES * 2)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2},
            {"repetition_penalty": 0}, {"no_repeat_ngram": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        Sampling(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7), Sampling(top_k=3), Sampling(top_p=0.9),
                 Sampling(min_p=0.1, temperature=1.5)],
)  # fmt: skip
def test_draws_follow_the_filtered_distribution(sampling: Sampling) -> None:
    num = 200_000
    scores = filtered(SCORES[:1], sampling)
    expected = scores.double().softmax(dim=1)[0].numpy()
    chance = torch.from_numpy(uniforms(7, np.arange(num), np.zeros(num, np.int64)))
    column, _ = choose(scores.expand(num, -1), chance, greedy=False)
    counts = np.bincount(column.numpy(), minlength=5)
    assert counts[expected == 0].sum() == 0
    live = expected > 0
    chi2 = ((counts[live] - num * expected[live]) ** 2 / (num * expected[live])).sum()
    assert chi2 < 40  # 4 degrees of freedom: beyond 1e-7


@pytest.mark.parametrize("least", [5e-324, 1e-45, 1e-38, 1e-20])
@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_however_little_is_asked_for_the_likeliest_is_drawn(name: str, least: float) -> None:
    scores = torch.tensor([[1.0, float("-inf"), 90.0, -4.0], [0.5, -30.0, -2.0, float("-inf")]])
    left = filtered(scores, Sampling(**{name: least}))  # type: ignore[arg-type]
    column, _ = choose(left, torch.tensor([0.999, 0.001], dtype=torch.float64), greedy=False)
    assert column.tolist() == [2, 0]


def test_chance_is_uniform_and_has_no_neighbours() -> None:
    rows, slots = np.meshgrid(np.arange(400), np.arange(250))
    chance = uniforms(3, rows.ravel(), slots.ravel()).reshape(rows.shape)
    assert chance.min() >= 0 and chance.max() < 1
    counts = np.histogram(chance, bins=50, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 120
    for a, b in ((chance[1:], chance[:-1]), (chance[:, 1:], chance[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    other = uniforms(4, rows.ravel(), slots.ravel()).reshape(rows.shape)
    assert abs(np.corrcoef(chance.ravel(), other.ravel())[0, 1]) < 0.02


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9), st.floats(0, 0.999999))
def test_a_draw_is_never_a_barred_column_and_leaves_a_number(
    scores: list[float], chance: float
) -> None:
    barred = [float("-inf"), *scores, float("-inf")]
    column, left = choose(
        torch.tensor([barred]), torch.tensor([chance], dtype=torch.float64), greedy=False
    )
    assert 1 <= int(column) <= len(scores)
    assert 0 <= float(left) < 1


def test_what_is_left_of_a_number_reads_the_next_slot_at_the_same_quantile() -> None:
    first, second = torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([[0.25] * 4]).log()
    column, left = choose(first, torch.tensor([0.5], dtype=torch.float64), greedy=False)
    assert int(column) == 1 and float(left) == pytest.approx(0.6)
    assert int(choose(second, left, greedy=False)[0]) == 2


def test_greedy_takes_the_best() -> None:
    assert choose(SCORES, torch.tensor([0.9, 0.9]), greedy=True)[0].tolist() == [0, 1]


def test_repetition_controls_act_on_what_the_row_holds() -> None:
    seen = [[0, 1, 0], []]
    lowered = penalised(SCORES, seen, Sampling(repetition_penalty=2.0), NONE)
    assert lowered[0, :3].tolist() == [1.0, 0.5, 0.5]
    torch.testing.assert_close(lowered[1], SCORES[1])
    barred = penalised(SCORES, seen, Sampling(no_repeat_ngram=2), NONE)
    assert kept(barred)[0] == [0, 2, 3]  # "0 1" was there, and the row ends with 0
    only = torch.tensor([[float("-inf"), 1.0, float("-inf"), float("-inf"), float("-inf")]])
    assert kept(penalised(only, [[0, 1, 0]], Sampling(no_repeat_ngram=2), NONE)) == [[1]]
