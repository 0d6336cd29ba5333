"""`omnifill demo`: the main job on built-in data, step by step, showing each command's result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from omnifill import api
from omnifill.data.builtin import unicode_records
from omnifill.data.image import ImageShape, to_image
from omnifill.errors import RunError
from omnifill.evaluate.run import render
from omnifill.prepare import staged_columns
from omnifill.types import Floats

HALVES = " ▄▀█"
"""A character for two pixels, one above the other."""
SHOWN = 3
BLANKED = ("category", "script", "width", "direction")


def run_demo(out: Path, budget: str, say: Callable[[str], None]) -> None:
    """Train on `builtin:unicode`, then generate, fill and evaluate; the same with drawings of
    `builtin:glyphs`, where their font is."""
    started = time.monotonic()
    drawings = out.with_name(f"{out.name}-glyphs")
    for folder in (out, drawings):
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder}: holds files already; choose another --out, or delete it")
    say(f"1. train a model of 32,000 named characters for {budget}")
    say(f"   $ omnifill train builtin:unicode --out {out} --budget {budget}")
    # The code point says which row it is, and the data is in its order: nothing to learn there.
    recipe = api.build_recipe(None, **{"data.drop": ["codepoint"]})
    model = api.train("builtin:unicode", out, budget=budget, recipe=recipe, started=started)
    state = model.run.folder.read_state()["training"]
    say(f"   {state['steps']} steps, validation loss {state['valid']:.3f} nats a token\n")
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
    _glyphs(drawings, budget, say)
    say(f"\ndone in {time.monotonic() - started:.0f} s. Try next, on your own file:")
    say("   omnifill inspect my.csv")
    say("   omnifill train my.csv --out my-run --budget 5m")
    say("   omnifill generate my-run -n 10 --format csv")


def _glyphs(out: Path, budget: str, say: Callable[[str], None]) -> None:
    """How characters are drawn, and what drawings are called: ones that it has not seen."""
    say(f"\n7. pictures: how some 5,500 characters are drawn, for {budget}")
    if find_spec("matplotlib") is None:
        say("   (left out: the font comes with the extra, pip install 'omnifill[report]')")
        return
    say(f"   $ omnifill train builtin:glyphs --out {out} --budget {budget}")
    model = api.train("builtin:glyphs", out, budget=budget)
    unseen = pd.DataFrame(staged_columns(model.run.folder, "test"))
    shape = ImageShape.of(model.run.schema["glyph"].options)
    letters = unseen[unseen["name"].str.contains("LETTER .* WITH ")].reset_index(drop=True)
    say(f"8. name -> drawing, of {len(letters)} unseen letters with accents; then back")
    made = model.fill(letters[["name"]].assign(glyph=None))["glyph"]
    told = model.fill(
        pd.DataFrame({"glyph": [to_image(v, shape) for v in letters["glyph"]], "name": None})
    )["name"]
    for row in range(min(SHOWN, len(letters))):
        say(f"   {letters['name'][row]}: the font's, ours; read back: {told[row]}")
        say(_drawn(to_image(letters["glyph"][row], shape), made[row]))
    names, truth = unseen["name"].tolist(), _pixels(unseen["glyph"])
    nearer = []
    for name, ours in zip(letters["name"], _pixels([p.tobytes() for p in made]), strict=True):
        apart = np.abs(truth - ours).mean(axis=1)
        nearer.append(int((apart < apart[names.index(name)]).sum()))
    first, five = (np.mean(np.array(nearer) < most) for most in (1, 5))
    say(f"   of {len(unseen)} unseen drawings the font's own is the nearest to ours in "
        f"{first:.0%}, among the nearest five in {five:.0%}")  # fmt: skip
    words = [_shared(a, b) for a, b in zip(told, letters["name"], strict=True)]
    say(f"   words of names read back rightly: {np.mean(words):.0%}")


def _pixels(values: Iterable[bytes]) -> Floats:
    """(n, pixels) of canonical pictures."""
    return np.stack([np.frombuffer(value, np.uint8).astype(float) for value in values])


def _shared(told: str, name: str) -> float:
    """Share of a name's words that stand in what was told, in their place."""
    words, answers = name.split(), told.split()
    return sum(a == b for a, b in zip(words, answers, strict=False)) / max(len(words), len(answers))


def _drawn(*pictures: Image.Image) -> str:
    """Pictures side by side, two pixels to a character."""
    whole = np.concatenate([np.array(picture.convert("L")) for picture in pictures], axis=1) > 127
    rows = range(0, len(whole) - 1, 2)
    lines = ["".join(HALVES[2 * int(a) + int(b)] for a, b in zip(*whole[i : i + 2], strict=True))
             for i in rows]  # fmt: skip
    return "\n".join("   " + line.rstrip() for line in lines if line.strip())


def _show(table: pd.DataFrame, say: Callable[[str], None]) -> None:
    text = table.fillna("").to_string(index=False, max_colwidth=44)
    say("\n".join("   " + line for line in text.splitlines()) + "\n")
