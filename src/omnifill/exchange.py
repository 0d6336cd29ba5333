"""Checkpoints of other projects become run folders, and run folders become such checkpoints.

An imported run has one field, `text`, whose codes are the ids of the checkpoint's own tokenizer;
with an encoder, it is told from another, `source`. Our special ids stand in front of them and take
the vectors that mean the same there.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor

from omnifill import llamacpp
from omnifill.artifact import LoadedRun, RunFolder, open_run
from omnifill.codecs.characters import CharacterCodec
from omnifill.codecs.pretrained import TOKENIZER, PretrainedCodec, around
from omnifill.codecs.text import BpeCodec
from omnifill.data.sink import check_place
from omnifill.errors import RequestError, RunError, unknown_name
from omnifill.files import reason
from omnifill.form.vocabulary import BOS, END, MASK, MISSING, NUM_SPECIAL, PAD, Vocabulary
from omnifill.generate.chat import turns_before, write_turns
from omnifill.generate.likelihood import record_nats
from omnifill.golden import replay, transcripts
from omnifill.model.adapter import with_adapter
from omnifill.model.config import ModelConfig
from omnifill.model.foreign import Settings
from omnifill.model.hf import (
    ALONE,
    CONFIG,
    TOKENIZER_CONFIG,
    Checkpoint,
    qwen3,
    read_checkpoint,
    write_checkpoint,
)
from omnifill.model.network import VECTORS
from omnifill.model.packed import FEW, Kind, pack
from omnifill.recipe import dump_recipe, from_dict
from omnifill.schema import FieldSpec, Schema
from omnifill.types import Codec

FIELD, SOURCE = "text", "source"
MOST_RECORDS = 500
"""Records on which it is measured what rounding costs."""
ORIGIN = "origin"
"""Folder of the files that came with a checkpoint and are not needed to run it."""
KEPT = (CONFIG, "generation_config.json", TOKENIZER_CONFIG, "special_tokens_map.json",
        "chat_template.jinja")  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """A checkpoint in our terms, its weights unread."""

    checkpoint: Checkpoint
    codec: PretrainedCodec
    special: Mapping[int, int]
    """Our special ids -> those that mean the same there."""
    config: ModelConfig

    def weights(self) -> dict[str, Tensor]:
        """All parameters by our names, for our ids."""
        weights = self.checkpoint.weights()
        for name in set(VECTORS) & weights.keys():
            weights[name] = _with_special(weights[name], self.special, self.config.vocabulary)
        return weights

    @property
    def schema(self) -> Schema:
        """One text; with an encoder, another that it is told from. A masked text that is a record
        of its own begins with its size, which others do not know: theirs is a stream."""
        names = (SOURCE, FIELD) if self.objective == "seq2seq" else (FIELD,)
        why = f"imported from {self.checkpoint.folder.name}"
        return Schema(
            fields=tuple(
                FieldSpec(name=n, type="text", codec="pretrained", why=why) for n in names
            ),
            stream=self.objective == "masked",
        )

    @property
    def objective(self) -> str:
        return "seq2seq" if self.config.memory else "masked" if self.config.full else "causal"


def read_foreign(source: Path, adapter: Path | None = None) -> Foreign:
    """A folder as the Hugging Face libraries write one, and an adapter that is merged into it;
    RunError for what cannot be used."""
    checkpoint = read_checkpoint(source)
    if adapter is not None:
        checkpoint = with_adapter(checkpoint, adapter)
    path = checkpoint.folder / TOKENIZER
    try:
        codec = _codec(checkpoint, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({reason(error)}); save the tokenizer as a fast "
                       f"one where it was made") from None  # fmt: skip
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    bos = codec.opener if codec.bos is None else codec.bos
    named = {BOS: bos, END: next(iter(codec.ends), None), MASK: _mask(checkpoint, codec)}
    special = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    found = Foreign(checkpoint, codec, special, checkpoint.config)
    ids = Vocabulary(found.schema, dict.fromkeys(found.schema.names, codec), found.config.full)
    opens = codec.bos is not None or found.config.full
    config = found.config.model_copy(update={"vocabulary": ids.size, "opens": opens})
    return replace(found, config=config)


def import_checkpoint(source: Path, out: Path, adapter: Path | None = None) -> None:
    """A folder with config.json, safetensors and tokenizer.json -> the run folder `out`. `adapter`:
    a folder with a LoRA adapter of PEFT, to be merged into it.

    RunError for what cannot be run exactly as where it came from; nothing is left of a failure.
    """
    found = read_foreign(source, adapter)
    schema, weights = found.schema, found.weights()
    tasks = {"tasks": [{"given": [SOURCE], "want": [FIELD]}], "drop_given": 0.0}
    recipe = from_dict({
        "data": {"clean": {"nfc": False, "white_space": False}},
        "objective": {"name": found.objective}, "form": tasks if len(schema.fields) > 1 else {},
        "train": {"steps": 1}, "generate": _usual(source),
    })  # fmt: skip
    with _written(out) as folder:
        folder.write("recipe.yaml", dump_recipe(recipe))
        folder.write("schema.json", schema.model_dump_json(indent=1))
        folder.save_codecs(schema, dict.fromkeys(schema.names, found.codec))
        folder.save_model(found.config, weights)
        for name, text in came_with(source).items():
            folder.write(f"{ORIGIN}/{name}", text)
        folder.write("metrics.jsonl", "")
        folder.write_state(
            state="done", training={"imported": found.checkpoint.settings.tree["architectures"][0]}
        )


def came_with(folder: Path) -> dict[str, str]:
    """The files of a checkpoint that are not needed to run it, by name, and what they hold."""
    return {name: (folder / name).read_text(encoding="utf-8")
            for name in KEPT if (folder / name).exists()}  # fmt: skip


def export(run: LoadedRun, out: Path, kind: str) -> None:
    """A run of one text, written as others read it: see `EXPORTS`."""
    if kind not in EXPORTS:
        raise RequestError(f"--format: {unknown_name('format', kind, EXPORTS)}")
    EXPORTS[kind](run, out)


def export_checkpoint(run: LoadedRun, out: Path) -> None:
    """A run of one text, or of one task over texts that was trained further from such -> the folder
    `out`, as the Hugging Face libraries read one. What is given is then asked for by messages.

    A run that was imported, or trained further from a checkpoint, leaves as what it came as; one
    that was trained here is a Qwen3. What was written is read and answers as the run does (see
    `golden`), or it is not kept. RunError for what no such checkpoint can say.
    """
    check_full(run.network.config, run.folder.path)
    codec, objective = run.vocabulary.fields[0].codec, run.recipe.objective.name
    came = (run.folder.path / ORIGIN / CONFIG).exists()
    alone = run.network.config.fields == 1 and (objective != "masked" or run.schema.stream)
    turns = turns_before(run)
    if not alone or turns is None or (not came and objective not in ("causal", "dpo")):
        fields = f"{len(run.schema.fields)} fields and is {objective}"
        raise RunError(f"{run.folder.path}: has {fields}; {ALONE}")
    # A tied head is named once.
    weights: dict[str, Tensor] = dict(run.network.named_parameters())
    with _written(out) as folder:
        if isinstance(codec, PretrainedCodec):
            for name, text in came_with(run.folder.path / ORIGIN).items():
                folder.write(name, text)
            folder.write(TOKENIZER, codec.source)
            tree = Settings(run.folder.path / ORIGIN / CONFIG).tree
            for name in set(VECTORS) & weights.keys():
                weights[name] = _without_special(weights[name], codec)
        else:
            tree = qwen3(run.network.config) | {
                "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": END,
            }  # fmt: skip
            write_tokenizer(folder, codec, run.network.config.context)
        write_checkpoint(folder.path, tree, weights)
        told = write_turns(folder, codec, turns) if turns else None
        _prove(run, folder.path, told)


def export_gguf(run: LoadedRun, out: Path) -> None:
    """The same as one file for llama.cpp, made of the folder that would have been written: it is
    proven in that form."""
    if out.exists():
        raise RunError(f"{out}: is there already; name another file, or remove it first")
    check_place(out)
    llamacpp.library()  # before the work
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            export_checkpoint(run, Path(folder) / "hf")
            llamacpp.write_gguf(read_checkpoint(Path(folder) / "hf"), out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({reason(error)})") from error


EXPORTS: dict[str, Callable[[LoadedRun, Path], None]] = {
    "hf": export_checkpoint, "gguf": export_gguf,
}  # fmt: skip


@dataclass(frozen=True)
class Rounded:
    """What fewer bits cost."""

    before: float
    """Nats a record."""
    after: float
    records: int

    def __str__(self) -> str:
        change = 100 * (self.after / self.before - 1) if self.before else 0.0
        return (f"{self.before:.4f} → {self.after:.4f} nats a record ({change:+.3f} %), over "
                f"{self.records:,} unseen ones")  # fmt: skip


def rounded(run: LoadedRun, other: LoadedRun, records: Mapping[str, Sequence[Any]]) -> Rounded:
    """Likelihoods of records, columns of canonical values, before and after."""
    some = {name: list(values)[:MOST_RECORDS] for name, values in records.items()}
    before, after = (float(record_nats(one, some).sum()) for one in (run, other))
    num = len(next(iter(some.values())))
    return Rounded(before / num, after / num, num)


def convert(run: LoadedRun, out: Path, kind: str) -> None:
    """The run with its weights in fewer bits, in the folder `out`: for generation alone."""
    if kind not in FEW:
        raise RequestError("--weights: " + unknown_name("kind", kind, FEW))
    check_full(run.network.config, run.folder.path)
    config = run.network.config.model_copy(update={"weights": kind})
    network = copy.deepcopy(run.network)
    pack(network, cast(Kind, kind))
    with _written(out) as folder:
        folder.write("recipe.yaml", dump_recipe(run.recipe))
        folder.write("schema.json", run.schema.model_dump_json(indent=1))
        folder.save_codecs(run.schema, {f.name: f.codec for f in run.vocabulary.fields})
        folder.save_model(config, network.state_dict())
        for name, text in came_with(run.folder.path / ORIGIN).items():
            folder.write(f"{ORIGIN}/{name}", text)
        folder.write("metrics.jsonl", "")
        state = run.folder.read_state()
        folder.write_state(state="done", training={**state["training"], "weights": kind})


def check_full(config: ModelConfig, path: Path) -> None:
    """RunError for a run whose weights were rounded."""
    if config.weights != "fp32":
        raise RunError(f"{path}: its weights are {config.weights}, to generate with; take the run "
                       f"that it was made of")  # fmt: skip


def _prove(run: LoadedRun, written: Path, told: Callable[[str], str] | None) -> None:
    """RunError unless a checkpoint that was written from a run answers as it does."""
    golden = transcripts(run)
    again = written.with_name(f"{written.name}.read")
    shutil.rmtree(again, ignore_errors=True)
    try:
        import_checkpoint(written, again)
        replay(open_run(again), golden, told)
    finally:
        shutil.rmtree(again, ignore_errors=True)


def _codec(checkpoint: Checkpoint, source: str) -> PretrainedCodec:
    """The codec of the text of a tokenizer.json. ValueError if it cannot be used."""
    config, (lead, tail) = checkpoint.config, around(source)
    ends, barred = checkpoint.named("eos_token_id"), checkpoint.named("suppress_tokens")
    if config.full:
        return PretrainedCodec(source, config.vocabulary, tail, barred=barred, lead=lead, tail=tail)
    if config.memory:
        if tail != ends[:1]:
            raise ValueError(f"it puts {tail} behind a text, which ends with {ends[:1]}")
        starts = checkpoint.named("decoder_start_token_id") or checkpoint.named("pad_token_id")
        forced = checkpoint.named("forced_bos_token_id")
        if forced and forced != lead:
            raise ValueError(f"it puts {lead} in front of a text, and {forced} must be written")
        if not starts:
            raise checkpoint.settings.refusal("decoder_start_token_id", "must say what opens texts")
        return PretrainedCodec(source, config.vocabulary, ends, None, barred, starts[0], lead,
                               forced=bool(forced))  # fmt: skip
    if len(lead) > 1 or tail:
        raise ValueError(f"it puts {lead} in front of a text and {tail} behind it, and no more "
                         f"than one token in front is understood")  # fmt: skip
    openers = [*checkpoint.named("bos_token_id"), *ends]
    opener = None if lead else next(iter(openers), None)
    return PretrainedCodec(source, config.vocabulary, ends, opener, barred, next(iter(lead), None))


def _mask(checkpoint: Checkpoint, codec: PretrainedCodec) -> int | None:
    """The id that stands for a hidden token, where there are such. RunError if it isn't named."""
    if not checkpoint.config.full:
        return None
    for name in (TOKENIZER_CONFIG, "special_tokens_map.json"):
        path = checkpoint.folder / name
        token = Settings(path).tree.get("mask_token") if path.exists() else None
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and (i := codec.tokenizer.token_to_id(token)) is not None:
            return int(i)
    for token in ("[MASK]", "<mask>"):
        if (i := codec.tokenizer.token_to_id(token)) is not None:
            return int(i)
    raise RunError(f"{checkpoint.folder}: names no mask_token in tokenizer_config.json; without "
                   f"one nothing can be filled in")  # fmt: skip


