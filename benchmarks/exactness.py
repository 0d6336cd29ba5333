"""Imported checkpoints beside `transformers`: the same logits, the same likeliest tokens.

    python benchmarks/exactness.py [--prompts 1000] [--tokens 64] [--quick]

Small checkpoints with random weights, one of each architecture and kind of positions that the tests
know. Both sides write the likeliest tokens behind the same prompts; ours through the engine of the
server, many side by side. Where a token differs, the two likeliest of `transformers` are looked at:
within 1e-4 either is right, and such places are counted. Logits are compared over all that was
written.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import harness

sys.path.insert(0, str(harness.HERE.parent))
CLOSE = 1e-4
LONGEST = 20
"""Tokens of a prompt."""
ROWS = 32


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.tokens = 20, 12
    from tests.test_exchange import KINDS

    figures: dict[str, Any] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            figures[kind] = measured(args, kind, Path(folder))
        print(kind, figures[kind], flush=True)
    protocol = (
        f"checkpoints of 3 layers of width 32, 320 ids, random weights, fp32; {args.prompts} "
        f"prompts of 1 to {LONGEST} tokens, {args.tokens} likeliest tokens behind each; {ROWS} "
        f"side by side here, `transformers` all prompts of one length at once; `excused`: the two "
        f"likeliest lie within {CLOSE:g}; logits as greatest differences"
    )
    harness.keep("exactness", protocol, figures, ["transformers"], args.quick)


def measured(args: Any, kind: str, folder: Path) -> dict[str, Any]:
    import torch
    from tests.test_exchange import BOS, END, OPENED, saved, theirs, tokenizer_of_bytes

    from omnifill import api

    torch.set_num_threads(harness.THREADS)
    words = tokenizer_of_bytes()
    model, opened = theirs(kind, words.get_vocab_size()), kind in OPENED
    ours = api.import_checkpoint(saved(folder / "hf", model, words, opened), folder / "run")
    texts = prompts(words, args.prompts, args.seed)
    read = [[BOS] * opened + words.encode(t, add_special_tokens=False).ids for t in texts]
    ends = {END, model.config.eos_token_id}
    want = written_there(model, read, args.tokens, END)
    made = written_here(ours, texts, args.tokens)
    same = excused = different = 0
    farthest = 0.0
    for ids, there, here in zip(read, want, made, strict=True):
        there, here = until(there, ends), until(here, ends)
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *there]])).logits[0].numpy()
        farthest = max(farthest, float(np.abs(logits - logits_here(ours, [*ids, *there])).max()))
        if there == here:
            same += 1
            continue
        at = next(i for i in range(len(there) + 1) if there[: i + 1] != here[: i + 1])
        second, first = np.sort(logits[len(ids) + at - 1])[-2:]
        excused += first - second < CLOSE
        different += first - second >= CLOSE
    tokens = sum(len(until(t, ends)) for t in want)
    return {"prompts": len(read), "tokens": tokens, "same": same, "excused": int(excused),
            "different": int(different), "logits": farthest}  # fmt: skip


def prompts(words: Any, num: int, seed: int) -> list[str]:
    """Texts of random tokens that are read as whole characters."""
    rng, out = np.random.default_rng(seed), []
    while len(out) < num:
        ids = rng.integers(3, words.get_vocab_size(), rng.integers(1, LONGEST + 1)).tolist()
        text = words.decode(ids)
        if "�" not in text and 0 < len(words.encode(text).ids) <= LONGEST:
            out.append(text)
    return out


def written_there(model: Any, read: Sequence[list[int]], tokens: int, end: int) -> list[list[int]]:
    """What `transformers` writes behind each prompt."""
    import torch

    out: list[list[int]] = [[] for _ in read]
    for size in sorted({len(ids) for ids in read}):
        which = [i for i, ids in enumerate(read) if len(ids) == size]
        given = torch.tensor([read[i] for i in which])
        made = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False,
                              max_new_tokens=tokens, pad_token_id=end)  # fmt: skip
        for i, ids in zip(which, made[:, size:].tolist(), strict=True):
            out[i] = ids
    return out


def written_here(ours: Any, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """What ours writes: requests that come and go in the engine of the server."""
    from omnifill.generate import requests, wishes
    from omnifill.generate.engine import Engine
    from omnifill.generate.filters import Sampling

    engine, numbers = Engine(ours.run, ROWS), {}
    out: list[list[int]] = [[] for _ in texts]
    first, waiting = ours.run.vocabulary["text"].first, list(enumerate(texts))[::-1]
    codec = ours.run.vocabulary["text"].codec
    while waiting or engine.jobs:
        while waiting and engine.used < ROWS:
            number, text = waiting.pop()
            wish = wishes.Wish(prompt=text, max_tokens=tokens, sampling=Sampling(temperature=0))
            request = wishes.build(ours.run, wish)
            numbers[engine.add(requests.plan_of(ours.run, request, 0, 1), None)] = number
        for job, step in engine.step():
            if step is not None:
                for i in step.id.tolist():
                    out[numbers[job]].append(i - first if i >= first else codec.ends[0])
    return out


def logits_here(ours: Any, ids: list[int]) -> Any:
    """Of all ids of the checkpoint, behind each of these."""
    import torch

    from omnifill.form.vocabulary import BOS
    from omnifill.model.mask import Mask

    run = ours.run
    field = run.vocabulary["text"]
    opens = run.network.config.opens
    coded = [BOS] + [i + field.first for i in (ids[1:] if opens else ids)]
    row = torch.tensor([coded])
    with torch.no_grad():
        hidden = run.network(row, torch.zeros_like(row), None, Mask("causal"))
        out = hidden @ run.network.head.weight.T
    size = field.codec.size
    return out[0, (0 if opens else 1) :, field.first : field.first + size].numpy()


def until(ids: Sequence[int], ends: set[int]) -> list[int]:
    """Up to what ends a text, without it."""
    return list(ids[: next((n for n, i in enumerate(ids) if i in ends), len(ids))])


if __name__ == "__main__":
    main()
