"""What comes from the API, put together for showing: no Gradio and no HTTP here."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

KINDS = ((0.9, "sure"), (0.5, "rather"), (0.1, "hardly"), (0.0, "rare"))


@dataclass
class Shown:
    """What is shown of one request; the history keeps it, to show it again."""

    copies: dict[str, str]
    """The same elsewhere: command, python, curl."""
    has_text: bool
    """Whether a text was wanted."""
    has_pictures: bool
    state: str = ""
    text: str = ""
    likely: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    """Files, as those of sounds."""
    sounds: list[str] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    csv: str | None = None
    """A file of the table, where it has rows."""
    ranked: pd.DataFrame = field(default_factory=pd.DataFrame)


class Results:
    """The records of one request as they come."""

    def __init__(self, about: Mapping[str, Any], want: list[str], rows: int) -> None:
        self.kinds = {one["name"]: one["type"] for one in about["fields"]}
        self.texts = [name for name in want if self.kinds[name] == "text"]
        self.rows = rows
        self.pieces: dict[tuple[int, str], str] = {}
        self.tokens: list[tuple[str, float]] = []
        self.records: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, int] = {}
        self.warnings: list[str] = []
        self.count = 0

    def read(self, event: Mapping[str, Any]) -> None:
        """One event of the stream."""
        if event["object"] == "record":
            self.records[event["row"]] = event["record"]
        elif event["object"] == "record.end":
            self.usage, self.warnings = event["usage"], event["warnings"]
        else:
            self.count += 1
            place = event["row"], event["field"]
            if place[1] in self.texts:
                self.pieces[place] = self.pieces.get(place, "") + event.get("text", "")
                if place[0] == 0:
                    self.tokens += [(one["text"], one["log_prob"])
                                    for one in event.get("tokens", ())]  # fmt: skip

    def text(self, prompt: str = "") -> str:
        """All texts; whose each is, is said where there are several."""
        if self.rows == 1 and len(self.texts) == 1:
            return prompt + self.pieces.get((0, self.texts[0]), "")
        parts = []
        for (row, name), piece in sorted(self.pieces.items(), key=lambda one: one[0][0]):
            begun = prompt if name == self.texts[0] else ""
            parts.append(f"{row + 1} · {name}: {begun}{piece}")
        return "\n\n".join(parts)

    def table(self, media: str) -> pd.DataFrame:
        """The whole records. `media`: what stands for a picture or sound."""
        rows = [
            {name: media if _is_media(value) else value for name, value in record.items()}
            for _, record in sorted(self.records.items())
        ]
        return pd.DataFrame(rows, dtype=object)

    def files(self, folder: Path, kind: str) -> list[str]:
        """Pictures or sounds of a field type, each written to a file of `folder`."""
        out = []
        for row, record in sorted(self.records.items()):
            for number, (name, value) in enumerate(record.items()):
                if self.kinds[name] == kind and _is_media(value) and "format" in value:
                    path = folder / f"{row}-{number}.{value['format']}"
                    path.write_bytes(base64.b64decode(value["data"]))
                    out.append(str(path))
        return out

    def likely(self) -> list[tuple[str, str]]:
        """Tokens of the first record, each with the name of how likely it was."""
        out: list[tuple[str, str]] = []
        for text, log_prob in self.tokens:
            if text:
                kind = next(kind for least, kind in KINDS if math.exp(log_prob) >= least)
                out.append((text, kind))
        return out

    def ranked(self, scores: Sequence[Mapping[str, Any]], row: str, score: str) -> pd.DataFrame:
        """Records by how likely they are. `row`, `score`: names of the columns."""
        order = sorted(range(len(scores)), key=lambda i: -scores[i]["row"])
        return pd.DataFrame([
            {row: i + 1, score: round(scores[i]["row"], 3)}
            | {name: round(value, 3) for name, value in scores[i]["fields"].items()}
            for i in order
        ])  # fmt: skip


def write_csv(table: pd.DataFrame, path: Path) -> str:
    """A table as CSV, in UTF-8 that spreadsheets recognise."""
    table.to_csv(path, index=False, encoding="utf-8-sig")
    return str(path)


def _is_media(value: Any) -> bool:
    return isinstance(value, dict) and "data" in value
