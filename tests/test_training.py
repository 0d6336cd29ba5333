"""Optimisers against references, exact accumulation, schedules, checkpoints, bad numbers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import mixed_table
from torch import Tensor, nn

from omnifill import api
from omnifill.errors import RunError, TrainingStopped
from omnifill.form.batch import Batch
from omnifill.form.encode import encode_records
from omnifill.form.layout import Former, schema_order
from omnifill.form.stream import eval_batches
from omnifill.generate.tables import frame_columns
from omnifill.objectives.causal import CausalObjective, LossSum, weighed
from omnifill.recipe import Recipe
from omnifill.settings import FormSettings, MixSettings
from omnifill.train import checkpoint
from omnifill.train.checkpoint import load_newest, save_checkpoint
from omnifill.train.decide import noise, suited_to
from omnifill.train.loop import (
    Report,
    Trainer,
    TrainPlan,
    bend,
    can_compile,
    default_schedule,
    move_end,
    rate_between,
)
from omnifill.train.metrics import seconds_spent
from omnifill.train.optim import OptimConfig, Optimizer, clip_gradient, orthogonalise


class Net(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 3)
        if tied:
            self.backbone.append(nn.Linear(4, 4))
            self.backbone[3].weight = self.backbone[2].weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


@dataclass(frozen=True)
class Rows:
    x: Tensor
    weight: Tensor

    def split(self, micro_tokens: int | None) -> list[Rows]:
        step = micro_tokens or len(self.x)
        return [
            Rows(self.x[i : i + step], self.weight[i : i + step])
            for i in range(0, len(self.x), step)
        ]


def loss(model: nn.Module, rows: Rows) -> LossSum:
    each = model(rows.x).square().sum(dim=1)
    return LossSum((each * rows.weight).sum(), rows.weight.sum())


def stream(position: dict[str, int]) -> Iterator[tuple[Rows, dict[str, int]]]:
    at = position.get("at", 0)
    while True:
        generator = torch.Generator().manual_seed(at)
        x = torch.randn(7, 4, generator=generator)
        at += 1
        yield Rows(x, torch.rand(7, generator=generator)), {"at": at}


def plan(steps: int, **changes: Any) -> TrainPlan:
    usual = {"optim": OptimConfig(), "eval_every": 5, "save_every": 4,
             "schedule": default_schedule(steps, 2, 0.5)}  # fmt: skip
    return TrainPlan(steps=steps, **{**usual, **changes})


def ignore(_: Report) -> None: ...


def trained(
    the_plan: TrainPlan, folder: Path | None = None, tied: bool = False
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    trainer = Trainer(Net(tied), the_plan, folder)
    trainer.run(stream, loss, lambda model: 1.0 / trainer.progress.step, ignore)
    return trainer.model.state_dict()


def test_adamw_matches_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig(muon=False, lr_adamw=0.01, weight_decay=0.1)
    mine = Optimizer(ours, config)
    decayed = [p for p in theirs.parameters() if p.ndim >= 2]
    plain = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.95),
    )  # fmt: skip
    for _, (batch, _) in zip(range(5), stream({}), strict=False):
        for model in (ours, theirs):
            model.zero_grad()
            loss(model, batch).total.backward()
        mine.step(1.0)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_orthogonalised_matrices_have_singular_values_near_one_each_by_itself() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 12, 20) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    together = orthogonalise(matrices)
    values = torch.linalg.svdvals(together)
    assert ((values > 0.6) & (values < 1.3)).all()
    alone = torch.cat([orthogonalise(m[None]) for m in matrices])
    torch.testing.assert_close(together, alone, rtol=0.05, atol=0.02)
    torch.testing.assert_close(orthogonalise(matrices.mT), together.mT, rtol=0.05, atol=0.02)


def test_micro_batches_equal_one_large_batch() -> None:
    whole = trained(plan(6))
    parts = trained(plan(6, micro_tokens=2))
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=2e-3, atol=2e-4)


def test_clipping_scales_to_the_limit() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([3.0, 4.0, 0.0])
    assert clip_gradient([parameter], 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8, 0.0]))


@given(st.integers(1, 500), st.integers(0, 50), st.floats(0.05, 1.0))
def test_a_schedule_rises_stays_and_ends_at_zero(steps: int, warmup: int, decay: float) -> None:
    knots = default_schedule(steps, warmup, decay)
    rates = [rate_between(knots, s) for s in range(steps)]
    assert all(0 < r <= 1 for r in rates)
    assert rate_between(knots, steps) == 0
    top = rates.index(max(rates))
    assert all(a <= b + 1e-9 for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-9 for a, b in pairwise(rates[top:]))


@given(st.integers(0, 99), st.integers(1, 200))
def test_moving_the_end_keeps_the_past_and_decays_fully(step: int, more: int) -> None:
    knots = default_schedule(100, 5, 0.6)
    for moved in (move_end(knots, step, step + more, 0.6), bend(knots, step, step + more)):
        assert moved[-1] == (step + more, 0.0)
        assert [s for s, _ in moved] == sorted(s for s, _ in moved)
        for s in range(step):
            assert rate_between(moved, s) == pytest.approx(rate_between(knots, s))
        assert all(0 <= rate_between(moved, s) <= 1 for s in range(step + more + 1))


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_killed_anywhere_resumes_to_the_same_bits(tied: bool, tmp_path: Path) -> None:
    whole = trained(plan(13), tied=tied)
    for stop in (1, 4, 6, 9, 12):
        folder = tmp_path / str(stop)
        torch.manual_seed(0)
        first = Trainer(Net(tied), plan(13), folder)
        batches = stream({})
        for _ in range(stop):  # as `run` does, without its reports
            batch, first.progress.position = next(batches)
            first.step(batch, loss)
            if first.progress.step % first.plan.save_every == 0:
                first.save()
        torch.manual_seed(99)
        second = Trainer(Net(tied), plan(13), folder)
        assert second.resume() == []
        assert second.progress.step == stop // 4 * 4
        if second.progress.step == 0:  # nothing was saved yet: the start is the seed's
            torch.manual_seed(0)
            second = Trainer(Net(tied), plan(13), folder)
        second.run(stream, loss, lambda m, t=second: 1.0 / t.progress.step, ignore)
        for name, tensor in second.model.state_dict().items():
            assert torch.equal(tensor, whole[name]), (stop, name)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_update(poison: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(10), tmp_path)

    def poisoned(model: nn.Module, rows: Rows) -> LossSum:
        part = loss(model, rows)
        return LossSum(part.total * (poison if trainer.progress.step == 3 else 1), part.count)

    before = {}

    def remember(position: dict[str, int]) -> Iterator[tuple[Rows, dict[str, int]]]:
        for item in stream(position):
            before.update({n: t.clone() for n, t in trainer.model.state_dict().items()})
            yield item

    with pytest.raises(TrainingStopped, match=r"not finite at step 3.*no update"):
        trainer.run(remember, poisoned, lambda model: 1.0, ignore)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_over_fitting_goes_back_to_the_best_weights_and_ends_decayed() -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(400, patience=3), None)
    progress = trainer.run(
        stream, loss, lambda model: 1.0 + abs(trainer.progress.step - 50) / 100, ignore
    )
    assert progress.over_fitted
    assert progress.best_step == 50
    assert progress.step < 200
    assert progress.schedule[-1][1] == 0.0


@pytest.mark.parametrize(("last", "kept"), [(1.001, 40), (1.02, 20)])
def test_settled_weights_are_kept_if_they_are_as_good_up_to_noise(last: float, kept: int) -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(40), None)
    losses = {20: 1.0, 40: last}
    progress = trainer.run(
        stream, loss, lambda model: losses.get(trainer.progress.step, 1.004), ignore
    )
    assert progress.best_step == kept
    if kept == 40:
        state = trainer.model.state_dict()
        assert all(torch.equal(trainer.best[name], state[name]) for name in state)


def test_a_run_without_patience_goes_on_to_its_end_and_keeps_its_last_weights() -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(60, patience=0), None)
    progress = trainer.run(stream, loss, lambda model: 1.0 + trainer.progress.step, ignore)
    assert (progress.step, progress.best_step, progress.over_fitted) == (60, 60, False)
    state = trainer.model.state_dict()
    assert all(torch.equal(trainer.best[name], state[name]) for name in state)


def test_noise_shrinks_with_the_ids_read_and_widens_what_counts_as_no_worse() -> None:
    assert noise(10) > noise(200) > noise(10_000) == noise(1_000_000) == 0.005
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(40, margin=noise(200)), None)
    losses = {20: 1.0, 40: 1.02}
    progress = trainer.run(
        stream, loss, lambda model: losses.get(trainer.progress.step, 1.01), ignore
    )
    assert progress.best_step == 40


@pytest.mark.filterwarnings("ignore:field")  # a few lie outside the model's range
def test_a_small_validation_part_is_read_in_many_orders_and_a_large_one_in_the_schemas(
    model: api.Model,
) -> None:
    vocabulary = model.run.vocabulary

    def read(rows: int) -> tuple[int, int, list[Batch]]:
        columns = frame_columns(model.run, mixed_table(rows, seed=1))
        shard = encode_records(vocabulary, columns)[0]
        batches = list(eval_batches(
            shard, vocabulary, FormSettings(), context=512, batch_tokens=10**6, limit=60_000
        ))  # fmt: skip
        again = list(eval_batches(
            shard, vocabulary, FormSettings(), context=512, batch_tokens=10**6, limit=60_000
        ))  # fmt: skip
        assert all(torch.equal(a.ids, b.ids) for a, b in zip(batches, again, strict=True))
        return len(shard.ids), sum(len(b.ids) for b in batches), batches

    ids, num, batches = read(20)
    assert num == 20 * min(16, 8192 // ids)
    first, others = batches  # as the schema says, and all else
    times = len(others.ids) // len(first.ids)
    kept = Counter(tuple(sorted(row)) for row in others.ids.tolist())
    # The last and longest does not fit; what is cut away is another part in each order.
    assert all(kept[tuple(sorted(row))] == times for row in first.ids[:-1].tolist())
    assert len({row.numpy().tobytes() for row in others.field}) > 2 * len(first.ids)
    ids, num, _ = read(1200)
    assert ids > 8192 and num == 1200


def test_a_deadline_ends_the_run_in_time_and_fully_decayed() -> None:
    torch.manual_seed(0)
    deadline = time.monotonic() + 0.5
    trainer = Trainer(Net(), plan(1_000_000, deadline=deadline), None)
    progress = trainer.run(stream, loss, lambda model: 1.0, ignore)
    assert progress.step < 1_000_000
    assert progress.schedule[-1] == (progress.step, 0.0)


@pytest.mark.parametrize("slow", [1.0, 2.5, 0.4])
def test_a_machine_that_changes_its_pace_still_ends_settled_validated_and_in_time(
    slow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def slowly(model: nn.Module, rows: Rows) -> LossSum:
        nonlocal now
        now += 1.0 if now < 150 else slow
        return loss(model, rows)

    def evaluate(_: nn.Module) -> float:
        nonlocal now
        now += 3.0
        return 1.0

    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(270, deadline=300.0, eval_every=40, decay=0.6), None)
    progress = trainer.run(stream, slowly, evaluate, ignore)
    assert 290 < now <= 300
    assert progress.history[-1]["step"] == progress.step == progress.best_step
    assert rate_between(progress.schedule, progress.step - 1) < 0.05


def test_the_moving_average_is_what_is_validated_and_kept() -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(20, ema=0.9), None)
    seen: list[Tensor] = []

    def evaluate(model: nn.Module) -> float:
        seen.append(next(iter(model.state_dict().values())).clone())
        return 1.0 / trainer.progress.step

    trainer.run(stream, loss, evaluate, ignore)
    assert trainer.average is not None
    assert torch.equal(seen[-1], next(iter(trainer.average.values())))
    assert not torch.equal(seen[-1], next(iter(trainer.model.state_dict().values())))


# --- checkpoints ---------------------------------------------------------------------------


def saved(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"w": torch.full((64,), float(step))}, {"step": step})


def test_the_newest_checkpoint_counts_and_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    found, damaged = load_newest(tmp_path)
    assert found is not None and found.step == 3 and damaged == []
    assert torch.equal(found.tensors["w"], torch.full((64,), 3.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "delete"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    tmp_path: Path, name: str, how: str
) -> None:
    saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / name
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.unlink() if how == "delete" else path.write_bytes(
        {"flip": bytes(data), "truncate": bytes(data[:-5]), "empty": b""}[how]
    )
    found, damaged = load_newest(tmp_path)
    assert found is not None and found.step == 1
    assert "step-00000002 is damaged" in damaged[0]


@pytest.mark.parametrize("point", ["save_file", "hash_file", "sync_file", "sync_folder"])
def test_a_save_that_fails_anywhere_leaves_the_one_before(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, point, full)
    with pytest.raises(RunError, match="No space left"):
        saved(tmp_path, 2)
    monkeypatch.undo()
    found, _ = load_newest(tmp_path)
    assert found is not None and found.step == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_small_data_gets_random_orders_a_gentler_rate_and_dropout() -> None:
    rare, often = suited_to(Recipe(), 3.0, True), suited_to(Recipe(), 200.0, True)
    assert rare.form.mix == MixSettings() and rare.train.lr == 0.02
    assert often.form.mix == MixSettings(schema_order=0, random_order=1, one_last=0)
    assert often.train.lr == 0.005 and often.model.dropout == pytest.approx(0.232, abs=1e-3)
    assert rare.model.dropout is not None and rare.model.dropout < often.model.dropout


def test_with_pictures_and_sounds_they_or_what_is_told_from_them_come_last() -> None:
    for epochs in (3.0, 200.0):
        mix = suited_to(Recipe(), epochs, False, True).form.mix
        assert mix is not None and mix.random_order == 0 < mix.schema_order < mix.one_last
        assert not mix.partly, "of two fields there is nothing to leave out"
        mix = suited_to(Recipe(), epochs, False, True, fields=3).form.mix
        assert mix is not None and mix.partly


def test_pictures_and_sounds_that_come_by_often_are_learned_with_noise() -> None:
    def most(epochs: float, noisy: bool = True) -> float | None:
        return suited_to(Recipe(), epochs, False, True, noisy).form.noise

    assert most(2.0) == 0 and most(400.0) == 1
    seldom, often = most(8.0), most(20.0)
    assert seldom is not None and often is not None and 0 < seldom < often < 1
    assert most(400.0, noisy=False) is None
    quiet = Recipe().with_values(**{"form.noise": 0.0})
    plain, noisy = (suited_to(r, 400.0, False, True, True) for r in (quiet, Recipe()))
    assert plain.model.dropout is not None and noisy.model.dropout is not None
    assert noisy.model.dropout < plain.model.dropout
    assert plain.train.patience == 4 and noisy.train.patience == 0


def test_what_the_user_sets_is_never_decided_again() -> None:
    mine = {"model.dropout": 0.0, "train.lr": 0.01, "form.mix": {"one_last": 1.0},
            "train.ema": 0.5, "train.settle": 0.2, "train.weight_decay": 0.2,
            "train.optim": "muon", "train.lr_adamw": 0.001, "train.patience": 7}  # fmt: skip
    recipe = Recipe().with_values(**mine)
    assert suited_to(recipe, 200.0, False) == recipe
    assert suited_to(recipe, 2.0, False) == recipe


def test_an_average_of_weights_is_kept_of_tables_that_are_not_small_and_have_no_texts() -> None:
    assert suited_to(Recipe(), 3.0, False).train.ema == 0.98
    assert suited_to(Recipe(), 200.0, False).train.ema == 0.0
    assert suited_to(Recipe(), 3.0, True).train.ema == 0.0
    few, many = (suited_to(Recipe(), epochs, True, True).train for epochs in (3.0, 200.0))
    assert few == many and many.ema == 0.98 and many.lr == 0.02, "pictures, however often"


def test_without_a_compiler_training_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*going on without"):
        assert not can_compile()


@pytest.mark.parametrize("presence", [0.05, 0.5, 1.0])
def test_a_light_weight_on_presence_keeps_the_true_shares_as_the_optimum(presence: float) -> None:
    shares = torch.tensor([0.2, 0.5, 0.1, 0.2])  # <missing> and three values; <end> is barred
    logits = torch.cat([torch.tensor([float("-inf")]), shares.log()]).requires_grad_()
    columns = torch.arange(1, 5)
    nats = weighed(logits.expand(4, -1), columns, presence)
    (nats * shares).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(5), rtol=0, atol=1e-6)


def test_presence_counts_its_weight_and_the_value_counts_whole() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5)
    column = torch.tensor([1, 1, 2, 3, 4, 2])
    missing = column == 1
    there = 1 - logits.softmax(1)[:, 1]
    of_value = logits[:, [0, 2, 3, 4]].log_softmax(1)
    value = -of_value.gather(1, (column - 1).clamp(min=0)[:, None])[:, 0]
    expected = torch.where(missing, -0.3 * (1 - there).log(), value - 0.3 * there.log())
    torch.testing.assert_close(weighed(logits, column, 0.3), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nats_and_their_gradient_are_those_of_the_definition(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64)
    logits[::2, 0] = float("-inf")  # barred: it takes no part
    logits.requires_grad_()
    column, weight = torch.tensor([1, 1, 2, 3, 4, 2]), torch.rand(6, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(column, 5).double()
    allowed = (logits > float("-inf")).double()
    target = (1 - smoothing) * one_hot + smoothing * allowed / allowed.sum(1, keepdim=True)
    log_probs = logits.log_softmax(1).masked_fill(allowed == 0, 0.0)
    expected = -(target * log_probs).sum(1)
    nats = weighed(logits, column, 1.0, smoothing)
    torch.testing.assert_close(nats, expected)
    slopes = [torch.autograd.grad((x * weight).sum(), logits)[0] for x in (nats, expected)]
    torch.testing.assert_close(*slopes)


def test_smoothing_is_for_learning_and_not_for_validation(tmp_path: Path) -> None:
    """What is measured stays the likelihood."""
    recipe = {"objective": {"smoothing": 0.5}}
    run = api.train(mixed_table(60, seed=1), tmp_path / "run", steps=2, recipe=recipe).run
    shard = encode_records(run.vocabulary, frame_columns(run, mixed_table(60, seed=1)))[0]
    orders = schema_order(len(shard), run.vocabulary)
    batch = Former(run.vocabulary).records(shard, np.arange(len(shard)), orders)
    plain = CausalObjective(run.vocabulary).loss(run.network, batch).total.detach()
    assert not torch.isclose(run.objective.loss(run.network, batch).total, plain)
    with torch.no_grad():
        torch.testing.assert_close(run.objective.loss(run.network, batch).total, plain)


def test_a_column_where_nothing_but_missing_is_allowed_has_no_gradient_of_nan() -> None:
    logits = torch.full((2, 4), float("-inf"))
    logits[:, 1] = 0.5
    logits.requires_grad_()
    weighed(logits, torch.tensor([1, 1]), 0.05).sum().backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


def test_dropout_pauses_where_the_rate_is_low() -> None:
    """What is dropped shifts predictions: the weights settle without it."""
    net, noisy = Net(), []

    def watching(model: nn.Module, rows: Rows) -> LossSum:
        noisy.append(model.training)
        return loss(model, rows)

    the_plan = plan(10, schedule=[(0, 1.0), (5, 1.0), (10, 0.0)], settle=0.5)
    Trainer(net, the_plan, None).run(stream, watching, lambda _: 1.0, ignore)
    assert noisy == [True] * 8 + [False] * 2


def test_the_time_of_all_sessions_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert seconds_spent(path) == 0
    lines = [f'{{"step": {s}, "seconds": {t}}}' for s, t in
             ((10, 2.0), (20, 4.0), (30, 1.5), (40, 3.0), (50, 1.0))]  # fmt: skip
    path.write_text("\n".join([*lines, '{"step": 6']), encoding="utf-8")
    assert seconds_spent(path) == 4.0 + 3.0 + 1.0


@pytest.mark.parametrize("patience", [0, 4])
def test_a_loss_that_is_no_number_never_counts_as_the_best(patience: int) -> None:
    torch.manual_seed(0)
    trainer = Trainer(Net(), plan(40, patience=patience), None)
    progress = trainer.run(
        stream, loss, lambda model: 1.0 if trainer.progress.step == 20 else math.nan, ignore
    )
    assert (progress.best, progress.best_step, progress.step) == (1.0, 20, 40)
