"""Texts: every string comes back, generated codes are valid UTF-8, streams split nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from omnifill.codecs.characters import CharacterCodec
from omnifill.codecs.given import byte_alphabet
from omnifill.codecs.text import (
    BpeCodec,
    default_vocabulary,
    sample_texts,
    split_long,
    train_bpe,
)
from omnifill.codecs.utf8 import utf8_grammar
from omnifill.errors import RecipeError, ValueRefused

CORPUS = ["the cat sat on the mat; the dog's mat 1234\n" * 9, "你好世界, 你好 мир é 🙂🙂", ""]
BPE = BpeCodec.fit([CORPUS], {"vocabulary": 300})
CHARACTERS = CharacterCodec.fit([CORPUS], {})
both = pytest.mark.parametrize("codec", [BPE, CHARACTERS], ids=["bpe", "characters"])
unicode_text = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("the mat你🙂é\n ")
)
CONTROL = ["<bos>", "<|endoftext|>", "<pad>", "<missing>", "</s>", "[MASK]", "<0x0A>", "<end>"]


def every_scalar(step: int) -> str:
    points = [*range(0, 0xD800, step), *range(0xE000, 0x110000, step)]
    edges = [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x10FFFF]
    return "".join(chr(point) for point in [*points, *edges])


@both
@settings(max_examples=200, deadline=None)
@given(texts=st.lists(unicode_text, max_size=5))
def test_every_text_comes_back(codec: BpeCodec | CharacterCodec, texts: list[str]) -> None:
    codes, lens = codec.encode_many(texts)
    ends = np.cumsum(lens).tolist()
    parts = [codes[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert [codec.decode(part) for part in parts] == texts


@both
def test_characters_of_every_plane_come_back(codec: BpeCodec | CharacterCodec) -> None:
    text = every_scalar(97)
    assert codec.decode(codec.encode(text)) == text


@pytest.mark.slow
@both
def test_all_characters_of_unicode_come_back(codec: BpeCodec | CharacterCodec) -> None:
    text = every_scalar(1)
    assert codec.decode(codec.encode(text)) == text


@both
@pytest.mark.parametrize("mark", CONTROL)
def test_what_looks_like_a_control_token_is_text(
    codec: BpeCodec | CharacterCodec, mark: str
) -> None:
    text = f"a{mark} {mark}{mark}"
    codes = codec.encode(text)
    assert len(codes) > 3 * 2
    assert codec.decode(codes) == text


@both
@settings(max_examples=100, deadline=None)
@given(text=unicode_text, data=st.data())
def test_a_stream_gives_whole_characters_that_make_the_text(
    codec: BpeCodec | CharacterCodec, text: str, data: st.DataObject
) -> None:
    codes = codec.encode(text)
    stop = data.draw(st.integers(0, len(codes)))
    decoder = codec.stream_decoder()
    pieces = [decoder.feed(code) for code in codes.tolist()[:stop]]
    assert "".join(pieces) == codec.decode(codes[:stop])
    assert text.startswith("".join(pieces))
    assert "".join([*pieces, *map(decoder.feed, codes.tolist()[stop:])]) == text


@both
def test_a_lone_surrogate_is_refused_by_name_and_place(codec: BpeCodec | CharacterCodec) -> None:
    with pytest.raises(ValueRefused, match=r"lone surrogate, U\+D83D, as character 3"):
        codec.encode("ab\ud83d")
    with pytest.raises(ValueRefused, match="lone surrogate"):
        type(codec).fit([["fine", "\udc00"]], {})


@both
def test_no_text_at_all_still_makes_a_codec(codec: BpeCodec | CharacterCodec) -> None:
    empty = type(codec).fit([], {})
    assert empty.size == 256
    assert empty.decode(empty.encode("é🙂")) == "é🙂"


def test_the_grammar_accepts_exactly_utf8() -> None:
    grammar = utf8_grammar([bytes([byte]) for byte in range(256)])

    def accepted(data: bytes) -> bool:
        state = 0
        for byte in data:
            if not grammar.allowed[state, byte]:
                return False
            state = int(grammar.step[state, byte])
        return bool(grammar.allowed[state, -1])

    edge = [0, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0]
    for lead in range(256):
        for tail in ([], *([b] for b in edge), *([b, c] for b in edge for c in (0x80, 0xC0))):
            for more in (b"", b"\x80", b"\xbfA"):
                data = bytes([lead, *tail]) + more
                try:
                    data.decode("utf-8")
                    valid = True
                except UnicodeDecodeError:
                    valid = False
                assert accepted(data) == valid, data


def test_known_characters_take_one_code_and_rare_ones_bytes() -> None:
    codec = CharacterCodec.fit([["ééé你你é", "я"]], {"vocabulary": 258})
    assert codec.characters == "é你"
    assert [len(codec.encode(c)) for c in "aé你я🙂"] == [1, 1, 1, 2, 4]
    assert codec.encode("a").tolist() == [97]


def test_the_same_text_gives_the_same_tokenizer_in_another_process() -> None:
    code = (
        "import sys; from omnifill.codecs.text import train_bpe;"
        "texts = ['%s %s' % (chr(97 + i % 26) * (i % 5 + 1), i * 7919 % 1000)"
        " for i in range(3000)];"
        "sys.stdout.write(train_bpe(texts, 700).to_str())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(json.loads(runs[0])["model"]["vocab"]) == 700


def test_the_vocabulary_grows_with_the_text() -> None:
    sizes = [default_vocabulary(n) for n in (0, 10**5, 10**6, 3 * 10**6, 10**7, 10**12)]
    assert sizes == sorted(sizes)
    assert all(size % 64 == 0 for size in sizes)
    assert sizes[0] > 256 and sizes[2] == 1024 and sizes[-1] == 16384


def test_a_long_text_is_encoded_in_pieces_as_a_whole() -> None:
    text = ("the cat  sat\n on the\tmat; " * 4000) + "x" * 70_000 + " 你好" * 30_000
    pieces = list(split_long(text, 1000))
    assert "".join(pieces) == text and max(map(len, pieces)) <= 2000
    spaced = "the cat  sat\n on the\tmat;  \n\n mat " * 9000
    assert len(list(split_long(spaced))) > 3
    whole = BPE.tokenizer.encode(spaced).ids
    assert BPE.encode(spaced).tolist() == whole
    assert BPE.decode(BPE.encode(text)) == text


@given(st.lists(unicode_text, max_size=40), st.integers(1, 60))
def test_a_sample_is_bounded_and_even(texts: list[str], limit: int) -> None:
    kept, total = sample_texts([texts[:5], texts[5:]], limit)
    assert total == sum(len(text.encode()) for text in texts)
    stride = next(s for s in (1, 2, 4, 8, 16, 32, 64) if len(texts[::s]) == len(kept))
    assert kept == texts[::stride]
    assert len(kept) <= 1 or sum(len(text.encode()) for text in kept) <= limit


def given_tokenizer(folder: Path, **changes: Any) -> str:
    """A tokenizer.json with special tokens and NFC, as pretrained ones have, plus changes."""
    tokenizer = train_bpe(CORPUS, 290)
    tokenizer.add_special_tokens(["<|endoftext|>", "<pad>"])
    tokenizer.add_tokens(["<tool>"])
    tokenizer.normalizer = normalizers.NFC()
    tree = json.loads(tokenizer.to_str())
    tree.update(changes)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return str(path)


def test_a_given_tokenizer_keeps_its_ids_and_its_control_tokens_are_text(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path)
    theirs = Tokenizer.from_file(path)
    codec = BpeCodec.fit([CORPUS], {"tokenizer": path})
    assert codec.size == theirs.get_vocab_size()
    first_added = theirs.token_to_id("<|endoftext|>")
    assert codec.encode(CORPUS[0]).tolist() == theirs.encode(CORPUS[0]).ids
    for text in ("<|endoftext|><pad><tool>", "e\u0301"):  # NFC would change the second
        assert codec.encode(text).max() < first_added
        assert codec.decode(codec.encode(text)) == text
    assert not codec.grammar().allowed[:, first_added : codec.size].any()
    codec.save(tmp_path / "saved")
    assert BpeCodec.load(tmp_path / "saved").encode("the mat").tolist() == (
        codec.encode("the mat").tolist()
    )


def word_piece() -> dict[str, Any]:
    model = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    return dict(json.loads(Tokenizer(model).to_str()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": None}, "not byte-level"),
        ({"normalizer": {"type": "Lowercase"}}, r"changes text before encoding it \(Lowercase\)"),
        (word_piece(), "no BPE tokenizer"),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": True,
                    "trim_offsets": True,
                    "use_regex": True,
                }
            },
            "does not give text back",
        ),
        ({"pre_tokenizer": {"type": "Nothing"}}, "cannot read it"),
    ],
)
def test_a_given_tokenizer_that_loses_text_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = given_tokenizer(tmp_path, **changes)
    with pytest.raises(RecipeError, match=words) as error:
        BpeCodec.fit([CORPUS], {"tokenizer": path})
    assert "options.tokenizer" in str(error.value)


def test_a_tokenizer_without_all_bytes_or_no_file_is_refused(tmp_path: Path) -> None:
    tree = json.loads(BPE.source)
    tree["model"]["vocab"].pop("!")
    (tmp_path / "t.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(RecipeError, match="lacks 1 of the 256 bytes"):
        BpeCodec.fit([], {"tokenizer": str(tmp_path / "t.json")})
    with pytest.raises(RecipeError, match="cannot be read"):
        BpeCodec.fit([], {"tokenizer": str(tmp_path / "none.json")})
    with pytest.raises(RecipeError, match="must be the path"):
        BpeCodec.fit([], {"tokenizer": 5})
    with pytest.raises(RecipeError, match="its own vocabulary"):
        BpeCodec.fit([], {"tokenizer": "t.json", "vocabulary": 300})


@pytest.mark.parametrize("size", [255, 2**30, 300.0, True, "300"])
def test_a_vocabulary_out_of_range_is_refused(size: Any) -> None:
    for codec in (BpeCodec, CharacterCodec):
        with pytest.raises(RecipeError, match=r"options\.vocabulary = .* from 256"):
            codec.fit([CORPUS], {"vocabulary": size})


def test_bytes_are_spelt_as_the_library_spells_them() -> None:
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert BPE.pieces[int(BPE.encode(" ")[0])] == b" "
