"""The built-in data sets: `unicode`, the named characters of Python's own `unicodedata`, and
`glyphs`, those that a font has and how it draws them.

Real, multilingual, mixed in type, and on every machine (the font comes with matplotlib, the extra
`report`). Characters whose names are only their number or their spelling (CJK ideographs, Hangul
syllables, Tangut, …) are left out. The standard library knows no scripts, so `script` is the first
word of the name where many names share it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from omnifill.errors import DataError

FORMULAIC = re.compile(r"(-[0-9A-F]{4,5}$)|^HANGUL SYLLABLE |^CJK COMPATIBILITY IDEOGRAPH")
COMMON = 20
"""Names that must share a first word for it to count as a script."""
SIDE, SIZE, BASE = 18, 13, 15
"""Pixels of a drawing, of its font, and from the top to the base of the letters."""
NO_CHARACTER = "\U0010ffff"
"""Drawn as whatever a font does not have."""
WIDTHS = {"N": "neutral", "A": "ambiguous", "H": "half", "W": "wide", "F": "full", "Na": "narrow"}


def unicode_records(limit: int | None = None) -> pd.DataFrame:
    """About 32,000 records in code-point order, or the first `limit` of them."""
    named = []
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        name = unicodedata.name(char, "")
        if name and not FORMULAIC.search(name):
            named.append((code, char, name))
    first = Counter(name.split()[0].partition("-")[0] for _, _, name in named)
    rows = []
    for code, char, name in named[:limit]:
        word = name.split()[0].partition("-")[0]
        rows.append({
            "name": name,
            "category": unicodedata.category(char),
            "script": word if first[word] >= COMMON else "OTHER",
            "width": WIDTHS[unicodedata.east_asian_width(char)],
            "direction": unicodedata.bidirectional(char) or "none",
            "numeric": unicodedata.numeric(char, None),
            "codepoint": code,
            "char": char if unicodedata.category(char)[0] != "C" else None,
        })  # fmt: skip
    return pd.DataFrame(rows)


def glyph_records() -> pd.DataFrame:
    """About 5,500 records: name, category, script, and a drawing of 18 × 18 pixels, all white or
    black.

    DataError without the font.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(_font_file(), SIZE, layout_engine=ImageFont.Layout.BASIC)

    def drawn(char: str) -> np.ndarray:
        picture = Image.new("1", (SIDE, SIDE))
        ImageDraw.Draw(picture).text((SIDE // 2, BASE), char, fill=1, font=font, anchor="ms")
        return np.array(picture.convert("L"))

    none = drawn(NO_CHARACTER)
    frame = unicode_records()
    frame = frame[frame["char"].notna()][["name", "category", "script", "char"]]
    glyphs = [
        drawn(char) if font.getlength(char) <= SIDE else none for char in frame["char"].tolist()
    ]
    there = [bool(glyph.any()) and not np.array_equal(glyph, none) for glyph in glyphs]
    whole = frame.drop(columns="char").assign(glyph=pd.Series(glyphs, frame.index, dtype=object))
    return whole[there].reset_index(drop=True)


def _font_file() -> str:
    """DejaVu Sans, out of matplotlib, which is found and not imported."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise DataError(
            "builtin:glyphs is drawn with a font of matplotlib: pip install 'omnifill[report]'"
        )
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    if not path.exists():
        raise DataError(f"builtin:glyphs: {path} is not there; install matplotlib again")
    return str(path)


DATA_SETS: dict[str, Callable[[], pd.DataFrame]] = {
    "builtin:unicode": unicode_records, "builtin:glyphs": glyph_records,
}  # fmt: skip
