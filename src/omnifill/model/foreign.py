"""What a config.json of another project says of a network, in our terms.

What our Transformer cannot do exactly as its origin does is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from omnifill.errors import RunError
from omnifill.model.config import ModelConfig, RopeScaling

ACTS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}  # fmt: skip


class Settings:
    """A config.json, and what is wrong with it."""

    def __init__(self, path: Path, tree: dict[str, Any] | None = None) -> None:
        """`tree`: what of it is meant, if not all."""
        self.path = path
        if tree is not None:
            self.tree = tree
            return
        try:
            self.tree = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise RunError(f"{path}: is no JSON ({error})") from None
        if not isinstance(self.tree, dict):
            raise RunError(f"{path}: must hold keys and values, not {type(self.tree).__name__}")

    def number(self, key: str, default: float | None = None) -> float:
        value = self.tree.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.refusal(key, "must be a number above 0")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise self.refusal(key, "must be a whole number")
        return int(value)

    def switch(self, key: str, default: bool) -> bool:
        value = self.tree.get(key, default)
        if not isinstance(value, bool):
            raise self.refusal(key, "must be true or false")
        return value

    def act(self, key: str) -> Any:
        name = self.tree.get(key)
        if not isinstance(name, str) or name not in ACTS:
            raise self.refusal(key, f"is none of {', '.join(ACTS)}")
        return ACTS[name]

    def only(self, key: str, *values: Any) -> None:
        """Refuse any value but these."""
        if self.tree.get(key, values[0]) not in values:
            raise self.refusal(key, "is nothing that this network can do")

    def refusal(self, key: str, why: str) -> RunError:
        return RunError(f"{self.path}: {key} = {self.tree.get(key)!r} {why}")


def read_config(kind: str, settings: Settings, untied: bool) -> ModelConfig:
    """That of an architecture of `READERS`. `untied`: whether the head has weights of its own.
    RunError for what cannot be done."""
    try:
        return READERS[kind](settings, untied)
    except ValidationError as error:
        raise RunError(f"{settings.path}: {error.errors()[0]['msg']}") from None


def _gpt2(c: Settings, untied: bool) -> ModelConfig:
    c.only("scale_attn_weights", True)
    c.only("scale_attn_by_inverse_layer_idx", False)
    c.only("add_cross_attention", False)
    dim, heads = c.count("n_embd"), c.count("n_head")
    return ModelConfig(
        vocabulary=c.count("vocab_size"), dim=dim, layers=c.count("n_layer"), heads=heads,
        kv_heads=heads, head_dim=dim // heads, ffn=c.count("n_inner", 4 * dim),
        context=c.count("n_positions"), positions="learned", places=c.count("n_positions"),
        tied=c.switch("tie_word_embeddings", True),
        norm="layer", norm_eps=c.number("layer_norm_epsilon", 1e-5),
        qk_norm=False, qkv_bias=True, o_bias=True, ffn_bias=True, gated=False,
        act=c.act("activation_function"),
    )  # fmt: skip


def _llama(c: Settings, untied: bool) -> ModelConfig:
    dim, heads, layers = (
        c.count(key) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    kind = c.tree["architectures"][0]
    bias, rope = c.switch("attention_bias", False), _rope(c)
    window, windowed = _window(c, kind, layers)
    context = c.count("max_position_embeddings")
    return ModelConfig(
        vocabulary=c.count("vocab_size"), dim=dim, layers=layers, heads=heads,
        kv_heads=c.count("num_key_value_heads", heads), head_dim=c.count("head_dim", dim // heads),
        ffn=c.count("intermediate_size"), context=context,
        tied=c.switch("tie_word_embeddings", not untied), rope_theta=rope.number("rope_theta", 1e4),
        rope=_scaling(rope, context), norm_eps=c.number("rms_norm_eps", 1e-6),
        qk_norm=kind == "Qwen3ForCausalLM", qkv_bias=bias or kind == "Qwen2ForCausalLM",
        o_bias=bias, ffn_bias=c.switch("mlp_bias", False), act=c.act("hidden_act"),
        window=window, windowed=windowed,
    )  # fmt: skip


def _window(c: Settings, kind: str, layers: int) -> tuple[int | None, tuple[int, ...] | None]:
    """How far back slots see, and in which layers."""
    if kind.startswith("Qwen") and not c.switch("use_sliding_window", False):
        return None, None
    if kind == "LlamaForCausalLM" or c.tree.get("sliding_window") is None:
        return None, None
    kinds = c.tree.get("layer_types")
    if kinds is None and kind.startswith("Qwen"):
        full = c.tree.get("max_window_layers", 28)
        if not isinstance(full, int):
            raise c.refusal("max_window_layers", "must be a whole number")
        return c.count("sliding_window"), tuple(range(full, layers))
    if kinds is None:
        return c.count("sliding_window"), None
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in known for k in kinds):
        raise c.refusal("layer_types", f"must name one of two kinds for each of {layers} layers")
    return c.count("sliding_window"), tuple(
        i for i, kind in enumerate(kinds) if kind == "sliding_attention"
    )


def _rope(c: Settings) -> Settings:
    """The settings of rotary positions: of their own in newer files, among the others in older."""
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(part := c.tree.get(key), dict):
            return Settings(c.path, {"rope_theta": c.tree.get("rope_theta")} | part)
    return c


def _scaling(c: Settings, context: int) -> RopeScaling | None:
    kind = c.tree.get("rope_type", c.tree.get("type", "default"))
    if kind in ("default", "dynamic"):  # the latter differs beyond the context alone
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise c.refusal("rope_type", "is none of default, linear, dynamic, llama3, yarn")
    factor = c.number("factor")
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    original = c.count("original_max_position_embeddings", context)
    if kind == "llama3":
        low, high = c.number("low_freq_factor"), c.number("high_freq_factor")
        return RopeScaling(kind="llama3", factor=factor, original=original, low=low, high=high)
    c.only("mscale", None)
    c.only("mscale_all_dim", None)
    gain = 0.1 * float(torch.tensor(factor).double().log()) + 1 if factor > 1 else 1.0
    return RopeScaling(
        kind="yarn", factor=factor, original=original, low=c.number("beta_slow", 1.0),
        high=c.number("beta_fast", 32.0), gain=c.number("attention_factor", gain),
        whole=c.switch("truncate", True),
    )  # fmt: skip


def _bert(c: Settings, untied: bool) -> ModelConfig:
    c.only("position_embedding_type", "absolute")
    c.only("is_decoder", False)
    roberta = c.tree["architectures"][0] == "RobertaForMaskedLM"
    if roberta:
        c.only("hidden_act", "gelu")  # of its head, whatever the others have
        c.only("pad_token_id", 1)  # where positions begin depends on it
    dim, heads = c.count("hidden_size"), c.count("num_attention_heads")
    places = c.count("max_position_embeddings") - 2 * roberta  # two are of nothing
    return ModelConfig(
        vocabulary=c.count("vocab_size"), dim=dim, layers=c.count("num_hidden_layers"),
        heads=heads, kv_heads=heads, head_dim=dim // heads, ffn=c.count("intermediate_size"),
        context=places, positions="learned", places=places, full=True, near=False,
        tied=c.switch("tie_word_embeddings", True), segments=c.count("type_vocab_size", 2),
        norm="layer", norm_eps=c.number("layer_norm_eps", 1e-12), norm_after=True, embed_norm=True,
        head_dense=True, head_bias=True, qk_norm=False, qkv_bias=True, o_bias=True, ffn_bias=True,
        gated=False, act=c.act("hidden_act"),
    )  # fmt: skip


def _t5(c: Settings, untied: bool) -> ModelConfig:
    kind = str(c.tree.get("feed_forward_proj", "relu"))
    if kind == "gated-gelu":
        kind = "gated-gelu_new"  # what that name stands for there
    act = Settings(c.path, {"feed_forward_proj": kind.removeprefix("gated-")})
    dim, heads, width = c.count("d_model"), c.count("num_heads"), c.count("d_kv")
    scaled = c.switch("scale_decoder_outputs", c.switch("tie_word_embeddings", True))
    layers = c.count("num_layers")
    return ModelConfig(
        vocabulary=c.count("vocab_size"), dim=dim, layers=c.count("num_decoder_layers", layers),
        encoder_layers=layers, memory=True, encoder_opens=False, near=False,
        heads=heads, kv_heads=heads, head_dim=width, ffn=c.count("d_ff"),
        context=c.count("n_positions", 512), tied=not untied, positions="relative",
        buckets=c.count("relative_attention_num_buckets", 32),
        farthest=c.count("relative_attention_max_distance", 128), attn_scale=1.0,
        head_scale=dim**-0.5 if scaled else 1.0, norm_eps=c.number("layer_norm_epsilon", 1e-6),
        qk_norm=False, gated=kind.startswith("gated-"), act=act.act("feed_forward_proj"),
    )  # fmt: skip


def _bart(c: Settings, untied: bool) -> ModelConfig:
    for name in ("attention_heads", "ffn_dim"):
        if c.count(f"encoder_{name}") != c.count(f"decoder_{name}"):
            raise c.refusal(f"encoder_{name}", f"must be that of the decoder, "
                            f"{c.tree[f'decoder_{name}']}")  # fmt: skip
    dim, heads = c.count("d_model"), c.count("encoder_attention_heads")
    places = c.count("max_position_embeddings")
    return ModelConfig(
        vocabulary=c.count("vocab_size"), dim=dim, layers=c.count("decoder_layers"),
        encoder_layers=c.count("encoder_layers"), memory=True, encoder_opens=False, near=False,
        heads=heads, kv_heads=heads, head_dim=dim // heads, ffn=c.count("encoder_ffn_dim"),
        context=places, positions="learned", places=places, tied=not untied,
        norm="layer", norm_eps=1e-5, norm_after=True, embed_norm=True,
        embed_scale=dim**0.5 if c.switch("scale_embedding", False) else 1.0, head_bias=True,
        qk_norm=False, qkv_bias=True, o_bias=True, ffn_bias=True, gated=False,
        act=c.act("activation_function"),
    )  # fmt: skip


READERS: dict[str, Callable[[Settings, bool], ModelConfig]] = {
    "GPT2LMHeadModel": _gpt2,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Qwen2ForCausalLM": _llama,
    "Qwen3ForCausalLM": _llama,
    "BertForMaskedLM": _bert,
    "RobertaForMaskedLM": _bert,
    "T5ForConditionalGeneration": _t5,
    "BartForConditionalGeneration": _bart,
}
