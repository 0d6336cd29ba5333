"""The main tab: fields of the chosen model, settings, what comes of them, and what was asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from omnifill.serve.page.ask import (
    GIVEN,
    LINES,
    NUMBERS,
    Asked,
    as_command,
    as_curl,
    as_python,
    default_modes,
)
from omnifill.serve.page.client import Api, Refused
from omnifill.serve.page.fields import Drawn, NoNumber, draw, number_box, read_number, written
from omnifill.serve.page.looks import COLOURS
from omnifill.serve.page.results import Results, Shown, write_csv
from omnifill.serve.page.session import Running, until
from omnifill.serve.page.tabs import OFTEN, PRIVATE, stopping, why
from omnifill.serve.page.words import Say

KEPT = 30
"""Requests that the history of a session holds."""
SOUNDS = 8
"""Sounds that are played at once; more are in the records."""


class Work:
    """The tab's parts, by what they are for."""

    def __init__(self, say: Say, where: str, running: Running, model: Any, about: Any) -> None:
        self.say, self.where, self.running = say, where, running
        self.model, self.about = model, about
        self.settings: dict[str, Any] = {}
        self.out: dict[str, Any] = {}

    def draw(self) -> None:
        """Put everything on the page."""
        say = self.say
        self.shown: Any = gr.State(None)  # an entry of the history that is shown again
        self.history: Any = gr.State([])
        self.sounds: Any = gr.State([])
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                changed = [self.about.change, self.shown.change]
                gr.render([self.about, self.shown], changed, show_progress="hidden")(self._fields)
                with gr.Accordion(say("more"), open=False):
                    self._draw_settings()
            with gr.Column(min_width=320):
                self._draw_results()
        self.about.change(lambda about: gr.update(visible=bool(about.get("masked"))), self.about,
                          self.settings["steps"], **PRIVATE)  # fmt: skip
        self.load.click(self._again, [self.past, self.history, self.about],
                        [self.model, self.about, self.shown, self.sounds,
                         *self.settings.values(), *self.out.values()], **PRIVATE)  # fmt: skip

    def _draw_settings(self) -> None:
        say = self.say
        starts = {"n": "1", "seed": "0", "max_tokens": "512"}
        with gr.Row(elem_classes="numbers"):
            for name in NUMBERS:
                self.settings[name] = number_box(
                    starts.get(name), say(name), interactive=True, elem_id=name
                )
        for name in LINES:
            self.settings[name] = gr.Textbox(label=say(name), info=say(f"{name}_info"), lines=2,
                                             interactive=True, elem_id=name)  # fmt: skip
        for name in ("logprobs", "scores"):
            self.settings[name] = gr.Checkbox(label=say(name), interactive=True, elem_id=name)

    def _draw_results(self) -> None:
        say, out = self.say, self.out
        out["state"] = gr.Textbox(say("ready"), label=say("state"), interactive=False,
                                  elem_id="state", elem_classes="state")  # fmt: skip
        out["text"] = gr.Textbox(label=say("text"), lines=6, max_lines=20, interactive=False,
                                 buttons=["copy"], elem_id="text")  # fmt: skip
        out["likely"] = gr.HighlightedText(
            label=say("likely"), visible=False, show_legend=True, show_inline_category=False,
            interactive=False, combine_adjacent=False,
            color_map={say(kind): colour for kind, colour in COLOURS.items()}, elem_id="likely",
        )  # fmt: skip
        out["pictures"] = gr.Gallery(label=say("pictures"), visible=False, columns=4,
                                     object_fit="contain", buttons=["download"],
                                     interactive=False, elem_id="pictures")  # fmt: skip
        gr.render(self.sounds, show_progress="hidden")(self._sounds)
        out["table"] = gr.Dataframe(label=say("table"), interactive=False, wrap=True,
                                    visible=False, elem_id="table")  # fmt: skip
        out["csv"] = gr.DownloadButton(say("csv"), visible=False, elem_id="csv")
        out["ranked"] = gr.Dataframe(label=say("ranked"), interactive=False, visible=False,
                                     elem_id="ranked")  # fmt: skip
        with gr.Accordion(say("copy"), open=False):
            for name in ("command", "python", "curl"):
                out[name] = gr.Textbox(label=say(name), lines=2, max_lines=14, interactive=False,
                                       buttons=["copy"], elem_id=name)  # fmt: skip
        with gr.Accordion(say("history"), open=False):
            self.past = gr.Dropdown([], label=say("asked"), interactive=True, elem_id="past")
            self.load = gr.Button(say("again"), elem_id="again")

    # --- what depends on the model --------------------------------------------------------

    def _fields(self, about: dict[str, Any], entry: dict[str, Any] | None) -> None:
        """Draw the model's fields, and say what Generate does with them."""
        if not about:
            return
        if entry is not None and entry["asked"].model != about["id"]:
            entry = None
        modes = entry["asked"].modes if entry else default_modes(about)
        held = entry["held"] if entry else {}
        fields = [draw(self.say, one, modes[one["name"]], held.get(one["name"]))
                  for one in about["fields"]]  # fmt: skip
        for field in fields:
            if field.input is not None:
                field.mode.input(_showing, field.mode, field.input, **PRIVATE)
        gr.HTML(f"<p>{self.say('blank')}</p>", padding=False)
        begun, ended = self._draw_ends(about, entry)
        with gr.Row():
            go = gr.Button(self.say("generate"), variant="primary", elem_id="generate")
            halt = gr.Button(self.say("stop_now"), elem_id="halt")
        parts = [part for field in fields for part in (field.mode, field.input) if part is not None]
        inputs = {*parts, *self.settings.values(), begun, ended, self.history}
        outputs = [*self.out.values(), self.sounds, self.history, self.past]

        async def asked(data: dict[Any, Any], request: gr.Request) -> AsyncIterator[Any]:
            try:
                asked, held = self._read(about, fields, data)
            except NoNumber as error:
                yield {self.out["state"]: self.say("no_number", value=str(error))}
                return
            asked.prompt, asked.suffix = data[begun] or "", data[ended] or ""
            async for update in self._generate(about, asked, held, data[self.history], request):
                yield update

        gr.on([go.click, begun.submit], asked, inputs, outputs, **PRIVATE)
        halt.click(stopping(self.running), None, None, **PRIVATE)

    def _draw_ends(self, about: dict[str, Any], entry: dict[str, Any] | None) -> tuple[Any, Any]:
        """How the text begins, and ends where the model can look ahead."""
        texts, asked = bool(about["texts"]), entry["asked"] if entry else None
        begun = gr.Textbox(asked.prompt if asked else "", label=self.say("prompt"), max_lines=8,
                           info=self.say("prompt_info"), visible=texts, interactive=True,
                           elem_id="prompt")  # fmt: skip
        ended = gr.Textbox(asked.suffix if asked else "", label=self.say("suffix"), max_lines=8,
                           visible=texts and about["masked"], interactive=True)  # fmt: skip
        return begun, ended

    def _read(
        self, about: Mapping[str, Any], fields: list[Drawn], data: Mapping[Any, Any]
    ) -> tuple[Asked, dict[str, Any]]:
        """What was chosen, and what the parts themselves hold, to be drawn so again."""
        modes = {field.name: data[field.mode] for field in fields}
        held = {}
        for field in fields:
            if field.input is not None:
                value = data[field.input]
                drawing = isinstance(value, dict) and "composite" in value
                held[field.name] = value["composite"] if drawing else value
        values = {field.name: field.read(data[field.input]) for field in fields
                  if field.input is not None and modes[field.name] == GIVEN}  # fmt: skip
        settings = {name: read_number(data[part]) if name in NUMBERS else data[part]
                    for name, part in self.settings.items()}  # fmt: skip
        return Asked(about["id"], modes, values, settings), held

    def _sounds(self, files: list[str]) -> None:
        for number, file in enumerate(files[:SOUNDS], 1):
            gr.Audio(file, label=self.say("a_sound", number=number), interactive=False,
                     editable=False, buttons=["download"])  # fmt: skip

    # --- a request ------------------------------------------------------------------------

    async def _generate(
        self, about: dict[str, Any], asked: Asked, held: dict[str, Any],
        history: list[dict[str, Any]], request: gr.Request,
    ) -> AsyncIterator[dict[Any, Any]]:  # fmt: skip
        say, out, body = self.say, self.out, asked.body()
        if not body["want"]:
            yield {out["state"]: say("nothing_wanted")}
            return
        api = Api(self.where, request.cookies)
        results = Results(about, body["want"], body.get("n", 1))
        shown = self._begun(body, api, results)
        yield self._show(shown)
        who, started, last = str(request.session_hash), time.monotonic(), 0.0
        stop = self.running.begin(who)
        try:
            async for event in until(api.events("/v1/records", body), stop):
                results.read(event)
                if time.monotonic() - last > OFTEN:
                    last = time.monotonic()
                    yield {out["state"]: say("writing", count=results.count),
                           out["text"]: results.text(asked.prompt)}  # fmt: skip
        except Refused as refused:
            yield {out["state"]: why(say, refused), out["text"]: results.text(asked.prompt)}
            return
        finally:
            self.running.end(who, stop)
        if stop.is_set():
            shown.state = say("stopped")
        else:
            shown.state = say(
                "done", records=len(results.records), seconds=f"{time.monotonic() - started:.1f}",
                tokens=results.usage.get("completion_tokens", 0),
            ) + "".join(f"\n{warning}" for warning in results.warnings)  # fmt: skip
        self._over(shown, results, asked)
        history = [*history, {"asked": asked, "held": held, "shown": shown}][-KEPT:]
        yield self._show(shown) | {self.history: history, self.past: _listed(say, history)}
        if asked.settings.get("scores") and results.records:
            yield await self._scored(api, asked.model, results, shown)

    def _begun(self, body: dict[str, Any], api: Api, results: Results) -> Shown:
        """What is shown as soon as something is asked."""
        kinds = results.kinds
        copies = {
            "command": as_command(body, kinds, self.say("no_command")),
            "python": as_python(body, kinds),
            "curl": as_curl(body, self.where, api.has_key),
        }  # fmt: skip
        has_pictures = "image" in [kinds[name] for name in body["want"]]
        return Shown(copies, bool(results.texts), has_pictures, self.say("waiting"))

    def _over(self, shown: Shown, results: Results, asked: Asked) -> None:
        """Put in what has come. Files go to the server's own temporary folder."""
        folder = Path(tempfile.mkdtemp(dir=tempfile.gettempdir()))
        shown.text = results.text(asked.prompt)
        shown.likely = [(text, self.say(kind)) for text, kind in results.likely()]
        shown.pictures = results.files(folder, "image")
        shown.sounds = results.files(folder, "audio")
        shown.table = results.table(self.say("media"))
        if len(shown.table):
            shown.csv = write_csv(shown.table, folder / f"{asked.model}.csv")

    def _show(self, shown: Shown) -> dict[Any, Any]:
        """Every part of the results: nothing stays of what was shown before."""
        out = self.out
        return {
            out["state"]: shown.state, self.sounds: shown.sounds,
            out["text"]: gr.Textbox(shown.text, visible=shown.has_text),
            out["likely"]: gr.HighlightedText(shown.likely, visible=bool(shown.likely)),
            out["pictures"]: gr.Gallery(shown.pictures, visible=shown.has_pictures),
            out["table"]: gr.Dataframe(shown.table, visible=len(shown.table) > 0),
            out["csv"]: gr.DownloadButton(value=shown.csv, visible=shown.csv is not None),
            out["ranked"]: gr.Dataframe(shown.ranked, visible=len(shown.ranked) > 0),
            **{out[name]: copied for name, copied in shown.copies.items()},
        }  # fmt: skip

    async def _scored(self, api: Api, model: str, results: Results, shown: Shown) -> dict[Any, Any]:
        records = [record for _, record in sorted(results.records.items())]
        try:
            scores = await api.scores(model, records)
        except Refused as refused:
            shown.state = why(self.say, refused)
            return {self.out["state"]: shown.state}
        shown.ranked = results.ranked(scores, self.say("row"), self.say("score"))
        return {self.out["ranked"]: gr.Dataframe(shown.ranked, visible=True)}

    # --- history --------------------------------------------------------------------------

    async def _again(
        self, number: int | None, history: list[dict[str, Any]], about: dict[str, Any],
        request: gr.Request,
    ) -> dict[Any, Any]:  # fmt: skip
        """Show a request as it was asked, and what came of it."""
        if number is None or number >= len(history):
            return {self.shown: gr.skip()}
        entry = history[number]
        asked: Asked = entry["asked"]
        if about.get("id") != asked.model:
            about = await Api(self.where, request.cookies).schema(asked.model)
        settings = {part: written(asked.settings[name]) for name, part in self.settings.items()}
        # A state that is as it was draws nothing anew, though fields may have been changed since.
        drawn = {**entry, "when": time.monotonic()}
        return {self.model: asked.model, self.about: about, self.shown: drawn,
                **settings, **self._show(entry["shown"])}  # fmt: skip


def _showing(mode: str) -> Any:
    """Where a value is given is shown only if it is given."""
    return gr.update(visible=mode == GIVEN)


def _listed(say: Say, history: list[dict[str, Any]]) -> Any:
    """The history, latest first, each in a line."""
    lines = []
    for number, entry in enumerate(history):
        asked: Asked = entry["asked"]
        given = ", ".join(say("given_blank", name=name) if value is None
                          else f"{name}={_short(value)}"
                          for name, value in asked.given().items())  # fmt: skip
        begun = f" · {asked.prompt[:20]}" if asked.prompt else ""
        lines.append((f"{number + 1} · {asked.model} · {given or '–'} → "
                      f"{', '.join(asked.wants())}{begun}", number))  # fmt: skip
    return gr.Dropdown(lines[::-1], value=len(history) - 1)


def _short(value: Any) -> str:
    return "…" if isinstance(value, dict) else str(value)[:20]
