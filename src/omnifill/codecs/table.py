"""The literal table of codecs. Nothing is imported until it is chosen."""

from __future__ import annotations

from typing import cast

from omnifill.errors import RecipeError, unknown_name
from omnifill.named import load_class
from omnifill.types import Codec

CODECS: dict[str, str] = {
    "bpe": "omnifill.codecs.text:BpeCodec",
    "characters": "omnifill.codecs.characters:CharacterCodec",
    "pretrained": "omnifill.codecs.pretrained:PretrainedCodec",
    "category": "omnifill.codecs.category:CategoryCodec",
    "number": "omnifill.codecs.number:NumberCodec",
    "datetime": "omnifill.codecs.datetime:DatetimeCodec",
    "audio": "omnifill.codecs.audio:AudioCodec",
    "image": "omnifill.codecs.image:ImageCodec",
    "pixels": "omnifill.codecs.pixels:PixelCodec",
}
"""Name in a recipe -> 'module:Class'."""

TYPE_CODECS: dict[str, tuple[str, ...]] = {
    "text": ("bpe", "characters", "pretrained"),
    "category": ("category",),
    "number": ("number",),
    "datetime": ("datetime",),
    "image": ("image", "pixels"),
    "audio": ("audio",),
}
"""Field type -> the names of the codecs that understand its values, the default first."""


def load_codec(name: str) -> type[Codec]:
    """The codec's class, by its name here or as 'module:Class'.

    For recipes only: a name out of a run folder or a request must not come here unchecked,
    because importing a module runs its code. RecipeError if there is no such codec.
    """
    found = load_class("codec", name, CODECS)
    needed = ("shared", "fit", "encode", "decode", "encode_many", "grammar", "save", "load")
    lacks = [part for part in needed if not hasattr(found, part)]
    if lacks:
        raise RecipeError(
            f"codec {name!r}: {found.__name__} is not a codec class; it lacks {', '.join(lacks)}"
        )
    return cast(type[Codec], found)


def check_codec(field: str, type_: str, codec: str) -> None:
    """RecipeError if a named codec cannot hold values of the field's type."""
    allowed = TYPE_CODECS.get(type_)
    if ":" in codec or allowed is None or codec in allowed:
        return
    where = f"schema.fields.{field}.codec = {codec!r}"
    if codec not in CODECS:
        raise RecipeError(f"{where}: {unknown_name('codec', codec, CODECS)}")
    raise RecipeError(
        f"{where}: a {type_} field takes {' or '.join(allowed)}; change the codec or the type"
    )
