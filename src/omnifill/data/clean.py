"""Cleaning of text, neutral to language: what is not asked for is left as it is."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from omnifill.data.values import parse_many
from omnifill.errors import RecipeError
from omnifill.schema import FieldSpec
from omnifill.settings import CleanSettings

LINE_ENDS = re.compile(r"\r\n?")
TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
AS_TEXT, AS_BLANK = "read the column as text: --field {}:text", "leave it blank"
"""What to do about a bad cell: before training, and of a table that a trained run is given."""
RUNS = re.compile(r"(?<=[^\s])[ \t]{2,}(?=[^\s])")
"""Runs of blanks between words; indentation at the start of a line is kept."""


class _Visible(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("script", "style")
        if tag in ("br", "p", "div", "li", "tr"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def strip_html(text: str) -> str:
    """The text without its tags; entities resolved."""
    parser = _Visible()
    parser.feed(text)
    parser.close()
    return html.unescape("".join(parser.parts))


def fold_white_space(text: str) -> str:
    """Line ends to LF, no blanks at line ends, one blank between words, stripped ends."""
    text = LINE_ENDS.sub("\n", text)
    return RUNS.sub(" ", TRAILING.sub("", text)).strip()


def build_cleaner(
    field: FieldSpec, settings: CleanSettings, stream: bool
) -> Callable[[str], str] | None:
    """The cleaning of one field, or None if there is nothing to do.

    A stream keeps its white space: its pieces together are the text. A text that cleaning would
    empty is left as it is; only the source says what is blank.
    """
    if field.type not in ("text", "category"):
        return None
    steps: list[Callable[[str], str]] = []
    if settings.html and field.type == "text":
        steps.append(strip_html)
    if settings.nfc:
        steps.append(lambda text: unicodedata.normalize("NFC", text))
    if settings.white_space and not stream:
        steps.append(fold_white_space)
    if settings.lower and field.type == "text":
        steps.append(str.lower)
    if not steps:
        return None

    def clean(text: str) -> str:
        cleaned = text
        for step in steps:
            cleaned = step(cleaned)
        return cleaned or text

    return clean


def read_cells(
    field: FieldSpec, cells: Sequence[Any], where: Callable[[int], str], clean: CleanSettings,
    stream: bool, advice: str = AS_BLANK, folder: Path | None = None,
    broken: dict[int, str] | None = None,
) -> list[Any]:  # fmt: skip
    """Raw cells -> canonical values, cleaned as the recipe says; DataError says where one is bad.

    Training rows and the rows a model is asked about later both come through here, so that a
    value is the same value in both. `folder` and `broken`: of pictures, as `parse_many` says.
    """
    values = parse_many(field, cells, where, advice, folder, broken)
    cleaner = build_cleaner(field, clean, stream)
    return values if cleaner is None else [None if v is None else cleaner(v) for v in values]


class Repeats:
    """Finds rows that repeat an earlier one: exactly, or nearly (MinHash, by `rensa`)."""

    def __init__(self, how: str) -> None:
        self.seen: set[bytes] = set()
        self.index: Any = None
        self.num = 0
        if how == "near":
            try:
                from rensa import RMinHash, RMinHashLSH
            except ImportError:
                raise RecipeError(
                    "data.clean.duplicates = 'near' needs the extra `clean`: "
                    "pip install 'omnifill[clean]'"
                ) from None
            self.make = RMinHash
            self.index = RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16)
            self.sketches: dict[int, Any] = {}

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Remember the rows of some columns."""
        self.seen.update(map(_digest, zip(*columns.values(), strict=True)))

    def shared(self, columns: Mapping[str, Sequence[Any]]) -> int:
        """How many rows of some columns were there before."""
        return sum(_digest(row) in self.seen for row in zip(*columns.values(), strict=True))

    def is_repeat(self, row: Sequence[Any]) -> bool:
        """Whether the row was there before; remembers it if not."""
        key = _digest(row)
        if key in self.seen:
            return True
        self.seen.add(key)
        return self.index is not None and self._is_near(row)

    def _is_near(self, row: Sequence[Any]) -> bool:
        text = "\n".join("" if v is None else str(v) for v in row)
        sketch = self.make(num_perm=128, seed=1)
        sketch.update([text[i : i + 5] for i in range(max(1, len(text) - 4))])
        if any(self.sketches[i].jaccard(sketch) >= 0.8 for i in self.index.query(sketch)):
            return True
        self.index.insert(self.num, sketch)
        self.sketches[self.num] = sketch
        self.num += 1
        return False


def _digest(row: Sequence[Any]) -> bytes:
    return hashlib.blake2b(repr(row).encode("utf-8", "replace"), digest_size=16).digest()
