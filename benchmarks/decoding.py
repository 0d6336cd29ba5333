"""How fast an imported checkpoint writes, beside `transformers`.

    python benchmarks/decoding.py [--layers 12 --width 768 --ids 50257 --tokens 128] [--quick]

A GPT-2 of the given shape with random weights, which all sides read from the same folder; they
write the likeliest tokens behind the same prompt, alone and eight at once, in turns. Beside it are
the same weights as int8 and bf16, and a text without reading ahead, or without repetition.
`transformers` is there as it is called without options, and with what makes it fastest: a static
cache and a compiled step; CTranslate2 with int8, in a process of its own. Import takes the time
until the first token is there; a process of its own, from its start to its end, writes one token.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

ROUNDS = 3
STARTS = 7
"""Processes of each side."""
REST = 0.5
"""Seconds between two runs: threads of one library wait for more work a while without sleeping, and
would take the cores from the next."""
PROMPT = "The committee met on Monday to discuss the budget for the coming year, and agreed that"


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--ids", type=int, default=50257)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    if args.quick:
        args.layers, args.width, args.ids, args.tokens = 2, 128, 300, 16
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(args, Path(folder))
    protocol = (
        f"GPT-2 of {args.layers} layers of width {args.width}, {args.ids:,} ids, random weights; "
        f"greedy, {args.tokens} tokens behind {len(PROMPT)} bytes; the best of {ROUNDS} rounds in "
        f"turns in one process, after one to warm up; `transformers` is `generate` as it is called "
        f"without options, and compiled: with a static cache and a compiled forward"
    )
    usual = (args.layers, args.width, args.ids) == (12, 768, 50257)
    name = "decoding" if usual else f"decoding-{args.layers}x{args.width}-{args.ids}"
    harness.keep(name, protocol, figures, ["transformers", "ctranslate2"], args.quick)


def measured(args: Any, folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    from omnifill import api
    from omnifill.generate import lookahead

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
    most, models = lookahead.MOST, {"fp32": ours}
    for kind in ("int8", "bf16"):
        ours.convert(folder / kind, kind)
        models[kind] = api.load(folder / kind)

    def we(rows: int, ahead: bool = True, weights: str = "fp32", **more: Any) -> None:
        lookahead.MOST = most if ahead else 0
        more = {"temperature": 0} | more
        models[weights].generate(rows, prompt=PROMPT, max_tokens=args.tokens, **more)

    def they(rows: int, theirs: Any = theirs, **more: Any) -> None:
        some = ids.expand(rows, -1)
        theirs.generate(
            some, attention_mask=torch.ones_like(some), pad_token_id=0,
            min_new_tokens=args.tokens, max_new_tokens=args.tokens,
            **{"do_sample": False} | more,
        )  # fmt: skip

    quick = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf").eval()
    quick.forward = torch.compile(quick.forward)
    theirs_in_int8 = translator(folder, ids[0].tolist(), args.tokens)

    sides: dict[str, tuple[int, Callable[[], None]]] = {
        "alone / omnifill": (1, lambda: we(1)),
        "alone / omnifill, not ahead": (1, lambda: we(1, ahead=False)),
        "alone / transformers": (1, lambda: they(1)),
        "alone / transformers, compiled": (
            1, lambda: they(1, quick, cache_implementation="static")),
        "alone / ctranslate2, int8": (1, lambda: theirs_in_int8(1)),
        "alone / omnifill, int8": (1, lambda: we(1, weights="int8")),
        "alone / omnifill, bf16": (1, lambda: we(1, weights="bf16")),
        "alone, drawn / omnifill": (1, lambda: we(1, temperature=1.0)),
        "alone, drawn / transformers": (1, lambda: they(1, do_sample=True)),
        "alone, no repetition / omnifill": (1, lambda: we(1, no_repeat_ngram=2)),
        "alone, no repetition / transformers": (1, lambda: they(1, no_repeat_ngram_size=2)),
        "eight / omnifill": (8, lambda: we(8)),
        "eight / omnifill, int8": (8, lambda: we(8, weights="int8")),
        "eight / omnifill, bf16": (8, lambda: we(8, weights="bf16")),
        "eight / transformers": (8, lambda: they(8)),
        "eight / transformers, compiled": (
            8, lambda: they(8, quick, cache_implementation="static")),
        "eight / ctranslate2, int8": (8, lambda: theirs_in_int8(8)),
    }  # fmt: skip
    best = dict.fromkeys(sides, 0.0)
    for number in range(ROUNDS + 1):
        for name, (rows, run) in sides.items():
            time.sleep(REST)
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
    return out | from_start(folder)


THEIRS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
asked = tokenizer(sys.argv[2], return_tensors="pt")
print(tokenizer.decode(model.generate(**asked, max_new_tokens=1, do_sample=False)[0]))
"""


