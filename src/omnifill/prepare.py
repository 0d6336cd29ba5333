"""Source -> schema -> codecs -> encoded records in a run folder: everything before step one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from omnifill.artifact import RunFolder, check_code, code_named_in, codec_folders
from omnifill.codecs.table import CODECS, check_codec, load_codec
from omnifill.data.shards import open_shard
from omnifill.data.stage import Staged, open_staged, rows_at_once
from omnifill.errors import RecipeError, RunError
from omnifill.form.encode import encode_part
from omnifill.form.vocabulary import Vocabulary
from omnifill.progress import Progress
from omnifill.recipe import Recipe
from omnifill.schema import FieldSpec, Schema
from omnifill.settings import FieldSettings
from omnifill.types import Codec

LONGEST_RECORD = 1024
"""Most ids of a record of several texts, where the recipe names no context."""
SHORT = 32
"""Ids of texts that say little about a long one: names, numbers, titles."""
LONG = 512
"""Ids of a text that is long beside such ones."""
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Taken:
    """Codecs that another run has learned."""

    folder: RunFolder
    schema: Schema
    """Of that run."""
    learned: list[FieldSpec]


def open_taken(recipe: Recipe) -> Taken | None:
    """The run whose codecs are used (`train.codec`), if one is named. RunError if it cannot be."""
    if recipe.train.codec is None:
        return None
    folder = RunFolder(Path(recipe.train.codec))
    state = folder.read_state().get("state")
    if state not in ("training", "done"):
        raise RunError(f"{folder.path}: its codecs have not learned yet (it is {state}); go on "
                       f"with --resume there first")  # fmt: skip
    if state == "done":
        folder.check_sums()
    schema = folder.load_schema()
    check_code([(spec.codec, CODECS) for spec in schema.fields], code_named_in(recipe))
    learned = [spec for spec in schema.fields if is_learned(load_codec(spec.codec))]
    if not learned:
        raise RunError(f"train.codec: {folder.path} has no codec that has learned anything")
    return Taken(folder, schema, learned)


def take_codecs(
    schema: Schema, recipe: Recipe, source: Taken | None
) -> tuple[Schema, dict[str, Codec]]:
    """Codecs of another run, by field, and the schema with what they were learned for. RunError or
    RecipeError where there is none to take."""
    if source is None:
        return schema, {}
    specs, taken = [], {}
    for spec in schema.fields:
        asked = recipe.schema_.fields.get(spec.name)
        of_kind = [s for s in source.learned if s.type == spec.type]
        named = [s for s in of_kind if s.name == spec.name]
        theirs = named[0] if named else of_kind[0] if len(of_kind) == 1 else None
        if theirs is not None and (asked is None or asked.codec in (None, theirs.codec)):
            if asked is not None:
                _check_taken(spec.name, theirs, asked, source.folder)
            taken[spec.name] = source.folder.load_codec(source.schema, theirs.name)
            changed = {k: v for k, v in theirs.options.items() if spec.options.get(k) != v}
            what = "".join(f", {key} {value}" for key, value in changed.items())
            # Behind the first ";" stands what values would have become without the codec.
            why = spec.why.partition(";")[0] if changed else spec.why
            spec = spec.model_copy(update={
                "codec": theirs.codec, "options": theirs.options,
                "why": f"{why}; as the codec of {source.folder.path} has it{what}",
            })  # fmt: skip
        specs.append(spec)
    if not taken:
        there = ", ".join(f"{s.name} ({s.type})" for s in source.learned)
        raise RunError(f"train.codec: no field here can use a codec of {source.folder.path}; "
                       f"fields that have learned ones there: {there}")  # fmt: skip
    return schema.model_copy(update={"fields": tuple(specs)}), taken


def _check_taken(name: str, theirs: FieldSpec, asked: FieldSettings, folder: RunFolder) -> None:
    """RecipeError for a setting that a codec from elsewhere leaves without effect."""
    where = f"schema.fields.{name}"
    wrong = [f"{where}.learn"] if asked.learn else []
    wrong += [
        f"{where}.options.{key}"
        for key, value in asked.options.items() if theirs.options.get(key) != value
    ]  # fmt: skip
    if wrong:
        raise RecipeError(f"{', '.join(wrong)}: has no effect beside train.codec, which takes the "
                          f"codec of {folder.path} as it is; leave it out")  # fmt: skip


def is_learned(codec: Codec | type[Codec]) -> bool:
    """Whether a codec must be trained before it is of use."""
    return hasattr(codec, "learner")


def fit_codecs(
    staged: Staged, schema: Schema, recipe: Recipe, taken: Mapping[str, Codec]
) -> dict[str, Codec]:
    """A codec for every field but those that are `taken` from elsewhere, from the training part
    alone; one that learns is a draft yet."""
    for spec in schema.fields:
        check_codec(spec.name, spec.type, spec.codec)
    groups: dict[str, list[FieldSpec]] = {}
    for name, folder in codec_folders(schema).items():
        if name not in taken:
            groups.setdefault(folder, []).append(schema[name])
    out = dict(taken)
    with Progress("learning codecs", len(groups), "codecs") as progress:
        for specs in groups.values():
            options: Mapping[str, Any] = specs[0].options
            try:
                torch.manual_seed(recipe.train.seed)  # first weights, if it has any
                codec = load_codec(specs[0].codec).fit(_values(staged, specs), options)
            except RecipeError as error:  # a codec does not know its field's name
                raise RecipeError(str(error).replace("NAME", specs[0].name)) from None
            for spec in specs:
                asked = recipe.schema_.fields.get(spec.name)
                if asked and asked.learn and not is_learned(codec):
                    raise RecipeError(
                        f"schema.fields.{spec.name}.learn: codec {spec.codec!r} does not learn; "
                        f"leave it out"
                    )
            out |= {spec.name: codec for spec in specs}
            progress.advance()
    return {spec.name: out[spec.name] for spec in schema.fields}


def _values(staged: Staged, specs: list[FieldSpec]) -> Iterator[list[Any]]:
    """Values of some fields in the training part, chunk by chunk, blanks left out."""
    names = [spec.name for spec in specs]
    for chunk in staged.chunks("train", names):
        for name in names:
            yield [value for value in chunk[name] if value is not None]


def settle_windows(staged: Staged, vocabulary: Vocabulary, recipe: Recipe) -> Recipe:
    """The recipe that says whether long records are read in windows.

    Several long texts, such as a text and its translation, must be in view together, and so must a
    text that a task gives whole.
    """
    if any(task.against is not None for task in recipe.form.tasks):
        if recipe.form.windows:
            raise RecipeError("form.windows: both texts of a preference must be in view together; "
                              "leave it out")  # fmt: skip
        return recipe.with_values(**{"form.windows": False})
    if recipe.form.windows is not None:
        return recipe
    texts = [f.name for f in vocabulary.fields if f.slots is None]
    longest = dict.fromkeys(texts, 0)
    for chunk in islice(staged.chunks("train", texts), 1) if texts else ():
        for name in texts:
            longest[name] = int(vocabulary.encode_column(name, chunk[name]).lens.max(initial=0))
    *others, most = sorted(texts, key=lambda name: longest[name]) or [""]
    given = [n for task in recipe.form.tasks for n in task.given if n in texts]
    short = sum(longest[name] for name in {*others, *given}) <= SHORT
    windows = bool(texts) and short and (not others or longest[most] > LONG)
    return recipe.with_values(**{"form.windows": windows})


def encode_parts(
    staged: Staged, vocabulary: Vocabulary, recipe: Recipe, folder: RunFolder
) -> list[str]:
    """Encode every part into the run folder; returns notes for the user."""
    stream = vocabulary.schema.stream
    longest = None if recipe.form.windows else (recipe.model.context or LONGEST_RECORD)
    notes, rows = [], rows_at_once(vocabulary.schema)
    total = sum(staged.rows[part] for part in PARTS)
    with Progress("encoding", total, "rows") as progress:
        for part in PARTS:
            cuts = encode_part(
                vocabulary, _counted(staged, part, rows, progress), folder.encoded / part,
                longest, stream,
            )  # fmt: skip
            if cuts.unknown:
                notes.append(
                    f"left out of the losses: {cuts.unknown} values of {part} rows that no "
                    f"training row has"
                )
            if str(cuts):
                most = f"{longest} tokens a record" if longest else "schema.fields.NAME.max_tokens"
                notes.append(
                    f"cut to fit {most} in {part}: {cuts} (longer: --set "
                    f"{'model.context=N, or ' if longest else ''}schema.fields.NAME.max_tokens=N)"
                )
    if not staged.rows["valid"]:
        notes.append("no rows are left to validate on: what is told as validation loss is that of "
                     "the training rows")  # fmt: skip
    return [*notes, *_constant(vocabulary), *_learned_from(folder, vocabulary, recipe)]


def _constant(vocabulary: Vocabulary) -> list[str]:
    """Columns that say nothing."""
    return [
        f"{field.name!r} has one value only in all training rows, so there is nothing to learn "
        f"from it (without it: --set 'data.drop={json.dumps([field.name], ensure_ascii=False)}')"
        for field, spec in zip(vocabulary.fields, vocabulary.schema.fields, strict=True)
        if field.slots == field.codec.size == 1 and not spec.optional and len(vocabulary.fields) > 1
    ]


def _learned_from(folder: RunFolder, vocabulary: Vocabulary, recipe: Recipe) -> list[str]:
    """Of a named task: how many tokens are learned, and how many are only read."""
    if len(recipe.form.tasks) != 1:
        return []
    lens, task = open_shard(folder.encoded / "train").lens, recipe.form.tasks[0]
    told = [*task.want, *([] if task.against is None else [task.against])]
    learned, read = (int(lens[:, [vocabulary[name].index for name in names]].sum(dtype="int64"))
                     for names in (told, task.given))  # fmt: skip
    return [f"of {learned + read:,} tokens of training rows {learned:,} are learned "
            f"({', '.join(told)}), and {read:,} are only read"]  # fmt: skip


def _counted(
    staged: Staged, part: str, rows: int, progress: Progress
) -> Iterator[dict[str, list[Any]]]:
    for chunk in staged.chunks(part, size=rows):
        yield chunk
        progress.advance(len(next(iter(chunk.values()))))


def staged_columns(folder: RunFolder, part: str) -> dict[str, list[Any]]:
    """All canonical values of a part, by field."""
    staged = open_staged(folder.staged)
    out: dict[str, list[Any]] = {}
    for chunk in staged.chunks(part):
        for name, values in chunk.items():
            out.setdefault(name, []).extend(values)
    return out
