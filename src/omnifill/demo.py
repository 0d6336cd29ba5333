"""`omnifill demo`: the main job on built-in data, step by step, showing each command's result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from omnifill import api
from omnifill.data.builtin import SIDE, glyph_records, unicode_records
from omnifill.errors import DataError
from omnifill.evaluate.run import render
from omnifill.types import Bools

FEW_STEPS = 250
"""Fewer say little about what can be learned."""
BLANKED = ("category", "script", "width", "direction")
ACCENTED = r"(LATIN (?:SMALL|CAPITAL) LETTER [A-Z])(?: WITH ((?:(?! AND ).)+))?$"
"""A letter, and what stands on or below it, if anything."""
UNSEEN = 40
"""Letters with an accent that are kept aside."""
SHOWN = 4
"""Of these, drawn in the terminal."""
LETTERS = {
    "data.split.column": "part",
    "schema.fields.glyph.codec": "pixels",
    "schema.fields.glyph.options": {"stride": 3},
}  # fmt: skip
"""Squares of 3 × 3 pixels, exactly."""


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
    _letters(out / "letters", budget, say)
    say(f"\ndone in {time.monotonic() - started:.0f} s. Try next, on your own file:")
    say("   omnifill inspect my.csv")
    say("   omnifill train my.csv --out my-run --budget 5m")
    say("   omnifill generate my-run -n 10 --format csv")


def _letters(out: Path, budget: str, say: Callable[[str], None]) -> None:
    """Train on the names of letters and how they are drawn; draw, and read, those it never saw."""
    say("\n7. name -> drawing and drawing -> name, of letters with accents that it has not seen")
    say("   (each letter, and each accent, it has)")
    try:
        table = letters()
    except DataError as error:
        say(f"   left out: {error}")
        return
    recipe = api.build_recipe(None, **LETTERS)
    model = api.train(table, out, budget=budget, recipe=recipe)
    unseen = table[table["part"] == "test"].drop(columns="part").reset_index(drop=True)
    made = model.fill(unseen.assign(glyph=None))["glyph"]
    told = model.fill(unseen.assign(name=None))["name"]
    asked, drawn, real = (
        _black(glyphs.tolist()) for glyphs in (unseen["glyph"], made, table["glyph"])
    )
    off = (asked != drawn).sum(axis=(1, 2))
    nearest = (drawn[:, None] != real).sum(axis=(2, 3)).min(axis=1)
    say(side_by_side(asked[:SHOWN]))
    say("   as the font draws them (above), and as the model does:")
    say(side_by_side(drawn[:SHOWN]))
    names = pd.DataFrame({"drawn": unseen["name"], "read as": told})
    _show(names[:SHOWN], say)
    letter = [str(read).startswith(name.partition(" WITH ")[0])
              for read, name in zip(told, unseen["name"], strict=True)]  # fmt: skip
    say(f"   of {len(unseen)} drawings {(off == nearest).sum()} are nearest to their own letter of "
        f"{len(table)}, and {(off == 0).sum()} equal it;")  # fmt: skip
    say(f"   of {len(unseen)} names {(told == unseen['name']).sum()} are read whole, "
        f"{sum(letter)} with the right letter")  # fmt: skip


def letters() -> pd.DataFrame:
    """Latin letters of at most one accent: name, glyph, and the part that each is of; those kept
    aside have a letter and an accent that others have, too. DataError without the font."""
    table = glyph_records()[["name", "glyph"]].assign(part="train")
    table = table[table["name"].str.fullmatch(ACCENTED)].reset_index(drop=True)
    parts = table["name"].str.extract(ACCENTED).dropna()
    for row in np.random.default_rng(0).permutation(parts.index).tolist():
        others = parts.drop(index=row)
        if all((others[axis] == parts.at[row, axis]).sum() > 1 for axis in (0, 1)):
            table.at[row, "part"] = "test"
            parts = others
        if (table["part"] == "test").sum() == UNSEEN:
            break
    return table


def _black(glyphs: Sequence[object]) -> Bools:
    """Drawings -> (N, SIDE, SIDE)."""
    pixels = np.stack([np.asarray(glyph) for glyph in glyphs])
    return pixels.reshape(len(pixels), SIDE, SIDE, -1)[..., 0] > 127


def side_by_side(drawings: Bools) -> str:
    """Drawings as text, two rows of pixels in a line."""
    wide = np.concatenate([*drawings], axis=1)
    upper, lower = wide[::2].astype(int), wide[1::2].astype(int)
    lines = ("".join(" ▀▄█"[a + 2 * b] for a, b in zip(*rows, strict=True))
             for rows in zip(upper, lower, strict=True))  # fmt: skip
    return "\n".join("   " + line.rstrip() for line in lines)


def _show(table: pd.DataFrame, say: Callable[[str], None]) -> None:
    text = table.fillna("").to_string(index=False, max_colwidth=44)
    say("\n".join("   " + line for line in text.splitlines()) + "\n")
