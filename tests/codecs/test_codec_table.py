"""The table of codecs: names, user classes, and what is refused."""

from __future__ import annotations

import pytest

from omnifill.codecs.category import CategoryCodec
from omnifill.codecs.table import CODECS, TYPE_CODECS, check_codec, load_codec
from omnifill.errors import RecipeError
from omnifill.schema import DEFAULT_CODECS


def test_every_name_loads_a_class_that_describes_itself() -> None:
    values = {
        "number": [1],
        "datetime": [1],
        "image": [b"\0"],
        "pixels": [b"\0"],
        "audio": [b"\0\0"],
    }
    grey = {"height": 1, "width": 1, "mode": "L"}
    options = {"image": grey, "pixels": grey, "audio": {"rate": 8000, "seconds": 0.1}}
    for name in CODECS.keys() - {"pretrained"}:  # which comes with a checkpoint
        codec = load_codec(name).fit([values.get(name, ["a"])], options.get(name, {}))
        assert codec.describe().startswith(name)  # type: ignore[attr-defined]


def test_the_default_codec_of_every_type_is_its_first() -> None:
    assert {type_: names[0] for type_, names in TYPE_CODECS.items()} == DEFAULT_CODECS


def test_a_users_class_needs_no_registration() -> None:
    assert load_codec("omnifill.codecs.category:CategoryCodec") is CategoryCodec


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("categroy", "did you mean 'category'"),
        ("zzz", "known: audio, bpe"),
        ("", "no codec called ''"),
        ("no_such_module_at_all:Codec", "cannot be imported"),
        ("omnifill.codecs.category:Nothing", "has no 'Nothing'"),
        ("omnifill.codecs.category:MAX_VALUES", "not a class"),
        ("pathlib:Path", "not a codec class"),
        (":Class", "no codec called"),
        ("module:", "no codec called"),
    ],
)
def test_what_is_no_codec_is_refused(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_codec(name)


def test_a_codec_of_another_type_is_refused() -> None:
    check_codec("body", "text", "characters")
    check_codec("body", "text", "my_module:MyClass")
    with pytest.raises(RecipeError, match=r"fields\.body\.codec = 'number'.*bpe or characters"):
        check_codec("body", "text", "number")
    with pytest.raises(RecipeError, match="did you mean 'bpe'"):
        check_codec("body", "text", "bpee")
