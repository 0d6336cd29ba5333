"""Texts that are always valid and finished, by a JSON schema, a regular expression or a grammar.

The library llguidance says which tokens may come next. That a text is also finished in time is up
to us: beside every text a shortest end is kept, as far as it is found, and a token after which none
would fit is not taken; the text then goes on towards the end that does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from omnifill.codecs.pretrained import PretrainedCodec
from omnifill.errors import RequestError
from omnifill.form.vocabulary import CODE_COLUMN, END_COLUMN, MISSING_COLUMN, FieldIds
from omnifill.types import Bools, Ints

Kind = Literal["schema", "regex", "grammar"]
CLOSING = b'"]},:0a 1-.e'
"""Bytes that bring a text to its end, roughly the sooner the earlier."""
FARTHEST = 4096
"""Tokens after which the search for an end gives up."""
LOOKS = 20_000
"""Beginnings that it looks at, about half a second."""
BEAM = 24
"""Beginnings that are kept where the first bytes that fit do not lead to an end."""
MOST_CHARS = 200_000
DEEPEST = 64
"""Of a schema."""
_known: WeakKeyDictionary[Any, Tokens] = WeakKeyDictionary()


@dataclass(frozen=True)
class Rule:
    """What a text must obey."""

    kind: Kind
    text: str
    """A JSON schema, a regular expression, or a grammar in Lark's notation."""


def parse_rule(
    schema: Any = None, regex: str | None = None, grammar: str | None = None
) -> Rule | None:
    """The one that is given, if any. `schema`: JSON as text, a dict, or a pydantic model.
    RequestError for more than one, or for what is none."""
    given: dict[Kind, Any] = {"schema": schema, "regex": regex, "grammar": grammar}
    named = [kind for kind, value in given.items() if value is not None]
    if not named:
        return None
    if len(named) > 1:
        raise RequestError(f"{' and '.join(named)}: a text obeys one of them; leave out the rest")
    if schema is None:
        text = given[named[0]]
        if not isinstance(text, str) or not text:
            raise RequestError(f"{named[0]}: must be text, and not empty")
        return Rule(named[0], text)
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    try:
        tree = json.loads(schema) if isinstance(schema, str) else schema
        text = json.dumps(tree)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"schema: is no JSON ({error})") from None
    if isinstance(tree, bool):
        if not tree:
            raise RequestError("schema: false is obeyed by nothing")
        return Rule("schema", "{}")
    if not isinstance(tree, Mapping):
        raise RequestError(f"schema: must be an object, not {type(tree).__name__}")
    if len(text) > MOST_CHARS or _deeper(tree, DEEPEST):
        raise RequestError(f"schema: must be of at most {MOST_CHARS:,} characters and {DEEPEST} "
                           f"levels")  # fmt: skip
    return Rule("schema", text)


def _deeper(tree: Any, levels: int) -> bool:
    if not isinstance(tree, Mapping | list):
        return False
    parts = tree.values() if isinstance(tree, Mapping) else tree
    return levels == 0 or any(_deeper(part, levels - 1) for part in parts)


@dataclass(frozen=True, eq=False)
class Tokens:
    """A codec's codes as llguidance knows them."""

    tokenizer: Any
    single: dict[int, int]
    """Byte -> the code that spells it alone."""


