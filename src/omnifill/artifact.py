"""The run folder: what a trained model is on disk, written by training and read by all else.

`run.json` (format and state) · `recipe.yaml` · `schema.json` · `codecs/` · `config.json` ·
`model.safetensors` · `sums.json` (hashes of what the model is made of) · `checkpoints/` ·
`metrics.jsonl` · `data/` (staged and encoded records).
Nothing in it is ever unpickled or imported, unless the caller allows a module by name.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from omnifill import __version__, state
from omnifill.codecs.table import CODECS, load_codec
from omnifill.errors import RunError
from omnifill.files import write_atomic
from omnifill.form.vocabulary import Vocabulary
from omnifill.model.config import ModelConfig
from omnifill.model.fused import fuse
from omnifill.model.network import BACKBONES, Network, undrawn
from omnifill.model.packed import pack
from omnifill.model.products import settle
from omnifill.objectives.table import OBJECTIVES, build_objective, on_canvas
from omnifill.recipe import Recipe, load_recipe
from omnifill.schema import Schema
from omnifill.sums import check_sums, write_sums
from omnifill.types import Codec

HALF_WRITTEN = re.compile(
    r"\.(run\.json|recipe\.yaml|schema\.json|config\.json|model\.safetensors|sums\.json|step-\d+)"
    r"\.\d+\.part"
)
"""Names as of `files.atomic_path` and `train.checkpoint`, of what is ours alone."""
COPIERS = 2
"""Threads that copy weights, which waits for memory."""
PARTS = ("weight", "scale")
"""What a head that is tied to the embeddings has from them."""


@dataclass(frozen=True)
class RunFolder:
    """Where everything in a run folder lies."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def staged(self) -> Path:
        return self.path / "data" / "staged"

    @property
    def encoded(self) -> Path:
        return self.path / "data" / "encoded"

    def sweep(self) -> None:
        """Remove what a process that was killed had begun to write. For who holds the lock."""
        for path in (*self.path.glob(".*.part"), *self.path.glob("checkpoints/.*.part")):
            if HALF_WRITTEN.fullmatch(path.name):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8"))

    def read(self, name: str) -> str:
        return state.read_text(self.path / name)

    def read_json(self, name: str) -> Any:
        return state.read_json(self.path / name)

    def write_state(self, **values: Any) -> None:
        """`run.json`: the format, and how far the run is."""
        head = {"format": state.FORMAT, "omnifill": __version__}
        self.write(state.STATE, json.dumps(head | values, indent=1))

    def read_state(self) -> dict[str, Any]:
        """`run.json`, or RunError if this is no run folder or one from a newer version."""
        return state.read_state(self.path)

    # --- the parts of a model --------------------------------------------------------------

    def save_codecs(self, schema: Schema, codecs: Mapping[str, Codec]) -> None:
        """One folder each; fields that share a codec share its folder."""
        folders = codec_folders(schema)
        for spec in schema.fields:
            target = self.path / "codecs" / folders[spec.name]
            target.mkdir(parents=True, exist_ok=True)
            codecs[spec.name].save(target)

    def load_codecs(self, schema: Schema) -> dict[str, Codec]:
        loaded: dict[str, Codec] = {}
        out = {}
        for name, folder in codec_folders(schema).items():
            if folder not in loaded:
                loaded[folder] = self.load_codec(schema, name)
            out[name] = loaded[folder]
        return out

    def load_codec(self, schema: Schema, name: str) -> Codec:
        """The codec of one field."""
        return load_codec(schema[name].codec).load(
            self.path / "codecs" / codec_folders(schema)[name]
        )

    def save_model(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
        self.write("config.json", config.model_dump_json(indent=1))
        tensors = {n: (t if config.weights != "fp32" else t.float()).detach().contiguous()
                   for n, t in weights.items()}  # fmt: skip
        if config.tied:  # stored once
            for part in PARTS:
                tensors.pop(f"head.{part}", None)
        write_atomic(self.path / "model.safetensors", save(tensors, {"format": "pt"}))
        write_sums(self.path)

    def check_sums(self) -> None:
        """RunError for a file that is missing or is not as `save_model` left it."""
        check_sums(self.path)

    def load_network(self, config: ModelConfig) -> Network:
        path = self.path / "model.safetensors"
        try:
            with safe_open(path, "pt") as file, ThreadPoolExecutor(COPIERS) as pool:
                # Copies: where a file's bytes lie in memory must not make a difference to products.
                names = list(file.keys())
                copied = pool.map(lambda name: file.get_tensor(name).clone(), names)
                tensors = dict(zip(names, copied, strict=True))
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from None
        for part in PARTS if config.tied else ():
            if f"embed.{part}" in tensors:
                tensors[f"head.{part}"] = tensors[f"embed.{part}"]
        plain = config.weights == "fp32" and config.backbone in BACKBONES
        # Where all is known there is no need to draw weights that would be thrown away.
        with undrawn() if plain else nullcontext():
            network = Network(config)
        if not plain and config.weights != "fp32":
            pack(network, config.weights)
        try:
            network.load_state_dict(tensors, assign=plain)
        except RuntimeError as error:
            raise RunError(f"{path}: does not fit config.json ({error})") from None
        if config.tied and plain:
            network.head.weight = network.embed.weight
        return network.eval()

    def load_schema(self) -> Schema:
        schema: Schema = self._parsed(Schema, "schema.json")
        return schema

    def load_config(self) -> ModelConfig:
        config: ModelConfig = self._parsed(ModelConfig, "config.json")
        return config

    def _parsed(self, kind: Any, name: str) -> Any:
        try:
            return kind.model_validate_json(self.read(name))
        except ValidationError as error:
            raise RunError(f"{self.path / name}: is damaged ({error.errors()[0]['msg']})") from None


def codec_folders(schema: Schema) -> dict[str, str]:
    """Field -> its codec's folder: 'shared-NAME' for shared codecs, else a number and no name.

    Names of fields never become paths.
    """
    out = {}
    for index, spec in enumerate(schema.fields):
        shared = load_codec(spec.codec).shared
        kind = spec.codec.rpartition(":")[2]
        out[spec.name] = f"shared-{kind}" if shared else f"{index:04d}"
    return out


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A trained model and all it needs."""

    folder: RunFolder
    recipe: Recipe
    schema: Schema
    vocabulary: Vocabulary
    network: Network
    objective: Any

    @property
    def sha256(self) -> str:
        """The hash of its weights."""
        with (self.folder.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_run(path: Path, allow_code: Sequence[str] = ()) -> LoadedRun:
    """Load a finished run. Code that it names as 'module:Class' must be allowed by module."""
    folder = RunFolder(path)
    state.check_finished(path)
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(folder.check_sums)
        try:
            return _opened(folder, allow_code)
        finally:
            checked.result()  # that something is damaged explains all else


def _opened(folder: RunFolder, allow_code: Sequence[str]) -> LoadedRun:
    path = folder.path
    schema, recipe = folder.load_schema(), load_recipe(path / "recipe.yaml")
    config = folder.load_config()
    check_code(
        [(s.codec, CODECS) for s in schema.fields]
        + [(config.backbone, BACKBONES), (recipe.objective.name, OBJECTIVES)],
        allow_code,
    )
    canvas = on_canvas(recipe.objective.name)
    vocabulary = Vocabulary(schema, folder.load_codecs(schema), canvas)
    if vocabulary.size != config.vocabulary:
        raise RunError(f"{path}: codecs and config.json do not belong together")
    objective = build_objective(recipe.objective, vocabulary)
    network = folder.load_network(config)
    settle(network)
    fuse(network)
    return LoadedRun(folder, recipe, schema, vocabulary, network, objective)


def code_named_in(recipe: Recipe) -> list[str]:
    """Modules of somebody's own code that a recipe names: its writer trusts them."""
    names = [recipe.model.backbone, recipe.objective.name]
    names += [f.codec for f in recipe.schema_.fields.values() if f.codec]
    return [name.partition(":")[0] for name in names if ":" in name]


def check_code(names: Sequence[tuple[str, Mapping[str, str]]], allow_code: Sequence[str]) -> None:
    """RunError for the first name of somebody's own code that the caller has not allowed."""
    for name, table in names:
        module = name.partition(":")[0]
        if name not in table and module not in allow_code:
            raise RunError(
                f"the run names code of its own, {name!r}; if you trust it, allow it: "
                f"--allow-code {module}, or load(..., allow_code=[{module!r}])"
            )