def _usual(source: Path) -> dict[str, Any]:
    """How generation_config.json has texts drawn, if it says that they are."""
    path = source / "generation_config.json"
    tree = Settings(path).tree if path.exists() else {}
    names = {"repetition_penalty": "repetition_penalty", "no_repeat_ngram_size": "no_repeat_ngram"}
    if tree.get("do_sample"):
        names |= {name: name for name in ("temperature", "top_k", "top_p", "min_p")}
    out = {ours: tree[name] for name, ours in names.items() if tree.get(name) is not None}
    if out.get("top_k") == 0:  # theirs for no limit
        del out["top_k"]
    # Ours of texts is another.
    return {**({"min_p": 0.0} if tree.get("do_sample") else {}), **out}


def _with_special(rows: Tensor, special: Mapping[int, int], size: int) -> Tensor:
    """What there is of the checkpoint's ids (V, …) -> that of ours, special ones first; of those
    behind them, up to `size`, nothing is known."""
    own = rows.mean(dim=0, keepdim=True).expand(NUM_SPECIAL, *rows.shape[1:]).clone()
    own[PAD] = 0.0
    for ours, theirs in special.items():
        own[ours] = rows[theirs]
    rest = own[MISSING].expand(size - len(own) - len(rows), *rows.shape[1:])
    return torch.cat([own, rows, rest])