class Constraint:
    """Keeps each row's text under a rule. A `Leaning` of the sampler."""

    def __init__(self, field: FieldIds, rule: Rule, room: int) -> None:
        """`room`: tokens that a text may have. RequestError for a rule that no text obeys, or none
        of so few tokens."""
        self.field, self.room, self.size = field, room, field.codec.size
        self.tokens = _tokens_of(field.codec)
        self.matcher = _matcher(self.tokens, rule)
        end = self._end(self.matcher)
        if end is None:
            raise RequestError(f"{rule.kind}: no text of at most {FARTHEST:,} tokens was found "
                               f"that obeys it to its end")  # fmt: skip
        if len(end) > room:
            raise RequestError(f"max_tokens = {room}: too few for this {rule.kind}; give at least "
                               f"{len(end)}, as the shortest text that was found has")  # fmt: skip
        self.shortest = end
        self.rows: dict[int, tuple[Any, list[int], int]] = {}
        """Of each row: where it stands, a way to an end, and the tokens that it has."""

    def lean(self, rows: Ints, fields: Ints, scores: Tensor) -> Tensor:
        """(n, C) scores, -inf for what the rule does not allow."""
        for i in np.flatnonzero(fields == self.field.index):
            matcher, _, _ = self._of(int(rows[i]))
            forced = matcher.compute_ff_tokens()
            allowed = _mask(matcher, self.size)
            if forced:  # spelled as the tokenizer would, and not in any other way
                allowed &= np.arange(self.size) == forced[0]
            barred = torch.from_numpy(~allowed)
            scores[i, CODE_COLUMN:][barred] = float("-inf")
            scores[i, MISSING_COLUMN] = float("-inf")
            if not matcher.is_accepting():
                scores[i, END_COLUMN] = float("-inf")
        return scores

    def settle(self, rows: Ints, fields: Ints, columns: Ints) -> Ints:
        """(n,) chosen columns -> those after which every text can still be finished."""
        out = columns.copy()
        for i in np.flatnonzero(fields == self.field.index):
            out[i] = self._taken(int(rows[i]), int(columns[i]) - CODE_COLUMN)
        return out

    def ahead(self, row: int, field: int) -> list[int]:
        """The ids that the rule leaves no choice about."""
        if field != self.field.index:
            return []
        return [self.field.first + code for code in self._of(row)[0].compute_ff_tokens()]

    def tell(self, rows: Ints, fields: Ints, ids: Ints) -> None:
        """All is known already."""

    def _of(self, row: int) -> tuple[Any, list[int], int]:
        if row not in self.rows:
            self.rows[row] = (self.matcher.deep_copy(), self.shortest, 0)
        return self.rows[row]

    def _taken(self, row: int, code: int) -> int:
        """The column of the code (below 0: an end), or of the next one on the way to an end."""
        matcher, known, used = self._of(row)
        if code < 0 and not known:
            return END_COLUMN
        after, end = matcher.deep_copy(), None
        left = self.room - used - 1
        if code >= 0 and after.consume_token(code):
            end = known[1:] if known[:1] == [code] else self._end(after, known, left)
        if end is None or len(end) > left:
            if not known:
                return END_COLUMN
            after, code, end = matcher, known[0], known[1:]
            after.consume_token(code)
        self.rows[row] = (after, end, used + 1)
        return CODE_COLUMN + code

    # --- ends ------------------------------------------------------------------------------

    def _end(
        self, matcher: Any, known: list[int] | None = None, left: int = FARTHEST
    ) -> list[int] | None:
        """Few codes that bring a text to a valid end, `known` if it still does; None where none of
        at most `left` were found."""
        if matcher.is_accepting():
            return []
        if known and len(known) <= left:
            after = matcher.deep_copy()
            if after.consume_tokens(known) and after.is_accepting():
                return known
        straight = self._straight(matcher, left)
        return self._searched(matcher, left) if straight is None else straight

    def _straight(self, matcher: Any, left: int) -> list[int] | None:
        """Always with the first byte that fits."""
        matcher, out = matcher.deep_copy(), list[int]()
        while not matcher.is_accepting():
            codes = matcher.compute_ff_tokens() or self._next(matcher)[:1]
            out += codes
            if not codes or len(out) > left or not matcher.consume_tokens(codes):
                return None
        return out

    def _searched(self, matcher: Any, left: int) -> list[int] | None:
        """With all bytes that fit, breadth first; beginnings after which the same may come count
        once, and those after which little may come go first."""
        beam: list[tuple[Any, list[int]]] = [(matcher.deep_copy(), [])]
        looks = 0
        for _ in range(left + 1):
            longer: dict[tuple[bool, int, bytes], tuple[Any, list[int]]] = {}
            for at, path in beam:
                if at.is_accepting():
                    return path
                forced = at.compute_ff_tokens()
                tries = [forced] if forced else [[code] for code in self._next(at)]
                looks += len(tries)
                for codes in tries:
                    after = at.deep_copy()
                    if after.consume_tokens(codes):
                        mask = after.compute_bitmask()
                        num = int.from_bytes(mask, "little").bit_count()
                        key = (not after.is_accepting(), num, mask)
                        longer.setdefault(key, (after, path + codes))
            beam = [longer[key] for key in sorted(longer)][:BEAM]
            if not beam or looks > LOOKS:
                return None
        return None

    def _next(self, matcher: Any) -> list[int]:
        """Codes of single bytes that may come next, those first that lead to an end."""
        allowed = _mask(matcher, self.size)
        first = [self.tokens.single[b] for b in CLOSING if b in self.tokens.single]
        rest = [code for code in self.tokens.single.values() if code not in first]
        found = [code for code in (*first, *rest) if allowed[code]]
        return found or np.flatnonzero(allowed)[:BEAM].tolist()


