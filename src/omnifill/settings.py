"""The groups of settings that a recipe is made of: typed, frozen, unknown keys refused."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from omnifill.lengths import parse_duration, rising


class Settings(BaseModel):
    """Base of every group of settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CleanSettings(Settings):
    """Cleaning of text, before anything is learned. Neutral to language by default."""

    nfc: bool = True
    """Unicode normalisation form C."""
    white_space: bool = True
    """Strip the ends; fold runs of blanks and tabs to one; line ends to LF; keep line breaks."""
    lower: bool = False
    """Lower-case."""
    html: bool = False
    """Remove HTML tags and resolve entities."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Drop rows that repeat an earlier row: exactly, or nearly (needs the extra `clean`)."""


class SplitSettings(Settings):
    """Which rows are trained on, validated on, and kept for the test."""

    valid: float = Field(0.05, ge=0, lt=1)
    """Share of rows for validation, by hash of the row."""
    test: float = Field(0.05, ge=0, lt=1)
    """Share of rows kept for `evaluate`, by hash of the row."""
    column: str | None = None
    """A column that says 'train', 'valid' or 'test'; it is not a field then."""
    valid_file: str | None = None
    """A file whose rows are the validation part (no row is taken by hash then)."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitSettings:
        if self.valid + self.test >= 1:
            raise ValueError("valid + test must leave rows to train on (below 1)")
        return self


class DataSettings(Settings):
    """How the source is read."""

    encoding: str | None = None
    """Encoding of text files that are neither UTF-8 nor UTF-16 with a byte-order mark."""
    delimiter: str | None = None
    """Column delimiter of CSV files; found by itself if not given."""
    columns: list[str] | None = None
    """Names for the columns, by position, instead of the header's."""
    drop: list[str] = Field(default_factory=list)
    """Columns to leave out."""
    where: dict[str, str] = Field(default_factory=dict)
    """Column: regular expression; only rows in which all of them are found are read (in a union, of
    each file those that its columns are asked for)."""
    explode: str | None = None
    """A column of lists: one row for each element."""
    join: str = "\n"
    """The separator that joins a list of strings into one text."""
    union: bool = False
    """Several files are data sets of their own: a column that a file lacks is blank in its rows."""
    documents: Literal["stream", "paragraphs", "lines"] = "stream"
    """A plain text file is one stream, or one document per blank-line paragraph or per line."""
    broken: float = Field(0.01, ge=0, lt=1)
    """Share of rows that may be left out since their picture or sound cannot be read; more is an
    error."""
    clean: CleanSettings = Field(default_factory=CleanSettings)
    split: SplitSettings = Field(default_factory=SplitSettings)

    @field_validator("where")
    @classmethod
    def _are_patterns(cls, value: dict[str, str]) -> dict[str, str]:
        for column, pattern in value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"{pattern!r} of {column!r} is no regular expression ({error})"
                ) from None
        return value


class LearnSettings(Settings):
    """How a codec that learns is trained, before the model."""

    share: float | None = Field(None, gt=0, lt=1)
    """Share of what is left of the budget when its turn comes; default: 0.3, or a little more for
    several together."""
    steps: int | None = Field(None, gt=0)
    """Optimiser steps; default: what the budget has time for, or as many as the model's."""
    schedule: list[tuple[int, float]] | None = None
    """(step, share of the peak rate) knots. A run writes down here what it did."""
    batch: int = Field(16, gt=0)
    """Values of one step."""
    lr: float = Field(0.003, gt=0)
    """Peak learning rate."""

    @field_validator("schedule")
    @classmethod
    def _rises(cls, value: list[tuple[int, float]] | None) -> list[tuple[int, float]] | None:
        return rising(value)


