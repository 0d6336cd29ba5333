"""A network that is there already, to be trained further on other records.

Its texts' tokenizer comes along: codes keep their vectors. Fields that are no texts get codecs of
their own, whose ids stand behind; a category begins as the mean of the tokens that spell it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from omnifill.artifact import RunFolder, check_code, code_named_in
from omnifill.codecs.pretrained import PretrainedCodec
from omnifill.codecs.table import CODECS
from omnifill.errors import RecipeError, RunError
from omnifill.exchange import ORIGIN, came_with, check_full, read_foreign
from omnifill.form.vocabulary import NUM_SPECIAL, Vocabulary
from omnifill.model.adapter import WITHIN, beside, write_adapter
from omnifill.model.config import Alphabet, ModelConfig
from omnifill.model.families import Family, family_of
from omnifill.model.hf import CONFIG, qwen3
from omnifill.model.lora import A, B, add_lora, merged
from omnifill.model.network import BACKBONES, VECTORS, Network
from omnifill.recipe import Recipe
from omnifill.schema import Schema
from omnifill.settings import ModelSettings
from omnifill.state import is_run
from omnifill.types import Codec, Ints

OPEN = ("context", "dropout")
"""Settings of a network that a base leaves open."""


@dataclass(frozen=True, eq=False)
class Base:
    """A trained network, its weights unread, and the codec of its texts."""

    path: Path
    config: ModelConfig
    kind: str
    """Name of the codec."""
    codec: Codec
    first: int
    """Id of its code 0."""
    weights: Callable[[], Mapping[str, Tensor]]
    family: Family | None
    """What others call its tensors, if anybody else can read it."""
    origin: Mapping[str, str]
    """Files that came with it, of a checkpoint of others."""
    fields: Sequence[str] = ()
    """Names of its fields, where it tells them apart."""


def open_base(recipe: Recipe) -> Base | None:
    """What `train.base` names, if anything. RunError or RecipeError if it cannot be built on."""
    if recipe.train.base is None:
        return None
    _check_settings(recipe)
    path = Path(recipe.train.base)
    base = _of_run(path, recipe) if is_run(path) else _of_checkpoint(path)
    wanted = "seq2seq" if base.config.memory else "masked" if base.config.full else "causal"
    if recipe.objective.name not in (wanted, "dpo" if wanted == "causal" else wanted):
        raise RecipeError(f"objective.name = {recipe.objective.name!r}: the base {path} is a "
                          f"{wanted} network; say --set objective.name={wanted}")  # fmt: skip
    return base


def _of_checkpoint(path: Path) -> Base:
    found = read_foreign(path)
    codec = found.codec.for_records()
    return Base(path, found.config, "pretrained", codec, NUM_SPECIAL, found.weights,
                found.checkpoint.family, came_with(path))  # fmt: skip


def _of_run(path: Path, recipe: Recipe) -> Base:
    folder = RunFolder(path)
    if folder.read_state().get("state") != "done":
        raise RunError(f"train.base: {path} is not trained to its end; go on with --resume there")
    folder.check_sums()
    schema, config = folder.load_schema(), folder.load_config()
    check_code([*((spec.codec, CODECS) for spec in schema.fields), (config.backbone, BACKBONES)],
               code_named_in(recipe))  # fmt: skip
    check_full(config, path)
    texts = [spec for spec in schema.fields if spec.type == "text"]
    if not texts:
        raise RunError(f"train.base: {path} has no text, so that nothing of it could be used")
    if len({spec.codec for spec in texts}) > 1:
        raise RunError(f"train.base: texts of {path} have several codecs; one is needed")
    vocabulary = Vocabulary(schema, folder.load_codecs(schema), config.full and not config.memory)
    field = vocabulary[texts[0].name]
    codec = field.codec
    if isinstance(codec, PretrainedCodec):
        codec = codec.for_records()
    return Base(path, config, texts[0].codec, codec, field.first,
                lambda: dict(folder.load_network(config).named_parameters()),
                family_of_run(folder, config), came_with(path / ORIGIN),
                schema.names if config.fields > 1 else ())  # fmt: skip


def family_of_run(folder: RunFolder, config: ModelConfig) -> Family | None:
    """That of the checkpoint it was; of a network that was trained here, the one it leaves as."""
    if (folder.path / ORIGIN / CONFIG).exists():
        return family_of(folder.read_json(f"{ORIGIN}/{CONFIG}"))
    try:
        return family_of(qwen3(config))
    except RunError:
        return None


def adapted(folder: RunFolder, network: Network, adapter: Path) -> Network:
    """The network of a run with an adapter beside its weights; RunError if it doesn't fit."""
    check_full(network.config, folder.path)
    family = family_of_run(folder, network.config)
    if family is None:
        raise RunError(f"{folder.path}: no adapter of other projects can be of this network")
    return beside(network, family, adapter)


