"""A picture or a sound that is known in part: its known codes are told, the others are chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.data.media import load_cell
from omnifill.errors import RequestError, ValueRefused
from omnifill.generate.decoding import chosen_ids, decode_values
from omnifill.generate.given import parse_given
from omnifill.schema import FieldSpec
from omnifill.types import Bools, Ints, Partial

SHARE = re.compile(r"\d+(\.\d+)?%")


@dataclass(frozen=True, eq=False)
class Part:
    """A value that is known in part, as codes: those that are told are not chosen."""

    field: str
    value: Any
    """Canonical, whole as it was given."""
    told: Any
    """The same without what is not known: what is encoded."""
    keep: Bools | None
    """What of the value is known, as its codec has it; None: some of its codes, and no part of it
    for certain."""
    codes: Ints
    """(S,); -1: not known."""

    @property
    def begins(self) -> bool:
        """Whether any code is known: where all known ones stand in front, they are a beginning."""
        return bool((self.codes >= 0).any())

    @property
    def beginning(self) -> bytes:
        """Of a sound: what is known."""
        known: bytes = b"" if self.keep is None else self.value[: 2 * int(self.keep.sum())]
        return known


def parse_part(run: LoadedRun, spec: FieldSpec, given: Partial, seed: int) -> Part:
    """A user's `Partial` as codes. `seed`: of the places, where a share of it is to be kept.
    ValueRefused or RequestError."""
    codec: Any = run.vocabulary[spec.name].codec
    if not hasattr(codec, "known"):
        raise RequestError(f"field {spec.name!r}: a {spec.type} cannot be known in part; of a text "
                           f"give the beginning (prompt) or the end (suffix)")  # fmt: skip
    value = parse_given(run, spec, given.value)
    if isinstance(given.keep, str) and SHARE.fullmatch(given.keep):
        told, keep, known = value, None, _some(codec.slots, given.keep, seed)
    else:
        try:
            keep = codec.to_keep(load_cell(given.keep, None) if spec.type == "image"
                                 else given.keep)  # fmt: skip
        except ValueRefused as error:
            of_file = spec.type == "image" and isinstance(given.keep, str)
            what = f": {given.keep} (of a picture: a mask, or a share as 60%)" if of_file else ""
            raise ValueRefused(f"field {spec.name!r}: keep: {error}{what}") from None
        told, known = codec.blanked(value, keep), codec.known(keep)
    codes = np.where(known, codec.encode(told), -1)
    if (codes >= 0).all():
        raise RequestError(f"field {spec.name!r}: all of it is known; there is nothing to make")
    if not (codes >= 0).any():
        raise RequestError(
            f"field {spec.name!r}: what is known of it (keep) is too little to tell anything: less "
            f"than one of its {len(codes)} codes"
        )
    begins = np.logical_and.accumulate(codes >= 0)
    if not run.vocabulary.canvas and (begins != (codes >= 0)).any():
        raise RequestError(
            f"field {spec.name!r}: a model that makes one code after another goes on from the "
            f"beginning alone, and what is known here is not; a region anywhere needs a masked "
            f"model (--set objective.name=masked)"
        )
    return Part(spec.name, value, told, keep, codes)


def _some(slots: int, keep: str, seed: int) -> Bools:
    """(S,): a share of all codes, such as '60%', at places that the seed says."""
    num = round(slots * float(keep[:-1]) / 100)
    known = np.arange(slots) < num
    return np.random.default_rng([seed, slots]).permutation(known)


def known_part(
    run: LoadedRun, given: Mapping[str, Any], seed: int
) -> tuple[Part | None, dict[str, Any]]:
    """What is given in part, if anything is; and what is given whole."""
    parts = {name: value for name, value in given.items() if isinstance(value, Partial)}
    whole = {name: value for name, value in given.items() if name not in parts}
    if len(parts) > 1:
        raise RequestError(f"{sorted(parts)}: known in part; only one field can be")
    if not parts:
        return None, whole
    (name, value), *_ = parts.items()
    return parse_part(run, run.schema[name], value, seed), whole


def check_part(part: Part, wanted: Sequence[str], more: bool) -> None:
    """RequestError for what does not go together with a value that is known in part. `more`:
    whether anything else is asked of texts or candidates."""
    if part.field not in wanted:
        raise RequestError(f"field {part.field!r} is known in part, and this run's tasks do not "
                           f"generate it; name it in want")  # fmt: skip
    if more:
        raise RequestError(
            f"field {part.field!r} is known in part: leave out prompt, suffix, aims, rerank, "
            f"choices and beams"
        )


def whole_ones(run: LoadedRun, part: Part | None, wanted: Sequence[str]) -> Sequence[str]:
    """The wanted fields that come whole: the rest of a value, as causal models make it, is none."""
    begun = part is not None and part.begins and not run.vocabulary.canvas
    return wanted[1:] if begun else wanted


def completed(
    run: LoadedRun, part: Part, made: list[Any] | None, steps: Sequence[Any], num: int
) -> list[Any]:
    """Values that were known in part, with what was known put back as it was. `made`: the values;
    None: the steps tell how they go on from their beginning."""
    codec: Any = run.vocabulary[part.field].codec
    if made is None:
        made = _continued(run, part.field, part.codes[part.codes >= 0], steps, num)
    return made if part.keep is None else [
        codec.pasted(value, part.value, part.keep) for value in made
    ]  # fmt: skip


def _continued(run: LoadedRun, name: str, codes: Ints, steps: Sequence[Any], num: int) -> list[Any]:
    """Values of fixed length whose first codes were given, and the rest chosen."""
    field = run.vocabulary[name]
    begun = field.first + codes
    whole = [np.concatenate([begun, rest]) for rest in chosen_ids(field, steps, num)]
    return decode_values(run, name, whole)
