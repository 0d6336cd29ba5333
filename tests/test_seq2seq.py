"""Sequence to sequence: an encoder over what is given, a decoder over what is wanted; and the whole
matrix of backbones and objectives goes every way that a model goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import mixed_table
from tests.model.test_backbones import KINDS, close, every, network, random_ids, whole_way
from tests.test_skeleton import StopAt, weights

from omnifill import api
from omnifill.errors import Interrupted, RecipeError
from omnifill.form.batch import Batch
from omnifill.form.vocabulary import MASK, PAD
from omnifill.model.mask import Mask
from omnifill.objectives.seq2seq import HOLES, restored

NANO: dict[str, Any] = {"size": "nano", "layers": 1}


def paired(kind: str) -> Any:
    return network(kind, encoder_layers=2, memory=True)


@every
@torch.no_grad()
def test_a_decoder_with_a_cache_is_the_decoder_without(kind: str) -> None:
    net = paired(kind)
    source, source_field = random_ids(3, 9)
    memory = net.encode(source, source_field, None, Mask("full", torch.tensor([4, 9, 6])))
    ids, field = random_ids(3, 8)
    whole = net(ids, field, None, Mask(), memory=memory)
    cache = net.new_cache(3, 8, memory=memory)
    parts = [net(ids[:, a:b], field[:, a:b], None, Mask(), cache) for a, b in ((0, 3), (3, 8))]
    close(torch.cat(parts, dim=1), whole)
    few = net.new_cache(3, 8, memory=memory).select(torch.tensor([2, 0]))
    close(net(ids[[2, 0]], field[[2, 0]], None, Mask(), few), whole[[2, 0]])


@every
@torch.no_grad()
def test_a_row_is_encoded_the_same_alone_and_its_padding_is_not_seen(kind: str) -> None:
    net = paired(kind)
    source, source_field = random_ids(3, 9)
    lengths = torch.tensor([4, 9, 6])
    source[torch.arange(9) >= lengths[:, None]] = 0
    ids, field = random_ids(3, 5)
    memory = net.encode(source, source_field, None, Mask("full", lengths))
    whole = net(ids, field, None, Mask(), memory=memory)
    for row, num in enumerate(lengths.tolist()):
        at = slice(row, row + 1)
        alone = net.encode(source[at, :num], source_field[at, :num], None, Mask("full"))
        close(net(ids[at], field[at], None, Mask(), memory=alone), whole[at])
        other = source[at, :num].clone()
        other[:, 0] = (other[:, 0] + 1) % 7
        changed = net.encode(other, source_field[at, :num], None, Mask("full"))
        assert not torch.allclose(net(ids[at], field[at], None, Mask(), memory=changed), whole[at])


OBJECTIVES = ["causal", "masked", "seq2seq"]
matrix = pytest.mark.parametrize("objective", OBJECTIVES)


def recipe_of(kind: str, objective: str, **train: Any) -> dict[str, Any]:
    model = {**NANO, **KINDS[kind]}
    return {"model": model, "objective": {"name": objective}, "train": train}


@matrix
@whole_way
def test_every_cell_trains_resumes_generates_fills_scores_and_evaluates(
    table_csv: Path, tmp_path: Path, kind: str, objective: str
) -> None:
    recipe = recipe_of(kind, objective, save_every=3, eval_every=4)
    whole = api.train(table_csv, tmp_path / "whole", steps=8, recipe=recipe)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        api.train(table_csv, tmp_path / "cut", steps=8, recipe=recipe, live=StopAt(5))
    api.train(table_csv, tmp_path / "cut", resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

    many = whole.generate(5, seed=2, max_tokens=7)
    few = whole.generate(2, seed=2, max_tokens=7)
    assert few.astype(str).to_numpy().tolist() == many.head(2).astype(str).to_numpy().tolist()
    given = whole.generate(2, given={"kind": "tea"}, want=["note", "size"], max_tokens=7)
    assert list(given["kind"]) == ["tea", "tea"]

    table = mixed_table(9, seed=9)
    filled, known = whole.fill(table), table.notna().to_numpy()
    assert filled.notna().all().all()
    assert (filled.astype(str).to_numpy() == table.astype(str).to_numpy())[known].all()

    table = mixed_table().tail(5)
    alone = [whole.score(table.iloc[[row]])["row"].iloc[0] for row in range(5)]
    np.testing.assert_allclose(alone, whole.score(table)["row"], rtol=1e-4)
    prob = whole.probabilities(table, "kind")
    np.testing.assert_allclose(prob.sum(axis=1), 1)
    fields = whole.evaluate()["fields"]
    assert fields["note"]["bits_per_byte"]["value"] > 0


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A task whose answer is in what is given."""
    rng = np.random.default_rng(0)
    words = ["ja", "nein", "да", "нет", "是", "否"]
    asked = [" ".join(rng.choice(words, n)) for n in rng.integers(1, 5, 900)]
    told = [text.split()[0] + "!" for text in asked]
    table = pd.DataFrame({"asked": asked, "told": told, "n": rng.integers(0, 10**6, 900)})
    out = tmp_path_factory.mktemp("runs") / "echo"
    fields = {name: {"type": "text"} for name in ("asked", "told")}
    return api.train(table, out, steps=250, given="asked", want="told", recipe={
        "model": {"size": "nano"}, "objective": {"name": "seq2seq"}, "schema": {"fields": fields},
        "data": {"drop": ["n"]}, "train": {"batch_tokens": 512},
    })  # fmt: skip


