"""Text as byte-level BPE: GPT-2's splits, 256 bytes and learned merges, nothing else.

Every string round-trips, and text that looks like a control token is only text: no special
token is known here. A tokenizer that the user gives is taken if it keeps those promises.
Characters as codes live in `characters.py`, the UTF-8 automaton in `utf8.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from omnifill.codecs.given import plain_tokenizer
from omnifill.codecs.support import OPTIONS, check_options, damaged, int_option, no_coords
from omnifill.codecs.utf8 import TextDecoder, decode_codes, num_bytes, utf8_grammar
from omnifill.errors import RecipeError
from omnifill.types import Grammar, Ints

FILE = "tokenizer.json"
SAMPLE_BYTES = 30_000_000
"""The vocabulary is learned from at most this much text, evenly spaced."""
PIECE_CHARS = 1 << 16
"""Longer texts are encoded in pieces of about this length, cut where no token can reach over."""
BATCH_CHARS = 1 << 22
_SAFE_CUT = re.compile(r"(?<=\S) ")


def default_vocabulary(num_bytes: int) -> int:
    """The number of codes for so many bytes of training text: a multiple of 64.

    It grows with the 0.6th power of the data: each code must be seen often enough to be learned.
    """
    size = 1024 * (num_bytes / 1_000_000) ** 0.6
    return int(np.clip(64 * round(size / 64), 320, 16384))


class BpeCodec:
    """str <-> ids of a byte-level BPE tokenizer."""

    shared: ClassVar[bool] = True
    slots: int | None = None

    def __init__(self, source: str) -> None:
        """`source`: the text of a tokenizer.json. ValueError says what is wrong with it."""
        self.source = source
        self.tokenizer, self.pieces = plain_tokenizer(source)

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        """Options: `vocabulary`, the number of codes (by default from the amount of text); or
        `tokenizer`, the path of a tokenizer.json to use as it is (nothing is learned then)."""
        check_options(options, ("vocabulary", "tokenizer"))
        size = int_option(options, "vocabulary", None, 256, 1 << 20)
        if options.get("tokenizer") is not None:
            if size is not None:
                raise RecipeError(
                    f"{OPTIONS}: a given tokenizer has its own vocabulary; "
                    "leave out 'vocabulary' or 'tokenizer'"
                )
            return cls._given(options["tokenizer"])
        sample, total = sample_texts(chunks, SAMPLE_BYTES)
        return cls(train_bpe(sample, size or default_vocabulary(total)).to_str())

    @classmethod
    def _given(cls, path: Any) -> Self:
        where = f"{OPTIONS}.tokenizer = {str(path)!r}"
        if not isinstance(path, str | Path):
            raise RecipeError(f"{where}: must be the path of a tokenizer.json")
        try:
            return cls(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(f"{where}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise RecipeError(
                f"{where}: {error}; give a byte-level BPE tokenizer (as those of GPT-2, Llama 3 "
                "and Qwen are), or leave the option out to learn one from the data"
            ) from None

    @property
    def size(self) -> int:
        return len(self.pieces)

    def encode(self, value: Any) -> Ints:
        """str -> (S,). ValueRefused for a lone surrogate."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N texts -> all codes in one line, and the (N,) number of codes of each."""
        for value in values:
            num_bytes(value)  # refuses what is no text
        parts = [list(split_long(value)) for value in values]
        ids: list[Ints] = [np.zeros(0, np.int64)]
        for batch in _batches(part for text in parts for part in text):
            encoded = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids.extend(np.array(one.ids, np.int64) for one in encoded)
        owner = np.repeat(np.arange(len(parts)), np.array([len(text) for text in parts], np.int64))
        part_lens = np.array([len(one) for one in ids[1:]], np.float64)
        lens = np.bincount(owner, weights=part_lens, minlength=len(parts)).astype(np.int64)
        return np.concatenate(ids), lens

    def decode(self, codes: Ints) -> str:
        """(S,) -> str."""
        return decode_codes(self.pieces, codes)

    def stream_decoder(self) -> TextDecoder:
        """Fed one code after another, it gives the text as it becomes complete."""
        return TextDecoder(self.pieces)

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return no_coords(n)

    @cached_property
    def _grammar(self) -> Grammar:
        return utf8_grammar(self.pieces)

    def grammar(self) -> Grammar:
        """Codes whose bytes, one after another, are valid UTF-8."""
        return self._grammar

    def describe(self) -> str:
        return f"bpe: {self.size} tokens"

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self.source.encode("utf-8"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        path = folder / FILE
        try:
            return cls(path.read_bytes().decode("utf-8"))
        except OSError as error:
            raise damaged(path, error.strerror or "cannot be read") from None
        except ValueError as error:
            raise damaged(path, str(error)) from None


def train_bpe(sample: Sequence[str], size: int) -> Tokenizer:
    """Learn at most `size` tokens: all 256 bytes, then merges of pairs seen at least twice."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def sample_texts(chunks: Iterable[Sequence[Any]], limit: int) -> tuple[list[str], int]:
    """A stream of texts -> at most about `limit` bytes of pieces, evenly spaced, and the number
    of bytes of the whole stream. Which pieces are kept depends on nothing but the stream."""
    kept: list[str] = []
    sizes: list[int] = []
    held = total = seen = 0
    stride = 1
    for chunk in chunks:
        for text in chunk:
            total += num_bytes(text)
            for piece in split_long(text):
                if seen % stride == 0:
                    kept.append(piece)
                    sizes.append(num_bytes(piece))
                    held += sizes[-1]
                seen += 1
                while held > limit and len(kept) > 1:
                    kept, sizes, stride = kept[::2], sizes[::2], 2 * stride
                    held = sum(sizes)
    return kept, total


def split_long(text: str, length: int = PIECE_CHARS) -> Iterator[str]:
    """Pieces of at least `length` characters that encode as the whole text does.

    They are cut before a space that follows a visible character: GPT-2's splits, and those of
    its successors, always end a token there. A stretch of `length` characters without such a
    place is cut anyway (its codes still decode to the same text).
    """
    start = 0
    while len(text) - start > 2 * length:
        place = _SAFE_CUT.search(text, start + length, start + 2 * length)
        cut = place.start() if place else start + length
        yield text[start:cut]
        start = cut
    if start < len(text) or not text:
        yield text[start:]


def _batches(parts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of parts of bounded length together: an encoding takes much more room than text."""
    batch: list[str] = []
    held = 0
    for part in parts:
        batch.append(part)
        held += len(part)
        if held >= BATCH_CHARS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
