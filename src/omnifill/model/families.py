"""What checkpoints of other projects call the tensors of our Transformer: literal tables.

Left: a parameter of `model.network.Network`, `{i}` the number of its block. Right: theirs, and
how it lies there: `T`, transposed; `0/3`, the first of three parts that lie in one (cut along the
rows of ours); `2:`, behind two rows that mean nothing; `row`, as the only row of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Names = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """Checkpoints that lie alike."""

    names: Names
    prefix: str = ""
    """What may stand before all names, or not."""
    bare: tuple[str, ...] = ("lm_head.",)
    """Beginnings of names before which it never stands."""
    older: Mapping[str, str] = field(default_factory=dict)
    """Endings of names -> what older files end in instead."""
    unused: tuple[str, ...] = ()
    """Regular expressions of tensors that hold nothing learned."""


_BOTH = ("weight", "bias")
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

_ENCODER = {
    f"{_BLOCK}{ours}.{kind}": f"encoder.layer.{{i}}.{theirs}.{kind}"
    for ours, theirs in (
        ("attn.q_proj", "attention.self.query"), ("attn.k_proj", "attention.self.key"),
        ("attn.v_proj", "attention.self.value"), ("attn.o_proj", "attention.output.dense"),
        ("attn_norm", "attention.output.LayerNorm"), ("ffn.up_proj", "intermediate.dense"),
        ("ffn.down_proj", "output.dense"), ("ffn_norm", "output.LayerNorm"),
    ) for kind in _BOTH
}  # fmt: skip


def _bert(prefix: str, places: str, head: Names) -> Family:
    """BERT, and what differs from it in its head alone."""
    return Family(
        {
            "embed.weight": "embeddings.word_embeddings.weight",
            "backbone.places.weight": f"embeddings.position_embeddings.weight{places}",
            "backbone.segments.weight": "embeddings.token_type_embeddings.weight",
            **{f"backbone.embed_norm.{kind}": f"embeddings.LayerNorm.{kind}" for kind in _BOTH},
            **_ENCODER,
            **{f"head_in.dense.{kind}": f"{head['dense']}.{kind}" for kind in _BOTH},
            **{f"head_in.norm.{kind}": f"{head['norm']}.{kind}" for kind in _BOTH},
            "head.weight": f"{head['head']}.weight",
            "head.bias": head["bias"],
        },
        prefix=prefix,
        bare=("cls.", "lm_head."),
        older={"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
        unused=(r"embeddings\.position_ids", r"pooler\..*", r"cls\.seq_relationship\..*",
                r"(cls\.predictions|lm_head)\.decoder\.bias"),
    )  # fmt: skip


BERT = _bert("bert.", "", {
    "dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm",
    "head": "cls.predictions.decoder", "bias": "cls.predictions.bias",
})  # fmt: skip
ROBERTA = _bert("roberta.", " 2:", {
    "dense": "lm_head.dense", "norm": "lm_head.layer_norm",
    "head": "lm_head.decoder", "bias": "lm_head.bias",
})  # fmt: skip


def _t5(gated: bool) -> Family:
    names = {"embed.weight": "shared.weight", "head.weight": "lm_head.weight"}
    for ours, theirs, ffn in (("encoder", "encoder", 1), ("backbone", "decoder", 2)):
        parts = {
            **{f"attn.{part}_proj": f"0.SelfAttention.{part}" for part in "qkvo"},
            "attn_norm": "0.layer_norm",
            **{f"cross.{part}_proj": f"1.EncDecAttention.{part}" for part in "qkvo"},
            "cross_norm": "1.layer_norm",
            "ffn.gate_proj": f"{ffn}.DenseReluDense.wi_0",
            "ffn.up_proj": f"{ffn}.DenseReluDense.{'wi_1' if gated else 'wi'}",
            "ffn.down_proj": f"{ffn}.DenseReluDense.wo",
            "ffn_norm": f"{ffn}.layer_norm",
        }
        first = f"{theirs}.block.0.layer.0.SelfAttention"
        names |= {
            f"{ours}.away.table.weight": f"{first}.relative_attention_bias.weight",
            **{f"{ours}.blocks.{{i}}.{part}.weight": f"{theirs}.block.{{i}}.layer.{name}.weight"
               for part, name in parts.items()},
            f"{ours}.norm.weight": f"{theirs}.final_layer_norm.weight",
        }  # fmt: skip
    return Family(names, unused=(r"(encoder|decoder)\.embed_tokens\.weight",))


def _bart() -> Family:
    names = {"embed.weight": "shared.weight", "head.weight": "lm_head.weight",
             "head.bias": "final_logits_bias row"}  # fmt: skip
    for ours, theirs in (("encoder", "encoder"), ("backbone", "decoder")):
        parts = {
            **{f"attn.{part}_proj": f"self_attn.{part}_proj" for part in "qkv"},
            "attn.o_proj": "self_attn.out_proj", "attn_norm": "self_attn_layer_norm",
            **{f"cross.{part}_proj": f"encoder_attn.{part}_proj" for part in "qkv"},
            "cross.o_proj": "encoder_attn.out_proj", "cross_norm": "encoder_attn_layer_norm",
            "ffn.up_proj": "fc1", "ffn.down_proj": "fc2", "ffn_norm": "final_layer_norm",
        }  # fmt: skip
        names |= {
            f"{ours}.places.weight": f"{theirs}.embed_positions.weight 2:",
            **{f"{ours}.embed_norm.{kind}": f"{theirs}.layernorm_embedding.{kind}"
               for kind in _BOTH},
            **{f"{ours}.blocks.{{i}}.{part}.{kind}": f"{theirs}.layers.{{i}}.{name}.{kind}"
               for part, name in parts.items() for kind in _BOTH},
        }  # fmt: skip
    return Family(names, "model.", ("lm_head.", "final_logits_bias"),
                  unused=(r"(encoder|decoder)\.embed_tokens\.weight",))  # fmt: skip


FAMILIES = {
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "BertForMaskedLM": BERT,
    "RobertaForMaskedLM": ROBERTA,
    "T5ForConditionalGeneration": _t5(gated=False),
    "T5ForConditionalGeneration, gated": _t5(gated=True),
    "BartForConditionalGeneration": _bart(),
}
"""By the architecture that a config.json names."""


def family_of(tree: Mapping[str, Any]) -> Family:
    """Of a config.json that names one."""
    name = tree["architectures"][0]
    gated = str(tree.get("feed_forward_proj", "")).startswith("gated-")
    return FAMILIES[f"{name}, gated" if gated else name]
