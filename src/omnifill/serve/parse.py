"""JSON that anybody may have written."""

from __future__ import annotations

import json
import re
from typing import Any

from omnifill.serve.limits import Limits
from omnifill.serve.refusals import Refusal

STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""Of JSON, a last one that does not end with them; each byte is looked at once."""
DIGITS = 1000
"""Of a whole number: far more than any field takes, and fewer than take time."""
PARTS = re.compile(rb"[\[\]{},]")
HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
"""Of surrogate pairs, as they are escaped."""


def parsed(body: bytes, limits: Limits) -> Any:
    """What it says, in UTF-8. Refusal for what is too deep, has too many parts, or is none: before
    it is built."""
    depth = parts = 0
    for found in PARTS.finditer(STRINGS.sub(b"", body)):
        mark = found.group()
        parts += mark != b"]" and mark != b"}"
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0)
        if depth > limits.nesting:
            raise Refusal(400, f"more than {limits.nesting} brackets within each other")
        if parts > limits.names:
            raise Refusal(400, f"more than {limits.names:,} keys and items")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refusal(400, "this is no UTF-8 text") from None
    try:
        out = json.loads(text, parse_constant=_refuse, parse_int=_short, object_pairs_hook=_once)
        if HALVES.search(body):
            json.dumps(out, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise Refusal(400, f"{half} is half of a pair of surrogates, and no character") from None
    except ValueError as error:
        raise Refusal(400, f"this is no JSON ({error})") from None
    return out


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _short(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits, where {DIGITS} are the most")
    return int(digits)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return out