def alphabet_beside(base: Base | None, vocabulary: Vocabulary, recipe: Recipe) -> Alphabet:
    """What a network must know of a vocabulary.

    Beside a base of one text, the texts of a single task that wants one are told apart by where
    they stand: nothing is added, so that the network can leave as what the base was.
    """
    alphabet = vocabulary.alphabet
    if base is None or base.config.fields > 1 or base.config.full or base.config.memory:
        return alphabet
    alike = [len(task.want) for task in recipe.form.tasks] == [1] and len(vocabulary.blocks) == 1
    return replace(alphabet, fields=1) if alike else alphabet


def _check_settings(recipe: Recipe) -> None:
    """RecipeError for a setting that a base has decided."""
    plain = ModelSettings()
    for name in ModelSettings.model_fields:
        if name not in OPEN and getattr(recipe.model, name) != getattr(plain, name):
            raise RecipeError(f"model.{name}: has no effect beside train.base, whose network is "
                              f"trained further as it is; leave it out")  # fmt: skip
    if recipe.train.codec is not None:
        raise RecipeError("train.codec: leave it out beside train.base")
    if recipe.train.lr is not None and recipe.train.optim != "muon":
        raise RecipeError("train.lr: is the rate of muon, and beside train.base adamw learns; say "
                          "train.lr_adamw")  # fmt: skip


def with_texts_of(base: Base, schema: Schema, recipe: Recipe) -> tuple[Schema, dict[str, Codec]]:
    """The schema whose texts have the base's codec, and that codec by field."""
    specs, taken = [], {}
    for spec in schema.fields:
        if spec.type == "text":
            asked = recipe.schema_.fields.get(spec.name)
            if asked is not None and (asked.codec not in (None, base.kind) or asked.options):
                raise RecipeError(f"schema.fields.{spec.name}: a text has the codec of the base "
                                  f"{base.path}; leave codec and options out")  # fmt: skip
            taken[spec.name] = base.codec
            why = f"{spec.why}; tokens of {base.path.name}"
            spec = spec.model_copy(update={"codec": base.kind, "options": {}, "why": why})
        specs.append(spec)
    if not taken:
        raise RecipeError(f"train.base: the records have no text, and {base.path} knows only texts")
    return schema.model_copy(update={"fields": tuple(specs)}), taken


def built(recipe: Recipe, config: ModelConfig, vocabulary: Vocabulary) -> Network:
    """The network as it is trained, its weights by chance."""
    torch.manual_seed(recipe.train.seed)
    network, lora = Network(config), recipe.train.lora
    if lora is not None:
        missing = set(lora.targets) - {
            name.rpartition(".")[2] for name, _ in network.named_modules()
        }
        if missing:
            raise RecipeError(f"train.lora.targets: the base has no {', '.join(sorted(missing))}")
        add_lora(network, lora.rank, lora.scale, lora.targets, len(vocabulary.blocks) > 1)
    return network


def finished(
    recipe: Recipe, weights: Mapping[str, Tensor], folder: RunFolder
) -> Mapping[str, Tensor]:
    """Weights as they are kept: additions merged; and, where they are all that was learned, also
    written on their own, in `adapter/`, for others to read."""
    lora = recipe.train.lora
    if lora is None:
        return weights
    base = open_base(recipe)
    if base is not None and base.family is not None and "fields.weight" not in weights:
        write_adapter(folder.path / WITHIN, base.family, str(base.path), lora.rank, lora.alpha,
                      weights)  # fmt: skip
    return merged(weights, lora.scale)


@torch.no_grad()
def begin_with(network: Network, base: Base, vocabulary: Vocabulary) -> None:
    """Put the base's weights into a network of the same shape for other ids."""
    weights = base.weights()
    own = dict(network.named_parameters())
    for name, tensor in own.items():
        if name.startswith(("backbone.", "encoder.", "head_in.")) and not name.endswith((A, B)):
            tensor.copy_(weights[name])
    for name in set(base.fields) & set(vocabulary.schema.names) if "fields.weight" in own else ():
        row, known = vocabulary[name].index, weights["fields.weight"]
        own["fields.weight"][row] = known[base.fields.index(name)]
    size = base.codec.size
    theirs = torch.arange(base.first, base.first + size)
    for name in set(VECTORS) & weights.keys():
        rows, known = own[name], weights[name]
        rows.copy_(known[theirs].mean(dim=0).expand_as(rows))
        rows[:NUM_SPECIAL] = known[:NUM_SPECIAL]
        for field in vocabulary.fields:
            if vocabulary.schema[field.name].codec == base.kind:
                rows[field.first : field.first + size] = known[theirs]
        for ours, spelt in _spelt(base, vocabulary):
            rows[ours] = known[base.first + torch.from_numpy(spelt)].mean(dim=0)


def _spelt(base: Base, vocabulary: Vocabulary) -> list[tuple[int, Ints]]:
    """Ids of categories, and the base's codes that spell each."""
    out = []
    for field in vocabulary.fields:
        for code, value in enumerate(getattr(field.codec, "values", ())):
            codes = base.codec.encode(str(value))
            if len(codes):
                out.append((field.first + code, codes))
    return out
