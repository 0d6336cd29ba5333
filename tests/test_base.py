"""Training goes on from a network that is there: whole, or by small additions, exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from omnifill import api
from omnifill.artifact import RunFolder
from omnifill.codecs.pretrained import PretrainedCodec, Templated
from omnifill.data.shards import open_shard
from omnifill.errors import Interrupted, RecipeError, RunError
from omnifill.form.stream import eval_batches
from omnifill.generate.chat import render, write_turns
from omnifill.model.lora import add_lora, merged
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.objectives import causal
from omnifill.train.checkpoint import load_newest
from omnifill.train.loop import Trainer

STILL = {"train.lr_adamw": 1e-12, "train.weight_decay": 0.0}
KINDS = ["tea", "coffee", "咖啡"]


def texts(rows: int, seed: int = 0) -> pd.DataFrame:
    """A drink and a sentence about it."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, rows)
    tails = ["in the morning", "at night, 🙂", "with sugar and milk"]
    return pd.DataFrame({
        "kind": [KINDS[k] for k in kinds],
        "text": [f"I drink {KINDS[k]} {tails[(k + i) % 3]} {i % 7}" for i, k in enumerate(kinds)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {"text": {"codec": "bpe"}}}}
    out = tmp_path_factory.mktemp("base") / "base"
    return api.train(texts(300)[["text"]], out, steps=120, recipe=recipe)


def further(base: api.Model | Path, data: pd.DataFrame, out: Path, **settings: Any) -> api.Model:
    path = base if isinstance(base, Path) else base.run.folder.path
    recipe = api.build_recipe(None, **{"train.base": str(path), "train.steps": 40, **settings})
    return api.train(data, out, recipe=recipe)


@pytest.mark.parametrize("lora", [None, {"rank": 3}])
def test_training_begins_with_what_the_base_knows(
    base: api.Model, lora: Any, tmp_path: Path
) -> None:
    data = texts(60, seed=1)[["text"]]
    model = further(base, data, tmp_path / "run", **STILL, **{"train.lora": lora})
    np.testing.assert_allclose(model.score(data)["text"], base.score(data)["text"], rtol=1e-4)
    assert model.run.network.config.dim == base.run.network.config.dim
    assert "lora" not in "".join(model.run.network.state_dict())


def test_a_checkpoint_of_others_is_trained_further(
    base: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    base.export(tmp_path / "hf")
    data = texts(60, seed=1)[["text"]]
    data.to_csv(tmp_path / "data.csv", index=False)
    code, _, said = command(
        "train", str(tmp_path / "data.csv"), "--base", str(tmp_path / "hf"), "--out",
        str(tmp_path / "run"), "--steps", "2", "--set", "train.lr_adamw=1e-12",
        "--set", "train.weight_decay=0", "--field", "text:text",
    )  # fmt: skip
    assert code == 0, said
    model, there = (
        api.load(tmp_path / "run"),
        api.import_checkpoint(tmp_path / "hf", tmp_path / "in"),
    )
    np.testing.assert_allclose(model.score(data)["text"], there.score(data)["text"], rtol=1e-4)
    assert len(model.generate(2, max_tokens=5)) == 2


def test_new_fields_stand_behind_and_begin_as_what_they_are_called(
    base: api.Model, tmp_path: Path
) -> None:
    data = texts(120, seed=2)
    still = further(base, data, tmp_path / "still", **STILL)
    vocabulary = still.run.vocabulary
    kind, text = vocabulary["kind"], vocabulary["text"]
    rows = still.run.network.embed.weight
    spelt = text.first + torch.from_numpy(text.codec.encode("coffee"))
    at = kind.first + int(kind.codec.encode("coffee")[0])
    torch.testing.assert_close(rows[at], rows[spelt].mean(dim=0), rtol=0, atol=1e-6)
    learned = further(base, data, tmp_path / "learned", **{"train.lr_adamw": 0.003})
    unseen = texts(60, seed=5)
    assert learned.score(unseen)["row"].mean() > still.score(unseen)["row"].mean() + 5
    assert set(learned.generate(20)["kind"]) <= set(KINDS)


def test_additions_alone_learn_and_are_merged(base: api.Model, tmp_path: Path) -> None:
    data, unseen = texts(120, seed=3)[["text"]], texts(60, seed=6)[["text"]]
    data["text"] = unseen["text"] = "Nay, " + data["text"]
    model = further(base, data, tmp_path / "run", **{
        "train.lora": {"rank": 4, "targets": ["q_proj", "down_proj"]}, "train.lr_adamw": 0.01,
    })  # fmt: skip
    before, after = base.run.network.state_dict(), model.run.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        name for name in before if name.endswith(("q_proj.weight", "down_proj.weight"))
    }
    assert model.score(unseen)["text"].mean() > base.score(unseen)["text"].mean() + 1


def test_merged_additions_are_what_they_were_beside(base: api.Model) -> None:
    torch.manual_seed(0)
    network = Network(base.run.network.config)
    network.load_state_dict(base.run.network.state_dict())
    add_lora(network, 4, 0.5, ["v_proj", "gate_proj", "up_proj"], vectors=False)
    for name, parameter in network.named_parameters():
        if "lora" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    plain = Network(base.run.network.config)
    plain.load_state_dict(merged(network.state_dict(), 0.5))
    ids = torch.randint(5, network.config.vocabulary, (3, 17))
    field = torch.zeros_like(ids)
    with torch.no_grad():
        beside, inside, without = (
            net.eval()(ids, field, None, Mask("causal"))
            for net in (network, plain, base.run.network)
        )
    torch.testing.assert_close(inside, beside, rtol=1e-4, atol=1e-5)
    assert float((inside - without).abs().max()) > 0.1


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_resumed_run_is_the_uninterrupted_one(
    base: api.Model, lora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = texts(60, seed=4)
    settings = {"train.lora": lora, "train.steps": 12, "train.save_every": 4}
    whole = further(base, data, tmp_path / "whole", **settings)
    path = str(base.run.folder.path)
    recipe = api.build_recipe(None, **{"train.base": path, **settings})
    step = Trainer.step

    def stopped(self: Trainer, *args: Any) -> Any:
        if self.progress.step == 6:
            raise Interrupted("as if killed")
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.raises(Interrupted):
            api.train(data, tmp_path / "run", recipe=recipe)
    model = api.train(data, tmp_path / "run", recipe=recipe, resume=True)
    assert model.run.sha256 == whole.run.sha256
    again = api.train(data, tmp_path / "again", recipe=tmp_path / "whole" / "recipe.yaml")
    assert again.run.sha256 == whole.run.sha256, "the resolved recipe repeats the run"


def test_additions_keep_what_they_learn_and_know_their_base_again(
    base: api.Model, tmp_path: Path
) -> None:
    """Checkpoints of additions leave the base out, and none goes on beside another base."""
    path = shutil.copytree(base.run.folder.path, tmp_path / "base")
    data, settings = texts(60, seed=4)[["text"]], {"train.lora": {"rank": 2}, "train.steps": 12}
    whole = further(path, data, tmp_path / "whole", **settings, **{"train.save_every": 4})
    found, damaged = load_newest(whole.run.folder.checkpoints)
    assert found is not None and not damaged
    kept = {name for name in found.tensors if name.startswith(("model/", "best/", "average/"))}
    assert any("lora_a" in name for name in kept) and not any("norm" in name for name in kept)
    assert not any(name.endswith(("q_proj.weight", "head.weight")) for name in kept)

    other = api.train(texts(300, seed=0)[["text"]], tmp_path / "other", steps=3, recipe={
        "model": {"size": "nano"}, "train": {"seed": 9},
        "schema": {"fields": {"text": {"codec": "bpe"}}},
    })  # fmt: skip
    recipe = api.build_recipe(None, **{"train.base": str(path), **settings})

    def stopped(self: Trainer) -> None:
        raise Interrupted("as if killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "finish", stopped)
        with pytest.raises(Interrupted):
            api.train(data, tmp_path / "run", recipe=recipe)
    shutil.rmtree(path)
    shutil.copytree(other.run.folder.path, path)
    with pytest.raises(RunError, match="the weights that this run builds on are others now"):
        api.train(data, tmp_path / "run", recipe=recipe, resume=True)
    shutil.rmtree(path)
    shutil.copytree(base.run.folder.path, path)
    model = api.train(data, tmp_path / "run", recipe=recipe, resume=True)
    assert model.run.sha256 == whole.run.sha256


def test_what_a_base_cannot_do_is_refused(
    base: api.Model, model: api.Model, tmp_path: Path
) -> None:
    data = texts(60)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"model.dim": 32}, RecipeError, "model.dim: has no effect beside train.base"),
        ({"objective.name": "masked"}, RecipeError, "is a causal network"),
        ({"schema.fields.text.codec": "characters"}, RecipeError, "has the codec of the base"),
        ({"train.lora": {"rank": 2}, "train.optim": "muon"}, RecipeError, "leave optim out"),
        ({"train.base": str(tmp_path / "nothing")}, RunError, "is no folder"),
        ({"train.lr": 0.1}, RecipeError, "say train.lr_adamw"),
        ({"train.lora": {"targets": []}}, RecipeError, "at least 1 item"),
    ]  # fmt: skip
    for settings, kind, message in cases:
        with pytest.raises(kind, match=message):
            further(base, data, tmp_path / "run", **settings)
        assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="name one"):
        api.build_recipe(None, **{"train.lora": {"rank": 2}})
    with pytest.raises(RecipeError, match="the records have no text"):
        further(base, data[["kind"]], tmp_path / "run")
    folder = RunFolder(model.run.folder.path)
    assert further(folder.path, data, tmp_path / "run", **{"train.steps": 2})


