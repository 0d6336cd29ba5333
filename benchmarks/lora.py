"""LoRA on a checkpoint of 124 million weights, beside `peft` with `transformers`.

    python benchmarks/lora.py [--layers 12 --width 768] [--quick]

Both sides train the same additions to the same random weights, a Llama's, on rows of as many tokens
of the same text, each in a process of its own, in turns. The figures are tokens a second over the
first ten steps and the most memory that the process ever had.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

ROUNDS, ROWS, LENGTH, RANK, ALPHA = 2, 8, 128, 8, 16
TARGETS = ["q_proj", "v_proj"]
TEXT = "The committee met on Monday to discuss the budget for the coming year. "
STEPS = 10
"""As many as are told of together in metrics.jsonl."""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--side", choices=SIDES, help="train that side alone, in --work")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.width = 2, 128
    if args.side:
        print(json.dumps(SIDES[args.side](args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.work = Path(folder)
        figures = measured(args)
    protocol = (
        f"Llama of {args.layers} layers of width {args.width}, 50,257 ids, random weights, fp32; "
        f"rank {RANK} at {' and '.join(TARGETS)}; {STEPS} steps of {ROWS} × {LENGTH} tokens; "
        f"the better of {ROUNDS} rounds in turns; `peft` in a plain loop around `transformers`, "
        f"with AdamW; memory is the greatest resident size"
    )
    harness.keep("lora", protocol, figures, ["transformers", "peft"], args.quick)


def measured(args: Any) -> dict[str, Any]:
    made(args)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side, rounds in found.items():
            rounds.append(alone(args, side))
            print(side, rounds[-1], file=sys.stderr, flush=True)
    best = {side: max(r["tokens_per_second"] for r in rounds) for side, rounds in found.items()}
    most = {side: min(r["gigabytes"] for r in rounds) for side, rounds in found.items()}
    return {
        **{f"{side}_tokens_per_second": best[side] for side in SIDES},
        **{f"{side}_gigabytes": most[side] for side in SIDES},
        "times_as_fast": best["omnifill"] / best["peft"],
        "of_its_memory": most["omnifill"] / most["peft"],
    }


def alone(args: Any, side: str) -> dict[str, float]:
    """One side in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": str(harness.THREADS)}
    words = ["--layers", args.layers, "--width", args.width]
    command = [sys.executable, __file__, "--side", side, "--work", args.work, *words]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, env=env)
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0)
        if status:
            sys.exit(f"{side} failed")
        figures: dict[str, float] = json.loads(out.read().splitlines()[-1])
    return {**figures, "gigabytes": used.ru_maxrss / 1e6}


def made(args: Any) -> None:
    """The checkpoint, and a text whose bytes are its tokens."""
    import torch
    import transformers

    torch.manual_seed(args.seed)
    heads = max(1, args.width // 64)
    config = transformers.LlamaConfig(
        vocab_size=50_257, hidden_size=args.width, intermediate_size=args.width * 8 // 3,
        num_hidden_layers=args.layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=LENGTH, bos_token_id=50_255, eos_token_id=50_256,
        tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(args.work / "hf")
    harness.byte_tokenizer().save(str(args.work / "hf" / "tokenizer.json"))
    (args.work / "text.txt").write_text(TEXT * 2000, encoding="utf-8")


def omnifill(args: Any) -> dict[str, float]:
    from omnifill import api

    run = harness.fresh(args.work / "run")
    recipe = api.build_recipe(None, **{
        "train.base": str(args.work / "hf"), "train.lora.rank": RANK, "train.lora.alpha": ALPHA,
        "train.lora.targets": TARGETS, "train.steps": STEPS, "train.precision": "fp32",
        "train.batch_tokens": ROWS * LENGTH, "model.context": LENGTH,
        "train.eval_every": STEPS, "data.split.valid": 0.01, "data.split.test": 0.0,
    })  # fmt: skip
    api.train(args.work / "text.txt", run, recipe=recipe)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    whole = next(line for line in lines if line["step"] == STEPS)
    return {"tokens_per_second": whole["tokens_per_second"]}


def peft(args: Any) -> dict[str, float]:
    import peft as theirs
    import torch
    import transformers

    torch.set_num_threads(harness.THREADS)
    model = theirs.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(args.work / "hf"),
        theirs.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM"),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    ids = torch.frombuffer(bytearray(TEXT.encode() * 2000), dtype=torch.uint8).long()
    started = time.monotonic()
    for step in range(STEPS):
        batch = ids[step * ROWS * LENGTH :][: ROWS * LENGTH].view(ROWS, LENGTH)
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"tokens_per_second": STEPS * ROWS * LENGTH / (time.monotonic() - started)}


SIDES = {"omnifill": omnifill, "peft": peft}


if __name__ == "__main__":
    main()
