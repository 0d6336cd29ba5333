"""What leaves for llama.cpp is there what it is here.

The other side is the package `gguf`, which knows by itself what tensors are called; where
`llama_cpp` is installed, it answers, too.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tests.test_exchange import KINDS, LINES, OPENED, PROMPTS, saved, theirs, tokenizer  # noqa: F401
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from omnifill import api
from omnifill.errors import RequestError, RunError
from omnifill.llamacpp import BYTE, CONTROL, NORMAL, SPLITS, UNUSED, read_tokens

CPP = importlib.util.find_spec("llama_cpp") is not None
ARCHES = {"gpt2": "GPT2", "llama": "LLAMA", "llama with biases": "LLAMA", "llama 3": "LLAMA",
          "linear": "LLAMA", "mistral": "LLAMA", "qwen 2": "QWEN2", "qwen 2 with yarn": "QWEN2",
          "qwen 2 with windows": "QWEN2", "qwen 3": "QWEN3"}  # fmt: skip


def told(path: Path) -> dict[str, Any]:
    """Keys and values of a file."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {t.name: torch.from_numpy(np.array(t.data)) for t in gguf.GGUFReader(path).tensors}


def in_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's Llama turns neighbours, that of the Hugging Face libraries halves of a head."""
    return torch.cat([head[half::2] for head in rows.chunk(heads) for half in (0, 1)])


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_what_they_were_by_the_names_of_another(
    kind: str, tokenizer: Tokenizer, tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    model = theirs(kind, tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, kind in OPENED)
    api.import_checkpoint(source, tmp_path / "run")
    out = tmp_path / "model.gguf"
    code, _, _ = command("export", str(tmp_path / "run"), "--format", "gguf", "--out", str(out))
    assert code == 0 and {p.name for p in tmp_path.iterdir()} == {"hf", "run", "model.gguf"}
    config, got = model.config, tensors(out)
    arch = getattr(gguf.MODEL_ARCH, ARCHES[kind])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.named_parameters():
        base, _, what = name.rpartition(".")
        made = got.pop(f"{names.get_name(base)}.{what}")
        want = tensor.detach()
        if kind == "gpt2" and "c_" in name and want.ndim == 2:
            want = want.T
        if ARCHES[kind] == "LLAMA" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_" in name else config.num_key_value_heads
            made = in_halves(made, heads)
        assert torch.equal(made, want), name
    rest = {"rope_freqs.weight"} if kind in ("llama 3", "linear") else set()
    assert got.keys() == rest
    if rest:
        rotary = model.model.rotary_emb
        plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
        torch.testing.assert_close(plain / got["rope_freqs.weight"], rotary.inv_freq)


def test_what_the_file_says_of_the_network_and_its_texts(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = theirs("mistral", tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, True)
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    api.import_checkpoint(source, tmp_path / "run").export(tmp_path / "m.gguf", format="gguf")
    got = told(tmp_path / "m.gguf")
    want = {
        "general.architecture": "llama", "llama.block_count": 3, "llama.embedding_length": 32,
        "llama.feed_forward_length": 56, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2, "llama.attention.key_length": 16,
        "llama.rope.dimension_count": 16, "llama.context_length": 7,  # its window
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }  # fmt: skip
    assert {key: got[key] for key in want} == want
    assert got["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    again = Tokenizer(models.BPE(
        {text: i for i, text in enumerate(got["tokenizer.ggml.tokens"])},
        [tuple(pair.split(" ")) for pair in got["tokenizer.ggml.merges"]],
    ))  # fmt: skip
    again.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in PROMPTS[:4]:  # the fifth spells control tokens
        assert again.encode(text).ids == tokenizer.encode(text, add_special_tokens=False).ids
    kinds = got["tokenizer.ggml.token_type"]
    assert kinds[:4] == [CONTROL] * 3 + [NORMAL]


def bpe(vocab: list[str], merges: list[tuple[str, str]], **options: Any) -> Tokenizer:
    return Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, merges, **options))


def test_a_tokenizer_of_pieces_keeps_its_order() -> None:
    pieces = ["<0x0A>", "▁", "a", "b", "ab", "▁ab"]
    made = bpe(pieces, [("a", "b"), ("▁", "ab")], byte_fallback=True)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    got = read_tokens(made.to_str(), 8)
    assert (got.model, got.prefix, got.texts[:6]) == ("llama", True, pieces)
    assert got.kinds == [BYTE, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, UNUSED, UNUSED]
    assert got.scores[4] > got.scores[5]
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    assert not read_tokens(made.to_str(), 8).prefix


def test_a_tokenizer_of_characters_writes_bytes_for_what_it_does_not_know() -> None:
    made = bpe(["\0", " ", "é", "<0xC3>"], [], byte_fallback=True)
    got = read_tokens(made.to_str(), 4)
    assert (got.texts, got.kinds) == (["<0x00>", "▁", "é", "<0xC3>"], [BYTE, NORMAL, NORMAL, BYTE])


