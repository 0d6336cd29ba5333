"""Checkpoints of other projects say here what they say where they came from, and bad ones why not.

The other side is `transformers`, on small checkpoints with random weights and a byte-level
tokenizer, as real ones have.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from omnifill import api, exchange
from omnifill.artifact import RunFolder
from omnifill.errors import RequestError, RunError
from omnifill.generate.chat import render
from omnifill.model.hf import read_checkpoint
from omnifill.model.mask import Mask
from omnifill.model.network import Network

# Between two libraries that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

BOS, END, OTHER_END, SPECIAL = 0, 1, 2, ["<s>", "</s>", "<|turn|>"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "bos_token_id": BOS,
    "eos_token_id": END, "pad_token_id": None,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
        "original_max_position_embeddings": 24}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96,
                      "bos_token_id": END, "eos_token_id": END}),
    "llama": ("Llama", SHAPE),
    "llama with biases": ("Llama", SHAPE | {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("Llama", SHAPE | {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "linear": ("Llama", SHAPE | {"rope_parameters": {"rope_type": "linear", "factor": 2.0,
                                                     "rope_theta": 1e4}}),
    "mistral": ("Mistral", SHAPE | {"sliding_window": 7, "head_dim": 16}),
    "qwen 2": ("Qwen2", SHAPE | {"tie_word_embeddings": True}),
    "qwen 2 with windows": ("Qwen2", SHAPE | {"use_sliding_window": True, "sliding_window": 5,
                                              "max_window_layers": 1}),
    "qwen 2 with yarn": ("Qwen2", SHAPE | {"rope_parameters": YARN}),
    "qwen 3": ("Qwen3", SHAPE | {"head_dim": 16}),
}  # fmt: skip
OPENED = ("llama", "llama with biases", "llama 3", "linear", "mistral")
"""Whose tokenizers put <s> in front of a text."""
PROMPTS = ["the cat", "sat on the mat, ", "你好 🙂", "x = 1\n\ty", " <s></s> as text"]


def tokenizer_of_bytes() -> Tokenizer:
    out = Tokenizer(models.BPE())
    out.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    out.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    out.train_from_iterator(["the cat sat on the mat. 你好 🙂 über"] * 50, trainer)
    return out


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of_bytes()


def theirs(kind: str, size: int) -> Any:
    """A model with random weights, its biases and norms among them."""
    name, settings = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=size, initializer_range=0.3, **settings
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    return model


def saved(folder: Path, model: Any, tokenizer: Tokenizer, opened: bool, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer.post_processor = template if opened else None
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    return folder


Pair = tuple[Any, api.Model, bool]


@pytest.fixture(scope="module")
def pair(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A model of theirs, the run imported from it, and whether <s> opens its texts."""
    made: dict[str, Pair] = {}

    def get(kind: str) -> Pair:
        if kind not in made:
            folder = tmp_path_factory.mktemp("hf")
            model, opened = theirs(kind, tokenizer.get_vocab_size()), kind in OPENED
            source = saved(folder / "source", model, tokenizer, opened)
            made[kind] = (model, api.import_checkpoint(source, folder / "run"), opened)
        return made[kind]

    return get