class FieldSettings(Settings):
    """What the user says about one field; everything else is inferred."""

    type: str | None = None
    """text, category, number, datetime, image or audio."""
    codec: str | None = None
    """A codec's name, or 'module:Class'."""
    weight: float | None = Field(None, gt=0)
    """Weight of the field's loss in training; chosen if not given: 10 beside
    pictures and sounds, 3 beside a text, else 1."""
    max_tokens: int | None = Field(None, gt=0)
    """Longest text in tokens; the rest is cut, with a warning."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the codec, such as `vocabulary`, `cells`, `tokenizer`."""
    learn: LearnSettings | None = None
    """Of a codec that learns (image, audio): how it is trained."""


class SchemaSettings(Settings):
    """Overrides of the inferred schema."""

    fields: dict[str, FieldSettings] = Field(default_factory=dict)


class Task(Settings):
    """One (given → want) pair; the loss is on the wanted fields alone."""

    given: list[str] = Field(default_factory=list)
    """Fields that will be known."""
    want: list[str]
    """Fields to generate from them."""
    weight: float = Field(1.0, gt=0)
    """Share of this task among the named ones."""
    against: str | None = None
    """Of objective dpo: the field of texts to which those of the wanted one are preferred."""

    @model_validator(mode="after")
    def _disjoint(self) -> Task:
        if not self.want:
            raise ValueError("want must name at least one field")
        both = set(self.given) & set(self.want)
        if both:
            raise ValueError(f"a field cannot be given and wanted at once: {sorted(both)}")
        if self.against is not None and (self.against in {*self.given, *self.want}
                                         or len(self.want) > 1):  # fmt: skip
            raise ValueError("against: another field than those given, against one that is wanted")
        return self


class MixSettings(Settings):
    """Shares of the orders in which a record is laid out when no task is named.

    Left open, they are these; all at random where records come by often; with pictures or sounds
    0.2, 0 and 0.8, partly where there are more than two fields.
    """

    schema_order: float = Field(0.5, ge=0)
    """Columns as they come, but texts behind short ones, and pictures and sounds behind texts: they
    lean on everything else."""
    random_order: float = Field(0.25, ge=0)
    """Every record in an order of its own."""
    one_last: float = Field(0.25, ge=0)
    """One random field moved to the end: it is predicted from all the others. A picture or sound is
    it half as often as anything else."""
    partly: bool = False
    """Whether it is predicted from some of the others instead, how many and which by chance."""

    @model_validator(mode="after")
    def _some(self) -> MixSettings:
        if self.schema_order + self.random_order + self.one_last <= 0:
            raise ValueError("at least one share must be above 0")
        if self.partly and not self.one_last:
            raise ValueError("partly is about one_last, whose share is 0")
        return self


class FormSettings(Settings):
    """How a record becomes a sequence."""

    mix: MixSettings | None = None
    """Shares of the orders; chosen if not given: half in schema order, or, where every record will
    come by often, all at random, so that it looks new each time."""
    tasks: list[Task] = Field(default_factory=list)
    """Named tasks; empty means any-to-any."""
    drop_given: float = Field(0.1, ge=0, lt=1)
    """Share of a named task's records that are read without what is given, so that guidance has
    something to compare with. Where any field may come first, such records are there anyway."""
    noise: float | None = Field(None, ge=0, le=1)
    """Causal models of pictures and sounds whose codec learns: in training, up to this share of the
    codes before each are others by chance, so that what is given is read. Chosen if not given: more
    the more often a record will come by."""
    windows: bool | None = None
    """Whether a record longer than the context is read in windows, each told its fields of few
    tokens; or else cut to fit. Chosen if not given: windows, where all texts but one are short."""


ONLY_FOR = {
    "heads": "transformer", "kv_heads": "transformer", "head_dim": "transformer", "cell": "rnn",
    "kernel": "cnn",
}  # fmt: skip
"""Settings of the network that one of our backbones has and the others do not."""


