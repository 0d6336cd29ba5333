"""JSON under 300 schemas, flat to recursive: is it valid and finished, and what does it cost?

    python benchmarks/schemas.py [--num 300] [--tokens 256] [--quick]

The model has 11 million random weights, so nothing comes out right by itself and no text wants to
end. Beside each document stands a free text of as many tokens from the same model, in turns.
Documents are read by `jsonschema`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import harness

VOCABULARY = 4096
WORDS = ("name age city colour weight owner tags price unit lines next left right value kind "
         "start end note active score имя 名 größe").split()  # fmt: skip


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=256, help="room of a document")
    args = parser.parse_args()
    if args.quick:
        args.num = 15
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(args, Path(folder))
    protocol = (
        f"{args.num} schemas by seed {args.seed}, a fifth of each sort; one document each at "
        f"temperature 1 in at most {args.tokens} tokens, and a free text of as many tokens, in "
        f"turns; Qwen 3 of 8 layers of width 320, {VOCABULARY} ids, random weights, fp32; "
        f"`per_token`: seconds under a schema by those without, what it takes to read the schema "
        f"among them; `refused`: they need more tokens, and the message says how many"
    )
    harness.keep("schemas", protocol, figures, ["llguidance", "jsonschema"], args.quick)


def measured(args: Any, folder: Path) -> dict[str, Any]:
    import jsonschema
    import torch

    from omnifill.errors import RequestError

    torch.set_num_threads(harness.THREADS)
    rng = np.random.default_rng(args.seed)
    sorts = list(SORTS)
    asked = [(sorts[n % len(sorts)], SORTS[sorts[n % len(sorts)]](rng)) for n in range(args.num)]
    model = writer(folder, [schema for _, schema in asked])
    codec = model.run.vocabulary["text"].codec
    for _ in range(2):  # to warm up
        model.generate(1, prompt="a", max_tokens=20)
    counts = {"documents": 0, "valid": 0, "finished": 0, "refused": 0}
    spent = {sort: [0.0, 0, 0.0, 0] for sort in sorts}
    for number, (sort, schema) in enumerate(asked):
        started = time.monotonic()
        try:
            text = model.generate(1, want=["text"], schema=schema, max_tokens=args.tokens,
                                  seed=number, temperature=1.0)["text"][0]  # fmt: skip
        except RequestError as refused:
            assert "give at least" in str(refused), refused
            counts["refused"] += 1
            continue
        seconds, tokens = time.monotonic() - started, len(codec.encode(text))
        counts["documents"] += 1
        try:
            document = json.loads(text)
            counts["finished"] += 1
            jsonschema.Draft202012Validator(schema).validate(document)
            counts["valid"] += 1
        except (ValueError, jsonschema.ValidationError) as error:
            print(json.dumps(schema), text, error, sep="\n", flush=True)
        started = time.monotonic()
        free = model.generate(1, want=["text"], max_tokens=tokens, seed=number, temperature=1.0,
                              min_p=0.0)["text"][0]  # fmt: skip
        mine = spent[sort]
        mine[0], mine[1] = mine[0] + seconds, mine[1] + tokens
        mine[2] += time.monotonic() - started
        mine[3] += max(1, len(codec.encode(free)))
    each = {sort: _ratio(part) for sort, part in spent.items() if part[1]}
    whole = [sum(part[i] for part in spent.values()) for i in range(4)]
    return {**counts, "per_token": _ratio(whole), "tokens": whole[1],
            "milliseconds_per_free_token": 1000 * whole[2] / whole[3],
            "per_token_of": each}  # fmt: skip


def _ratio(part: list[float]) -> float:
    return (part[0] / part[1]) / (part[2] / part[3])


def writer(folder: Path, schemas: list[Any]) -> Any:
    """A checkpoint of random weights, whose tokenizer knows JSON and English."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from omnifill import api

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    root = harness.HERE.parent
    pages = sorted([*root.glob("*.md"), *root.glob("docs/*.md")])
    texts = [page.read_text(encoding="utf-8") for page in pages]
    tokenizer.train_from_iterator([*texts, *map(json.dumps, schemas)], trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=320, intermediate_size=864,
        num_hidden_layers=8, num_attention_heads=5, num_key_value_heads=5, head_dim=64,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "hf")
    tokenizer.save(str(folder / "hf" / "tokenizer.json"))
    return api.import_checkpoint(folder / "hf", folder / "run")


