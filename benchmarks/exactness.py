"""Imported checkpoints beside `transformers`: the same logits, the same likeliest tokens.

    python benchmarks/exactness.py [--prompts 1000] [--tokens 64] [--quick]

Small checkpoints with random weights, one of each architecture and kind of positions that the tests
know. Both sides write the likeliest tokens behind the same prompts, or as answers to the same
sources (T5, BART); ours through the engine of the server, many side by side, and each alone. BERT
and RoBERTa say what stands in the same gaps of texts. Where a token differs, the two likeliest of
`transformers` are looked at: within 1e-4 either is right, and such places are counted. Logits are
compared over all that was written or asked for.
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
ANSWERED = 48
"""Tokens of an answer: these checkpoints have 64 positions."""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.tokens = 20, 12
    from tests.test_encoders import SIDED, WHOLE
    from tests.test_exchange import KINDS

    figures: dict[str, Any] = {}
    ways = {**dict.fromkeys(KINDS, measured), **dict.fromkeys(SIDED, answered),
            **dict.fromkeys(WHOLE, filled)}  # fmt: skip
    for kind, way in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            figures[kind] = way(args, kind, Path(folder))
        print(kind, figures[kind], flush=True)
    protocol = (
        f"checkpoints of 3 layers of width 32, 320 ids (encoders 90), random weights, fp32; "
        f"{args.prompts} prompts of 1 to {LONGEST} tokens, {args.tokens} likeliest tokens behind "
        f"each (as answers at most {ANSWERED}; BERT, RoBERTa: a third of the tokens are gaps); "
        f"{ROWS} side by side here, and each alone, `transformers` all prompts of one length at "
        f"once (encoders: one); `excused`: the two likeliest lie within {CLOSE:g}; logits as "
        f"greatest differences"
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
    asked = [{"prompt": text} for text in texts]
    made, single = written_here(ours, asked, args.tokens), written_alone(ours, asked, args.tokens)
    out, alone = Compared(), Compared()
    for ids, there, here, one in zip(read, want, made, single, strict=True):
        there = until(there, ends)
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *there]])).logits[0].numpy()
        out.add(there, until(here, ends), logits[len(ids) - 1 :])
        alone.add(there, until(one, ends), logits[len(ids) - 1 :])
        out.beside(logits, logits_here(ours, [*ids, *there]))
    names = ("same", "excused", "different")
    return out.figures() | {f"alone / {name}": alone.figures()[name] for name in names}


def answered(args: Any, kind: str, folder: Path) -> dict[str, Any]:
    """An encoder and a decoder: sources and their answers."""
    import torch
    from tests import test_encoders as known

    from omnifill import api

    torch.set_num_threads(harness.THREADS)
    words, tokens = known.pieces(), min(args.tokens, ANSWERED)
    model = known.theirs(kind, words.get_vocab_size())
    ours = api.import_checkpoint(known.saved(folder / "hf", kind, words), folder / "run")
    lead = [] if kind.endswith("t5") else [known.START]
    forced = [] if getattr(model.config, "forced_bos_token_id", None) is None else lead
    begun = [model.config.decoder_start_token_id, *forced]
    texts = prompts(words, args.prompts, args.seed)
    made = written_here(ours, [{"given": {"source": text}} for text in texts], tokens)
    out = Compared()
    for text, here in zip(texts, made, strict=True):
        ids = torch.tensor([[*lead, *words.encode(text).ids, known.END]])
        with torch.no_grad():
            there = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                   num_beams=1, max_new_tokens=tokens + len(forced))  # fmt: skip
            there = until(there[0, len(begun) :].tolist(), {known.END})
            row = torch.tensor([[*begun, *there]])
            logits = model(ids, decoder_input_ids=row).logits[0].numpy()
        out.add(there, until(here, {known.END}), logits[len(begun) - 1 :])
        out.beside(logits, decoded_here(ours, ids, row))
    return out.figures()


def decoded_here(ours: Any, source: Any, row: Any) -> Any:
    """Logits (T, V) of the decoder, of the ids of the checkpoint. Ours has a `<bos>` in front of
    what is given, which nothing sees."""
    import torch

    from omnifill.model.mask import Mask

    network, field = ours.run.network, ours.run.vocabulary["text"]
    opened = torch.cat([torch.zeros_like(source[:, :1]), source + field.first], dim=1)
    with torch.no_grad():
        memory = network.encode(opened, torch.zeros_like(opened), None,
                                Mask("full", torch.tensor([opened.shape[1]])))  # fmt: skip
        hidden = network(row + field.first, torch.zeros_like(row), None, Mask(), memory=memory)
        out = network.head(hidden)[0, :, field.first : field.first + field.codec.size]
    return out.numpy()


def filled(args: Any, kind: str, folder: Path) -> dict[str, Any]:
    """A text that is seen as a whole: what stands in its gaps."""
    import torch
    from tests import test_encoders as known

    from omnifill import api
    from omnifill.model.mask import Mask

    torch.set_num_threads(harness.THREADS)
    words, rng, out = known.pieces(), np.random.default_rng(args.seed), Compared()
    model = known.theirs(kind, words.get_vocab_size())
    ours = api.import_checkpoint(known.saved(folder / "hf", kind, words), folder / "run")
    network, field = ours.run.network, ours.run.vocabulary["text"]
    for text in prompts(words, args.prompts, args.seed):
        inner = np.array(words.encode(text).ids)
        gaps = rng.random(len(inner)) < 1 / 3
        gaps[rng.integers(len(inner))] = True
        ids = torch.tensor([[known.START, *np.where(gaps, known.MASK, inner), known.END]])
        with torch.no_grad():
            logits = model(ids).logits[0, 1:-1][gaps].numpy()
            whole = network(ids + field.first, torch.zeros_like(ids), None,
                            Mask("full", torch.tensor([ids.shape[1]])))  # fmt: skip
            mine = network.head(whole)[0, 1:-1, field.first : field.first + field.codec.size]
        mine = mine[gaps].numpy()
        out.add(logits.argmax(axis=1).tolist(), mine.argmax(axis=1).tolist(), logits)
        out.beside(logits, mine)
    return out.figures()


class Compared:
    """What both sides wrote, counted."""

    def __init__(self) -> None:
        self.prompts = self.tokens = self.same = self.excused = self.different = 0
        self.farthest = 0.0

    def add(self, there: list[int], here: list[int], logits: Any) -> None:
        """Tokens of both sides, without what ends them, and the logits (T, V) that chose theirs."""
        self.prompts, self.tokens = self.prompts + 1, self.tokens + len(there)
        if there == here:
            self.same += 1
            return
        at = next(i for i in range(len(there) + 1) if there[: i + 1] != here[: i + 1])
        second, first = np.sort(logits[at])[-2:]
        self.excused += bool(first - second < CLOSE)
        self.different += bool(first - second >= CLOSE)

    def beside(self, theirs: Any, ours: Any) -> None:
        """Logits of both sides."""
        self.farthest = max(self.farthest, float(np.abs(theirs - ours).max()))

    def figures(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts, "tokens": self.tokens, "same": self.same,
            "excused": self.excused, "different": self.different, "logits": self.farthest,
        }  # fmt: skip


def prompts(words: Any, num: int, seed: int) -> list[str]:
    """Texts of random tokens that are read as whole characters, and as no special ones."""
    rng, out = np.random.default_rng(seed), []
    while len(out) < num:
        ids = rng.integers(3, words.get_vocab_size(), rng.integers(1, LONGEST + 1)).tolist()
        text = words.decode(ids)
        read = words.encode(text).ids
        if "�" not in text and 0 < len(read) <= LONGEST and min(read) >= 3:
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


def written_here(ours: Any, asked: Sequence[dict[str, Any]], tokens: int) -> list[list[int]]:
    """What ours writes: requests that come and go in the engine of the server."""
    from omnifill.generate.engine import Engine

    engine, numbers = Engine(ours.run, ROWS), {}
    out: list[list[int]] = [[] for _ in asked]
    waiting = list(enumerate(asked))[::-1]
    while waiting or engine.jobs:
        while waiting and engine.used < ROWS:
            number, what = waiting.pop()
            numbers[engine.add(planned(ours, what, tokens), None)] = number
        for job, step in engine.step():
            if step is not None:
                out[numbers[job]] += told(ours, step)
    return out


def written_alone(ours: Any, asked: Sequence[dict[str, Any]], tokens: int) -> list[list[int]]:
    """The same, each by itself: texts of one row go a way of their own."""
    from omnifill.generate.samplers import build_sampler

    sampler = build_sampler(ours.run)
    return [[i for step in sampler(planned(ours, what, tokens)) for i in told(ours, step)]
            for what in asked]  # fmt: skip


def planned(ours: Any, what: dict[str, Any], tokens: int) -> Any:
    """Of one request: the likeliest."""
    from omnifill.generate import requests, wishes
    from omnifill.generate.filters import Sampling

    wish = wishes.Wish(**what, max_tokens=tokens, sampling=Sampling(temperature=0))
    return requests.plan_of(ours.run, wishes.build(ours.run, wish), 0, 1)


def told(ours: Any, step: Any) -> list[int]:
    """What a step chose, as ids of the checkpoint."""
    field = ours.run.vocabulary["text"]
    return [i - field.first if i >= field.first else field.codec.ends[0] for i in step.id.tolist()]


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
