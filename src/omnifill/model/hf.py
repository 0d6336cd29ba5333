"""Folders as the Hugging Face libraries write them: config.json and safetensors, read and written.

Nothing in such a folder is run: no pickled weights, no code that it brings along. What our
Transformer cannot do exactly as its origin does is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from omnifill.errors import RunError, unknown_name
from omnifill.files import write_atomic
from omnifill.model.config import ModelConfig, RopeScaling
from omnifill.model.families import FAMILIES, Family
from omnifill.model.network import Network

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ALONE = "only a causal transformer of one text can be exported"
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


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model of a known family."""

    folder: Path
    settings: Settings
    family: Family
    config: ModelConfig
    """Its `vocabulary` is that of the checkpoint; special ids of ours are not among them."""
    added: Mapping[str, Tensor] = field(default_factory=dict)
    """What an adapter adds to tensors, by their names without what may stand before."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters of the network by our names, as 32-bit floats."""
        files = _tensors(self.folder)
        out, used = {}, set()
        for name, shape in shapes(self.config).items():
            theirs, part = self._found(name, files)
            used.add(theirs)
            file = files[theirs]
            tensor = read_tensor(file, theirs)
            if (more := self.added.get(theirs.removeprefix(self.family.prefix))) is not None:
                if more.shape != tensor.shape:
                    raise RunError(f"the adapter changes {theirs}, {times(tensor.shape)}, by "
                                   f"{times(more.shape)}; it is of another model")  # fmt: skip
                tensor = tensor.float() + more
            tensor = _part(tensor, part)
            if tensor.shape != shape:
                raise RunError(
                    f"{file}: {theirs} is {times(tensor.shape)} where {CONFIG} says "
                    f"{times(shape)}; the two do not belong together"
                )
            out[name] = tensor.float()
        known = re.compile("|".join([*self.family.unused, r"$^"]))
        tied = {called(self.family, "head.weight")[0]} if self.config.tied else set()
        for theirs in files.keys() - used - tied:
            if not known.fullmatch(theirs.removeprefix(self.family.prefix)):
                raise RunError(f"{files[theirs]}: holds {theirs}, of which {CONFIG} tells nothing")
        return out

    def _found(self, name: str, files: Mapping[str, Path]) -> tuple[str, str]:
        theirs, part = called(self.family, name)
        for candidate in (self.family.prefix + theirs, theirs):
            if candidate in files:
                return candidate, part
        raise RunError(f"{self.folder}: its weights lack {self.family.prefix}{theirs}")


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a folder holds, its weights unread. RunError for what cannot be used."""
    if not folder.is_dir():
        raise RunError(f"{folder}: is no folder; name one with {CONFIG} and {WEIGHTS}")
    settings = Settings(folder / CONFIG)
    tree = settings.tree
    named = tree.get("architectures")
    if not isinstance(named, list) or not named:
        raise settings.refusal("architectures", "must be a list with the name of one")
    name = str(named[0])
    if "auto_map" in tree:
        raise settings.refusal("auto_map", "names code of its own, which is never run")
    if "quantization_config" in tree:
        raise settings.refusal("quantization_config", "is of weights that are not plain numbers")
    if name not in FAMILIES:
        raise RunError(f"{settings.path}: {unknown_name('architecture', name, FAMILIES)}")
    untied = "lm_head.weight" in _tensors(folder)
    try:
        config = _READERS[name](settings, untied)
    except ValidationError as error:
        raise RunError(f"{settings.path}: {error.errors()[0]['msg']}") from None
    return Checkpoint(folder, settings, FAMILIES[name], config)


def called(family: Family, name: str) -> tuple[str, str]:
    """(what a parameter is called in a family, without what may stand before; its part)."""
    number = re.search(r"\.blocks\.(\d+)\.", name)
    key = name if number is None else name.replace(f".{number[1]}.", ".{i}.", 1)
    theirs, _, part = family.names[key].partition(" ")
    return theirs.format(i=number[1] if number else ""), part


def write_checkpoint(folder: Path, tree: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """config.json and safetensors of parameters by our names; the inverse of reading them."""
    family = FAMILIES[tree["architectures"][0]]
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, tensor in weights.items():
        theirs, part = called(family, name)
        whole = theirs if theirs == called(family, "head.weight")[0] else family.prefix + theirs
        parts.setdefault(whole, []).append((part, tensor.detach().float()))
    tensors = {name: _joined(some) for name, some in parts.items()}
    write_atomic(folder / CONFIG, json.dumps(tree, indent=2).encode("utf-8"))
    write_atomic(folder / WEIGHTS, save(tensors, {"format": "pt"}))


def qwen3(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a network as we train them. RunError for one that it cannot say."""
    plain = ModelConfig(
        **{name: getattr(config, name) for name in (
            "vocabulary", "dim", "layers", "heads", "kv_heads", "head_dim", "ffn", "context",
            "dropout", "tied", "rope_theta", "norm_eps", "cell", "kernel", "ordered", "standing",
        )}
    )  # fmt: skip
    if config != plain:
        odd = [name for name, value in config if value != getattr(plain, name)]
        raise RunError(f"no other project's checkpoint can say {', '.join(odd)}; {ALONE}")
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
        "vocab_size": config.vocabulary, "hidden_size": config.dim,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.ffn, "hidden_act": "silu",
        "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False, "use_sliding_window": False,
        "tie_word_embeddings": config.tied, "torch_dtype": "float32",
    }  # fmt: skip


