"""What people ask of a trained model, checked against its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnifill.artifact import LoadedRun
from omnifill.codecs.pretrained import PretrainedCodec, Templated
from omnifill.errors import RequestError, check_kind, unknown_name
from omnifill.form.tasks import tell_untrained, wanted_fields, wanted_from
from omnifill.generate.aims import Aim, Goal, parse_aims
from omnifill.generate.chat import Messages, templated
from omnifill.generate.checks import (
    check_bias,
    check_candidates,
    check_guidance,
    check_prompt,
    check_rule,
    check_sampler,
    check_steps,
    usual_guidance,
)
from omnifill.generate.choices import parse_choices
from omnifill.generate.constraint import Rule
from omnifill.generate.filters import Sampling
from omnifill.generate.given import as_learned, parse_given
from omnifill.generate.part import Part, check_part, known_part
from omnifill.generate.rerank import check_rerank
from omnifill.generate.steer import needs_steering
from omnifill.recipe import to_dict
from omnifill.schema import Schema

CANDIDATES = 6
"""Records drawn for each that is kept by its aims."""


@dataclass(frozen=True, eq=False)
class Wish:
    """What somebody asks for, as it was said."""

    num: int = 1
    given: Mapping[str, Any] | None = None
    want: Sequence[str] | None = None
    """Fields to generate; None or none: all others."""
    prompt: str | Messages | None = None
    """What the first wanted text begins with; or messages, for the chat template of an imported
    checkpoint, which the text answers."""
    suffix: str | None = None
    """What it ends with."""
    seed: int = 0
    max_tokens: int = 512
    no_missing: Sequence[str] = ()
    stop: Sequence[str] = ()
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    rerank: int = 1
    """Candidates that are drawn for each record, of which the one most like the others is kept."""
    aims: Sequence[Goal] = ()
    candidates: int | None = None
    """Records that are drawn for each one that is kept by its aims."""
    choices: Sequence[str] | None = None
    """Texts among which the wanted one is chosen by likelihood."""
    rule: Rule | None = None
    """What the first wanted text must obey, behind its prompt."""


@dataclass(frozen=True, eq=False)
class Request:
    """Records to generate, n rows with the same given and wanted fields: a `Wish`, checked."""

    num: int
    given: dict[str, Any]
    """Canonical values by field."""
    want: list[str]
    prompt: str | None
    seed: int
    max_tokens: int
    no_missing: list[str]
    stop: list[str]
    sampling: Sampling
    rerank: int = 1
    aims: Sequence[Aim] = ()
    candidates: int = 1
    suffix: str | None = None
    choices: Sequence[str] | None = None
    part: Part | None = None
    rule: Rule | None = None


def sampling_of(run: LoadedRun | None, values: Mapping[str, Any]) -> Sampling:
    """Sampling options by name, what is not said as the run's recipe has it; RequestError names the
    near one."""
    known = [option.name for option in dataclasses.fields(Sampling)]
    for name in values:
        if name not in known:
            raise RequestError(unknown_name("sampling option", name, known))
    drawn = run is not None and values.get("beams", 1) == 1
    usual = to_dict(run.recipe)["generate"] if run is not None and drawn else {}
    usual = {name: value for name, value in usual.items() if value is not None}
    return Sampling(**(usual | dict(values)))


def _check_names(schema: Schema, key: str, names: Iterable[Any]) -> None:
    for name in names:
        check_kind(key, name, str, "names of fields")
        try:
            schema[name]
        except RequestError as error:
            raise RequestError(f"{key}: {error}") from None


def build(run: LoadedRun, wish: Wish) -> Request:
    """Check a wish against the model's fields; RequestError or ValueRefused says what is off."""
    schema, num, want = run.schema, wish.num, wish.want
    prompt, suffix = _begun(run, wish.prompt), wish.suffix
    sampling, seed, max_tokens = wish.sampling, wish.seed, wish.max_tokens
    given = {} if wish.given is None else wish.given
    check_kind("given", given, Mapping, "a dict from field to value")
    for name, value in (("n", num), ("max_tokens", max_tokens), ("seed", seed)):
        check_kind(name, value, (int, np.integer), "a whole number")
    for key, names in (("given", given), ("want", want or []), ("no_missing", wish.no_missing)):
        _check_names(schema, key, names)
    for name, value in (("n", num), ("max_tokens", max_tokens)):
        if value < 1:
            raise RequestError(f"{name} = {value}: must be 1 or more")
    if not 0 <= seed < 2**64:
        raise RequestError(f"seed = {seed}: must be from 0 to 2^64 - 1")
    if "" in wish.stop:
        raise RequestError("stop: an empty string would end every text before it begins")
    if len(set(want or [])) < len(want or []):
        raise RequestError(f"want = {list(want or [])}: names a field twice")
    part, given = known_part(run, given, seed)
    both = set(given) & set(want or [])
    if both:
        raise RequestError(f"{sorted(both)}: given and wanted at once; leave it out of one")
    parsed = {name: parse_given(run, schema[name], value) for name, value in given.items()}
    form = run.recipe.form
    if part is not None and want and part.field not in want:
        want = [part.field, *want]
    wanted = list(want) if want else wanted_from(run.vocabulary, form, parsed)
    if not wanted:
        raise RequestError("every field is given; there is nothing to generate")
    if wish.choices is not None and not set(wanted) & set(wanted_fields(run.vocabulary, form)):
        tell_untrained(form, wanted, parsed)  # weighed by how likely the others are beside each
    else:
        tell_untrained(form, parsed, wanted)
    parsed_aims = _aims(run, wish, wanted, parsed, isinstance(prompt, Templated))
    wanted = run.vocabulary.in_order(name for name in wanted if name not in parsed)
    if not wanted:
        raise RequestError("what is aimed at is given, and nothing else is wanted")
    if prompt is not None or wish.suffix is not None:
        said = want or wanted  # aims are about the first that is said, too
        texts = [n for n in said if n in wanted and run.vocabulary[n].slots is None]
        if not texts:
            named = "suffix" if prompt is None else "prompt"
            raise RequestError(f"{named}: is a part of a text, and no text is wanted")
        wanted = [texts[0], *(n for n in wanted if n != texts[0])]
        prompt, suffix = (as_learned(run, schema[texts[0]], t) for t in (prompt, wish.suffix))
        check_prompt(run, texts[0], prompt or "")
    prompt, suffix, wanted = _opened(run, wanted, prompt, suffix)
    if part is not None:
        more = [prompt, suffix, wish.aims, wish.rerank != 1, wish.choices, sampling.beams > 1]
        check_part(part, wanted, any(more))
        wanted = [part.field, *(n for n in wanted if n != part.field)]
    check_sampler(run, sampling, wish.suffix)
    check_bias(run, sampling, wanted)
    check_steps(run, sampling, wanted, max_tokens)
    if wish.stop and not any(run.vocabulary[n].slots is None for n in wanted):
        raise RequestError("stop: ends texts, and no text is wanted")
    if parsed:
        sampling = usual_guidance(run, sampling, wanted)
    if sampling.strength != 1:
        check_guidance(run, parsed)
    if sampling.beams > 1 and num > sampling.beams:
        raise RequestError(f"n = {num}: {sampling.beams} beams find no more than that")
    if wish.rerank != 1:
        check_rerank(run, wanted, wish.rerank, sampling)
    choices = None if wish.choices is None else _check_choices(run, wish, wanted)
    if wish.rule is not None:
        beside = wish.choices is not None or wish.stop or needs_steering(parsed_aims)
        wanted = check_rule(run, wanted, bool(beside) or sampling.beams > 1)
    if sampling.beams > 1 and wish.stop:
        raise RequestError("stop: ends what is drawn, and beams search; leave one out")
    return Request(
        num, parsed, wanted, prompt, seed, max_tokens, list(wish.no_missing), list(wish.stop),
        sampling, wish.rerank, parsed_aims,
        wish.candidates or (CANDIDATES if parsed_aims else 1), suffix, choices, part,
        wish.rule,
    )  # fmt: skip


