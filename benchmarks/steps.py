"""Masked models: quality against the number of steps, from all at once to one slot at a time.

    python benchmarks/steps.py --data DIR [--only adult] [--quick]

Rows of adult are judged as in tabular.py, beside those of a causal model of the same time. Texts of
ag_news and names of characters are read by a causal model trained apart, which tells their bits per
byte; beside it stands the entropy of their tokens, since dull texts are easily foretold. So few
steps are drawn once more at the temperature at which their entropy is that of one token at a time.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import numpy as np

import harness

STEPS = (1, 2, 4, 8, 16, 64, None)
SETS = {"adult": ("5m", "5m"), "ag_news": ("10m", "5m"), "unicode": ("2m", "2m")}
"""Budgets of the masked model and of the causal one beside it."""
TEXTS = {"ag_news": "text", "unicode": "name"}
FEW = (8, 16)
"""Steps that are also drawn at equal entropy."""
CLOSE = 0.02
"""Bits of entropy that count as equal."""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--order", default="random")
    args = parser.parse_args()
    data = harness.need_data(args)
    figures: dict[str, Any] = {}
    for name in [args.only] if args.only else SETS:
        source = "builtin:unicode" if name == "unicode" else data / name / "train.csv.gz"
        models = {}
        for objective, budget in zip(("masked", "causal"), SETS[name], strict=True):
            run = harness.fresh(args.work / f"steps-{objective}")
            harness.omnifill("train", source, "--out", run, "--budget",
                             "20s" if args.quick else budget, "--set",
                             f"objective.name={objective}", "--seed", args.seed)  # fmt: skip
            from omnifill import api

            models[objective] = api.load(run)
        if name == "adult":
            figures[name] = rows(args, models, data / name)
        else:
            figures[name] = texts(args, models, TEXTS[name])
    budgets = {name: SETS[name] for name in figures}
    protocol = (
        "`omnifill train --budget` ("
        + ", ".join(f"{n}: {masked}, causal {causal}" for n, (masked, causal) in budgets.items())
        + f"), then records drawn in so many steps, order {args.order}"
    )
    name = f"steps-{args.only}" if args.only else "steps"
    harness.keep(name, protocol, figures, ["pandas"], args.quick)


def drawings(args, models) -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, model, sampling options)."""
    fields = models["masked"].run.vocabulary.fields
    most = sum(field.slots or 512 for field in fields)  # more steps than that are refused
    out = [
        (f"{steps or 'all'} steps", models["masked"], {"steps": steps, "order": args.order})
        for steps in STEPS
        if steps is None or steps <= most
    ]
    return [*out, ("causal", models["causal"], {})]


def rows(args, models, folder) -> dict[str, Any]:
    figures = {}
    made = args.work / "made.csv"
    for name, model, options in drawings(args, models):
        started = time.monotonic()
        table = model.generate(500 if args.quick else 10_000, seed=args.seed, **options)
        spent = time.monotonic() - started
        table.to_csv(made, index=False)
        judged = harness.judge(args, "tabular.py", folder / "train.csv.gz", folder / "test.csv.gz",
                               made, "--target", "income")  # fmt: skip
        figures[name] = {"rows_per_second": len(table) / spent, **judged}
    return figures


def texts(args, models, field: str) -> dict[str, Any]:
    figures = {
        name: drawn(args, models, field, model, options)
        for name, model, options in drawings(args, models)
    }
    goal = figures["all steps"]["token_entropy_bits"]
    for steps in FEW:
        options = {"steps": steps, "order": args.order}
        figures[f"{steps} steps at equal entropy"] = at_entropy(args, models, field, options, goal)
    return figures


def drawn(args, models, field: str, model, options) -> dict[str, float]:
    """Texts of a model, read by the causal one."""
    judge = models["causal"]
    codec = judge.run.vocabulary[field].codec
    started = time.monotonic()
    table = model.generate(20 if args.quick else 300, seed=args.seed, **options)
    spent = time.monotonic() - started
    table = table[table[field].notna()]
    nats = -judge.score(table)[field].sum()
    size = sum(len(text.encode()) for text in table[field])
    counts = Counter(int(c) for text in table[field] for c in codec.encode(text))
    share = np.array(list(counts.values())) / sum(counts.values())
    return {
        "texts_per_second": len(table) / spent,
        "bits_per_byte": nats / math.log(2) / max(size, 1),
        "token_entropy_bits": float(-(share * np.log2(share)).sum()),
    }


def at_entropy(args, models, field: str, options, goal: float) -> dict[str, float]:
    """The same at the temperature whose tokens have that entropy, found by halving."""
    low, high = 0.5, 1.5
    for _ in range(3 if args.quick else 7):
        middle = (low + high) / 2
        options = {**options, "temperature": middle}
        found = drawn(args, models, field, models["masked"], options)
        if abs(found["token_entropy_bits"] - goal) < CLOSE:
            break
        if found["token_entropy_bits"] > goal:
            high = middle
        else:
            low = middle
    return found | {"temperature": middle}


if __name__ == "__main__":
    main()