@pytest.mark.parametrize(("cut", "merged"), [key for key in SPLITS if key[0]])
def test_how_words_are_cut_is_told_by_name(cut: str, merged: bool) -> None:
    made = bpe(["a"], [], ignore_merges=merged)
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(cut), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    made.normalizer = normalizers.NFC()
    assert read_tokens(made.to_str(), 1).pre == SPLITS[cut, merged]


@pytest.mark.parametrize(("change", "why"), [
    (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()), "cuts words in a way"),
    (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel()), "cuts words in a way"),
    (lambda t: setattr(t, "normalizer", normalizers.Lowercase()), "changes texts in ways"),
    (lambda t: setattr(t, "model", models.WordLevel({"a": 0}, "a")), "of type WordLevel"),
    (lambda t: setattr(t, "model", models.BPE({"a": 0, " ": 1, "▁": 2}, [], byte_fallback=True)),
     "a token ▁"),
    (lambda t: setattr(t, "model", models.BPE({"a": 0, "aa": 1}, [], byte_fallback=True)),
     "'aa' that comes of no merge"),
])  # fmt: skip
def test_what_llama_cpp_would_read_otherwise_is_refused(
    change: Callable[[Tokenizer], None], why: str
) -> None:
    made = bpe(["a"], [])
    if "byte" in why or "token" in why:
        made.pre_tokenizer = None
    change(made)
    with pytest.raises(RunError, match=f"--format gguf: .*{why}.*; export it as hf"):
        read_tokens(made.to_str(), 3)


def test_nothing_is_left_of_an_export_that_cannot_be(
    tokenizer: Tokenizer, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    config = transformers.GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_embd=8, n_layer=1,
                                     n_head=2, activation_function="gelu")  # fmt: skip
    source = saved(tmp_path / "hf", transformers.GPT2LMHeadModel(config), tokenizer, False)
    api.import_checkpoint(source, tmp_path / "run")
    asked = ("export", str(tmp_path / "run"), "--out", str(tmp_path / "m.gguf"), "--format")
    code, _, said = command(*asked, "gguf")
    assert code == 2 and "the activation is gelu, which llama.cpp's gpt2 takes for" in said
    code, _, said = command(*asked, "ggml")
    assert code == 2 and "did you mean 'gguf'?" in said
    code, _, said = command(*asked[:3], str(tmp_path / "no" / "m.gguf"), "--format", "gguf")
    assert code == 2 and "there is no folder" in said and "make it first" in said
    (tmp_path / "m.gguf").write_text("mine", encoding="utf-8")
    code, _, said = command(*asked, "gguf")
    assert code == 2 and "is there already" in said
    assert (tmp_path / "m.gguf").read_text(encoding="utf-8") == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m.gguf", "run"]


def test_what_is_missing_is_said_before_anything_is_done(
    model: api.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(RequestError, match=r"omnifill\[gguf\]"):  # not: has 5 fields
        model.export(tmp_path / "m.gguf", format="gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not CPP, reason="llama_cpp is not installed")
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "qwen 2 with windows"])
def test_llama_cpp_answers_as_transformers_does(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = theirs(kind, tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, kind in OPENED)
    api.import_checkpoint(source, tmp_path / "run").export(tmp_path / "m.gguf", format="gguf")
    for text in PROMPTS[:4]:
        ids = [0] * (kind in OPENED) + tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids[:7] if kind == "mistral" else ids
        if kind != "mistral":
            assert read_by_cpp(tmp_path / "m.gguf", text) == ids
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0]
        got = logits_by_cpp(tmp_path / "m.gguf", ids)
        np.testing.assert_allclose(got, want.numpy(), atol=5e-3)
        assert got.argmax(-1).tolist() == want.argmax(-1).tolist()


@pytest.mark.skipif(not CPP, reason="llama_cpp is not installed")
@pytest.mark.parametrize("codec", ["bpe", "characters"])
def test_llama_cpp_answers_as_a_trained_run_does(codec: str, tmp_path: Path) -> None:
    recipe = {
        "schema": {"fields": {"text": {"type": "text", "codec": codec}}},
        "model": {"size": "nano", "kv_heads": 1}, "train": {"steps": 30},
    }  # fmt: skip
    ours = api.train(pd.DataFrame({"text": LINES * 3}), tmp_path / "run", recipe=recipe)
    ours.export(tmp_path / "m.gguf", format="gguf")
    ours.export(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in [*LINES[:3], "unseen: ÿ ☃\n\tأهلا"]:
        ids = theirs(text)["input_ids"]
        assert read_by_cpp(tmp_path / "m.gguf", text) == ids
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(logits_by_cpp(tmp_path / "m.gguf", ids), want, atol=5e-3)


def opened(path: Path) -> Any:
    from llama_cpp import Llama

    # Its cache holds 16-bit floats if nothing else is said; its GELU is a table of such.
    return Llama(str(path), logits_all=True, verbose=False, n_ctx=96, n_threads=1, type_k=0,
                 type_v=0)  # fmt: skip


def read_by_cpp(path: Path, text: str) -> list[int]:
    return list(opened(path).tokenize(text.encode(), add_bos=True, special=False))


def logits_by_cpp(path: Path, ids: list[int]) -> Any:
    llama = opened(path)
    llama.eval(ids)
    return np.array(llama.scores[: len(ids)])
