"""What each field of a record is. Inference from data lives in `omnifill.data.infer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from omnifill.errors import RequestError, unknown_name

FieldType = Literal["text", "category", "number", "datetime", "image", "audio"]
MEDIA = ("image", "audio")
"""Types whose values are files of their own, and bytes where they are canonical."""

DEFAULT_CODECS: dict[str, str] = {
    "text": "bpe",
    "category": "category",
    "number": "number",
    "datetime": "datetime",
    "image": "image",
    "audio": "audio",
}
"""The codec of a field whose recipe names none."""


class FieldSpec(BaseModel):
    """One field: its name, its type and how it was understood."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str
    """One of `FieldType`, or the type that a codec given as 'module:Class' brings."""
    codec: str
    """A name from `omnifill.codecs.table`, or 'module:Class'."""
    why: str = ""
    """The reason for the type, in words, as `inspect` shows it."""
    optional: bool = False
    """Whether blanks were seen in the training part, so that <missing> is a value."""
    blank_marks: tuple[str, ...] = ()
    """Spellings beside the empty cell that stand for a blank here, such as '?' or 'NA'."""
    weight: float = 1.0
    """Weight of the field's loss, in training only."""
    max_tokens: int | None = None
    """Longest value in codes; longer ones are cut with a warning (text only)."""
    join: str | None = None
    """The separator that joined a list of strings into this field."""
    native: Literal["str", "int", "float", "bool", "datetime", "date"] = "str"
    """The Python type of the source's values, given back by `generate`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the codec needs to know: decimals, datetime format, time zone, …"""


class Schema(BaseModel):
    """The fields of a record, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[FieldSpec, ...]
    stream: bool = False
    """One text kept as a single stream: rows are pieces of it, cut anywhere."""
    left_out: tuple[str, ...] = ()
    """Columns of the training table that are no fields; later tables may have them too."""

    @property
    def names(self) -> list[str]:
        return [f.name for f in self.fields]

    def __getitem__(self, name: str) -> FieldSpec:
        for field in self.fields:
            if field.name == name:
                return field
        if name in self.left_out:
            raise RequestError(f"column {name!r} was left out when this model was trained; known: "
                               f"{', '.join(self.names)}")  # fmt: skip
        raise RequestError(unknown_name("field", name, self.names))

    def index(self, name: str) -> int:
        self[name]
        return self.names.index(name)
