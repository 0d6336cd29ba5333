"""One stream of a million tokens: does memory stay as it is?

    python benchmarks/endless.py --data DIR [--only rnn] [--tokens 1000000] [--quick]

The recurrent and the convolutional network, trained for a while on tinyshakespeare, stream a text;
the memory of the process is read while it goes on.
"""

from __future__ import annotations

import gzip
import resource
import time

import harness

BACKBONES = ("rnn", "cnn")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=BACKBONES)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=200, help="of training")
    args = parser.parse_args()
    data = harness.need_data(args)
    tokens, steps = (2000, 20) if args.quick else (args.tokens, args.steps)
    text = args.work / "shakespeare.txt"
    text.write_bytes(gzip.open(data / "tinyshakespeare/input.txt.gz").read())
    figures = {}
    for backbone in [args.only] if args.only else BACKBONES:
        run = harness.fresh(args.work / f"endless-{backbone}")
        harness.omnifill("train", text, "--out", run, "--steps", steps,
                         "--set", f"model.backbone={backbone}", "--set", "model.dim=64",
                         "--set", "model.layers=2")  # fmt: skip
        figures[backbone] = streamed(run, tokens, args.seed)
    protocol = (
        f"`omnifill train --steps {steps}`, of two layers of width 64, then one stream of "
        f"{tokens:,} tokens in one thread, its steps compiled; the largest resident memory after "
        "a tenth of them and at the end"
    )
    harness.keep(f"endless-{args.only or 'all'}", protocol, figures, quick=args.quick)


def streamed(run, tokens: int, seed: int) -> dict[str, float]:
    import torch

    from omnifill import api

    torch.set_num_threads(1)  # layers of this size are no faster with two
    model = api.load(run).compiled()
    started, characters, early = time.monotonic(), 0, 0.0
    for number, piece in enumerate(model.stream(prompt="ROMEO:", max_tokens=tokens, seed=seed)):
        characters += len(piece)
        if number == tokens // 10:
            early = most_memory()
    spent = time.monotonic() - started
    return {"tokens": number + 1, "characters": characters, "tokens_per_second": number / spent,
            "megabytes_after_a_tenth": early, "megabytes_at_the_end": most_memory()}  # fmt: skip


def most_memory() -> float:
    """Megabytes: the most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
