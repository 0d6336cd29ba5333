"""LoRA adapters as the library PEFT keeps them: read, merged, and written.

A folder with adapter_config.json and safetensors, whose matrices are named after those that they
change.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from omnifill.errors import RunError
from omnifill.files import write_atomic
from omnifill.model.families import Family
from omnifill.model.foreign import Settings
from omnifill.model.hf import Checkpoint, called, read_tensor, shapes, tensor_names, times
from omnifill.model.lora import Lora
from omnifill.model.network import Network

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
WITHIN = "adapter"
"""Where a run folder keeps its own."""
_ADDED = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
LORA_ONLY = {"bias": "none", "use_dora": False, "modules_to_save": None, "rank_pattern": {},
             "alpha_pattern": {}, "trainable_token_indices": None}  # fmt: skip
"""Settings of an adapter that are understood with no other value."""


@dataclass(frozen=True)
class Adapter:
    """Pairs of matrices by the module that they change, as its family calls it."""

    path: Path
    scale: float
    turned: bool
    """Whether the modules keep their weights transposed."""
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """(rank, in) and (out, rank)."""


def read_adapter(folder: Path, family: Family, known: Collection[str]) -> Adapter:
    """A LoRA adapter in the format of PEFT, or that of a run folder. RunError for one of another
    kind, or that changes what is none of `known`, tensors by their names in the family."""
    if not (folder / CONFIG).exists() and (folder / WITHIN / CONFIG).exists():
        folder /= WITHIN
    settings = Settings(folder / CONFIG)
    settings.only("peft_type", "LORA")
    for key, value in LORA_ONLY.items():
        if settings.tree.get(key) not in (value, None):
            raise settings.refusal(key, "is nothing that is understood")
    rank, alpha = settings.count("r"), settings.number("lora_alpha")
    scale = alpha / (rank**0.5 if settings.switch("use_rslora", False) else rank)
    path, parts = folder / WEIGHTS, dict[str, dict[str, Tensor]]()
    for name in tensor_names(path):
        found = _ADDED.fullmatch(name)
        if not found:
            raise RunError(f"{path}: holds {name}, which is no part of a LoRA adapter")
        parts.setdefault(found[1], {})[found[2]] = read_tensor(path, name).float()
    pairs = {}
    for module, pair in parts.items():
        name = module.removeprefix(family.prefix)
        if pair.keys() != {"A", "B"} or f"{name}.weight" not in known:
            why = (
                "lacks one of its two matrices"
                if f"{name}.weight" in known
                else "is none of this model"
            )
            raise RunError(f"{path}: {module} {why}")
        if pair["A"].ndim != 2 or pair["B"].shape[1:] != pair["A"].shape[:1]:
            raise RunError(f"{path}: the two matrices of {module} do not fit")
        pairs[name] = (pair["A"], pair["B"])
    return Adapter(path, scale, settings.switch("fan_in_fan_out", False), pairs)


def with_adapter(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint with an adapter merged into it. RunError for one of another kind or model."""
    known = {called(checkpoint.family, name)[0] for name in shapes(checkpoint.config)}
    adapter, added = read_adapter(folder, checkpoint.family, known), {}
    for module, (a, b) in adapter.pairs.items():
        more = adapter.scale * (b @ a)
        added[f"{module}.weight"] = more.T if adapter.turned else more
    return replace(checkpoint, added=added)


def beside(network: Network, family: Family, folder: Path) -> Network:
    """A network that shares all weights with another and has an adapter beside them. RunError for
    an adapter of another kind or model."""
    names = {name: called(family, name) for name in shapes(network.config)}
    adapter = read_adapter(folder, family, {theirs for theirs, _ in names.values()})
    shared = [*network.parameters(), *network.buffers()]
    out = copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
    for name, (theirs, part) in names.items():
        pair = adapter.pairs.get(theirs.removesuffix(".weight"))
        if pair is None or not name.endswith(".weight"):
            continue
        path, _, last = name.removesuffix(".weight").rpartition(".")
        module, (a, b) = out.get_submodule(path), pair
        plain = getattr(module, last)
        for word in part.split():
            if "/" in word:  # of several matrices that lie in one
                number, parts = map(int, word.split("/"))
                b = b.chunk(parts)[number]
        if not isinstance(plain, nn.Linear) or plain.weight.shape != (len(b), a.shape[1]):
            size = times(torch.Size((len(b), a.shape[1])))
            raise RunError(f"{adapter.path}: {theirs} is changed by {size}; it is of another model")
        lora = Lora(plain, len(a), adapter.scale)
        lora.lora_a.data, lora.lora_b.data = a, b.contiguous()
        setattr(module, last, lora.requires_grad_(False))
    return out.eval()


def write_adapter(
    folder: Path, family: Family, base: str, rank: int, alpha: float, weights: Mapping[str, Tensor]
) -> bool:
    """LoRA additions by our names ('….lora_a', '….lora_b') as PEFT reads them; False, and nothing
    is written, where the family keeps several of our matrices in one, or turned."""
    tensors, targets = {}, set()
    for name, tensor in weights.items():
        if not name.endswith((".lora_a", ".lora_b")):
            continue
        theirs, part = called(family, f"{name[:-7]}.weight")
        if part:
            return False
        module = theirs.removesuffix(".weight")
        side = name[-1].upper()
        tensors[f"base_model.model.{family.prefix}{module}.lora_{side}.weight"] = tensor.detach()
        targets.add(module.rpartition(".")[2])
    tree = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank,
        "lora_alpha": alpha, "target_modules": sorted(targets), "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "lora_dropout": 0.0,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / WEIGHTS, save(plain, {"format": "pt"}))
    write_atomic(folder / CONFIG, json.dumps(tree, indent=2).encode("utf-8"))
    return True