# --- schemas -------------------------------------------------------------------------------

Rng = np.random.Generator


def leaf(rng: Rng) -> dict[str, Any]:
    """A value without parts."""
    low = int(rng.integers(-50, 50))
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": int(rng.integers(5, 30))},
        {"type": "string", "minLength": 3, "maxLength": 12},
        {"type": "string", "pattern": f"^[A-Z]{{2}}-[0-9]{{{rng.integers(2, 6)}}}$"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": low, "maximum": low + int(rng.integers(1, 1000))},
        {"type": "number", "minimum": low, "maximum": low + 10},
        {"type": "boolean"}, {"type": "null"},
        {"enum": [str(w) for w in rng.choice(WORDS, 3, replace=False)]},
        {"const": f"version {rng.integers(1, 9)} of the form"},
    ]  # fmt: skip
    return kinds[rng.integers(len(kinds))]


def of_parts(rng: Rng, part: Callable[[Rng], dict[str, Any]]) -> dict[str, Any]:
    """An object, some of whose parts may be left out."""
    names = [str(n) for n in rng.choice(WORDS, rng.integers(1, 7), replace=False)]
    needed = [n for n in names if rng.random() < 0.7]
    return {"type": "object", "properties": {n: part(rng) for n in names}, "required": needed,
            "additionalProperties": False}  # fmt: skip


def flat(rng: Rng) -> dict[str, Any]:
    return of_parts(rng, leaf)


def lists(rng: Rng) -> dict[str, Any]:
    """Lists of values, of objects, and of a fixed row of values."""
    sort = rng.integers(3)
    if sort == 0:
        row = [leaf(rng) for _ in range(3)]
        return {"type": "array", "prefixItems": row, "items": False, "minItems": 3}
    few = int(rng.integers(0, 3))
    return {"type": "array", "items": leaf(rng) if sort == 1 else flat(rng), "minItems": few,
            "maxItems": few + int(rng.integers(1, 4))}  # fmt: skip


def nested(rng: Rng) -> dict[str, Any]:
    return of_parts(rng, lambda r: (flat, lists, leaf, leaf)[r.integers(4)](r))


def choices(rng: Rng) -> dict[str, Any]:
    """One of several, or a dictionary of any names."""
    if rng.random() < 0.3:
        return {"type": "object", "additionalProperties": leaf(rng), "minProperties": 1,
                "maxProperties": 3}  # fmt: skip
    return {"anyOf": [flat(rng), leaf(rng), lists(rng)]}


def recursive(rng: Rng) -> dict[str, Any]:
    """A chain, a tree, or lists of themselves."""
    this = {"$ref": "#/$defs/node"}
    parts = [
        {"value": leaf(rng), "next": {"anyOf": [this, {"type": "null"}]}},
        {"value": leaf(rng), "left": {"anyOf": [{"type": "null"}, this]},
         "right": {"anyOf": [{"type": "null"}, this]}},
        {"kind": leaf(rng), "lines": {"type": "array", "items": this, "maxItems": 2}},
    ][rng.integers(3)]  # fmt: skip
    node = {"type": "object", "properties": parts, "required": list(parts),
            "additionalProperties": False}  # fmt: skip
    return {"$defs": {"node": node}, **this}


SORTS: dict[str, Callable[[Rng], dict[str, Any]]] = {
    "flat": flat, "lists": lists, "nested": nested, "choices": choices, "recursive": recursive,
}  # fmt: skip


if __name__ == "__main__":
    main()
