"""A part of the page for each type of field, and what is read from it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from omnifill.serve.page.ask import GIVEN, OUT, WANTED
from omnifill.serve.page.words import Say

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
        switch = gr.Radio(choices, value=mode, label=say("use", name=name), elem_classes="mode")
        make, read = PARTS.get(about["type"], (None, _as_it_is))
        if make is None:
            gr.Textbox(say("unknown", type=about["type"]), show_label=False, interactive=False)
            return Drawn(name, switch, None, read)
        part = make(say, about, value, mode == GIVEN)
    if about["type"] == "image" and _is_small(about):
        return Drawn(name, switch, part, lambda held: read_drawing(held, about))
    return Drawn(name, switch, part, read)


def _text(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    return gr.Textbox(value, label=about["name"], info=say("text_info"), lines=3, max_lines=12,
                      visible=shown, interactive=True)  # fmt: skip


def _category(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    values = [str(one) for one in about["values"]]
    return gr.Dropdown(values, value=value, label=about["name"], visible=shown, interactive=True,
                       info=say("category_info", count=len(values)))  # fmt: skip


def _number(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    limits = {key: about[key] for key in ("low", "high") if key in about}
    info = say("number_info", **limits) if len(limits) == 2 else say("plain_number_info")
    return gr.Number(value, label=about["name"], info=info, visible=shown, interactive=True,
                     step=10.0 ** -about.get("decimals", 0))  # fmt: skip


def _datetime(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    has_time = "H" in about.get("format", "") or "T" in about.get("format", "")
    return gr.DateTime(value, label=about["name"], info=say("datetime_info"), type="string",
                       include_time=has_time, visible=shown, interactive=True)  # fmt: skip


def _image(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    if not _is_small(about):
        return gr.Image(value, label=say("picture", name=about["name"]), type="filepath",
                        sources=["upload", "clipboard"], visible=shown, interactive=True,
                        height=260, buttons=[])  # fmt: skip
    ground = value or Image.new("RGB", (CANVAS, CANVAS), "black")
    return gr.ImageEditor(
        {"background": ground, "layers": [], "composite": None}, type="pil", image_mode="RGB",
        label=say("draw", name=about["name"]), sources=["upload"], visible=shown, interactive=True,
        canvas_size=(CANVAS, CANVAS), fixed_canvas=True, layers=False, transforms=(), height=420,
        brush=gr.Brush(default_size=18, colors=["#ffffff", "#000000"], default_color="#ffffff",
                       color_mode="fixed" if about.get("mode") == "L" else "defaults"),
        eraser=gr.Eraser(default_size=18), buttons=[],
    )  # fmt: skip


def _audio(say: Say, about: Mapping[str, Any], value: Any, shown: bool) -> Any:
    return gr.Audio(value, label=say("sound", name=about["name"]), type="filepath",
                    sources=["upload", "microphone"], visible=shown, interactive=True,
                    editable=False, buttons=[])  # fmt: skip


def _is_small(about: Mapping[str, Any]) -> bool:
    return max(about.get("width", SMALL + 1), about.get("height", SMALL + 1)) <= SMALL


def _as_it_is(held: Any) -> Any:
    return held


def _read_number(held: Any) -> Any:
    return int(held) if isinstance(held, float) and held.is_integer() else held


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
    "text": (_text, _as_it_is), "category": (_category, _as_it_is), "number": (_number, _read_number),
    "datetime": (_datetime, _read_date), "image": (_image, _read_file), "audio": (_audio, _read_file),
}  # fmt: skip
