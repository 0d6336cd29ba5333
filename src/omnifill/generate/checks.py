"""Options that a model cannot heed, or that would have no effect, are refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.shards import Shard
from omnifill.errors import RequestError
from omnifill.generate.aims import Aim
from omnifill.generate.filters import MEDIA_GUIDANCE, Sampling
from omnifill.schema import MEDIA

MOST_CANDIDATES = 256
FORWARDS = ("beams", "length_penalty", "repetition_penalty", "no_repeat_ngram", "presence_penalty",
            "frequency_penalty", "logit_bias")  # fmt: skip
"""Sampling options of models that write from left to right."""
AT_ONCE = ("steps", "order", "remask")
"""Those of masked models."""


def check_sampler(run: LoadedRun, sampling: Sampling, suffix: str | None = None) -> None:
    """RequestError for an option that this kind of model cannot heed."""
    usual = Sampling()
    canvas = run.vocabulary.canvas
    for name in FORWARDS if canvas else AT_ONCE:
        if getattr(sampling, name) != getattr(usual, name):
            kind = "writes from left to right" if not canvas else "chooses slots in any order"
            wanted = "masked" if not canvas else "causal"
            raise RequestError(
                f"{name}: this model {kind}; the option is for models trained with "
                f"--set objective.name={wanted}"
            )
    if suffix is not None and not canvas:
        raise RequestError(
            "suffix: this model writes from left to right and cannot aim at an end; train one "
            "with --set objective.name=masked"
        )


def check_steps(run: LoadedRun, sampling: Sampling, wanted: Sequence[str], max_tokens: int) -> None:
    """RequestError for more steps than there can be slots to choose."""
    most = sum(run.vocabulary[name].slots or max_tokens + 1 for name in wanted)
    if sampling.steps is not None and sampling.steps > most:
        raise RequestError(f"steps = {sampling.steps}: no more than {most} can be needed; "
                           f"leave it out to choose them one by one")  # fmt: skip


def check_candidates(
    aims: Sequence[Aim], candidates: int | None, sampling: Sampling, rerank: int, texts: bool
) -> None:
    """RequestError where nothing tells candidates apart, or all would be one. `texts`: whether some
    are wanted that are not answers in a chat, of which the model says how likely they are."""
    if candidates is not None and not aims and not texts:
        raise RequestError("candidates: are compared by aims, or by how likely their texts are; "
                           "name aims, or want a text that is no answer in a chat")  # fmt: skip
    if candidates is not None and not 1 <= candidates <= MOST_CANDIDATES:
        raise RequestError(f"candidates = {candidates}: must be from 1 to {MOST_CANDIDATES}")
    drawn = sampling.beams == 1 and sampling.temperature > 0 and rerank == 1
    if (aims or candidates is not None) and not drawn:
        raise RequestError("aims and candidates choose among what is drawn: leave out beams, "
                           "rerank and temperature 0")  # fmt: skip


def check_bias(run: LoadedRun, sampling: Sampling, wanted: Sequence[str]) -> None:
    """RequestError for a bias on tokens that no wanted text has."""
    if not sampling.logit_bias:
        return
    texts = [run.vocabulary[n] for n in wanted if run.vocabulary[n].slots is None]
    if not texts:
        raise RequestError("logit_bias: is about tokens of a text, and no text is wanted")
    for token in sampling.logit_bias:
        if not 0 <= token < min(field.codec.size for field in texts):
            raise RequestError(f"logit_bias: token {token} is none of the text's "
                               f"{texts[0].codec.size}")  # fmt: skip


def check_guidance(run: LoadedRun, given: Mapping[str, Any]) -> None:
    """RequestError where there is nothing to lean towards, or nothing to compare it with."""
    if not given:
        raise RequestError("guidance: strengthens what is given, and nothing is given")
    if run.recipe.form.tasks and not run.recipe.form.drop_given:
        raise RequestError(
            "guidance: compares with records read without what is given, and this run never saw "
            "any: train with form.drop_given above 0"
        )


def usual_guidance(run: LoadedRun, sampling: Sampling, wanted: Sequence[str]) -> Sampling:
    """Sampling whose guidance is settled, where something is given. What is searched for is the
    likeliest, as the model has it."""
    media = all(run.schema[name].type in MEDIA for name in wanted)
    compares = run.recipe.form.drop_given or not run.recipe.form.tasks
    if sampling.guidance is not None or sampling.beams > 1 or not (media and compares):
        return sampling
    return replace(sampling, guidance=MEDIA_GUIDANCE)


def check_rule(run: LoadedRun, wanted: Sequence[str], beside: bool) -> list[str]:
    """The wanted fields, the text that obeys a rule first; RequestError where none could. `beside`:
    whether something else is asked for that no rule goes with."""
    texts = [n for n in wanted if run.vocabulary[n].slots is None]
    if not texts:
        raise RequestError("a schema, regex or grammar is about a text, and no text is wanted")
    if run.vocabulary.canvas:
        raise RequestError("a schema, regex or grammar is followed from beginning to end, and a "
                           "masked model makes a text as a whole")  # fmt: skip
    if beside:
        raise RequestError("beside a schema, regex or grammar leave out choices, stop strings, "
                           "beams, and aims for which texts are steered")  # fmt: skip
    return [texts[0], *(n for n in wanted if n != texts[0])]


def check_places(run: LoadedRun, shard: Shard, want: Sequence[str], max_tokens: int) -> None:
    """RequestError where a network of so many positions has none for what is given and wanted. An
    encoder has positions of its own, so that its decoder needs none for what is given."""
    most = run.network.config.most_slots
    if most is None:
        return
    size = 1 + int(shard.sizes[0])
    if run.network.encoder is not None:
        begun = int(shard.lens[0, [run.vocabulary[name].index for name in want]].sum())
        if size - begun > most:
            raise RequestError(f"{size - begun - 1} tokens are given, and there are positions for "
                               f"{most - 1}")  # fmt: skip
        size = 1 + begun
    wanted = sum(run.vocabulary[name].slots or max_tokens for name in want)
    if size + wanted > most:
        raise RequestError(f"max_tokens = {max_tokens}: beside the {size - 1} tokens that "
                           f"are given there are positions for {max(0, most - size)}")  # fmt: skip


def check_prompt(run: LoadedRun, name: str, prompt: str) -> None:
    """RequestError for a prompt of more tokens than an imported checkpoint reads; a run that was
    trained here goes on from what is in view, with a warning."""
    if run.schema[name].codec == "pretrained":
        num, most = len(run.vocabulary[name].codec.encode(prompt)), run.network.config.context - 1
        if num > most:
            raise RequestError(f"prompt: has {num} tokens, and the network reads at most "
                               f"{most}; shorten it")  # fmt: skip