def from_start(folder: Path) -> dict[str, float]:
    """Seconds from the start of a process that writes one token to its end, with ours in turns."""
    ours = ["-m", "omnifill", "generate", str(folder / "run"), "--prompt", PROMPT,
            "--max-tokens", "1", "--temperature", "0"]  # fmt: skip
    sides = {"omnifill": ours, "transformers": ["-c", THEIRS, str(folder / "hf"), PROMPT]}
    took: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(STARTS + 1):
        for side, arguments in sides.items():
            started = time.monotonic()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if number:
                took[side].append(time.monotonic() - started)
    median = {side: statistics.median(some) for side, some in took.items()}
    out = {f"one_token_from_start / {side}": seconds for side, seconds in median.items()}
    return out | {"ratio / one_token_from_start": median["omnifill"] / median["transformers"]}


def translator(folder: Path, prompt: list[int], tokens: int) -> Callable[[int], None]:
    """What has CTranslate2 continue the prompt in so many rows, in a process of its own: where two
    libraries share OpenMP, each finds more threads than cores and lets its own sleep at once."""
    import multiprocessing

    import ctranslate2
    import transformers

    there = folder / "padded"
    shutil.copytree(folder / "hf", there)
    tokenizer = transformers.AutoTokenizer.from_pretrained(there)
    size = transformers.AutoConfig.from_pretrained(there).vocab_size
    tokenizer.add_tokens([f"<{i}>" for i in range(len(tokenizer), size)])  # it wants all of them
    tokenizer.save_pretrained(there)
    convert = ctranslate2.converters.TransformersConverter(str(there)).convert
    convert(str(folder / "ctranslate2"), quantization="int8")
    spawned = multiprocessing.get_context("spawn")
    here, away = spawned.Pipe()
    words = tokenizer.convert_ids_to_tokens(prompt)
    work = (away, str(folder / "ctranslate2"), words, tokens)
    spawned.Process(target=translate, args=work, daemon=True).start()

    def run(rows: int) -> None:
        here.send(rows)
        here.recv()

    return run


def translate(asked: Any, model: str, words: list[str], tokens: int) -> None:
    """Of a process of its own: numbers of rows come in, and go back when they are written."""
    import ctranslate2

    generator = ctranslate2.Generator(model, intra_threads=harness.THREADS)
    while rows := asked.recv():  # 0 at the end
        generator.generate_batch(
            [words] * rows, max_length=tokens, min_length=tokens, sampling_topk=1,
            include_prompt_in_result=False,
        )  # fmt: skip
        asked.send(rows)


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
    config = transformers.GPT2Config(n_layer=args.layers, n_embd=args.width, vocab_size=args.ids,
                                     n_head=max(1, args.width // 64), bos_token_id=args.ids - 1,
                                     eos_token_id=args.ids - 1, initializer_range=0.05)  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    # transformers adds the control token that ends a text, which is the last id.
    harness.byte_tokenizer(args.ids - 1).save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
