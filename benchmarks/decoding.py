"""How fast an imported checkpoint writes, beside `transformers`.

    python benchmarks/decoding.py [--layers 12 --width 768 --tokens 128] [--quick]

A GPT-2 of the given shape with random weights, which the two sides read from the same folder; both
write the likeliest tokens behind the same prompt, alone and eight at once, in turns. Beside it are
the same weights as int8 and bf16, and a text without reading ahead, or without repetition. Import
takes the time until the first token is there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

ROUNDS = 3
PROMPT = "The committee met on Monday to discuss the budget for the coming year, and agreed that"


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    if args.quick:
        args.layers, args.width, args.tokens = 2, 128, 16
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(args, Path(folder))
    protocol = (
        f"GPT-2 of {args.layers} layers of width {args.width}, 50,257 ids, random weights, fp32; "
        f"greedy, {args.tokens} tokens behind {len(PROMPT)} bytes; the best of {ROUNDS} rounds in "
        f"turns in one process, after one to warm up; `transformers` is `generate` as it is called "
        f"without options"
    )
    harness.keep("decoding", protocol, figures, quick=args.quick)


def measured(args: Any, folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    from omnifill import api
    from omnifill.generate import autoregressive

    torch.set_num_threads(harness.THREADS)
    transformers.utils.logging.set_verbosity_error()
    made(args, folder / "hf")

    def write(model: Any) -> None:
        model.generate(1, prompt=PROMPT, max_tokens=1)

    import_seconds, ours = first_token(
        lambda: api.import_checkpoint(folder / "hf", folder / "run"), write
    )
    load_seconds, _ = first_token(lambda: api.load(folder / "run"), write)
    ids = torch.tensor([ours.run.vocabulary["text"].codec.encode(PROMPT).tolist()])
    their_seconds, theirs = first_token(
        lambda: transformers.AutoModelForCausalLM.from_pretrained(folder / "hf").eval(),
        lambda model: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1,
                                     do_sample=False, pad_token_id=0),
    )  # fmt: skip
    plain, models = autoregressive.looks_ahead, {"fp32": ours}
    for kind in ("int8", "bf16"):
        ours.convert(folder / kind, kind)
        models[kind] = api.load(folder / kind)

    def we(rows: int, ahead: bool = True, weights: str = "fp32", **more: Any) -> None:
        autoregressive.looks_ahead = plain if ahead else lambda plan: False
        models[weights].generate(rows, prompt=PROMPT, max_tokens=args.tokens, temperature=0, **more)

    def they(rows: int, **more: Any) -> None:
        some = ids.expand(rows, -1)
        theirs.generate(
            some, attention_mask=torch.ones_like(some), do_sample=False, pad_token_id=0,
            min_new_tokens=args.tokens, max_new_tokens=args.tokens, **more,
        )  # fmt: skip

    sides: dict[str, tuple[int, Callable[[], None]]] = {
        "alone / omnifill": (1, lambda: we(1)),
        "alone / omnifill, not ahead": (1, lambda: we(1, ahead=False)),
        "alone / transformers": (1, lambda: they(1)),
        "alone / omnifill, int8": (1, lambda: we(1, weights="int8")),
        "alone / omnifill, bf16": (1, lambda: we(1, weights="bf16")),
        "alone, no repetition / omnifill": (1, lambda: we(1, no_repeat_ngram=2)),
        "alone, no repetition / transformers": (1, lambda: they(1, no_repeat_ngram_size=2)),
        "eight / omnifill": (8, lambda: we(8)),
        "eight / omnifill, int8": (8, lambda: we(8, weights="int8")),
        "eight / transformers": (8, lambda: they(8)),
    }
    best = dict.fromkeys(sides, 0.0)
    for number in range(ROUNDS + 1):
        for name, (rows, run) in sides.items():
            started = time.monotonic()
            run()
            if number:
                best[name] = max(best[name], rows * args.tokens / (time.monotonic() - started))
    out: dict[str, Any] = {f"tokens_per_second / {name}": rate for name, rate in best.items()}
    for name, rate in best.items():
        situation, _, side = name.partition(" / ")
        if side.startswith("omnifill"):
            out[f"ratio / {name}"] = rate / best[f"{situation} / transformers"]
    out |= {"import_and_first_token": import_seconds, "load_and_first_token": load_seconds,
            "transformers_load_and_first_token": their_seconds}  # fmt: skip
    return out


def first_token(load: Callable[[], Any], write: Callable[[Any], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    model = load()
    write(model)
    return time.monotonic() - started, model


def made(args: Any, folder: Path) -> None:
    """A checkpoint as the Hugging Face libraries write one, with a tokenizer of bytes."""
    import torch
    import transformers

    torch.manual_seed(args.seed)
    config = transformers.GPT2Config(n_layer=args.layers, n_embd=args.width,
                                     n_head=max(1, args.width // 64), bos_token_id=50256,
                                     eos_token_id=50256, initializer_range=0.05)  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    harness.byte_tokenizer().save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