def _mask(matcher: Any, size: int) -> Bools:
    """(size,): the codes that may come next."""
    if matcher.is_stopped():
        return np.zeros(size, bool)
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    return np.unpackbits(bits, bitorder="little")[:size].astype(bool)


# --- the library ---------------------------------------------------------------------------


class _Pieces:
    """What llguidance asks of a tokenizer."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.tokens = [piece or b"" for piece in codec.pieces] + [b""]
        self.eos_token_id, self.bos_token_id = codec.size, None
        self.special_token_ids = [codec.size]

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("text only")
        codes: list[int] = self.codec.encode(text).tolist()
        return codes


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise RequestError("a schema, regex or grammar needs the extra `structured`: "
                           "pip install 'omnifill[structured]'") from None  # fmt: skip
    return llguidance


def _tokens_of(codec: Any) -> Tokens:
    """Made once for each codec: it takes a second for a large one."""
    if codec not in _known:
        library = _library()
        if isinstance(codec, PretrainedCodec):  # its first end is no code that may come
            end = next(iter(codec.ends), None)
            source = codec.source if end is None else _with_all(codec, end)
            made = library.LLTokenizer(source, n_vocab=codec.size, eos_token=end)
        else:
            pieces = library.TokenizerWrapper(_Pieces(codec))
            made = library.LLTokenizer(pieces, n_vocab=codec.size + 1, eos_token=codec.size)
        found = {byte: made.greedy_tokenize(chr(byte)) for byte in range(128)}
        single = {byte: codes[0] for byte, codes in found.items() if len(codes) == 1}
        _known[codec] = Tokens(made, single)
    return _known[codec]


def _with_all(codec: PretrainedCodec, end: int) -> str:
    """Its tokenizer, with tokens up to the one that ends a text: checkpoints may have more ids than
    their tokenizer, and llguidance wants the end to be one of those."""
    tokenizer = Tokenizer.from_str(codec.source)
    num = tokenizer.get_vocab_size(with_added_tokens=True)
    if end < num:
        return codec.source
    tokenizer.add_special_tokens([f"<unused {i}>" for i in range(num, end + 1)])
    whole: str = tokenizer.to_str()
    return whole


def _matcher(tokens: Tokens, rule: Rule) -> Any:
    """RequestError for a rule that cannot be read, or that is too much to follow."""
    matcher = _library().LLMatcher
    try:
        if rule.kind == "schema":
            plain = {"whitespace_flexible": False}
            grammar = matcher.grammar_from_json_schema(rule.text, defaults=plain)
        elif rule.kind == "regex":
            grammar = matcher.grammar_from_regex(rule.text)
        else:
            grammar = matcher.grammar_from_lark(rule.text)
    except ValueError as error:
        raise RequestError(f"{rule.kind}: {error}") from None
    made = matcher(tokens.tokenizer, grammar, log_level=0)
    if made.is_error():
        why = " ".join(made.get_error().split())
        raise RequestError(f"{rule.kind}: cannot be followed: {why[:300]}")
    return made