def continued(model: Any, tokenizer: Tokenizer, prompt: str, opened: bool, num: int) -> str:
    """What `transformers` writes behind a prompt, the likeliest token each time."""
    ids = [BOS] * opened + tokenizer.encode(prompt, add_special_tokens=False).ids
    given = torch.tensor([ids])
    with torch.no_grad():
        out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=num,
                             do_sample=False, pad_token_id=END)  # fmt: skip
    return tokenizer.decode(out[0].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_network_has_the_same_logits(kind: str, tmp_path: Path) -> None:
    model = theirs(kind, 99)
    model.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    network, weights = Network(checkpoint.config).eval(), checkpoint.weights()
    if checkpoint.config.tied:
        weights["head.weight"] = weights["embed.weight"]
    network.load_state_dict(weights)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 99, (2, 90)))
    field = torch.zeros_like(ids)
    cache = network.new_cache(2, 90)
    with torch.no_grad():
        want = model(ids).logits
        whole = network(ids, field, None, Mask("causal")) @ network.head.weight.T
        parts = [
            network(ids[:, a:b], field[:, a:b], None, Mask("causal"), cache) @ network.head.weight.T
            for a, b in ((0, 30), (30, 31), (31, 90))
        ]
    assert float(want.std()) > 0.5
    torch.testing.assert_close(whole, want, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cat(parts, dim=1), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [
    kind if kind in ("gpt2", "llama", "qwen 3") else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
])  # fmt: skip
def test_an_imported_run_writes_the_same_text(
    kind: str, pair: Callable[[str], Pair], tokenizer: Tokenizer
) -> None:
    model, ours, opened = pair(kind)
    for prompt in PROMPTS:
        want = continued(model, tokenizer, prompt, opened, 40)
        options: dict[str, Any] = {"prompt": prompt, "max_tokens": 40, "temperature": 0}
        made = ours.generate(3, **options)["text"].tolist()
        if "<s>" in prompt:  # a user's text is never a control token
            tokenizer.encode_special_tokens = True
            want = continued(model, tokenizer, prompt, opened, 40)
            tokenizer.encode_special_tokens = False
        assert made == [want] * 3
        assert prompt + "".join(ours.stream(**options)) == want
    empty = model.generate(
        torch.tensor([[model.config.bos_token_id]]), max_new_tokens=20, do_sample=False,
        attention_mask=torch.ones(1, 1, dtype=torch.long), pad_token_id=END,
    )  # fmt: skip
    assert ours.generate(1, max_tokens=20, temperature=0)["text"][0] == tokenizer.decode(
        empty[0].tolist()
    )


def test_an_imported_run_scores_texts_as_they_do(
    pair: Callable[[str], Pair], tokenizer: Tokenizer
) -> None:
    model, ours, _ = pair("llama")
    texts = ["the cat", "", "你好, the mat"]
    scores = ours.score(pd.DataFrame({"text": texts}))["text"]
    for text, score in zip(texts, scores, strict=True):
        ids = torch.tensor([[BOS, *tokenizer.encode(text).ids, END]])
        with torch.no_grad():
            nats = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert score == pytest.approx(float(nats.sum()), abs=1e-3)


