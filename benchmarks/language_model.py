"""Loss over a held-out text: ours against a GPT-2 of the nanoGPT CPU recipe in `transformers`.

The peer: 4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps, AdamW 1e-3, 100 warm-up
steps, cosine to 1e-4, no dropout, characters as tokens. Ours gets the peer's wall time as its
budget. Both losses are nats per character over the whole validation part, every character once;
the peer reads non-overlapping windows, as its recipe does.

    python benchmarks/language_model.py --data DIR [--long 5m] [--quick]
"""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path

import torch

import harness


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--long", help="a second run of ours with this budget")
    args = parser.parse_args()
    data = harness.need_data(args)
    train, valid = halves(data, args.work)
    texts = [part.read_text(encoding="utf-8") for part in (train, valid)]
    steps = 50 if args.quick else 2000
    peer_loss, peer_seconds = peer(*texts, steps, args.seed)
    budget = max(20, math.ceil(peer_seconds))
    figures = {
        "peer_nats_per_character": peer_loss,
        "peer_seconds": peer_seconds,
        **ours(args, train, valid, f"{budget}s", ""),
    }
    if args.long and not args.quick:
        figures |= ours(args, train, valid, args.long, f"_{args.long}")
    protocol = (
        "tinyshakespeare, first 90 % / last 10 %; the peer first, then `omnifill train --budget` "
        f"of the peer's wall time ({budget} s), then `omnifill evaluate`"
    )
    harness.keep("language-model", protocol, figures, ["transformers"], args.quick)


def halves(data: Path, work: Path) -> tuple[Path, Path]:
    """tinyshakespeare as two files: its first 90 % and its last 10 %."""
    text = gzip.open(data / "tinyshakespeare/input.txt.gz", "rt", encoding="utf-8").read()
    cut = int(0.9 * len(text))
    train, valid = work / "train.txt", work / "valid.txt"
    train.write_text(text[:cut], encoding="utf-8")
    valid.write_text(text[cut:], encoding="utf-8")
    return train, valid


def ours(args, train, valid, budget: str, suffix: str) -> dict[str, float]:
    run = harness.fresh(args.work / "language-model")
    seconds = harness.omnifill("train", train, "--valid", valid, "--out", run,
                               "--budget", budget, "--seed", args.seed)  # fmt: skip
    harness.omnifill("evaluate", run, valid, "--json", out=args.work / "evaluation.json")
    measures = json.loads((args.work / "evaluation.json").read_text())["fields"]["text"]
    return {
        f"ours_nats_per_character{suffix}": measures["nats_per_character"]["value"],
        f"ours_bits_per_byte{suffix}": measures["bits_per_byte"]["value"],
        f"ours_seconds{suffix}": seconds,
    }


def peer(train: str, valid: str, steps: int, seed: int) -> tuple[float, float]:
    """(nats per character, seconds of training) of the GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    torch.set_num_threads(harness.THREADS)
    letters = sorted(set(train))
    number = {c: i for i, c in enumerate(letters)}
    ids = torch.tensor([number[c] for c in train])
    held = torch.tensor([number.get(c, 0) for c in valid])
    config = GPT2Config(
        vocab_size=len(letters), n_positions=64, n_embd=128, n_layer=4, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    started = time.monotonic()
    model = GPT2LMHeadModel(config)
    optim = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(steps):
        share = min(1.0, (step - 100) / max(1, steps - 100))
        rate = 1e-3 * (step + 1) / 101 if step < 100 else (
            1e-4 + 0.45e-3 * (1 + math.cos(math.pi * share)))  # fmt: skip
        for group in optim.param_groups:
            group["lr"] = rate
        at = torch.randint(0, len(ids) - 65, (12,))
        batch = torch.stack([ids[i : i + 65] for i in at])
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
    seconds = time.monotonic() - started
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(held) - 1, 64 * 64):
            part = held[first : first + 64 * 64 + 1]
            rows = (len(part) - 1) // 64
            for x, y in _windows(part, rows):
                logits = model(x).logits
                total += float(torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), y.flatten(), reduction="sum"))  # fmt: skip
                count += y.numel()
    return total / count, seconds


def _windows(part, rows: int):
    if rows:
        yield part[: rows * 64].view(rows, 64), part[1 : rows * 64 + 1].view(rows, 64)
    if len(part) - 1 > rows * 64:
        yield part[rows * 64 : -1][None], part[rows * 64 + 1 :][None]


if __name__ == "__main__":
    main()
