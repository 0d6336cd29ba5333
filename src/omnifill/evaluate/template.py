"""A template filler: rule-based generation, learned from patterns that come back.

Frequent words and all signs make a text's pattern; the rare words between them are its blanks.
A new text is the pattern of a training text with each blank filled by what stood between the same
two neighbours elsewhere. Whoever cannot beat this has learnt no more than phrases.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
"""A word or a sign, with the white space before it."""
LONGEST = 400
"""Tokens of a pattern; longer texts are cut into lines first."""
FREQUENT = 0.002
"""A word in more than this share of all texts, but at least in three, belongs to the pattern."""
MOST_TEXTS = 50_000

Pattern = tuple[str | None, ...]
"""Tokens; None is a blank."""


class Template:
    """Patterns of texts, and what filled their blanks."""

    def __init__(self, patterns: Sequence[Pattern], fillers: dict[tuple[str, str], list[str]]):
        self.patterns = patterns
        self.fillers = fillers
        self.by_left: dict[str, list[str]] = defaultdict(list)
        for (left, _), words in fillers.items():
            self.by_left[left] += words

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Template:
        """Learn from at most `MOST_TEXTS` texts (or lines of long ones)."""
        some = [t for text in texts[:MOST_TEXTS] for t in _pieces(text)][:MOST_TEXTS]
        apart = _spaced(some)
        cut = [_tokens(text, apart) for text in some]
        seen = Counter(token for tokens in cut for token in set(tokens))
        enough = max(3, FREQUENT * len(cut))
        patterns: list[Pattern] = []
        fillers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for tokens in cut:
            pattern: list[str | None] = []
            for left, filler, right in _runs(tokens, lambda t: seen[t] >= enough):
                if filler:
                    fillers[left, right].append(filler)
                    pattern.append(None)
                if right:
                    pattern.append(right)
            patterns.append(tuple(pattern))
        return cls(patterns, dict(fillers))

    def generate(self, num: int, seed: int) -> list[str]:
        """`num` texts: patterns as often as they were seen, blanks filled at random."""
        if not self.patterns:
            return [""] * num
        rng = np.random.default_rng(seed)
        return [self._filled(self.patterns[i], rng)
                for i in rng.integers(0, len(self.patterns), num)]  # fmt: skip

    def _filled(self, pattern: Pattern, rng: np.random.Generator) -> str:
        out: list[str] = []
        for place, token in enumerate(pattern):
            if token is None:
                left = pattern[place - 1] if place else ""
                right = pattern[place + 1] if place + 1 < len(pattern) else ""
                words = self.fillers.get((left or "", right or "")) or self.by_left[left or ""]
                token = words[int(rng.integers(0, len(words)))]
            out.append(token)
        return "".join(out)


def _pieces(text: str) -> Iterator[str]:
    """A text, or the lines of a long one."""
    if len(text) <= 8 * LONGEST:
        yield text
    else:
        yield from (line for line in text.splitlines() if line.strip())


def _spaced(texts: Sequence[str]) -> bool:
    """Whether words stand apart by white space; Chinese or Thai, say, do not write it."""
    sample = "".join(texts[:1000])
    return sum(map(str.isspace, sample)) > 0.05 * len(sample)


def _tokens(text: str, apart: bool) -> list[str]:
    tokens = TOKEN.findall(text) if apart else list(text)
    return tokens[:LONGEST]


def _runs(tokens: Sequence[str], frequent: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    """(token kept before, rare tokens between, token kept after); '' at both ends of the text."""
    left, rare = "", ""
    for token in tokens:
        if frequent(token) or not token.strip()[:1].isalnum():
            yield left, rare, token
            left, rare = token, ""
        else:
            rare += token
    if rare:
        yield left, rare, ""