class ModelSettings(Settings):
    """The network. Numbers win over `size`."""

    backbone: str = "transformer"
    """transformer, rnn, cnn, or 'module:Class'."""
    size: Literal["auto", "nano", "tiny", "small", "medium", "large", "xl"] = "auto"
    """One dial for dim, layers and heads; auto chooses for this data, budget and machine."""
    dim: int | None = Field(None, gt=0)
    """Width."""
    layers: int | None = Field(None, gt=0)
    """Blocks; of seq2seq, those of the decoder."""
    encoder_layers: int | None = Field(None, gt=0)
    """Blocks of the encoder of seq2seq; default: as many as the decoder has."""
    heads: int | None = Field(None, gt=0)
    """Attention heads; their widths need not add up to `dim`."""
    kv_heads: int | None = Field(None, gt=0)
    """Grouped queries: fewer heads for keys and values; default: as many as `heads`."""
    head_dim: int | None = Field(None, gt=0)
    """Width of a head; default: dim / heads."""
    ffn: int | None = Field(None, gt=0)
    """Hidden width of the feed-forward part; default: about 8/3 dim."""
    cell: Literal["lstm", "gru", "mingru"] | None = None
    """Recurrence of an rnn; default: mingru, whose slots are learned in parallel."""
    kernel: int | None = Field(None, gt=1)
    """Slots that each layer of a cnn sees; default: 4."""
    context: int | None = Field(None, gt=1)
    """Longest sequence in training, in tokens."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations left out in training; more where records come by often."""
    tied: bool = False
    """Whether the head shares the embedding's matrix."""

    @model_validator(mode="after")
    def _all_have_an_effect(self) -> ModelSettings:
        for name, backbone in ONLY_FOR.items():
            foreign = self.backbone != backbone and ":" not in self.backbone
            if foreign and getattr(self, name) is not None:
                raise ValueError(f"{name} is a setting of backbone {backbone!r}, and this is "
                                 f"{self.backbone!r}: leave it out")  # fmt: skip
        return self


