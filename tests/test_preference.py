"""What was chosen becomes likelier than what was rejected; both are held to the base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.test_skeleton import StopAt, weights

from omnifill import api
from omnifill.data.shards import open_shard
from omnifill.errors import RecipeError, UserError
from omnifill.form.stream import eval_batches
from omnifill.objectives.table import build_objective

TEXTS = {name: {"type": "text"} for name in ("prompt", "chosen", "rejected")}
DPO = {"objective.name": "dpo", "train.lr_adamw": 0.002, "schema.fields": TEXTS}


def asked(rows: int, seed: int) -> pd.DataFrame:
    """A question, a short answer and a long one."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 9, (2, rows))
    return pd.DataFrame({
        "prompt": [f"{i} and {j}?" for i, j in zip(a, b, strict=True)],
        "chosen": [f"{i + j}." for i, j in zip(a, b, strict=True)],
        "rejected": [f"Well, I think that it is {i + j}." for i, j in zip(a, b, strict=True)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model that answers either way, half of the time each."""
    data, out = asked(400, 0), tmp_path_factory.mktemp("base") / "base"
    table = data[["prompt", "chosen"]].copy()
    table.loc[::2, "chosen"] = data.loc[::2, "rejected"]
    return api.train(table, out, steps=150, given=["prompt"], want=["chosen"],
                     recipe={"model": {"size": "nano"}, "schema": {"fields": {
                         name: TEXTS[name] for name in ("prompt", "chosen")}}})  # fmt: skip


def preferring(base: api.Model, data: pd.DataFrame, out: Path, **settings: Any) -> api.Model:
    recipe = api.build_recipe(None, **{
        "train.base": str(base.run.folder.path), "train.steps": 40, **DPO, **settings,
    })  # fmt: skip
    return api.train(data, out, recipe=recipe)


def gap(model: api.Model, data: pd.DataFrame) -> float:
    """How much likelier chosen answers are than rejected ones, in nats."""
    told = data[["prompt", "chosen"]]
    other = data[["prompt"]].assign(chosen=data["rejected"])
    return float((model.score(told)["chosen"] - model.score(other)["chosen"]).mean())


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_what_was_chosen_becomes_likelier(
    base: api.Model, lora: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = asked(60, 7)
    capsys.readouterr()
    more = {"train.lora": lora, "train.lr_adamw": 0.004} if lora else {}
    model = preferring(base, asked(200, 1), tmp_path / "run", **more)
    assert "are learned (chosen, rejected)" in capsys.readouterr().err
    assert model.run.recipe.form.windows is False
    assert gap(model, unseen) > gap(base, unseen) + 3
    before = base.generate(40, given={"prompt": "3 and 4?"}, seed=1)["chosen"]
    after = model.generate(40, given={"prompt": "3 and 4?"}, seed=1)["chosen"]
    assert list(model.generate(2, given={"prompt": "3 and 4?"})) == ["prompt", "chosen"]
    if not lora:
        assert after.str.len().mean() < 0.6 * before.str.len().mean()


def test_the_loss_is_that_of_the_paper(base: api.Model, tmp_path: Path) -> None:
    """From likelihoods that `score` tells, of the model and of its base."""
    data = asked(40, 3)
    model = preferring(base, data, tmp_path / "run", **{"objective.beta": 0.3, "train.steps": 6})
    run = model.run
    shard = open_shard(run.folder.encoded / "train")
    objective = build_objective(run.recipe.objective, run.vocabulary)
    objective.begin(base_network(base, model))
    total, count = 0.0, 0.0
    batches = eval_batches(
        shard, run.vocabulary, run.recipe.form, context=run.network.config.context,
        batch_tokens=512, limit=1 << 20,
    )  # fmt: skip
    with torch.no_grad():
        for batch in batches:
            part = objective.loss(run.network, batch)
            total, count = total + float(part.total), count + float(part.count)
    pairs = pd.DataFrame({name: decoded(model, shard, name) for name in data})
    ours, theirs = gaps(model, pairs), gaps(base, pairs)
    want = np.logaddexp(0, -0.3 * (ours - theirs))
    assert count == len(pairs)
    assert total == pytest.approx(float(want.sum()), rel=1e-3)


def base_network(base: api.Model, model: api.Model) -> Any:
    """The base in the shape of what was trained from it."""
    from omnifill.base import begin_with, built, open_base

    run = model.run
    network = built(run.recipe, run.network.config, run.vocabulary)
    found = open_base(run.recipe)
    assert found is not None
    begin_with(network, found, run.vocabulary)
    return network


def decoded(model: api.Model, shard: Any, name: str) -> list[str]:
    vocabulary, out = model.run.vocabulary, []
    index = vocabulary[name].index
    for row in range(len(shard)):
        lens = shard.lens[row]
        first = int(shard.starts[row] + lens[:index].sum())
        out.append(vocabulary.decode(name, shard.ids[first : first + int(lens[index]) - 1]))
    return out


def gaps(model: api.Model, pairs: pd.DataFrame) -> np.ndarray:
    told = model.score(pairs[["prompt", "chosen"]])["chosen"]
    other = model.score(pairs[["prompt"]].assign(chosen=pairs["rejected"]))["chosen"]
    return np.asarray(told - other)


def test_nothing_learned_yet_is_as_likely_as_before(base: api.Model, tmp_path: Path) -> None:
    still = {"train.lr_adamw": 1e-12, "train.weight_decay": 0.0, "train.steps": 2}
    model = preferring(base, asked(60, 4), tmp_path / "run", **still)
    unseen = asked(20, 5)[["prompt", "chosen"]]
    np.testing.assert_allclose(
        model.score(unseen)["chosen"], base.score(unseen)["chosen"], rtol=1e-3
    )
    valid = [line for line in model.run.folder.metrics.read_text(encoding="utf-8").splitlines()
             if '"valid"' in line]  # fmt: skip
    assert valid and f"{math.log(2):.3f}" in valid[-1]


def test_a_resumed_run_is_the_uninterrupted_one(base: api.Model, tmp_path: Path) -> None:
    data = asked(120, 6)
    recipe = api.build_recipe(None, **DPO, **{
        "train.base": str(base.run.folder.path), "train.steps": 24, "train.eval_every": 8,
    })  # fmt: skip
    api.train(data, tmp_path / "whole", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        api.train(data, tmp_path / "part", recipe=recipe, live=StopAt(10))
    api.train(data, tmp_path / "part", recipe=recipe, resume=True)
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


@pytest.mark.parametrize(("settings", "why"), [
    ({"train.base": None}, "goes on from a network that is there"),
    ({"form.tasks": [{"given": ["prompt"], "want": ["chosen"]}]}, "each names the field `against`"),
    ({"form.tasks": [{"given": ["prompt"], "want": ["chosen"], "against": "reject"}]}, "reject"),
    ({"form.tasks": [{"given": ["prompt"], "want": ["chosen"], "against": "chosen"}]}, "against"),
    ({"objective.name": "causal", "form.tasks": [
        {"given": ["prompt"], "want": ["chosen"], "against": "rejected"}]}, "is of objective"),
    ({"schema.fields": {**TEXTS, "chosen": {"type": "category"}}}, "say --field chosen:text"),
    ({"objective.smoothing": 0.1}, "smoothing"),
    ({"form.windows": True}, "both texts of a preference must be in view together"),
    ({"objective.beta": 0}, "beta"),
    ({"objective.name": "causal", "objective.beta": 0.1}, "beta is a setting of objective 'dpo'"),
])  # fmt: skip
def test_what_is_no_preference_is_refused(
    base: api.Model, settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises((RecipeError, UserError), match=why):
        preferring(base, asked(30, 0), tmp_path / "run", **settings)


def test_a_table_without_the_usual_names_says_which(base: api.Model, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"form\.tasks: .*'rejected'"):
        preferring(base, asked(30, 0).rename(columns={"rejected": "bad"}), tmp_path / "run",
                   **{"schema.fields": {}})  # fmt: skip
