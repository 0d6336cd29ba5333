"""The numbers that describe a network, as written to `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator


@dataclass(frozen=True)
class Alphabet:
    """What a network must know of the ids it reads and writes."""

    vocabulary: int
    """Number of ids."""
    fields: int
    coords: tuple[int, int, int]
    standing: tuple[tuple[int, int], ...]
    ordered: tuple[tuple[int, ...], ...]


class RopeScaling(BaseModel):
    """How rotary positions are stretched to longer texts (see `model.rotary`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    """How many times longer."""
    original: int = 1
    """The context before it, in slots."""
    low: float = 1.0
    high: float = 1.0
    """Turns over the original context: pairs of fewer than `low` are slowed down by the factor,
    those of more than `high` stay as they are."""
    gain: float = 1.0
    whole: bool = True
    """Of yarn: whether its ramp begins and ends at whole pairs."""


class ModelConfig(BaseModel):
    """Shape of a network. Everything is decided; nothing is 'auto' any more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = "transformer"
    weights: Literal["fp32", "bf16", "int8"] = "fp32"
    """How they are kept: see `model.packed`."""
    vocabulary: int
    """Number of ids."""
    fields: int = 1
    """Number of fields; with one field there is no field embedding."""
    coords: tuple[int, int, int] = (1, 1, 1)
    """Size of each coordinate axis (row or time, column, level); 1: no embedding."""
    standing: tuple[tuple[int, int], ...] = ()
    """(first, size) ranges of ids: values that stay in view (see `model.network`)."""
    ordered: tuple[tuple[int, ...], ...] = ()
    """Ranges of ids that compare as their values do: the first id, and the numbers of steps along
    each axis that a value has, of which the first changes fastest (see `model.network`)."""
    encoder_layers: int = 0
    """Blocks of an encoder, whose states the others look at; 0: there is none."""
    memory: bool = False
    """Whether a backbone's blocks look at an encoder's states."""
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    cell: Literal["lstm", "gru", "mingru"] = "mingru"
    """Recurrence of an rnn."""
    full: bool = False
    """Whether slots see what comes later, too: backbones are built for one or the other."""
    kernel: int = 4
    """Slots that each layer of a cnn sees."""
    context: int
    """Longest sequence in training, in slots."""
    dropout: float = 0.0
    tied: bool = False
    positions: Literal["rotary", "learned", "relative"] = "rotary"
    """Of a transformer, as all that follows."""
    places: int | None = None
    """Rows of the table of learned positions: slots of the longest text."""
    buckets: int = 32
    """Rows of the table of relative positions (see `model.relative`)."""
    farthest: int = 128
    """Distance in slots from which on all are in the last bucket."""
    rope_theta: float = 10_000.0
    rope: RopeScaling | None = None
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-6
    norm_after: bool = False
    """Whether what a layer adds is normalised together with the stream, and not what it reads."""
    embed_norm: bool = False
    embed_scale: float = 1.0
    """Embeddings of ids are multiplied by it."""
    segments: int = 0
    """Rows of a table of which the first is added to every slot; 0: there is none."""
    head_dense: bool = False
    """Whether a dense layer stands before the last norm."""
    head_scale: float = 1.0
    """States are multiplied by it before the head."""
    head_bias: bool = False
    attn_scale: float | None = None
    """Of products of queries and keys; None: 1 / sqrt(head_dim)."""
    qk_norm: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    act: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    ffn_bias: bool = False
    window: int | None = None
    """Slots that a slot sees, itself among them; None: all that the mask shows."""
    windowed: tuple[int, ...] | None = None
    """Layers that see no more than the window; None: all of them."""
    opens: bool = True
    """Whether `<bos>`, in the first slot, is there for the others to see."""
    encoder_opens: bool = True
    """The same in an encoder."""
    near: bool = True
    """Whether slots that see all know what stands beside them (see `model.transformer`)."""

    @property
    def most_slots(self) -> int | None:
        """The slots that there are positions for; None: any number."""
        if self.positions != "learned":
            return None
        return (self.places or self.context) + (not self.opens)

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even for rotary positions")
        return self
