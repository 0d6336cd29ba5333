"""What a run writes behind a few beginnings, the likeliest token each time: kept in its folder, and
written again by what was exported, before anybody relies on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.codecs.pretrained import Templated
from omnifill.errors import RunError
from omnifill.generate import requests, wishes
from omnifill.generate.filters import Sampling
from omnifill.sums import read_sums

FILE = "golden.json"
BEGINNINGS = ("The first of them", "1, 2, 3,", "你好")
TOKENS = 16
AGREED = 8
"""Characters that must be the same in all, where an answer breaks off."""


@dataclass(frozen=True)
class Transcript:
    """What was asked, and what was answered."""

    asked: str
    answer: str


def transcripts(run: LoadedRun) -> list[Transcript]:
    """Those that the run's folder keeps; of weights that have none yet they are made, and kept."""
    model = read_sums(run.folder.path).get("model.safetensors")
    if (run.folder.path / FILE).exists():
        kept = run.folder.read_json(FILE)
        if isinstance(kept, dict) and kept.get("model") == model and model is not None:
            return [Transcript(**one) for one in kept["texts"]]
    made = [Transcript(text, answered(run, text)) for text in BEGINNINGS]
    tree = {"model": model, "texts": [vars(one) for one in made]}
    with suppress(OSError):  # a run that may only be read can leave all the same
        run.folder.write(FILE, json.dumps(tree, ensure_ascii=False, indent=1))
    return made


def replay(
    run: LoadedRun, golden: list[Transcript], told: Callable[[str], str] | None = None
) -> None:
    """RunError if a run of one text answers otherwise. `told`: what a template makes of what is
    asked, where there is one."""
    agreed, broken = 0, False
    for one in golden:
        answer = answered(run, Templated(told(one.asked)) if told else one.asked)
        # A checkpoint knows no grammar: it may leave a character half written; a run never does.
        whole, half, _ = answer.partition("\ufffd")
        broken_off = half and half not in one.answer and one.answer.startswith(whole)
        agreed += len((whole if broken_off else answer).removeprefix("" if told else one.asked))
        broken |= bool(broken_off)
        too_little = one is golden[-1] and broken and agreed < AGREED
        if too_little or (answer != one.answer and not broken_off):
            raise RunError(f"what was exported answers {one.asked!r} by {answer!r}, and the run by "
                           f"{one.answer!r}: it was not kept")  # fmt: skip


def answered(run: LoadedRun, text: str) -> str:
    """What a run writes behind a text, or between it and an end, or for it."""
    *given, wanted = run.schema.names
    if task := next(iter(run.recipe.form.tasks), None):
        given, wanted = list(task.given), task.want[0]
    most = run.network.config.most_slots or TOKENS + 100
    asked: dict[str, Any] = {"given": {name: text for name in given}} if given else {"prompt": text}
    if run.vocabulary.canvas:
        asked["suffix"] = text
    room = max(1, min(TOKENS, most - 2 - len(run.vocabulary[wanted].codec.encode(text)) * 2))
    wish = wishes.Wish(**asked, max_tokens=room, sampling=Sampling(temperature=0))
    made: str = requests.run(run, wishes.build(run, wish))[wanted][0]
    return made
