"""Pictures and sounds on the report's page: real, reconstructed, generated; to look at and hear."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from typing import Any

from omnifill.artifact import LoadedRun
from omnifill.data.image import sheet
from omnifill.evaluate.evaluation import Evaluation
from omnifill.evaluate.items import Items, SoundView
from omnifill.form.tasks import wanted_fields
from omnifill.form.vocabulary import decode_grid
from omnifill.schema import MEDIA, FieldSpec

SEARCHED = 20_000
"""Training items among which the nearest is looked for."""
DRAWN, COLUMNS = 40, 10
"""Items of each kind, and how many stand side by side."""
HEARD, SECONDS = 4, 5
"""Sounds of each kind that can be heard, and how much of each."""


def sheets(run: LoadedRun, found: Evaluation) -> Iterator[dict[str, Any]]:
    """Of each field of pictures or sounds that is generated: some real ones, the same as codes,
    generated ones, and of these the nearest training items."""
    learned = wanted_fields(run.vocabulary, run.recipe.form)
    for spec in found.schema.fields:
        if spec.type not in MEDIA or spec.name not in found.made or spec.name not in learned:
            continue
        real, made, train = (
            Items.of(spec, part) for part in (found.held_out, found.made, found.train)
        )
        if not real.values or not made.values:
            continue
        # From all over: files may be sorted by what they show.
        step = max(1, len(real.values) // DRAWN)
        some = real.pick(range(0, len(real.values), step)[:DRAWN])
        made, train = made.first(DRAWN), train.shuffled(SEARCHED)
        codec = run.vocabulary[spec.name].codec
        codes, _ = codec.encode_many(some.values)
        again = decode_grid(codec, codes.reshape(len(some.values), -1))
        near = [train.values[i] for i in _nearest(made, train)]
        what = "sound" if spec.type == "audio" else "picture"
        for title, items in (
            ("real", some), ("the same, as codes", some.like(again)), ("generated", made),
            (f"the training {what} next to each", made.like(near)),
        ):  # fmt: skip
            yield {
                "title": f"{spec.name}: {title}", "src": _drawn(items), "heard": _players(items),
            }  # fmt: skip


def embedded(spec: FieldSpec, value: bytes) -> str:
    """One picture, or what a sound looks like, as an address in the page itself."""
    return _drawn(Items.of(spec, {spec.name: [value]}))


def _drawn(items: Items) -> str:
    """Side by side, as the address of a picture in the page itself."""
    buffer = io.BytesIO()
    sheet(items.view.images(items.values), COLUMNS).save(buffer, "PNG")
    return _address("image/png", buffer.getvalue())


def _players(items: Items) -> list[str]:
    """The first sounds, as addresses in the page itself; of pictures none."""
    if not isinstance(items.view, SoundView):
        return []
    out, rate = [], items.view.shape.rate
    for value in items.values[:HEARD]:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(value[: 2 * SECONDS * rate])
        out.append(_address("audio/wav", buffer.getvalue()))
    return out


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _nearest(made: Items, train: Items) -> list[int]:
    """Of each generated item the training item of the least difference, cell by cell."""
    ours, theirs = made.grids.flatten(1), train.grids.flatten(1)
    apart = theirs.square().sum(dim=1)[None] - 2 * ours @ theirs.T
    return [int(i) for i in apart.argmin(dim=1)]