def test_it_says_how_much_is_learned_and_how_much_only_read(
    base: api.Model, tmp_path: Path
) -> None:
    data = texts(60, seed=7)
    data["answer"] = "It is " + data["kind"]
    model = api.train(
        data, tmp_path / "run", given=["text"], want=["answer"], steps=2,
        recipe={"train": {"base": str(base.run.folder.path)},
                "schema": {"fields": {"answer": {"type": "text"}}}},
    )  # fmt: skip
    field = model.run.vocabulary["text"]
    from omnifill.prepare import staged_columns

    rows = staged_columns(model.run.folder, "train")
    learned, read = (
        sum(len(field.codec.encode(value)) + 1 for value in rows[name])
        for name in ("answer", "text")
    )
    notes = model.run.folder.read_state()["notes"]
    said = f"of {learned + read:,} tokens of training rows {learned:,} are learned (answer), and " \
           f"{read:,} are only read"  # fmt: skip
    assert said in notes


def answers(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(answer="So: " + data["kind"] + ", 好")[["text", "answer"]]


@pytest.mark.parametrize("lora", [None, {"rank": 8, "targets": ["q_proj", "v_proj", "up_proj"]}])
@pytest.mark.parametrize("came", [False, True])
def test_what_learned_to_answer_leaves_as_what_its_base_came_as(
    base: api.Model, lora: Any, came: bool, tmp_path: Path
) -> None:
    """Messages stand there as the texts did in training; the libraries of others say the same."""
    transformers = pytest.importorskip("transformers")
    path = base.run.folder.path
    if came:
        base.export(tmp_path / "hf")
        path = tmp_path / "hf"
    fields = {"text": {"type": "text"}, "answer": {"type": "text"}}
    model = api.train(
        answers(texts(200, seed=8)), tmp_path / "run", given=["text"], want=["answer"], steps=250,
        recipe={"train": {"base": str(path), "lora": lora, "lr_adamw": 0.01},
                "schema": {"fields": fields}},
    )  # fmt: skip
    assert model.run.network.fields is None
    assert (tmp_path / "run" / "adapter").exists() == (lora is not None)
    asked = answers(texts(12, seed=9))
    told = [
        model.generate(1, given={"text": text}, temperature=0, max_tokens=40)["answer"][0]
        for text in asked["text"]
    ]
    assert lora or (asked["answer"] == told).mean() > 0.8, "it has learned it"

    model.export(tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    again = api.import_checkpoint(tmp_path / "out", tmp_path / "in")
    for text, answer in zip(asked["text"], told, strict=True):
        messages = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        out = theirs.generate(**ids, max_new_tokens=40, do_sample=False)[0]
        said = tokenizer.decode(out[ids["input_ids"].shape[1] :], skip_special_tokens=True)
        # Ours never writes half a character.
        assert said == answer or "\ufffd" in said
        ours = again.generate(1, prompt=messages, temperature=0, max_tokens=40)["text"][0]
        assert ours == said


def test_what_came_to_prefer_leaves_too(base: api.Model, tmp_path: Path) -> None:
    base.export(tmp_path / "hf")
    data = texts(60, seed=3).rename(columns={"text": "prompt"})
    data = data.assign(chosen="Yes: " + data["kind"], rejected="No.").drop(columns="kind")
    fields = {name: {"type": "text"} for name in data}
    model = api.train(data, tmp_path / "run", steps=20, recipe={
        "train": {"base": str(tmp_path / "hf"), "lr_adamw": 0.002}, "objective": {"name": "dpo"},
        "schema": {"fields": fields},
    })  # fmt: skip
    model.export(tmp_path / "out")
    again = api.import_checkpoint(tmp_path / "out", tmp_path / "in")
    for prompt in data["prompt"][:4]:
        told = model.generate(1, given={"prompt": prompt}, want=["chosen"], temperature=0,
                              max_tokens=12)["chosen"][0]  # fmt: skip
        messages = [{"role": "user", "content": prompt}]
        said = again.generate(1, prompt=messages, temperature=0, max_tokens=12)["text"][0]
        assert said == told or "\ufffd" in said


def test_two_tasks_are_told_apart_and_stay(base: api.Model, tmp_path: Path) -> None:
    fields = {"text": {"type": "text"}, "answer": {"type": "text"}}
    tasks = [{"given": ["text"], "want": ["answer"]}, {"given": ["answer"], "want": ["text"]}]
    model = api.train(answers(texts(60)), tmp_path / "run", steps=2, recipe={
        "train": {"base": str(base.run.folder.path)}, "schema": {"fields": fields},
        "form": {"tasks": tasks},
    })  # fmt: skip
    assert model.run.network.fields is not None
    with pytest.raises(RunError, match="single task that gives texts and wants one"):
        model.export(tmp_path / "out")


def test_a_head_that_does_not_learn_is_told_some_rows_at_a_time_and_says_the_same(
    base: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nats, and the gradients of all that does learn; the control is another head."""
    run = base.run
    torch.manual_seed(0)
    network = Network(run.network.config)
    network.load_state_dict(run.network.state_dict())
    add_lora(network, 4, 0.5, ["q_proj", "up_proj"], vectors=False)
    for name, parameter in network.named_parameters():
        if "lora" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    network.eval()
    shard = open_shard(run.folder.encoded / "train")
    batch = next(eval_batches(shard, run.vocabulary, run.recipe.form, context=64, batch_tokens=900,
                              limit=900))  # fmt: skip

    def told(learns: bool, held: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        monkeypatch.setattr(causal, "HELD", held)
        network.zero_grad()
        network.head.requires_grad_(learns)
        nats = run.objective.nats(network, batch)
        (nats * torch.arange(len(nats))).sum().backward()
        named = network.named_parameters()
        return nats.detach(), {
            n: p.grad.clone() for n, p in named if p.grad is not None and "lora" in n
        }

    whole, slopes = told(learns=True, held=1)
    with torch.no_grad():
        torch.testing.assert_close(run.objective.nats(network, batch), whole, rtol=1e-5, atol=1e-5)
    assert len(slopes) == 2 * 2 * run.network.config.layers
    for held in (1, 3000, 1 << 23):
        nats, some = told(learns=False, held=held)
        torch.testing.assert_close(nats, whole, rtol=1e-5, atol=1e-5)
        for name, slope in slopes.items():
            torch.testing.assert_close(some[name], slope, rtol=1e-4, atol=1e-3)
    assert float(max(slope.abs().max() for slope in slopes.values())) > 1


def spaced(scheme: str) -> PretrainedCodec:
    """A tokenizer that puts a space before the first word, of all texts or never again."""
    letters = [chr(i) for i in range(33, 127)] + list("▁你好")
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", *letters])}
    made = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens(["<s>", "</s>"])
    return PretrainedCodec(made.to_str(), len(vocab), [1], None, (), 0)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_a_template_gives_texts_the_tokens_that_they_have_alone(
    scheme: str, tmp_path: Path
) -> None:
    codec = spaced(scheme)
    told = write_turns(RunFolder(tmp_path), codec, 2)
    alone = [*codec.encode("to be"), 1]
    assert codec.encode(Templated(told("to be"))).tolist() == alone * 2
    written = (tmp_path / "chat_template.jinja").read_text(encoding="utf-8")
    messages = [{"role": "user", "content": "to be"}] * 2
    assert render(written, messages, {}) == told("to be")


def test_a_base_that_names_no_end_has_no_template(tmp_path: Path) -> None:
    codec = spaced("never")
    codec.ends = []
    with pytest.raises(RunError, match="names no token that ends a text"):
        write_turns(RunFolder(tmp_path), codec, 1)
