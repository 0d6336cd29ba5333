"""Checkpoints as llama.cpp reads them: one GGUF file, its weights as 32-bit floats.

What llama.cpp would do otherwise than the checkpoint's origin is refused by name. The format is
that of ggml-org/llama.cpp, and its own package writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from omnifill.codecs.pretrained import TOKENIZER, around
from omnifill.errors import RequestError, RunError, unknown_name
from omnifill.files import atomic_path
from omnifill.model.config import ModelConfig
from omnifill.model.families import Family
from omnifill.model.hf import Checkpoint, renamed
from omnifill.model.rotary import Rotation

NAMES = {"GPT2LMHeadModel": "gpt2", "LlamaForCausalLM": "llama", "MistralForCausalLM": "llama",
         "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}  # fmt: skip
"""By the architecture that a config.json names."""
NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
"""Kinds of tokens."""
SPACE = "▁"
"""What stands for a space among the tokens of SentencePiece."""

_OUTSIDE = {"embed": "token_embd", "backbone.places": "position_embd",
            "backbone.norm": "output_norm", "head": "output"}  # fmt: skip
_INSIDE = {"attn_norm": "attn_norm", "attn.o_proj": "attn_output", "attn.q_norm": "attn_q_norm",
           "attn.k_norm": "attn_k_norm", "ffn_norm": "ffn_norm", "ffn.gate_proj": "ffn_gate",
           "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down"}  # fmt: skip
_APART = {f"attn.{part}_proj": f"attn_{part}.{{kind}}" for part in "qkv"}
_AS_ONE = {f"attn.{part}_proj": f"attn_qkv.{{kind}} {n}/3" for n, part in enumerate("qkv")}


def _family(qkv: Mapping[str, str]) -> Family:
    names: dict[str, str] = {}
    for kind in ("weight", "bias"):
        names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in _OUTSIDE.items()}
        blocks = {ours: f"{theirs}.{kind}" for ours, theirs in _INSIDE.items()}
        blocks |= {ours: theirs.format(kind=kind) for ours, theirs in qkv.items()}
        names |= {f"backbone.blocks.{{i}}.{ours}.{kind}": f"blk.{{i}}.{theirs}"
                  for ours, theirs in blocks.items()}  # fmt: skip
    return Family(names)


APART, AS_ONE = _family(_APART), _family(_AS_ONE)
"""What llama.cpp calls the tensors of our Transformer."""


def library() -> Any:
    """The package that writes the format. RequestError where it is missing."""
    try:
        import gguf
    except ImportError:
        raise RequestError(
            "--format gguf is written with the extra `gguf`: pip install 'omnifill[gguf]'"
        ) from None
    return gguf


def write_gguf(checkpoint: Checkpoint, out: Path) -> None:
    """A causal checkpoint -> the file `out`. RunError for what llama.cpp does not do."""
    name = checkpoint.settings.tree["architectures"][0]
    if name not in NAMES:
        raise RunError("--format gguf: " + unknown_name("architecture", name, NAMES))
    kind, config = NAMES[name], checkpoint.config
    values = _shape(kind, config)
    source = (checkpoint.folder / TOKENIZER).read_text(encoding="utf-8")
    tokens = read_tokens(source, config.vocabulary)
    with atomic_path(out) as beside:
        writer = library().GGUFWriter(beside, kind)
        writer.add_file_type(0)  # all of it 32-bit floats
        for key, value in values.items():
            _add(writer, f"{kind}.{key}", value)
        _add_tokens(writer, tokens, checkpoint, around(source)[0])
        for tensor, weight in _weights(kind, config, checkpoint.weights()).items():
            writer.add_tensor(tensor, weight.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _shape(kind: str, config: ModelConfig) -> dict[str, Any]:
    """What is said of the network, by the names of llama.cpp. RunError for what it doesn't do."""
    act = "gelu_tanh" if kind == "gpt2" else "silu"
    if config.act != act:
        raise _refusal(f"the activation is {config.act}, which llama.cpp's {kind} takes for {act}")
    if kind.startswith("qwen") and (config.o_bias or config.ffn_bias):
        raise _refusal(f"has biases that llama.cpp's {kind} does not read")
    if kind == "qwen3" and config.qkv_bias:
        raise _refusal("has biases beside norms of queries and keys")
    # Within its window, a network with one is a network without.
    out: dict[str, Any] = {
        "context_length": min(config.context, config.window or config.context),
        "embedding_length": config.dim, "block_count": config.layers,
        "feed_forward_length": config.ffn, "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
    }  # fmt: skip
    if kind == "gpt2":
        return out | {"attention.layer_norm_epsilon": config.norm_eps}
    out |= {
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "attention.key_length": config.head_dim, "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim, "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocabulary,
    }  # fmt: skip
    if config.rope is None or kind == "llama":  # whose stretching lies in a tensor
        if config.rope is not None and config.rope.gain != 1.0:
            out["rope.scaling.attn_factor"] = config.rope.gain
        return out
    rope = config.rope
    if rope.kind == "llama3" or not rope.whole:
        raise _refusal(f"stretches positions as {rope.kind}, which llama.cpp's {kind} does not")
    out |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": rope.factor}
    if rope.kind == "yarn":
        out |= {
            "rope.scaling.original_context_length": rope.original,
            "rope.scaling.yarn_beta_fast": rope.high, "rope.scaling.yarn_beta_slow": rope.low,
        }  # fmt: skip
    return out