def test_what_is_wanted_depends_on_what_is_given(echo: api.Model) -> None:
    for word in ("ja", "нет", "是"):
        made = echo.generate(1, given={"asked": f"{word} да nein"}, temperature=0)
        assert made["told"][0] == f"{word}!"
    found = echo.generate(2, given={"asked": "否 ja"}, beams=3)
    assert found["told"][0] == "否!"
    text = "".join(echo.stream(given={"asked": "нет 是"}, temperature=0))
    assert text == "нет!"


def test_a_beginning_of_the_answer_is_the_decoders(echo: api.Model) -> None:
    made = echo.generate(3, given={"asked": "ja nein"}, prompt="j", max_tokens=5)
    assert all(told.startswith("j") for told in made["told"])


def test_guidance_compares_with_nothing_given(echo: api.Model) -> None:
    one = echo.generate(4, given={"asked": "да да"}, seed=1, guidance=1.7)
    assert one.equals(echo.generate(4, given={"asked": "да да"}, seed=1, guidance=1.7))


def test_layers_of_an_encoder_are_for_models_that_have_one(table_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"encoder_layers.*seq2seq.*causal"):
        api.train(table_csv, tmp_path / "run", steps=2, recipe={"model": {"encoder_layers": 2}})
    recipe = {"model": {"size": "nano", "encoder_layers": 3}, "objective": {"name": "seq2seq"}}
    model = api.train(table_csv, tmp_path / "run", steps=2, recipe=recipe)
    assert len(model.run.network.encoder.blocks) == 3


def test_what_is_restored_is_one_side_told_from_itself_with_holes() -> None:
    """Rows of 3 given slots and 2 or 3 wanted ones, and one of which nothing is given."""
    torch.manual_seed(0)
    target = torch.tensor([[11, 12, 13, 21, 22, 23], [11, 12, 13, 21, 22, PAD],
                           [21, 22, 23, PAD, PAD, PAD]]).repeat(400, 1)  # fmt: skip
    weight = ((target > 20) * 0.5).float()
    batch = Batch(target, target, target // 10, target, weight, None)
    sides = restored(batch, weight == 0, 0.4)
    asked = sides.wanted.target
    again = (sides.source.field[:, 0] == sides.wanted.field[:, 0]) & (sides.source.target[:, 0] > 0)
    assert 0.35 < again.float().mean() < 0.45
    assert (asked[~again] // 10).unique().tolist() == [0, 2]
    own = (asked // 10).amax(dim=1)[again]
    assert own.unique().tolist() == [1, 2]
    shown = sides.source.target
    width = min(shown.shape[1], asked.shape[1])
    holes = (shown == MASK)[again][:, :width]
    assert not (shown == MASK)[~again].any()
    assert torch.where(holes, asked[again][:, :width], shown[again][:, :width]).equal(
        asked[again][:, :width]
    )
    assert abs(float(holes.sum() / (asked[again] > 0).sum()) - HOLES) < 0.05
    told = sides.wanted.weight[again]
    assert (told[asked[again] // 10 == 1] == 1).all() and (told[asked[again] > 20] == 0.5).all()


def test_only_an_encoder_has_a_side_to_restore(table_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"restore.*seq2seq.*causal"):
        api.train(table_csv, tmp_path / "run", steps=2, recipe={"objective": {"restore": 0.5}})