def _without_special(rows: Tensor, codec: PretrainedCodec) -> Tensor:
    """The way back: what was learned of our special ids is of theirs that mean the same."""
    out = rows[NUM_SPECIAL : NUM_SPECIAL + codec.size].clone()
    for ours, theirs in ((BOS, codec.bos), (END, next(iter(codec.ends), None))):
        if theirs is not None:
            out[theirs] = rows[ours]
    return out


# --- our own tokenizers --------------------------------------------------------------------


def write_tokenizer(folder: RunFolder, codec: Codec, context: int) -> None:
    """tokenizer.json of a text codec whose codes stand behind our special ids, and beside it what
    the special ones are for."""
    tree = tokenizer_tree(codec)
    vocab: dict[str, int] = tree["model"]["vocab"]
    names = []
    for name in ("pad", "bos", "end", "mask", "missing"):
        while f"<{name}>" in vocab:
            name = f"|{name}|"
        names.append(f"<{name}>")
    tree["model"]["vocab"] = {name: i for i, name in enumerate(names)} | {
        token: NUM_SPECIAL + code for token, code in vocab.items()
    }
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tree["added_tokens"] = [{"id": i, "content": name, "special": True, **plain}
                            for i, name in enumerate(names)]  # fmt: skip
    opened = [{"SpecialToken": {"id": names[BOS], "type_id": 0}}]
    tree["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*opened, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [*opened, {"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            names[BOS]: {"id": names[BOS], "ids": [BOS], "tokens": [names[BOS]]}
        },
    }  # fmt: skip
    folder.write(TOKENIZER, json.dumps(tree, ensure_ascii=False, indent=1))
    folder.write(TOKENIZER_CONFIG, json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": names[PAD],
        "bos_token": names[BOS], "eos_token": names[END], "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }, indent=1))  # fmt: skip
    # Ids that were never learned must not be drawn.
    folder.write("generation_config.json", json.dumps({
        "bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD, "do_sample": True,
        "suppress_tokens": [PAD, BOS, MASK, MISSING],
    }, indent=1))  # fmt: skip


def tokenizer_tree(codec: Codec) -> dict[str, Any]:
    """A tokenizer.json that encodes texts as the codec does. RunError for a codec without one."""
    if isinstance(codec, BpeCodec):
        tree: dict[str, Any] = json.loads(codec.tokenizer.to_str())
        return tree
    if isinstance(codec, CharacterCodec):
        whole = [chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in range(256)]
        vocab = {token: code for code, token in enumerate([*whole, *codec.characters])}
        made = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        tree = json.loads(made.to_str())
        return tree
    raise RunError(f"codec {type(codec).__name__}: there is no tokenizer.json that does the same")


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