def _weights(kind: str, config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors by the names of llama.cpp."""
    out = renamed(AS_ONE if kind == "gpt2" else APART, ours)
    if kind != "llama":
        return out
    for name, tensor in out.items():
        if re.search(r"\.attn_[qk]\.", name):
            heads = config.heads if ".attn_q." in name else config.kv_heads
            out[name] = _interleaved(tensor, heads)
    if config.rope is not None:
        plain = Rotation.of(config.model_copy(update={"rope": None})).speed
        out["rope_freqs.weight"] = plain / Rotation.of(config).speed
    return out


def _interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of heads whose pairs are (i, i + d/2) -> those whose pairs are (2i, 2i + 1)."""
    halves = rows.view(heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape).contiguous()


# --- tokens --------------------------------------------------------------------------------

_LETTERS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"""
_REST = r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
SPLITS = {
    (None, False): "gpt-2",
    (_LETTERS + "{1,3}" + _REST, True): "llama-bpe",
    (_LETTERS + "{1,3}" + _REST, False): "dbrx",
    (_LETTERS + _REST, False): "qwen2",
}
"""Expression that words are cut by (None: that of GPT-2), and whether a word that is a token needs
no merges -> what llama.cpp calls it."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer as llama.cpp has it."""

    model: str
    pre: str
    """How words are cut, by name."""
    texts: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    """Of SentencePiece: the higher is merged first."""
    prefix: bool
    """Whether a space is put in front of a text."""


def read_tokens(source: str, size: int) -> Tokens:
    """Of a tokenizer.json and a network of `size` ids. RunError if llama.cpp has none like it."""
    tree = json.loads(Tokenizer.from_str(source).to_str())
    model = tree["model"]
    if model["type"] != "BPE" or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        raise _refusal(f"a tokenizer of type {model['type']} cannot be said to llama.cpp")
    texts, kinds = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for text, i in model["vocab"].items():
        texts[i], kinds[i] = text, NORMAL
    for token in tree["added_tokens"]:
        i = token["id"]
        texts[i], kinds[i] = token["content"], CONTROL if token["special"] else USER_DEFINED
    if model["byte_fallback"]:
        return _pieces(tree, texts, kinds)
    merges = [" ".join(pair) for pair in model["merges"]]
    return Tokens("gpt2", _split(tree), texts, kinds, merges, [], prefix=False)


def _split(tree: Mapping[str, Any]) -> str:
    """How a tokenizer of bytes cuts words, by name."""
    if tree["normalizer"] not in (None, {"type": "NFC"}):
        raise _refusal("its tokenizer changes texts in ways that llama.cpp does not")
    pre = tree["pre_tokenizer"] or {}
    *cuts, last = pre.get("pretokenizers", [pre])
    plain = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    found: Any = "nothing"
    if plain and not cuts and last["use_regex"]:
        found = None
    elif plain and len(cuts) == 1 and not last["use_regex"] and cuts[0]["type"] == "Split":
        found = cuts[0]["pattern"].get("Regex", "nothing")
    name = SPLITS.get((found, bool(tree["model"]["ignore_merges"])))
    if name is None:
        raise _refusal("its tokenizer cuts words in a way that llama.cpp has no name for")
    return name


def _pieces(tree: Mapping[str, Any], texts: list[str], kinds: list[int]) -> Tokens:
    """Of a tokenizer that writes bytes for what is no token, as SentencePiece does."""
    prefix = _prefix(tree)
    if prefix is None:  # spaces are spaces
        if SPACE in texts:
            raise _refusal(f"its tokenizer has a token {SPACE}, which is llama.cpp's for a space")
        texts = [SPACE if text == " " else text for text in texts]
    scores: dict[str, float] = {}
    last = ""
    for n, pair in enumerate(tree["model"]["merges"]):
        made = "".join(pair)
        if made in scores and made != last:
            raise _refusal(f"its tokenizer makes {made!r} of several pairs, at different times")
        scores.setdefault(made, -float(n))
        last = made
    for i, text in enumerate(texts):
        text = texts[i] = "<0x00>" if text == "\0" else text  # names end at a zero there
        if kinds[i] == NORMAL and re.fullmatch("<0x[0-9A-F]{2}>", text):
            kinds[i] = BYTE
        elif kinds[i] == NORMAL and len(text) > 1 and text not in scores:
            raise _refusal(f"its tokenizer has a token {text!r} that comes of no merge")
    return Tokens("llama", "default", texts, kinds, [], [scores.get(t, 0.0) for t in texts],
                  bool(prefix))  # fmt: skip


def _prefix(tree: Mapping[str, Any]) -> bool | None:
    """Whether a space is put in front of a text; None: spaces are not changed at all."""
    pre, normalizer = tree["pre_tokenizer"], tree["normalizer"]
    if pre is None and normalizer is None:
        return None
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = {"type": "Prepend", "prepend": SPACE}
    if pre is None and normalizer == {"type": "Sequence", "normalizers": [before, replaced]}:
        return True
    if pre is None and normalizer == replaced:
        return False
    if normalizer is None and pre["type"] == "Metaspace" and not pre["split"]:
        return bool(pre["prepend_scheme"] != "never")
    raise _refusal("its tokenizer changes texts in ways that llama.cpp does not")


def _add_tokens(writer: Any, tokens: Tokens, checkpoint: Checkpoint, lead: Sequence[int]) -> None:
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(tokens.texts)
    writer.add_token_types(tokens.kinds)
    if tokens.model == "gpt2":
        writer.add_token_merges(tokens.merges)
    else:
        writer.add_token_scores(tokens.scores)
        writer.add_add_space_prefix(tokens.prefix)
    ends = checkpoint.named("eos_token_id")
    named = {"bos": [*lead, *checkpoint.named("bos_token_id")], "eos": ends, "eot": ends[1:],
             "padding": checkpoint.named("pad_token_id")}  # fmt: skip
    for purpose, ids in named.items():
        if ids:
            writer.add_uint32(f"tokenizer.ggml.{purpose}_token_id", ids[0])
    writer.add_add_bos_token(len(lead) > 0)
    writer.add_add_eos_token(False)
    if (template := checkpoint.template) is not None:
        writer.add_chat_template(template)


def _add(writer: Any, key: str, value: Any) -> None:
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add[type(value)](key, value)


def _refusal(why: str) -> RunError:
    return RunError(f"--format gguf: {why}; export it as hf")
