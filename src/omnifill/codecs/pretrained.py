"""Text as the tokenizer of an imported checkpoint has it: its ids are the codes, all of them.

Nothing is learned here, and nothing promised beyond what that tokenizer does: some change the
text, and ids may come that spell no whole character. Text that looks like a control token is only
text here, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Tokenizer

from omnifill.codecs.support import check_options, damaged, no_coords, read_json, write_json
from omnifill.codecs.utf8 import num_bytes
from omnifill.errors import RecipeError
from omnifill.types import Grammar, Ints

TOKENIZER, ABOUT = "tokenizer.json", "pretrained.json"
UNFINISHED = "\ufffd"
"""What bytes of a character are shown as while others are still to come."""


class Templated(str):
    """Text of which control tokens are what they are called, since a template wrote them."""


class PretrainedCodec:
    """str <-> ids of a tokenizer.json."""

    shared: ClassVar[bool] = True
    slots: int | None = None

    def __init__(
        self, source: str, size: int, ends: Sequence[int] = (), opener: int | None = None,
        barred: Sequence[int] = (), bos: int | None = None, lead: Sequence[int] = (),
        tail: Sequence[int] = (), forced: bool = False,
    ) -> None:  # fmt: skip
        """`source`: the text of a tokenizer.json. `size`: ids of the model, some of which may be no
        token. `ends`: ids that end a text; the first is the model's <end>. `opener`: what an empty
        text is read as, where no <bos> opens one. `barred`: ids that are never to come. `bos`: the
        id that is our <bos>. `lead`, `tail`: what stands before and behind every text. `forced`:
        whether a text that is written must begin with the lead. ValueError says what is wrong."""
        self.source, self.size, self.ends, self.opener = source, size, list(ends), opener
        self.barred, self.bos = list(barred), bos
        self.lead, self.tail, self.forced = list(lead), list(tail), forced and len(lead) > 0
        try:
            self.tokenizer = Tokenizer.from_str(source)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the tokenizers library cannot read it ({error})") from None
        most = max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if most > size:
            raise ValueError(f"it has {most} tokens where the model has {size}")
        for i in (*self.ends, *self.barred, opener or 0, bos or 0, *self.lead, *self.tail):
            if not 0 <= i < size:
                raise ValueError(f"token {i} is none of the model's {size}")
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True

    @classmethod
    def fit(cls, chunks: Iterable[Sequence[Any]], options: Mapping[str, Any]) -> Self:
        check_options(options, ())
        raise RecipeError("codec 'pretrained' comes with a checkpoint (`omnifill import`); nothing "
                          "of it is learned from records")  # fmt: skip

    def for_records(self) -> PretrainedCodec:
        """The same for texts that open and end by themselves, since a network learns how."""
        return PretrainedCodec(self.source, self.size, self.ends, None, self.barred, self.bos,
                               self.lead)  # fmt: skip

    def encode(self, value: Any) -> Ints:
        """str -> (S,). ValueRefused for a lone surrogate."""
        return self.encode_many([value])[0]

    def encode_many(self, values: Sequence[Any]) -> tuple[Ints, Ints]:
        """N texts -> all codes in one line, and the (N,) number of codes of each."""
        for value in values:
            num_bytes(value)  # refuses what is no text
        found = self.tokenizer.encode_batch_fast(list(values), add_special_tokens=False)
        ids = [np.array(one.ids, np.int64) for one in found]
        for i, value in enumerate(values):
            if isinstance(value, Templated):
                ids[i] = np.array(self._controlled(value), np.int64)
        if self.opener is not None:
            ids = [one if len(one) else np.array([self.opener]) for one in ids]
        ids = [np.array([*self.lead, *one, *self.tail], np.int64) for one in ids]
        lens = np.array([len(one) for one in ids], np.int64)
        return np.concatenate([np.zeros(0, np.int64), *ids]), lens

    def _controlled(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = False
        try:
            ids: list[int] = self.tokenizer.encode(str(text), add_special_tokens=False).ids
        finally:
            self.tokenizer.encode_special_tokens = True
        return ids[1:] if ids and ids[0] == self.bos else ids

    @cached_property
    def _controls(self) -> dict[str, int]:
        found = self.tokenizer.get_added_tokens_decoder().items()
        return {token.content: i for i, token in found if token.special}

    def control(self, text: str) -> int | None:
        """The control token that is called so."""
        return self._controls.get(text)

    def spelled(self, codes: Sequence[int]) -> Templated:
        """Codes as text whose control tokens are meant."""
        return Templated(self.tokenizer.decode(list(codes), skip_special_tokens=False))

    def control_in(self, text: str) -> str | None:
        """The first control token that a text spells, if it does."""
        return next((token for token in self._controls if token in text), None)

    def decode(self, codes: Ints) -> str:
        """(S,) -> str, control tokens left out."""
        text: str = self.tokenizer.decode(codes.tolist(), skip_special_tokens=True)
        return text

    def stream_decoder(self) -> PretrainedDecoder:
        """Fed one code after another, it gives the text as it becomes complete."""
        return PretrainedDecoder(self)

    def coords(self, n: int) -> Ints:
        """(n, 3) of zeros."""
        return no_coords(n)

    @cached_property
    def _grammar(self) -> Grammar:
        start, ended, inside = 0, 1, 2 if self.forced else 0
        allowed = np.zeros((inside + 1 if self.forced else 2, self.size + 1), bool)
        allowed[inside, :-1] = True
        # The first end is <end>, where it isn't written as part of the text.
        allowed[inside, self.barred + ([] if self.tail else self.ends[:1])] = False
        allowed[[inside, ended], -1] = len(self.ends) > 0
        step = np.full((len(allowed), self.size), inside, np.int64)
        step[:, self.ends[1:]] = ended  # nothing follows another end
        if self.forced:
            allowed[start, self.lead[0]], step[start] = True, inside
        return Grammar(allowed, step)

    def grammar(self) -> Grammar:
        """Any tokens, until one that ends a text."""
        return self._grammar

    def describe(self) -> str:
        return f"pretrained: {self.size} tokens"

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_bytes(self.source.encode("utf-8"))
        names = ("size", "ends", "opener", "barred", "bos", "lead", "tail", "forced")
        write_json(folder / ABOUT, {name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, folder: Path) -> Self:
        path, about = folder / TOKENIZER, read_json(folder / ABOUT)
        try:
            return cls(path.read_bytes().decode("utf-8"), **about)
        except OSError as error:
            raise damaged(path, error.strerror or "cannot be read") from None
        except (TypeError, ValueError) as error:
            raise damaged(path, str(error)) from None


class PretrainedDecoder:
    """Codes one at a time -> text that no later code changes.

    What a token spells may depend on the one before it (a space at the beginning of a text is not
    shown), so that the text of some is read off with those before them.
    """

    def __init__(self, codec: PretrainedCodec) -> None:
        self._codec = codec
        self._codes: list[int] = []
        self._before = 0
        """Codes that are read along, and have been shown."""

    def feed(self, code: int) -> str:
        """The characters that this code completes; often a few, sometimes none."""
        self._codes.append(code)
        text, known = self._read()
        if text.endswith(UNFINISHED) or len(text) <= len(known):
            return ""
        self._codes = self._codes[self._before :]
        self._before = len(self._codes)
        return text[len(known) :]

    def close(self) -> str:
        """What is left behind the last code, whole or not."""
        text, known = self._read()
        return text[len(known) :]

    def _read(self) -> tuple[str, str]:
        codec, codes = self._codec, np.array(self._codes, np.int64)
        return codec.decode(codes), codec.decode(codes[: self._before])


def around(source: str) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer.json puts in front of every text, and those behind it. ValueError if
    it cannot be read."""
    try:
        tokenizer = Tokenizer.from_str(source)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"the tokenizers library cannot read it ({error})") from None
    plain, whole = (tokenizer.encode("a", add_special_tokens=put).ids for put in (False, True))
    for first in range(len(whole) - len(plain) + 1):
        if whole[first : first + len(plain)] == plain:
            return whole[:first], whole[first + len(plain) :]
    raise ValueError(f"what it puts around a text changes it: {whole} for {plain}")
