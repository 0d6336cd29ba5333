"""Folders as the Hugging Face libraries write them: config.json and safetensors, read and written.

Nothing in such a folder is run: no pickled weights, no code that it brings along. What our
Transformer cannot do exactly as its origin does is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from omnifill.errors import RunError, unknown_name
from omnifill.files import write_atomic
from omnifill.model.config import ModelConfig
from omnifill.model.families import Family, family_of
from omnifill.model.foreign import READERS, Settings, read_config
from omnifill.model.network import Network, undrawn

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ALONE = ("only a causal transformer of one text can be exported, or one that was trained further "
         "from such for a single task that gives texts and wants one")  # fmt: skip


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

    def named(self, key: str) -> list[int]:
        """Ids that are named for a purpose: in generation_config.json, else in config.json."""
        path = self.folder / "generation_config.json"
        found = Settings(path).tree.get(key) if path.exists() else None
        found = self.settings.tree.get(key) if found is None else found
        ids = found if isinstance(found, list) else [found]
        return [i for i in ids if isinstance(i, int) and 0 <= i < self.config.vocabulary]

    @property
    def template(self) -> str | None:
        """Its chat template."""
        beside, config = (self.folder / name for name in ("chat_template.jinja", TOKENIZER_CONFIG))
        if beside.exists():
            return beside.read_text(encoding="utf-8")
        return default_template(Settings(config).tree) if config.exists() else None

    def _found(self, name: str, files: Mapping[str, Path]) -> tuple[str, str]:
        theirs, part = called(self.family, name)
        family = self.family
        names = [theirs, *(theirs.removesuffix(new) + old for new, old in family.older.items()
                           if theirs.endswith(new))]  # fmt: skip
        for candidate in (prefix + name for name in names for prefix in (family.prefix, "")):
            if candidate in files:
                return candidate, part
        raise RunError(f"{self.folder}: its weights lack {self.family.prefix}{theirs}")


def default_template(tree: Mapping[str, Any]) -> str | None:
    """The chat template of a tokenizer_config.json; of several, the one that is named so."""
    found = tree.get("chat_template")
    if isinstance(found, list):
        found = next((t.get("template") for t in found if t.get("name") == "default"), None)
    return found if isinstance(found, str) else None


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
    if name not in READERS:
        raise RunError(f"{settings.path}: {unknown_name('architecture', name, READERS)}")
    untied = "lm_head.weight" in _tensors(folder)
    config = read_config(name, settings, untied)
    return Checkpoint(folder, settings, family_of(tree), config)


def called(family: Family, name: str) -> tuple[str, str]:
    """(what a parameter is called in a family, without what may stand before; its part)."""
    number = re.search(r"\.blocks\.(\d+)\.", name)
    key = name if number is None else name.replace(f".{number[1]}.", ".{i}.", 1)
    theirs, _, part = family.names[key].partition(" ")
    return theirs.format(i=number[1] if number else ""), part


def renamed(family: Family, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters by our names -> tensors by a family's, as 32-bit floats."""
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, tensor in weights.items():
        theirs, part = called(family, name)
        whole = theirs if theirs.startswith(family.bare) else family.prefix + theirs
        parts.setdefault(whole, []).append((part, tensor.detach().float()))
    return {name: _joined(some) for name, some in parts.items()}


def write_checkpoint(folder: Path, tree: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """config.json and safetensors of parameters by our names; the inverse of reading them."""
    tensors = renamed(family_of(tree), weights)
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
    """'T': transposed; '1/3': that third of the rows, once it is so; '2:': without the first two
    rows; 'row': the only row of a matrix."""
    for word in reversed(part.split()):
        if word == "T":
            tensor = tensor.T if tensor.ndim == 2 else tensor
        elif word == "2:":
            tensor = tensor[2:]
        elif word == "row":
            tensor = tensor.flatten()
        else:
            number, parts = map(int, word.split("/"))
            tensor = tensor.chunk(parts)[number]
    return tensor.contiguous()


def _joined(parts: Sequence[tuple[str, Tensor]]) -> Tensor:
    """What `_part` took apart."""
    rows = torch.cat([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])
    if parts[0][0] == "2:":
        return torch.cat([rows.new_zeros(2, rows.shape[1]), rows])
    if parts[0][0] == "row":
        return rows[None]
    return (rows.T if parts[0][0].endswith("T") and rows.ndim == 2 else rows).contiguous()


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Every parameter that is stored, and its shape."""
    with torch.device("meta"), undrawn():
        named = dict(Network(config).named_parameters())  # a tied head is named once
    return {name: parameter.shape for name, parameter in named.items()}


def times(shape: torch.Size) -> str:
    return " × ".join(map(str, shape)) or "one number"
