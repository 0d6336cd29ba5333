"""A part of the page for each type of field, and what is read from it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from omnifill.serve.page.ask import GIVEN, OUT, WANTED
from omnifill.serve.page.words import WORDS, Say

SMALL = 64
"""Pictures up to so many pixels a side are drawn by hand."""
CANVAS = 280
"""What a small picture is drawn at, in pixels."""


@dataclass(frozen=True)
class Drawn:
    """What a field is on the page."""

    name: str
    mode: Any
    """The switch between given, wanted and left out."""
    input: Any
    """Where a value is given; None: this type cannot be given here."""
    read: Callable[[Any], Any]
    """What the part holds -> the value as the API takes it."""


def draw(say: Say, about: Mapping[str, Any], mode: str, value: Any = None) -> Drawn:
    """A field. `value`: what its part held when it was asked before."""
    name = about["name"]
    with gr.Group(elem_classes="field"):
        choices = [(say(one), one) for one in (GIVEN, WANTED, OUT)]
        switch = gr.Radio(choices, value=mode, label=name, info=_info(say, about),
                          interactive=True, elem_classes="mode")  # fmt: skip
        make, read = PARTS.get(about["type"], (None, _as_it_is))
        if make is None:
            gr.Textbox(say("unknown", type=about["type"]), show_label=False, interactive=False)
            return Drawn(name, switch, None, read)
        # Gradio sends a part without a key no value of None: what was there before would stay.
        part = make(say, about, value, visible=mode == GIVEN, interactive=True,
                    key=(about["type"], name), preserved_by_key=[])  # fmt: skip
    if about["type"] == "image" and _is_small(about):
        return Drawn(name, switch, part, lambda held: read_drawing(held, about))
    return Drawn(name, switch, part, read)


def _info(say: Say, about: Mapping[str, Any]) -> str:
    """What a field is, in few words."""
    kind = about["type"]
    if kind == "category":
        return say("category_info", count=len(about["values"]))
    if kind == "number" and "low" in about and "high" in about:
        return say("number_range", low=about["low"], high=about["high"])
    return say(f"{kind}_info") if f"{kind}_info" in WORDS else kind


def _text(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    return gr.Textbox(value, label=say("value_of", name=about["name"]), lines=3, max_lines=12,
                      **more)  # fmt: skip


def _category(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    values = [str(one) for one in about["values"]]
    return gr.Dropdown(values, value=value, label=say("value_of", name=about["name"]), **more)


def _number(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    return number_box(written(value), say("value_of", name=about["name"]), **more)


def number_box(value: str | None, label: str, **more: Any) -> Any:
    """Where a number is typed. Gradio's own part makes 0 of what is left empty, and empty has a
    meaning here."""
    return gr.Textbox(value, label=label, lines=1, max_lines=1, min_width=130, **more)


def _datetime(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    has_time = "H" in about.get("format", "") or "T" in about.get("format", "")
    return gr.DateTime(value, label=say("value_of", name=about["name"]), type="string",
                       include_time=has_time, **more)  # fmt: skip


def _image(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    if not _is_small(about):
        return gr.Image(value, label=say("picture", name=about["name"]), type="filepath",
                        sources=["upload", "clipboard"], height=260, buttons=[],
                        **more)  # fmt: skip
    ground = value or Image.new("RGB", (CANVAS, CANVAS), "black")
    return gr.ImageEditor(
        {"background": ground, "layers": [], "composite": None}, type="pil", image_mode="RGB",
        label=say("draw", name=about["name"]), sources=["upload"],
        canvas_size=(CANVAS, CANVAS), fixed_canvas=True, layers=False, transforms=(), height=420,
        brush=gr.Brush(default_size=18, colors=["#ffffff", "#000000"], default_color="#ffffff",
                       color_mode="fixed" if about.get("mode") == "L" else "defaults"),
        eraser=gr.Eraser(default_size=18), buttons=[], **more,
    )  # fmt: skip


def _audio(say: Say, about: Mapping[str, Any], value: Any, **more: Any) -> Any:
    return gr.Audio(value, label=say("sound", name=about["name"]), type="filepath",
                    sources=["upload", "microphone"], editable=False, buttons=[],
                    **more)  # fmt: skip


def _is_small(about: Mapping[str, Any]) -> bool:
    sides = [int(about.get(side, SMALL + 1)) for side in ("width", "height")]
    return max(sides) <= SMALL


def _as_it_is(held: Any) -> Any:
    return held


class NoNumber(Exception):
    """Something was typed where a number belongs."""


def read_number(held: Any) -> int | float | None:
    """What was typed; empty: nothing."""
    text = str(held or "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise NoNumber(text[:80]) from None
    if not math.isfinite(number):
        raise NoNumber(text[:80])
    return number


def written(value: Any) -> Any:
    """A number as it is typed; what is none stays as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _read_date(held: Any) -> Any:
    return held or None


def _read_file(held: Any) -> Any:
    """The bytes of a file that was uploaded."""
    if not held:
        return None
    return {"data": base64.b64encode(Path(held).read_bytes()).decode("ascii")}


def read_drawing(held: Any, about: Mapping[str, Any]) -> Any:
    """A drawing in the size and colours that the model's pictures have."""
    picture = held and (held.get("composite") or held.get("background"))
    if not picture:
        return None
    mode = about.get("mode", "RGB")
    small = picture.convert(mode).resize((about["width"], about["height"]), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "PNG")
    return {"data": base64.b64encode(file.getvalue()).decode("ascii")}


PARTS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "text": (_text, _as_it_is), "category": (_category, _as_it_is),
    "number": (_number, read_number), "datetime": (_datetime, _read_date),
    "image": (_image, _read_file), "audio": (_audio, _read_file),
}  # fmt: skip