@pytest.mark.slow
def test_shards_small_floats_and_further_ends(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs("llama", tokenizer.get_vocab_size()).bfloat16()
    model.generation_config.eos_token_id = [END, OTHER_END]
    source = saved(tmp_path / "hf", model, tokenizer, True, max_shard_size="20KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    ours = api.import_checkpoint(source, tmp_path / "run")
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    ended = 0
    for number in range(30):
        prompt = f"{number} cats"
        text = ours.generate(1, prompt=prompt, max_tokens=40, temperature=0)["text"][0]
        assert text == continued(model, tokenizer, prompt, True, 40)
        ended += len(tokenizer.encode(text).ids) < 40
    assert ended, "some text ended by itself"


def test_a_run_is_whole_or_not_there(
    tokenizer: Tokenizer, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    source = saved(tmp_path / "hf", theirs("qwen 3", tokenizer.get_vocab_size()), tokenizer, False)
    run = str(tmp_path / "run")
    code, _, said = command("import", str(source), "--out", run)
    assert code == 0 and "weights; next: omnifill generate" in said
    code, out, _ = command("generate", run, "--prompt", "the cat", "--max-tokens", "5")
    assert code == 0 and out.startswith("the cat")
    code, _, said = command("import", str(source), "--out", run)
    assert code == 2 and "is there already" in said
    weights = load_file(source / "model.safetensors")
    save_file(weights | {"lm_head.weight": torch.zeros(3, 3)}, source / "model.safetensors")
    code, _, said = command("import", str(source), "--out", str(tmp_path / "other"))
    assert code == 2 and "lm_head.weight is 3 × 3" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "run"]


def edited(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values),
                    encoding="utf-8")  # fmt: skip


@pytest.fixture(scope="module")
def good(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "hf"
    return saved(folder, theirs("llama", tokenizer.get_vocab_size()), tokenizer, True,
                 max_shard_size="40KB")  # fmt: skip


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def long_header(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + path.read_bytes()[8:])


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def moved(folder: Path, to: str) -> None:
    path = folder / "model.safetensors.index.json"
    table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    edited(path, weight_map=table | {"model.norm.weight": to})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a shard is cut": (lambda f: cut(first_shard(f)), "cannot be read .* is it whole?"),
    "a header that is longer than the file": (lambda f: long_header(first_shard(f)), "is it whole"),
    "the index names another file": (lambda f: moved(f, "x.safetensors"), "there is no such file"),
    "the index points outside": (lambda f: moved(f, "../x.safetensors"), "no file's name"),
    "the index is wrong": (lambda f: moved(f, first_shard(f).name), "does not hold it"),
    "another width": (lambda f: edited(f / "config.json", hidden_size=36), r"is \d+ × 32 where"),
    "fewer layers": (lambda f: edited(f / "config.json", num_hidden_layers=2),
                     r"holds model.layers.2.\S+, of which config.json tells nothing"),
    "more layers": (lambda f: edited(f / "config.json", num_hidden_layers=4),
                    "lack model.layers.3."),
    "heads that do not fit": (lambda f: edited(f / "config.json", num_key_value_heads=3),
                              "multiple of kv_heads"),
    "no number": (lambda f: edited(f / "config.json", hidden_size="big"), "hidden_size = 'big'"),
    "an unknown architecture": (lambda f: edited(f / "config.json", architectures=["Xyz"]),
                                "no architecture called 'Xyz'"),
    "an unknown function": (lambda f: edited(f / "config.json", hidden_act="sin"), "is none of"),
    "an unknown rule of positions": (
        lambda f: edited(f / "config.json", rope_parameters={"rope_type": "odd"}), "rope_type"),
    "code of its own": (lambda f: edited(f / "config.json", auto_map={"AutoModel": "x.Y"}),
                        "code of its own, which is never run"),
    "quantised": (lambda f: edited(f / "config.json", quantization_config={"bits": 4}),
                  "not plain numbers"),
    "no config": (lambda f: (f / "config.json").unlink(), "cannot be read"),
    "no JSON": (lambda f: (f / "config.json").write_text("{", encoding="utf-8"), "is no JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "save the tokenizer as a fast one"),
    "a broken tokenizer": (lambda f: cut(f / "tokenizer.json"), "tokenizers library cannot read"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_imported_is_refused_in_words(what: str, good: Path, tmp_path: Path) -> None:
    harm, message = BROKEN[what]
    source = tmp_path / "hf"
    shutil.copytree(good, source)
    harm(source)
    with pytest.raises(RunError, match=message):
        api.import_checkpoint(source, tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_larger_tokenizer_and_pickled_weights_are_refused(
    good: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    small = saved(tmp_path / "small", theirs("qwen 3", 100), tokenizer, False)
    with pytest.raises(RunError, match=r"tokenizer\.json: it has \d+ tokens where the model has 1"):
        api.import_checkpoint(small, tmp_path / "run")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(good / name, pickled / name)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(RunError, match=r"pytorch_model\.bin is a pickle, which could run code"):
        api.import_checkpoint(pickled, tmp_path / "run")
    with pytest.raises(RunError, match="is no folder"):
        api.import_checkpoint(tmp_path / "nothing", tmp_path / "run")


# --- and back ------------------------------------------------------------------------------

LINES = [f"{a} {b} {c}, {n}" for n in range(12) for a in ("the cat", "a dog", "你好") for b in
         ("sat", "saß 🙂") for c in ("here", "there")]  # fmt: skip


@pytest.mark.parametrize("codec", ["bpe", "characters"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_trained_run_leaves_with_its_logits(codec: str, tied: bool, tmp_path: Path) -> None:
    recipe = {
        "schema": {"fields": {"text": {"type": "text", "codec": codec}}},
        "model": {"size": "nano", "tied": tied, "kv_heads": 1}, "train": {"steps": 30},
    }  # fmt: skip
    ours = api.train(pd.DataFrame({"text": LINES * 3}), tmp_path / "run", recipe=recipe)
    ours.export(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    field = ours.run.vocabulary["text"]
    for text in [*LINES[:3], "unseen: ÿ ☃\n\tأهلا", ""]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"].long()
        coded = [0 + 1, *(field.first + field.codec.encode(text))]
        assert ids.tolist() == [coded]
        assert tokenizer.decode(ids[0], skip_special_tokens=True) == text
        with torch.no_grad():
            hidden = ours.run.network(ids, torch.zeros_like(ids), None, Mask("causal"))
            want = hidden @ ours.run.network.head.weight.T
            torch.testing.assert_close(model(ids).logits, want, rtol=0, atol=1e-4)
    given = tokenizer("the cat", return_tensors="pt")
    made = model.generate(**given, max_new_tokens=12, do_sample=False)[0]
    text = tokenizer.decode(made, skip_special_tokens=True)
    assert ours.generate(1, prompt="the cat", max_tokens=12, temperature=0)["text"][0] == text
    again = api.import_checkpoint(tmp_path / "hf", tmp_path / "again")
    assert again.generate(1, prompt="the cat", max_tokens=12, temperature=0)["text"][0] == text


@pytest.mark.parametrize("kind", ["gpt2", "llama 3", "qwen 3"])
def test_an_imported_run_leaves_as_it_came(
    kind: str, tokenizer: Tokenizer, tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    source = saved(tmp_path / "hf", theirs(kind, tokenizer.get_vocab_size()), tokenizer,
                   kind in OPENED)  # fmt: skip
    api.import_checkpoint(source, tmp_path / "run")
    code, _, _ = command("export", str(tmp_path / "run"), "--out", str(tmp_path / "back"))
    assert code == 0
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        here, there = (json.loads((f / name).read_text(encoding="utf-8"))
                       for f in (source, tmp_path / "back"))  # fmt: skip
        assert here == there
    code, _, said = command("export", str(tmp_path / "run"), "--out", str(tmp_path / "back"))
    assert code == 2 and "is there already" in said


@pytest.mark.parametrize("kind", ["gpt2", "llama 3"])
def test_what_was_trained_further_leaves_as_what_it_was(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = saved(tmp_path / "hf", theirs(kind, tokenizer.get_vocab_size()), tokenizer,
                   kind in OPENED)  # fmt: skip
    recipe = api.build_recipe(None, **{
        "train.base": str(source), "train.steps": 12, "train.lr_adamw": 0.003,
    })  # fmt: skip
    texts = pd.DataFrame({"text": [f"{i} cats sat on the mat" for i in range(80)]})
    ours = api.train(texts, tmp_path / "run", recipe=recipe)
    ours.export(tmp_path / "back")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    changed = theirs(kind, tokenizer.get_vocab_size()).get_input_embeddings().weight
    assert float((model.get_input_embeddings().weight - changed).detach().abs().max()) > 1e-3
    for prompt in ("7 cats", "on the mat", "你好"):
        want = continued(model, tokenizer, prompt, kind in OPENED, 20)
        made = ours.generate(1, prompt=prompt, max_tokens=20, temperature=0)
        assert made["text"].tolist() == [want]


def test_an_export_that_answers_otherwise_is_not_kept(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path / "hf", theirs("qwen 3", tokenizer.get_vocab_size()), tokenizer, False)
    ours = api.import_checkpoint(source, tmp_path / "run")
    ours.export(tmp_path / "good")
    golden = json.loads((tmp_path / "run" / "golden.json").read_text(encoding="utf-8"))
    assert {one["asked"]: one["answer"] for one in golden["texts"]} == {
        one["asked"]: continued_by(ours, one["asked"]) for one in golden["texts"]
    }
    (tmp_path / "run" / "golden.json").unlink()
    with monkeypatch.context() as patch:  # a run that may only be read
        patch.setattr(RunFolder, "write", unwritable(tmp_path / "run"))
        ours.export(tmp_path / "again")
    shutil.rmtree(tmp_path / "again")
    write = exchange.write_checkpoint

    def spoilt(folder: Path, tree: Any, weights: dict[str, torch.Tensor]) -> None:
        write(folder, tree, weights | {"backbone.norm.weight": -weights["backbone.norm.weight"]})

    monkeypatch.setattr(exchange, "write_checkpoint", spoilt)
    with pytest.raises(RunError, match=r"answers 'The first of them' by .* it was not kept"):
        ours.export(tmp_path / "bad")
    monkeypatch.undo()
    golden["texts"][2]["answer"] = "another"
    (tmp_path / "run" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    with pytest.raises(RunError, match="and the run by 'another'"):
        ours.export(tmp_path / "bad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good", "hf", "run"]


def unwritable(path: Path) -> Any:
    write = RunFolder.write

    def refused(self: RunFolder, name: str, text: str) -> None:
        if self.path == path:
            raise PermissionError(13, "Permission denied")
        write(self, name, text)

    return refused


def continued_by(ours: api.Model, prompt: str) -> str:
    made: str = ours.generate(1, prompt=prompt, max_tokens=16, temperature=0)["text"][0]
    return made


def test_what_no_checkpoint_can_say_stays_here(model: api.Model, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has 5 fields and is causal; only a causal transformer of"):
        model.export(tmp_path / "hf")
    texts = pd.DataFrame({"text": LINES})
    for settings, why in (({"backbone": "rnn"}, "backbone"), ({}, "and is masked")):
        recipe = {"model": {"size": "nano", **settings}, "train": {"steps": 2},
                  "objective": {"name": "causal" if settings else "masked"}}  # fmt: skip
        other = api.train(texts, tmp_path / why.split()[-1], recipe=recipe)
        with pytest.raises(RunError, match=why):
            other.export(tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_text_that_is_too_long_is_refused_in_words(
    kind: str, pair: Callable[[str], Pair]
) -> None:
    """The checkpoint has 96 positions."""
    ours = pair(kind)[1]
    with pytest.raises(RequestError, match=r"prompt: has \d{3} tokens"):
        ours.generate(1, prompt="the cat sat " * 40, max_tokens=5)
    if kind == "gpt2":
        with pytest.raises(RequestError, match=r"max_tokens = 500.*positions for 9\d"):
            ours.generate(1, prompt="the cat", max_tokens=500)
        with pytest.raises(RequestError, match="no positions for them"):
            ours.fill(pd.DataFrame({"text": [None]}))
    else:  # older slots fall out of view
        assert ours.generate(1, prompt="the cat", max_tokens=200)["text"][0]
    assert np.isfinite(ours.score(pd.DataFrame({"text": ["the cat sat " * 40]}))["text"][0])


# --- chat ----------------------------------------------------------------------------------

TURNS = """{%- for m in messages %}
{{- '<|turn|>' + m['role'] + '\\n' + m.content | trim + '</s>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""
TALKS = [
    [{"role": "user", "content": " the cat? "}],
    [{"role": "system", "content": "be short"}, {"role": "user", "content": "你好 🙂"},
     {"role": "assistant", "content": "on the mat"}, {"role": "user", "content": "who sat"}],
]  # fmt: skip


@pytest.mark.parametrize("kind, head", [("qwen 3", ""), ("llama", "{{ bos_token }}")])
def test_a_chat_reads_and_answers_as_where_it_came_from(
    kind: str, head: str, tokenizer: Tokenizer, tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    model = theirs(kind, tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, kind in OPENED)
    (source / "chat_template.jinja").write_text(head + TURNS, encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
    }), encoding="utf-8")  # fmt: skip
    other = transformers.AutoTokenizer.from_pretrained(source)
    ours = api.import_checkpoint(source, tmp_path / "run")
    for talk in TALKS:
        ids = other.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")
        ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30,
                                 do_sample=False, pad_token_id=END)  # fmt: skip
        want = other.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        options: dict[str, Any] = {"prompt": talk, "max_tokens": 30, "temperature": 0}
        assert ours.generate(2, **options)["text"].tolist() == [want] * 2
        assert "".join(ours.stream(**options)) == want
    code, said, _ = command("generate", str(tmp_path / "run"), "--chat", "the cat?", "--system",
                            "be short", "--max-tokens", "5", "--stream")  # fmt: skip
    assert code == 0 and "turn" not in said
    with pytest.raises(RequestError, match=r"holds '<\|turn\|>', which is a control token"):
        ours.generate(1, prompt=[{"role": "user", "content": "a <|turn|>system"}])
    for wrong in ([], [{"role": "user"}], ["hello"], [{"role": "user", "content": 3}]):
        with pytest.raises(RequestError, match="prompt: "):
            ours.generate(1, prompt=wrong)
    code, _, said = command("generate", str(tmp_path / "run"), "--system", "be short")
    assert code == 2 and "--system goes with it" in said


@pytest.mark.parametrize("template", [
    "{% for i in range(1000000) %}{% endfor %}",
    "{% for a in range(9000) %}{% for b in range(9000) %}{% for c in range(9000) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ raise_exception('no') }}",
    "{{ 'x' * 10000000000 }}", "{{ 'x' | center(10000000000) }}", "{{ cycler.__init__.x }}",
    "{% if %}", "{{ 1 // 0 }}", "{{ nothing.more.than.this }}",
])  # fmt: skip
def test_a_template_that_loops_or_reaches_too_far_is_refused(template: str) -> None:
    with pytest.raises(RequestError, match="the chat template cannot be used"):
        render(template, [{"role": "user", "content": "hello"}], {})


def test_a_run_without_a_template_says_so(pair: Callable[[str], Pair], model: api.Model) -> None:
    for run in (pair("gpt2")[1], model):
        with pytest.raises(RequestError, match="need a chat template, and this run has none"):
            run.generate(1, prompt=[{"role": "user", "content": "hello"}])


def test_texts_are_drawn_as_the_checkpoint_says(
    tokenizer: Tokenizer, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    model = theirs("qwen 3", tokenizer.get_vocab_size())
    model.generation_config.update(do_sample=True, temperature=0.7, top_k=3, repetition_penalty=1.3)
    source = saved(tmp_path / "hf", model, tokenizer, False)
    ours = api.import_checkpoint(source, tmp_path / "run")
    said: dict[str, Any] = {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.3, "min_p": 0.0}
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 30, "seed": 4}
    usual = ours.generate(2, **options)["text"].tolist()
    assert usual == ours.generate(2, **options, **said)["text"].tolist()
    other = ours.generate(2, **options, **{**said, "temperature": 2.0})["text"].tolist()
    assert usual != other
    words = ["generate", str(tmp_path / "run"), "--prompt", "the cat", "--max-tokens", "30",
             "--seed", "4", "-n", "2", "--format", "jsonl"]  # fmt: skip
    for more, want in (([], usual), (["--temperature", "2"], other)):
        code, out, _ = command(*words, *more)
        assert code == 0 and [json.loads(line)["text"] for line in out.splitlines()] == want


# --- adapters ------------------------------------------------------------------------------


def with_adapter(model: Any, targets: list[str], folder: Path, turned: bool = False) -> Any:
    """A model with a LoRA adapter of random weights, which is saved as PEFT does it."""
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, task_type="CAUSAL_LM",
                               fan_in_fan_out=turned)  # fmt: skip
    adapted = peft.get_peft_model(model, settings)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn_like(weight)
    adapted.save_pretrained(folder)
    return adapted


ADAPTED = [("gpt2", ["c_attn", "c_proj"]), ("llama", ["q_proj", "v_proj", "down_proj"])]


@pytest.mark.parametrize("kind, targets", ADAPTED)
def test_an_adapter_of_peft_is_merged(
    kind: str, targets: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = theirs(kind, tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, kind in OPENED)
    adapted = with_adapter(model, targets, tmp_path / "adapter", kind == "gpt2")
    plain = api.import_checkpoint(source, tmp_path / "plain")
    ours = api.import_checkpoint(source, tmp_path / "run", adapter=tmp_path / "adapter")
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 40, "temperature": 0}
    want = continued(adapted.eval(), tokenizer, "the cat", kind in OPENED, 40)
    assert ours.generate(1, **options)["text"][0] == want
    before = plain.generate(1, **options)["text"][0]
    assert before != want
    # Beside the weights it is the same; and what it stands beside is as it was.
    other = plain.adapted(tmp_path / "adapter")
    assert other.generate(1, **options)["text"][0] == want
    texts = pd.DataFrame({"text": PROMPTS})
    np.testing.assert_allclose(other.score(texts), ours.score(texts), atol=1e-3)
    assert plain.generate(1, **options)["text"][0] == before
    shared = {p.data_ptr() for p in plain.run.network.parameters()}
    new = [p for p in other.run.network.parameters() if p.data_ptr() not in shared]
    assert 0 < sum(p.numel() for p in new) < 0.2 * sum(p.numel() for p in model.parameters())


def test_our_additions_leave_as_an_adapter(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs("llama", tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, True)
    recipe = {"train": {"base": str(source), "steps": 6, "lr_adamw": 0.05,
                        "lora": {"rank": 2, "targets": ["q_proj", "up_proj"]}}}  # fmt: skip
    ours = api.train(pd.DataFrame({"text": LINES * 3}), tmp_path / "run", recipe=recipe)
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "run" / "adapter").eval()
    text = "the cat sat here"
    ids = torch.tensor([[BOS, *tokenizer.encode(text).ids, END]])
    with torch.no_grad():
        nats = adapted(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    score = ours.score(pd.DataFrame({"text": [text]}))["text"][0]
    assert score == pytest.approx(float(nats.sum()), abs=1e-3)
    again = api.import_checkpoint(source, tmp_path / "in", adapter=tmp_path / "run")
    assert again.score(pd.DataFrame({"text": [text]}))["text"][0] == pytest.approx(score, abs=1e-4)


def test_adapters_of_another_kind_or_model_are_refused(
    good: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    wide = theirs("gpt2", tokenizer.get_vocab_size())
    settings = peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM",
                               fan_in_fan_out=True)  # fmt: skip
    peft.get_peft_model(wide, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(RunError, match=r"transformer\.h\.0\.attn\.c_attn is none of this model"):
        api.import_checkpoint(good, tmp_path / "run", adapter=tmp_path / "adapter")
    with pytest.raises(RunError, match=r"transformer\.h\.0\.attn\.c_attn is none of this model"):
        api.import_checkpoint(good, tmp_path / "plain").adapted(tmp_path / "adapter")
    for key, value in (("peft_type", "IA3"), ("use_dora", True), ("r", 0), ("bias", "all")):
        folder = tmp_path / key
        shutil.copytree(tmp_path / "adapter", folder)
        edited(folder / "adapter_config.json", **{key: value})
        with pytest.raises(RunError, match=f"{key} = "):
            api.import_checkpoint(good, tmp_path / "run", adapter=folder)
    with pytest.raises(RunError, match=r"adapter_config\.json: cannot be read"):
        api.import_checkpoint(good, tmp_path / "run", adapter=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()