# --- config.json ---------------------------------------------------------------------------


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


_READERS: dict[str, Callable[[Settings, bool], ModelConfig]] = {
    "GPT2LMHeadModel": _gpt2,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Qwen2ForCausalLM": _llama,
    "Qwen3ForCausalLM": _llama,
}


# --- tensors -------------------------------------------------------------------------------


def _tensors(folder: Path) -> dict[str, Path]:
    """Name of each tensor -> the file that it lies in."""
    if (folder / INDEX).exists():
        named = Settings(folder / INDEX)
        table = named.tree.get("weight_map")
        if not isinstance(table, dict):
            raise RunError(f"{named.path}: has no weight_map from tensors to files")
        for name, file in table.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise RunError(f"{named.path}: {name} lies in {file!r}, which is no file's name")
            if not (folder / file).exists():
                raise RunError(f"{named.path}: {name} lies in {file}, and there is no such file")
        there = {file: set(tensor_names(folder / file)) for file in set(table.values())}
        for name, file in table.items():
            if name not in there[file]:
                raise RunError(f"{named.path}: {name} lies in {file}, and that does not hold it")
        return {name: folder / file for name, file in table.items()}
    if not (folder / WEIGHTS).exists():
        pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(
            p.name for p in folder.glob("*.pt*")
        )
        why = f"; {pickled[0]} is a pickle, which could run code" if pickled else ""
        raise RunError(f"{folder}: has no {WEIGHTS}{why}; save it as safetensors where it was made")
    return {name: folder / WEIGHTS for name in tensor_names(folder / WEIGHTS)}


def tensor_names(path: Path) -> Iterator[str]:
    try:
        with safe_open(path, "pt") as file:
            yield from file.keys()
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be read ({error}); is it whole?") from None


def read_tensor(path: Path, name: str) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: {name} cannot be read ({error}); is it whole?") from None
    if not tensor.is_floating_point():
        raise RunError(f"{path}: {name} is of {tensor.dtype}, and weights are floats")
    return tensor


def _part(tensor: Tensor, part: str) -> Tensor:
    """'T': transposed; '1/3': that third of the rows, once it is so."""
    for word in reversed(part.split()):
        if word == "T":
            tensor = tensor.T if tensor.ndim == 2 else tensor
        else:
            number, parts = map(int, word.split("/"))
            tensor = tensor.chunk(parts)[number]
    return tensor.contiguous()


def _joined(parts: Sequence[tuple[str, Tensor]]) -> Tensor:
    """What `_part` took apart."""
    rows = torch.cat([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])
    return (rows.T if parts[0][0].endswith("T") and rows.ndim == 2 else rows).contiguous()


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Every parameter that is stored, and its shape."""
    with torch.device("meta"):
        named = dict(Network(config).named_parameters())  # a tied head is named once
    return {name: parameter.shape for name, parameter in named.items()}


def times(shape: torch.Size) -> str:
    return " × ".join(map(str, shape)) or "one number"
