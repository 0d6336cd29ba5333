"""What checkpoints of other projects call the tensors of our Transformer: literal tables.

Left: a parameter of `model.network.Network`, `{i}` the number of its block. Right: theirs, and
how it lies there: `T`, transposed; `0/3`, the first of three parts that lie in one (cut along the
rows of ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Names = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """Checkpoints that lie alike."""

    names: Names
    prefix: str = ""
    """What may stand before all names, or not."""
    unused: tuple[str, ...] = ()
    """Regular expressions of tensors that hold nothing learned."""


_BLOCK = "backbone.blocks.{i}."
_ATTENTION = {
    f"{_BLOCK}attn.{part}_proj.{kind}": f"layers.{{i}}.self_attn.{part}_proj.{kind}"
    for part in "qkvo" for kind in ("weight", "bias")
}  # fmt: skip
_GATED = {
    f"{_BLOCK}ffn.{part}_proj.{kind}": f"layers.{{i}}.mlp.{part}_proj.{kind}"
    for part in ("gate", "up", "down") for kind in ("weight", "bias")
}  # fmt: skip

LLAMA = Family(
    {
        "embed.weight": "embed_tokens.weight",
        f"{_BLOCK}attn_norm.weight": "layers.{i}.input_layernorm.weight",
        **_ATTENTION,
        f"{_BLOCK}attn.q_norm.weight": "layers.{i}.self_attn.q_norm.weight",
        f"{_BLOCK}attn.k_norm.weight": "layers.{i}.self_attn.k_norm.weight",
        f"{_BLOCK}ffn_norm.weight": "layers.{i}.post_attention_layernorm.weight",
        **_GATED,
        "backbone.norm.weight": "norm.weight",
        "head.weight": "lm_head.weight",
    },
    prefix="model.",
    unused=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)

GPT2 = Family(
    {
        "embed.weight": "wte.weight",
        "backbone.places.weight": "wpe.weight",
        **{
            f"{_BLOCK}attn.{part}_proj.{kind}": f"h.{{i}}.attn.c_attn.{kind} {number}/3 T"
            for number, part in enumerate("qkv") for kind in ("weight", "bias")
        },
        **{
            f"{_BLOCK}{ours}.{kind}": f"h.{{i}}.{theirs}.{kind}"
            for ours, theirs in (("attn_norm", "ln_1"), ("ffn_norm", "ln_2"))
            for kind in ("weight", "bias")
        },
        **{
            f"{_BLOCK}{ours}.{kind}": f"h.{{i}}.{theirs}.{kind} T"
            for ours, theirs in (("attn.o_proj", "attn.c_proj"), ("ffn.up_proj", "mlp.c_fc"),
                                 ("ffn.down_proj", "mlp.c_proj"))
            for kind in ("weight", "bias")
        },
        "backbone.norm.weight": "ln_f.weight",
        "backbone.norm.bias": "ln_f.bias",
        "head.weight": "lm_head.weight",
    },
    prefix="transformer.",
    unused=(r"h\.\d+\.attn\.(masked_)?bias",),
)  # fmt: skip

FAMILIES = {
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
}
"""By the architecture that a config.json names."""
