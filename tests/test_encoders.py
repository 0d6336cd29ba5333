"""Checkpoints that see a text as a whole, alone (BERT) or with a decoder (T5, BART), say here what
they say where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.test_exchange import edited
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from omnifill import api
from omnifill.errors import RequestError, RunError
from omnifill.model.hf import read_checkpoint
from omnifill.model.mask import Mask
from omnifill.model.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

START, PAD, END, MASK = range(4)
SPECIAL = ["[CLS]", "[PAD]", "[SEP]", "[MASK]"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
    "pad_token_id": PAD, "max_position_embeddings": 64,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 6, "d_ff": 56, "num_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
    "pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD,
}  # fmt: skip
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 56, "decoder_ffn_dim": 56,
    "max_position_embeddings": 64, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END,
    "decoder_start_token_id": END, "forced_bos_token_id": START, "forced_eos_token_id": None,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", SHAPE),
    "roberta": ("RobertaForMaskedLM", SHAPE | {"max_position_embeddings": 66}),
    "t5": ("T5ForConditionalGeneration", T5),
    "gated t5": ("T5ForConditionalGeneration", T5 | {"feed_forward_proj": "gated-gelu",
                                                     "initializer_factor": 0.4,
                                                     "tie_word_embeddings": False}),
    "bart": ("BartForConditionalGeneration", BART),
    "scaled bart": ("BartForConditionalGeneration", BART | {"scale_embedding": True,
                                                            "forced_bos_token_id": None}),
}  # fmt: skip
WHOLE, SIDED = ("bert", "roberta"), ("t5", "gated t5", "bart", "scaled bart")
TEXTS = ["the cat sat", "on the mat, the cat sat on the über mat 你好 and the cat", "你好 mat"]


def some(*kinds: str, among: Iterable[str]) -> list[Any]:
    """All of them, of which only those named run each time."""
    return [kind if kind in kinds else pytest.param(kind, marks=pytest.mark.slow) for kind in among]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return pieces()


def pieces() -> Tokenizer:
    """Pieces of lower-case words, as BERT has them."""
    out = Tokenizer(models.WordPiece(unk_token="[PAD]"))
    out.normalizer = normalizers.BertNormalizer()
    out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    out.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False)
    out.train_from_iterator(TEXTS * 50, trainer)
    return out


def theirs(kind: str, size: int, **more: Any) -> Any:
    """A model with random weights, its biases and norms among them."""
    name, settings = KINDS[kind]
    torch.manual_seed(0)
    made = getattr(transformers, name)
    config = made.config_class(vocab_size=size, **settings | more)
    model = made(config).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        spread = 0.1 if weight.ndim == 1 else 0.25
        weight.data += spread * torch.randn(weight.shape, generator=generator)
    if kind.endswith("bart"):
        model.final_logits_bias += torch.randn(model.final_logits_bias.shape, generator=generator)
    return model


def saved(folder: Path, kind: str, tokenizer: Tokenizer) -> Path:
    theirs(kind, tokenizer.get_vocab_size()).save_pretrained(folder)
    around = "$A [SEP]" if kind.endswith("t5") else "[CLS] $A [SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[("[CLS]", START), ("[SEP]", END)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    return folder


def loaded(folder: Path) -> Network:
    checkpoint = read_checkpoint(folder)
    network, weights = Network(checkpoint.config).eval(), checkpoint.weights()
    if checkpoint.config.tied:
        weights["head.weight"] = weights["embed.weight"]
    network.load_state_dict(weights)
    return network


def random_ids(num: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(4, 60, (2, num)))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_text_that_is_seen_as_a_whole_has_the_same_logits(kind: str, tmp_path: Path) -> None:
    model, ids, lengths = theirs(kind, 60), random_ids(40, 1), torch.tensor([40, 23])
    model.save_pretrained(tmp_path)
    network, field = loaded(tmp_path), torch.zeros_like(ids)
    inside = torch.arange(40) < lengths[:, None]
    with torch.no_grad():
        want = model(ids, attention_mask=inside.long()).logits[inside]
        made = network.head(network(ids, field, None, Mask("full", lengths)))[inside]
    assert float(want.std()) > 0.5
    torch.testing.assert_close(made, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", SIDED)
def test_an_encoder_and_its_decoder_have_the_same_logits(kind: str, tmp_path: Path) -> None:
    """Ours has a `<bos>` in front of what is given, which nothing sees; sources are padded."""
    more = {"num_decoder_layers": 2} if kind.endswith("t5") else {}
    model = theirs(kind, 60, **more)
    model.save_pretrained(tmp_path)
    network = loaded(tmp_path)
    source, ids, lengths = random_ids(37, 1), random_ids(30, 2), torch.tensor([37, 9])
    inside = torch.arange(37) < lengths[:, None]
    opened = torch.cat([torch.zeros(2, 1, dtype=torch.long), source], dim=1)
    zeros = torch.zeros_like(opened)
    with torch.no_grad():
        want = model(source, inside.long(), decoder_input_ids=ids).logits
        memory = network.encode(opened, zeros, None, Mask("full", lengths + 1))
        whole = network.head(network(ids, zeros[:, :30], None, Mask(), memory=memory))
        cache = network.new_cache(2, 30, memory=memory)
        parts = [network.head(network(ids[:, a:b], zeros[:, a:b], None, Mask(), cache))
                 for a, b in ((0, 11), (11, 12), (12, 30))]  # fmt: skip
    assert float(want.std()) > 0.5
    torch.testing.assert_close(whole, want, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cat(parts, dim=1), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_gap_is_filled_as_they_fill_it(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = saved(tmp_path / "hf", kind, tokenizer)
    ours = api.import_checkpoint(source, tmp_path / "run")
    model = theirs(kind, tokenizer.get_vocab_size())
    for before, behind in (("the cat", "the mat"), ("", "mat 你好"), ("the", ""), ("", "")):
        parts = [tokenizer.encode(part).ids for part in (before, behind)]
        ids = torch.tensor([[START, *parts[0], MASK, MASK, *parts[1], END]])
        with torch.no_grad():
            best = model(ids).logits[0].argmax(dim=1)
        want = tokenizer.decode(torch.where(ids[0] == MASK, best, ids[0]).tolist())
        asked: dict[str, Any] = {"prompt": before or None, "suffix": behind or None}
        made = ours.generate(2, **asked, max_tokens=2, steps=1, temperature=0)
        assert made["text"].tolist() == [want] * 2
    with pytest.raises(RequestError, match="max_tokens = 70"):
        ours.generate(1, prompt="the cat", max_tokens=70)


@pytest.mark.parametrize("kind", some("t5", "bart", among=SIDED))
def test_a_source_is_answered_as_they_answer_it(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = saved(tmp_path / "hf", kind, tokenizer)
    ours = api.import_checkpoint(source, tmp_path / "run")
    model = theirs(kind, tokenizer.get_vocab_size())
    lead = [] if kind.endswith("t5") else [START]
    want = []
    for text in [*TEXTS, ""]:
        ids = torch.tensor([[*lead, *tokenizer.encode(text).ids, END]])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20,
                              do_sample=False, num_beams=1)  # fmt: skip
        want.append(tokenizer.decode(made[0].tolist()))
        options: dict[str, Any] = {"temperature": 0, "max_tokens": 20}
        assert ours.generate(3, given={"source": text}, **options)["text"].tolist() == want[-1:] * 3
        assert "".join(ours.stream(given={"source": text}, **options)).strip() == want[-1].strip()
    assert len(set(want)) > 1
    if kind.endswith("bart"):  # the answer has positions of its own
        text = " ".join([*TEXTS[1:], TEXTS[1]])
        ids = torch.tensor([[*lead, *tokenizer.encode(text).ids, END]])
        assert 30 < ids.shape[1] <= 64
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60,
                              do_sample=False, num_beams=1)  # fmt: skip
        told = ours.generate(1, given={"source": text}, temperature=0, max_tokens=60)
        assert told["text"][0] == tokenizer.decode(made[0].tolist())
        with pytest.raises(RequestError, match=r"max_tokens = 64: beside the \d+ tokens"):
            ours.generate(1, given={"source": text}, max_tokens=64)
        with (
            pytest.warns(UserWarning, match="cut to fit the 64 tokens"),
            pytest.raises(RequestError, match="64 tokens are given, and there are positions for 6"),
        ):
            ours.generate(1, given={"source": " ".join([text, text])}, max_tokens=3)
    if kind == "t5":  # the others have no positions for whatever comes
        table = pd.DataFrame({"source": [*TEXTS[1:], ""], "text": None})
        alone = [ours.generate(1, given={"source": t}, temperature=0) for t in table["source"]]
        assert ours.fill(table)["text"].tolist() == [made["text"][0] for made in alone]
    ids = torch.tensor([[*lead, *tokenizer.encode(TEXTS[0]).ids, END]])
    begun = tokenizer.encode("the mat").ids
    first = torch.tensor([[model.config.decoder_start_token_id, *lead, *begun]])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), decoder_input_ids=first,
                          max_new_tokens=9, do_sample=False, num_beams=1)  # fmt: skip
    told = ours.generate(
        1, given={"source": TEXTS[0]}, prompt="the mat", temperature=0, max_tokens=9
    )
    assert told["text"][0] == tokenizer.decode(made[0].tolist())


@pytest.mark.parametrize("kind", some("bert", "t5", "bart", among=KINDS))
def test_they_leave_as_they_came(
    kind: str, tokenizer: Tokenizer, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    source = saved(tmp_path / "hf", kind, tokenizer)
    assert command("import", str(source), "--out", str(tmp_path / "run"))[0] == 0
    assert command("export", str(tmp_path / "run"), "--out", str(tmp_path / "back"))[0] == 0
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        rows = slice(2, None) if "position" in name and kind not in WHOLE[:1] else slice(None)
        assert torch.equal(tensor[rows], after[name][rows]), name


def test_older_names_and_parts_that_are_not_needed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = saved(tmp_path / "hf", "bert", tokenizer)
    tensors = load_file(source / "model.safetensors")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias",
                                                                    "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }  # fmt: skip
    extra = {"bert.pooler.dense.weight": torch.zeros(3), "cls.seq_relationship.bias": torch.ones(2)}
    save_file(older | extra, source / "model.safetensors")
    weights = read_checkpoint(source).weights()
    assert torch.equal(
        weights["backbone.embed_norm.weight"], tensors["bert.embeddings.LayerNorm.weight"]
    )


BROKEN: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "sides of other shapes": (
        "bart", lambda f: edited(f / "config.json", decoder_ffn_dim=64), "that of the decoder, 64"),
    "positions of another kind": (
        "bert", lambda f: edited(f / "config.json", position_embedding_type="relative_key"),
        "position_embedding_type = 'relative_key' is nothing that this network can do"),
    "a gate that is not known": (
        "t5", lambda f: edited(f / "config.json", feed_forward_proj="gated-tanh"),
        "feed_forward_proj"),
    "an end that the tokenizer does not write": (
        "t5", lambda f: edited(f / "config.json", eos_token_id=5), r"it puts \[2\] behind a text"),
    "another first token": (
        "bart", lambda f: edited(f / "generation_config.json", forced_bos_token_id=9),
        r"\[9\] must be written"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_imported_is_refused_in_words(
    what: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    kind, spoil, why = BROKEN[what]
    source = saved(tmp_path / "hf", kind, tokenizer)
    if what.startswith("an end"):
        edited(source / "generation_config.json", eos_token_id=5)
    spoil(source)
    with pytest.raises(RunError, match=why):
        api.import_checkpoint(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_hidden_token_is_refused(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = saved(tmp_path / "hf", "bert", tokenizer)
    path = source / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("[MASK]", "[GONE]"), "utf-8")
    with pytest.raises(RunError, match="names no mask_token"):
        api.import_checkpoint(source, tmp_path / "run")
    (source / "tokenizer_config.json").write_text('{"mask_token": "[GONE]"}', "utf-8")
    api.import_checkpoint(source, tmp_path / "run")


@pytest.mark.parametrize("kind", ["bert", "t5", "bart"])
def test_they_are_trained_further(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Their tokens keep their vectors; a label gets its own."""
    source = saved(tmp_path / "hf", kind, tokenizer)
    objective = "masked" if kind == "bert" else "seq2seq"
    recipe = api.build_recipe(None, **{
        "train.base": str(source), "train.steps": 2, "objective.name": objective,
        "train.lr_adamw": 1e-12, "train.weight_decay": 0.0,
    })  # fmt: skip
    data = pd.DataFrame({"kind": ["tea", "mat"] * 30, "text": [f"the cat {i}" for i in range(60)]})
    run = api.train(data, tmp_path / "run", recipe=recipe)
    field = run.run.vocabulary["text"]
    own = run.run.network.embed.weight[field.first : field.first + field.codec.size]
    weights = read_checkpoint(source).weights()
    torch.testing.assert_close(own, weights["embed.weight"], rtol=0, atol=1e-5)
    made = run.generate(3, given={"kind": "tea"}, max_tokens=8)
    assert len(made) == 3
    assert set(run.fill(data[["text"]].assign(kind=None))["kind"]) <= {"tea", "mat"}