def _aims(
    run: LoadedRun, wish: Wish, wanted: Sequence[str], given: dict[str, Any], chat: bool
) -> list[Aim]:
    """What candidates are compared by; values that are aimed at join what is given."""
    aims = parse_aims(run, wish.aims, wanted)
    texts = [name for name in wanted if run.vocabulary[name].slots is None]
    check_candidates(aims, wish.candidates, wish.sampling, wish.rerank, bool(texts) and not chat)
    for aim in aims:
        if aim.value is not None and given.setdefault(aim.field, aim.value) != aim.value:
            raise RequestError(f"aim {aim.name}: {aim.field!r} is given another value")
    return aims


def _begun(run: LoadedRun, prompt: str | Messages | None) -> str | None:
    """The prompt as text."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    return templated(run, prompt)


def _opened(
    run: LoadedRun, wanted: list[str], prompt: str | None, suffix: str | None
) -> tuple[str | None, str | None, list[str]]:
    """Prompt, suffix and wanted fields, where a text begins or ends with tokens of its own, since
    the network knows no <bos>: they are there even if nothing is said."""
    for name in wanted:
        codec = run.vocabulary[name].codec
        if isinstance(codec, PretrainedCodec) and (codec.opener is not None or codec.tail):
            suffix = suffix or "" if codec.tail else suffix
            return prompt or "", suffix, [name, *(n for n in wanted if n != name)]
    return prompt, suffix, wanted


def _check_choices(run: LoadedRun, wish: Wish, wanted: Sequence[str]) -> list[str]:
    """The texts among which to choose; RequestError for whatever else would have no effect."""
    if len(wanted) != 1:
        raise RequestError(
            f"choices: are values of one field, and {len(wanted)} are wanted; name it"
        )
    more = [wish.prompt, wish.suffix, wish.stop, wish.aims, wish.rerank != 1, wish.no_missing]
    plain = Sampling(temperature=wish.sampling.temperature)
    if any(more) or wish.sampling != plain or wish.max_tokens != Wish.max_tokens:
        raise RequestError(
            "choices: are weighed as they are: beside given, want, n, seed and temperature leave "
            "out the rest"
        )
    return parse_choices(run, wanted[0], wish.choices or ())
