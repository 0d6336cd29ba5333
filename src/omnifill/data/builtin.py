"""The built-in data set `unicode`: the named characters of Python's own `unicodedata`.

Real, multilingual, mixed in type, and on every machine. Characters whose names are only their
number or their spelling (CJK ideographs, Hangul syllables, Tangut, …) are left out. The standard
library knows no scripts, so `script` is the first word of the name where many names share it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter

import pandas as pd

FORMULAIC = re.compile(r"(-[0-9A-F]{4,5}$)|^HANGUL SYLLABLE |^CJK COMPATIBILITY IDEOGRAPH")
COMMON = 20
"""Names that must share a first word for it to count as a script."""
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
