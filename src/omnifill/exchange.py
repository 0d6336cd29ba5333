"""Checkpoints of other projects become run folders, and run folders become such checkpoints.

An imported run has one field, `text`, whose codes are the ids of the checkpoint's own tokenizer.
Our special ids stand in front of them and take the vectors that mean the same there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnifill.artifact import RunFolder
from omnifill.codecs.pretrained import TOKENIZER, PretrainedCodec, opening
from omnifill.errors import RunError
from omnifill.files import reason
from omnifill.form.vocabulary import BOS, END, NUM_SPECIAL, PAD, Vocabulary
from omnifill.model.hf import CONFIG, Checkpoint, Settings, read_checkpoint
from omnifill.recipe import dump_recipe, from_dict
from omnifill.schema import FieldSpec, Schema

FIELD = "text"
ORIGIN = "origin"
"""Folder of the files that came with a checkpoint and are not needed to run it."""
KEPT = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja")  # fmt: skip


def import_checkpoint(source: Path, out: Path) -> None:
    """A folder with config.json, safetensors and tokenizer.json -> the run folder `out`.

    RunError for what cannot be run exactly as where it came from; nothing is left of a failure.
    """
    checkpoint = read_checkpoint(source)
    codec, bos = _codec(checkpoint)
    schema = Schema(fields=(FieldSpec(name=FIELD, type="text", codec="pretrained",
                                      why=f"imported from {source.name}"),))  # fmt: skip
    config = checkpoint.config.model_copy(update={
        "vocabulary": Vocabulary(schema, {FIELD: codec}).size, "opens": bos is not None,
    })  # fmt: skip
    weights = checkpoint.weights()
    for name in {"embed.weight", "head.weight"} & weights.keys():
        weights[name] = _with_special(weights[name], bos, codec)
    recipe = from_dict({
        "data": {"clean": {"nfc": False, "white_space": False}},
        "train": {"steps": 1},
    })  # fmt: skip
    with _written(out) as folder:
        folder.write("recipe.yaml", dump_recipe(recipe))
        folder.write("schema.json", schema.model_dump_json(indent=1))
        folder.save_codecs(schema, {FIELD: codec})
        folder.save_model(config, weights)
        for name in KEPT:
            if (source / name).exists():
                folder.write(f"{ORIGIN}/{name}", (source / name).read_text(encoding="utf-8"))
        folder.write_state(
            state="done", training={"imported": checkpoint.settings.tree["architectures"][0]}
        )


def _codec(checkpoint: Checkpoint) -> tuple[PretrainedCodec, int | None]:
    """The codec of a checkpoint's tokenizer, and the id that opens every text, if one does."""
    path = checkpoint.folder / TOKENIZER
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({reason(error)}); save the tokenizer as a fast "
                       f"one where it was made") from None  # fmt: skip
    ends = _named(checkpoint, "eos_token_id")
    try:
        bos = opening(source)
        openers = [*_named(checkpoint, "bos_token_id"), *ends]
        opener = None if bos is not None else next(iter(openers), None)
        return PretrainedCodec(source, checkpoint.config.vocabulary, ends, opener), bos
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None


def _named(checkpoint: Checkpoint, key: str) -> list[int]:
    """Ids that are named for a purpose: in generation_config.json, else in config.json."""
    named: Any = None
    if (checkpoint.folder / "generation_config.json").exists():
        named = Settings(checkpoint.folder / "generation_config.json").tree.get(key)
    named = checkpoint.settings.tree.get(key) if named is None else named
    ids = named if isinstance(named, list) else [named]
    return [i for i in ids if isinstance(i, int) and 0 <= i < checkpoint.config.vocabulary]


def _with_special(rows: Tensor, bos: int | None, codec: PretrainedCodec) -> Tensor:
    """Vectors of the checkpoint's ids (V, D) -> those of ours, special ones first."""
    special = rows.mean(dim=0).repeat(NUM_SPECIAL, 1)
    special[PAD] = 0.0
    for ours, theirs in ((BOS, codec.opener if bos is None else bos),
                         (END, next(iter(codec.ends), None))):  # fmt: skip
        if theirs is not None:
            special[ours] = rows[theirs]
    return torch.cat([special, rows])


@contextmanager
def _written(out: Path) -> Iterator[RunFolder]:
    """A run folder that is there when it is whole."""
    if out.exists():
        raise RunError(f"{out}: is there already; name another folder, or remove it first")
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        yield RunFolder(beside)
        beside.rename(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({reason(error)})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
