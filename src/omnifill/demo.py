"""`omnifill demo`: the main job on built-in data, step by step, showing each command's result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from omnifill import api
from omnifill.data.builtin import unicode_records
from omnifill.evaluate.run import render

FEW_STEPS = 250
"""Fewer say little about what can be learned."""
BLANKED = ("category", "script", "width", "direction")


def run_demo(out: Path, budget: str, say: Callable[[str], None]) -> None:
    """Train on `builtin:unicode`, then generate, fill and evaluate."""
    started = time.monotonic()
    say(f"1. train a model of 32,000 named characters for {budget}")
    say(f"   $ omnifill train builtin:unicode --out {out} --budget {budget}")
    # The code point says which row it is, and the data is in its order: nothing to learn there.
    recipe = api.build_recipe(None, **{"data.drop": ["codepoint"]})
    model = api.train("builtin:unicode", out, budget=budget, recipe=recipe, started=started)
    state = model.run.folder.read_state()["training"]
    few = "; so few make poor records: try --budget 5m" if state["steps"] < FEW_STEPS else ""
    say(f"   {state['steps']} steps, validation loss {state['valid']:.3f} nats a token{few}\n")
    say("2. new records, from nothing")
    say(f"   $ omnifill generate {out} -n 5")
    _show(model.generate(5, seed=1), say)
    say("3. name -> category, script and width")
    name = "LATIN SMALL LETTER Q WITH CIRCUMFLEX"
    say(f"   $ omnifill generate {out} --given 'name={name}' --want category,script,width")
    _show(model.generate(1, given={"name": name}, want=["category", "script", "width"]), say)
    say("4. category and script -> new names")
    say(f"   $ omnifill generate {out} -n 4 --given category=Lu --given script=GREEK --want name")
    _show(model.generate(4, given={"category": "Lu", "script": "GREEK"}, want=["name"]), say)
    say("5. a table with holes, filled (holes were: every fourth cell)")
    # A character without a numeric value is no hole: that column stays out.
    table = unicode_records().drop(columns=["codepoint", "numeric"]).sample(8, random_state=3)
    holes = table.reset_index(drop=True)
    for i in range(len(holes)):
        holes.loc[i, BLANKED[i % 4]] = None
    _show(holes, say)
    _show(model.fill(holes), say)
    say("6. how good is it, on records that it has not seen?")
    say(f"   $ omnifill evaluate {out}")
    say(render(model.evaluate()))
    say(f"\ndone in {time.monotonic() - started:.0f} s. Try next, on your own file:")
    say("   omnifill inspect my.csv")
    say("   omnifill train my.csv --out my-run --budget 5m")
    say("   omnifill generate my-run -n 10 --format csv")


def _show(table: pd.DataFrame, say: Callable[[str], None]) -> None:
    text = table.fillna("").to_string(index=False, max_colwidth=44)
    say("\n".join("   " + line for line in text.splitlines()) + "\n")
