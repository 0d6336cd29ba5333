"""Every backbone keeps the promises of generation: cached equals uncached, batched equals alone,
streamed equals whole, resumed equals uninterrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import mixed_table
from tests.test_skeleton import StopAt, weights
from torch import Tensor

from omnifill import api
from omnifill.errors import RecipeError
from omnifill.model.cnn import dilations
from omnifill.model.config import ModelConfig
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.model.rnn import by_doubling, scan

KINDS = {
    "transformer": {"backbone": "transformer"},
    "lstm": {"backbone": "rnn", "cell": "lstm"},
    "gru": {"backbone": "rnn", "cell": "gru"},
    "mingru": {"backbone": "rnn", "cell": "mingru"},
    "cnn": {"backbone": "cnn", "kernel": 3},
}
every = pytest.mark.parametrize("kind", KINDS)
whole_way = pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("gru", "lstm") else kind
    for kind in KINDS
])  # fmt: skip
"""The same where each takes a whole training."""
TEXT = "the quick brown fox jumps over the lazy dog, and again: " * 60


def network(kind: str, **more: Any) -> Network:
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary=40, fields=3, dim=32, layers=3, heads=4, kv_heads=2, head_dim=8, ffn=48,
        context=16, standing=((7, 9), (30, 5)), **KINDS[kind], **more,
    )  # fmt: skip
    net = Network(config)
    with torch.no_grad():  # away from the zero initialisation, which would hide mistakes
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        net.standing.weight[0] = 0.0  # of values that do not stay in view, as it always is
    return net.eval()


def random_ids(rows: int, num: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 40, (rows, num)), torch.randint(0, 3, (rows, num))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every
@torch.no_grad()
def test_cached_equals_uncached_with_unequal_lengths(kind: str) -> None:
    net = network(kind)
    ids, field = random_ids(3, 12)
    whole = net(ids, field, None, Mask())
    cache = net.new_cache(3, 12)
    net(ids[:, :7], field[:, :7], None, Mask(), cache)
    cache.rewind(torch.tensor([2, 7, 5]))
    for _ in range(5):
        row, at = torch.arange(3), cache.lengths.clone()
        step = net(ids[row, at][:, None], field[row, at][:, None], None, Mask(), cache)[:, 0]
        close(step, whole[row, at])


@every
@torch.no_grad()
def test_a_text_read_in_chunks_is_the_text_read_at_once(kind: str) -> None:
    net = network(kind)
    ids, field = random_ids(2, 12)
    cache = net.new_cache(2, 12)
    parts = [net(ids[:, a:b], field[:, a:b], None, Mask(), cache)
             for a, b in ((0, 1), (1, 6), (6, 12))]  # fmt: skip
    close(torch.cat(parts, dim=1), net(ids, field, None, Mask()))


@every
@torch.no_grad()
def test_chosen_rows_go_on_as_if_alone_and_forgotten_rows_begin_anew(kind: str) -> None:
    net = network(kind)
    ids, field = random_ids(4, 9)
    cache = net.new_cache(4, 9)
    net(ids[:, :8], field[:, :8], None, Mask(), cache)
    few = cache.select(torch.tensor([3, 1]))
    step = net(ids[[3, 1], 8:], field[[3, 1], 8:], None, Mask(), few)
    close(step, net(ids, field, None, Mask())[[3, 1], 8:])
    cache.reset(torch.tensor([0]))
    fresh = net(ids[:1, :1], field[:1, :1], None, Mask(), cache.select(torch.tensor([0])))
    close(fresh, net(ids[:1, :1], field[:1, :1], None, Mask()))


@every
@torch.no_grad()
def test_what_comes_later_changes_nothing_before(kind: str) -> None:
    net = network(kind)
    ids, field = random_ids(2, 10)
    changed = ids.clone()
    changed[:, 6:] = 7
    close(net(ids, field, None, Mask())[:, :6], net(changed, field, None, Mask())[:, :6])


@every
@torch.no_grad()
def test_with_a_full_mask_all_slots_that_count_are_seen_and_padding_is_not(kind: str) -> None:
    net = network(kind, full=True)
    ids, field = random_ids(3, 10)
    lengths = torch.tensor([4, 10, 7])
    ids[torch.arange(10) >= lengths[:, None]] = 0
    whole = net(ids, field, None, Mask("full", lengths))
    for row, num in enumerate(lengths.tolist()):
        inside = ids[row : row + 1, :num], field[row : row + 1, :num]
        alone = net(*inside, None, Mask("full"))
        changed = inside[0].clone()
        changed[:, -1] = (changed[:, -1] + 1) % 7
        other = net(changed, inside[1], None, Mask("full"))
        assert not torch.allclose(alone[:, 0], other[:, 0])
        close(whole[row : row + 1, :num], alone)


@given(rows=st.integers(1, 3), num=st.integers(2, 40), first=st.booleans(), seed=st.integers(0, 99))
def test_a_scan_is_the_recurrence_and_both_ways_have_its_gradient(
    rows: int, num: int, first: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    keep, new = torch.rand(rows, num, 4), torch.randn(rows, num, 4)
    inputs = [keep.requires_grad_(), new.requires_grad_()]
    state = torch.randn(rows, 4) if first else None
    h, expected = torch.zeros(rows, 4) if state is None else state, []
    for t in range(num):
        h = keep[:, t] * h + new[:, t]
        expected.append(h)
    truth, wish = torch.stack(expected, 1), torch.randn(rows, num, 4)
    ways = [scan(keep, new, state)] + ([] if first else [by_doubling(keep, new)])
    slopes = torch.autograd.grad((truth * wish).sum(), inputs)
    for out in ways:
        torch.testing.assert_close(out, truth, rtol=1e-4, atol=1e-5)
        for one, other in zip(torch.autograd.grad((out * wish).sum(), inputs), slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@settings(max_examples=50)
@given(layers=st.integers(1, 12), kernel=st.integers(2, 8), context=st.integers(2, 2000))
def test_dilations_grow_until_the_context_is_in_view(
    layers: int, kernel: int, context: int
) -> None:
    spread = dilations(layers, kernel, context)
    assert spread[0] == 1 and len(spread) == layers and max(spread) < max(2, context)
    cycle = spread.index(1, 1) if 1 in spread[1:] else layers
    view = 1 + (kernel - 1) * sum(spread[:cycle])
    assert cycle == layers or view >= context


# --- the whole program ------------------------------------------------------------------------


def recipe(kind: str) -> dict[str, object]:
    settings = {k: v for k, v in KINDS[kind].items()}
    return {"model": {"size": "nano", **settings}, "train": {"save_every": 5}}


@whole_way
def test_a_table_goes_the_whole_way_and_resumes_to_the_same_bytes(
    kind: str, tmp_path: Path
) -> None:
    table = mixed_table(160)
    model = api.train(table, tmp_path / "whole", steps=12, recipe=recipe(kind))
    made = model.generate(5, seed=1, max_tokens=20)
    pd.testing.assert_frame_equal(made.head(2), model.generate(2, seed=1, max_tokens=20))
    few = table.head(12)
    assert not model.fill(few).isna().any().any()
    scores = model.score(few)
    alone = pd.concat([model.score(few.iloc[[i]]) for i in range(12)], ignore_index=True)
    pd.testing.assert_frame_equal(scores, alone, rtol=1e-4)
    assert np.isfinite(model.probabilities(few, "kind").to_numpy()).all()
    assert model.evaluate(few)["rows"]["nats"]["n"] == 12
    with pytest.raises(KeyboardInterrupt):
        api.train(table, tmp_path / "cut", steps=12, recipe=recipe(kind), live=StopAt(10))
    api.train(table, tmp_path / "cut", resume=True, recipe=recipe(kind))
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    again = tmp_path / "whole" / "recipe.yaml"
    api.train(table, tmp_path / "again", recipe=again)
    assert weights(tmp_path / "whole") == weights(tmp_path / "again")


@every
def test_a_text_streams_past_its_context_as_it_comes_whole(kind: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    short = recipe(kind) | {"model": {"size": "nano", "context": 24, **KINDS[kind]}}
    model = api.train(tmp_path / "text.txt", tmp_path / "run", steps=20, recipe=short)
    whole = model.generate(3, seed=5, max_tokens=150)["text"].tolist()
    assert "".join(model.stream(seed=5, max_tokens=150)) == whole[0]
    prompt = TEXT[:700]
    told = model.generate(2, prompt=prompt, seed=2, max_tokens=10)["text"].tolist()
    assert all(text.startswith(prompt) for text in told)
    assert model.generate(1, prompt=prompt, seed=2, max_tokens=10)["text"][0] == told[0]


@whole_way
def test_every_backbone_learns_in_bf16(kind: str, tmp_path: Path) -> None:
    settings = recipe(kind) | {"train": {"precision": "bf16"}}
    losses = [
        api.train(mixed_table(160), tmp_path / str(steps), steps=steps, recipe=settings)
        .run.folder.read_state()["training"]["valid"]
        for steps in (1, 30)
    ]  # fmt: skip
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "wrong",
    [{"backbone": "rnn", "heads": 2}, {"cell": "gru"}, {"backbone": "cnn", "cell": "lstm"},
     {"backbone": "rnn", "kernel": 3}],
)  # fmt: skip
def test_a_setting_of_another_backbone_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="is a setting of backbone"):
        api.build_recipe({"model": wrong})
