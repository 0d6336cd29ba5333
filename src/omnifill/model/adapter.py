"""LoRA adapters as the library PEFT keeps them: read, merged, and written.

A folder with adapter_config.json and safetensors, whose matrices are named after those that they
change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from omnifill.errors import RunError
from omnifill.files import write_atomic
from omnifill.model.families import Family
from omnifill.model.foreign import Settings
from omnifill.model.hf import Checkpoint, called, read_tensor, shapes, tensor_names

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ADDED = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
LORA_ONLY = {"bias": "none", "use_dora": False, "modules_to_save": None, "rank_pattern": {},
             "alpha_pattern": {}, "trainable_token_indices": None}  # fmt: skip
"""Settings of an adapter that are understood with no other value."""


def with_adapter(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint with a LoRA adapter in the format of PEFT merged into it. RunError for one of
    another kind or another model."""
    settings = Settings(folder / CONFIG)
    settings.only("peft_type", "LORA")
    for key, value in LORA_ONLY.items():
        if settings.tree.get(key) not in (value, None):
            raise settings.refusal(key, "is nothing that is understood")
    rank, alpha = settings.count("r"), settings.number("lora_alpha")
    scale = alpha / (rank**0.5 if settings.switch("use_rslora", False) else rank)
    turned = settings.switch("fan_in_fan_out", False)
    path, parts = folder / WEIGHTS, dict[str, dict[str, Tensor]]()
    for name in tensor_names(path):
        found = _ADDED.fullmatch(name)
        if not found:
            raise RunError(f"{path}: holds {name}, which is no part of a LoRA adapter")
        parts.setdefault(found[1], {})[found[2]] = read_tensor(path, name).float()
    added = {}
    known = {called(checkpoint.family, name)[0] for name in shapes(checkpoint.config)}
    for module, pair in parts.items():
        name = f"{module}.weight".removeprefix(checkpoint.family.prefix)
        if pair.keys() != {"A", "B"} or name not in known:
            why = "lacks one of its two matrices" if name in known else "is none of this model"
            raise RunError(f"{path}: {module} {why}")
        try:
            more = scale * (pair["B"] @ pair["A"])
        except RuntimeError:
            raise RunError(f"{path}: the two matrices of {module} do not fit") from None
        added[name] = more.T if turned else more
    return replace(checkpoint, added=added)


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
