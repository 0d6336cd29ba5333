"""A tokenizer.json -> a tokenizer without special tokens, and the bytes of each of its tokens.

It accepts byte-level BPE that gives every text back, and says why anything else is refused.
It knows no recipe and no folder.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

PROBES = (
    "Hello,  world!\n\n\tIt's 12345.60 … ",
    "  \uff21\uff22 é e\u0301 \ufb01 Straße İ ▁a你好。مرحبا नमस्ते ไทย 👩‍👩‍👧 \U0010ffff\x00\x7f\r\n",
    "<|endoftext|><s></s>[MASK] <bos> <0x0A> </w>##a",
)


def plain_tokenizer(source: str) -> tuple[Tokenizer, list[bytes | None]]:
    """The tokenizer with everything taken out that is not plain text, and (K,) pieces by id.

    Special and added tokens keep their ids but are never used, so that text which looks like
    one is only text. Normalisation to NFC is left out too: data are normalised before, or on
    purpose not. ValueError says why a tokenizer cannot be used.
    """
    tree = _parsed(source)
    model = tree["model"]
    added = {str(t["content"]): int(t["id"]) for t in tree.get("added_tokens") or []}
    merged = {part for merge in model["merges"] for part in _parts(merge)}
    vocab: dict[str, int] = model["vocab"]
    size = max([*vocab.values(), *added.values()]) + 1
    for token in added:
        if token not in merged and len(token) > 1:
            vocab.pop(token, None)
    pieces = _pieces(vocab, size)
    tree.update(added_tokens=[], normalizer=None, post_processor=None)
    tree.update(truncation=None, padding=None)
    model["dropout"] = None
    try:
        tokenizer = Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"the tokenizers library cannot read it ({error})") from None
    for probe in PROBES:
        ids = tokenizer.encode(probe, add_special_tokens=False).ids
        if b"".join(pieces[i] or b"" for i in ids) != probe.encode("utf-8"):
            raise ValueError(f"it does not give text back: {probe!r} comes back changed")
    return tokenizer, pieces


def _parsed(source: str) -> dict[str, Any]:
    """The JSON, checked for the parts that byte-level BPE has."""
    try:
        tree = json.loads(source)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    model = tree.get("model") if isinstance(tree, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        kind = model.get("type", "unknown") if isinstance(model, dict) else "none"
        raise ValueError(f"it is no BPE tokenizer (model: {kind})")
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
        raise ValueError(f"it is no BPE tokenizer (model: {model.get('type')})")
    if "ByteLevel" not in _kinds(tree.get("decoder")):
        raise ValueError("it is not byte-level, so some texts would not come back as they were")
    changes = _kinds(tree.get("normalizer")) - {"NFC", "Sequence"}
    if changes:
        raise ValueError(f"it changes text before encoding it ({', '.join(sorted(changes))})")
    return dict(tree)


def _kinds(part: Any) -> set[str]:
    """The types named anywhere in one part of the JSON."""
    if isinstance(part, dict):
        found = {str(part["type"])} if "type" in part else set()
        return found.union(*(_kinds(v) for v in part.values()))
    if isinstance(part, list):
        return set().union(*(_kinds(v) for v in part))
    return set()


def _parts(merge: Any) -> list[str]:
    """A merge is spelt 'a b' in older files and ['a', 'b'] in newer ones; with the result."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return [left, right, left + right]


def _pieces(vocab: dict[str, int], size: int) -> list[bytes | None]:
    """(K,) bytes of every token; None where there is no token, or one that is not of bytes."""
    byte_of = byte_alphabet()
    pieces: list[bytes | None] = [None] * size
    for token, ident in vocab.items():
        if token and all(char in byte_of for char in token):
            pieces[ident] = bytes(byte_of[char] for char in token)
    lacking = 256 - len({piece for piece in pieces if piece is not None and len(piece) == 1})
    if lacking:
        raise ValueError(f"it lacks {lacking} of the 256 bytes, so some texts have no tokens")
    return pieces


def byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes as visible characters: the visible ones of Latin-1 stand for
    themselves, the others are numbered from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