class ObjectiveSettings(Settings):
    """What is learned."""

    name: str = "causal"
    """causal: each slot from those before it. masked: any slots from any others, so that a record
    comes about in as many steps as asked for. seq2seq: an encoder reads what is given in both
    directions, a decoder tells what is wanted. dpo: a network that is there (`train.base`) comes to
    prefer what tasks want to what they name as `against`. Or 'module:Class'."""
    schedule: Literal["linear", "cosine"] | None = None
    """Of masked: how many slots are hidden as time goes on, in training and generation; default:
    linear."""
    restore: float | None = Field(None, gt=0, lt=1)
    """Of seq2seq: share of the training records of which what is given, or what is wanted, is told
    from itself with holes, so that no field foretells which one is asked for."""
    beta: float | None = Field(None, gt=0)
    """Of dpo: how strongly the network is held to what it was; default: 0.1."""
    smoothing: float | None = Field(None, gt=0, lt=1)
    """Share of every target that all codes allowed there have in equal parts in training: label
    smoothing, for beam search over texts."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> ObjectiveSettings:
        known = {"causal", "masked", "seq2seq", "dpo"}
        for key, name in (("schedule", "masked"), ("restore", "seq2seq"), ("beta", "dpo")):
            if getattr(self, key) is not None and self.name in known - {name}:
                raise ValueError(f"{key} is a setting of objective {name!r}, and this is "
                                 f"{self.name!r}: leave it out")  # fmt: skip
        if self.smoothing is not None and self.name == "dpo":
            raise ValueError("smoothing is of what is learned by likelihood, and dpo is not: leave "
                             "it out")  # fmt: skip
        return self


Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LoraSettings(Settings):
    """Fine-tuning by a product of two narrow matrices beside each of the base's, which stay."""

    rank: int = Field(8, gt=0)
    """Width between the two."""
    alpha: float = Field(16.0, gt=0)
    """What is added is scaled by alpha / rank."""
    targets: list[Target] = Field(default=["q_proj", "v_proj"], min_length=1)
    """Matrices of each block."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class TrainSettings(Settings):
    """The training run. At most one of budget, steps and epochs leads."""

    budget: str | None = None
    """Time from the start of the command to its end: 90s, 10m, 2h."""
    steps: int | None = Field(None, gt=0)
    """Optimiser steps."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the training part."""
    batch_tokens: int | None = Field(None, gt=0)
    """Tokens of one optimiser step."""
    micro_tokens: int | None = Field(None, gt=0)
    """Tokens of one forward pass; a step of more is accumulated exactly."""
    base: str | None = None
    """A run, or a folder as the Hugging Face libraries write one, whose network is trained further
    with its own tokenizer."""
    lora: LoraSettings | None = None
    """Of a base, train no more than small additions to its matrices."""
    optim: Literal["muon", "adamw"] | None = None
    """muon: Muon for matrices and AdamW for the rest. Chosen if not given: muon, or adamw beside a
    base."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate of Muon's matrices; chosen if not given: lower for small data."""
    lr_adamw: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW's parameters; chosen if not given: 0.003, or beside a base 5e-5
    (0.001 of `lora`)."""
    weight_decay: float | None = Field(None, ge=0)
    """Pull of matrices towards zero, scaled by the rate; chosen if not given: 0.1, or 0.03 for
    texts."""
    warmup: int | None = Field(None, ge=0)
    """Steps from zero to the peak rate; default: a twentieth of the run, at most 100."""
    decay: float = Field(0.6, gt=0, le=1)
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    schedule: list[tuple[int, float]] | None = None
    """(step, share of the peak rate) knots; from `warmup` and `decay` if not given. A run under a
    budget writes down here what it did, so that it can be repeated."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float | None = Field(None, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what is kept; 0: none."""
    settle: float | None = Field(None, ge=0, le=1)
    """Dropout pauses while the rate is below this share of its peak, so that the weights settle as
    they will be used; chosen if not given."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the machine multiplies it in hardware and the network is wide enough."""
    codec: str | None = None
    """A run folder whose learned codecs are used instead of training ones: those of fields of the
    same name, or of the one field of the same type."""
    compile: bool = False
    """torch.compile: faster steps after half a minute, on a machine with a compiler."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Same seed, same bytes (same machine, same number of threads)."""
    eval_every: int | None = Field(None, gt=0)
    """Steps between validations."""
    save_every: int | None = Field(None, gt=0)
    """Steps between checkpoints."""
    patience: int | None = Field(None, ge=0)
    """Validations without a better loss after which over-fitting stops the run; 0: it goes on to
    its end, and its last weights are kept. Chosen if not given: 4, and 0 beside `form.noise`."""

    @model_validator(mode="after")
    def _has_a_base(self) -> TrainSettings:
        if self.lora is not None and self.base is None:
            raise ValueError("lora adds to the matrices of a base: name one (train.base)")
        if self.lora is not None and self.optim == "muon":
            raise ValueError("lora is trained with adamw: leave optim out")
        return self

    @field_validator("budget")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    @field_validator("schedule")
    @classmethod
    def _rises(cls, value: list[tuple[int, float]] | None) -> list[tuple[int, float]] | None:
        return rising(value)

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        named = [k for k in ("budget", "steps", "epochs") if getattr(self, k) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both set the length of the run; give one")
        return self


class GenerateSettings(Settings):
    """What a request for records takes where it says nothing else; left open: as the help of
    `omnifill generate` has it."""

    temperature: float | None = Field(None, ge=0)
    """0: always the most likely."""
    top_k: int | None = Field(None, gt=0)
    """Only the k most likely tokens."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Only the likeliest mass p."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Only tokens at least p times as likely as the best."""
    repetition_penalty: float | None = Field(None, gt=0)
    """Above 1: less repetition."""
    no_repeat_ngram: int | None = Field(None, ge=0)
    """No run of so many tokens twice in a text."""
