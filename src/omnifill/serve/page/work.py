"""The main tab: fields of the chosen model, settings, what comes of them, and what was asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from omnifill.serve.page.ask import (
    GIVEN,
    NUMBERS,
    Asked,
    as_command,
    as_curl,
    as_python,
    default_modes,
)
from omnifill.serve.page.client import Api, Refused
from omnifill.serve.page.fields import Drawn, draw
from omnifill.serve.page.looks import COLOURS
from omnifill.serve.page.results import Results, write_csv
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
                place = gr.Column()
                self.begun = gr.Textbox(label=say("prompt"), info=say("prompt_info"), lines=1,
                                        max_lines=8, elem_id="prompt")  # fmt: skip
                self.ended = gr.Textbox(label=say("suffix"), lines=1, max_lines=8)
                with gr.Accordion(say("more"), open=False):
                    self._draw_settings()
                with gr.Row():
                    self.go = gr.Button(say("generate"), variant="primary", elem_id="generate")
                    self.halt = gr.Button(say("stop_now"), elem_id="stop")
            with gr.Column(min_width=320):
                self._draw_results()
        with place:
            gr.render([self.about, self.shown], triggers=[self.about.change, self.shown.change],
                      show_progress="hidden")(self._fields)  # fmt: skip
        self.halt.click(stopping(self.running), None, None, queue=False, **PRIVATE)
        self.about.change(self._fitting, self.about,
                          [self.begun, self.ended, self.settings["steps"]], **PRIVATE)  # fmt: skip
        self.load.click(self._again, [self.past, self.history, self.about],
                        [self.model, self.about, self.shown, *self.settings.values(), self.begun,
                         self.ended, self.out["text"], self.out["table"]], **PRIVATE)  # fmt: skip

    def _draw_settings(self) -> None:
        say = self.say
        starts = {"n": 1, "seed": 0, "max_tokens": 512}
        with gr.Row():
            for name in NUMBERS:
                whole = 0 if name not in ("temperature", "top_p", "min_p", "guidance") else None
                self.settings[name] = gr.Number(
                    starts.get(name), label=say(name), precision=whole, min_width=130,
                    step=1 if whole == 0 else 0.05, elem_id=name,
                    info=say("seed_info") if name == "seed" else None,
                )  # fmt: skip
        self.settings["stop"] = gr.Textbox(label=say("stop"), info=say("stop_info"), lines=2)
        self.settings["aims"] = gr.Textbox(label=say("aims"), info=say("aims_info"), lines=2)
        self.settings["logprobs"] = gr.Checkbox(label=say("logprobs"), elem_id="logprobs")
        self.settings["scores"] = gr.Checkbox(label=say("scores"), elem_id="scores")

    def _draw_results(self) -> None:
        say, out = self.say, self.out
        out["state"] = gr.Textbox(say("ready"), label=say("state"), interactive=False,
                                  elem_id="state", elem_classes="state")  # fmt: skip
        out["text"] = gr.Textbox(label=say("text"), lines=6, max_lines=20, interactive=False,
                                 buttons=["copy"], elem_id="text")  # fmt: skip
        out["likely"] = gr.HighlightedText(
            label=say("likely"), visible=False, show_legend=True, show_inline_category=False,
            color_map={say(kind): colour for kind, colour in COLOURS.items()}, elem_id="likely",
        )  # fmt: skip
        out["pictures"] = gr.Gallery(label=say("pictures"), visible=False, columns=4, height="auto",
                                     object_fit="contain", buttons=["download"],
                                     elem_id="pictures")  # fmt: skip
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
        gr.HTML(f"<p>{self.say('blank')}</p>", padding=False)
        for field in fields:
            if field.input is not None:
                field.mode.change(_showing, field.mode, field.input, queue=False, **PRIVATE)
        parts = [part for field in fields for part in (field.mode, field.input) if part is not None]
        inputs = {*parts, *self.settings.values(), self.begun, self.ended, self.history}
        outputs = [*self.out.values(), self.sounds, self.history, self.past]

        async def go(data: dict[Any, Any], request: gr.Request) -> AsyncIterator[Any]:
            asked, held = self._read(about, fields, data)
            async for update in self._generate(about, asked, held, data[self.history], request):
                yield update

        gr.on([self.go.click, self.begun.submit], go, inputs, outputs, **PRIVATE)

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
        settings = {name: data[part] for name, part in self.settings.items()}
        asked = Asked(about["id"], modes, values, settings, data[self.begun] or "",
                      data[self.ended] or "")  # fmt: skip
        return asked, held

    def _fitting(self, about: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Only what has an effect on this model is shown."""
        masked, texts = bool(about.get("masked")), bool(about.get("texts"))
        return (gr.Textbox(visible=texts), gr.Textbox(visible=texts and masked),
                gr.Number(visible=masked))  # fmt: skip

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
        yield self._cleared(about, body, api, results)
        who, started, shown = str(request.session_hash), time.monotonic(), 0.0
        stop = self.running.begin(who)
        try:
            async for event in until(api.events("/v1/records", body), stop):
                results.read(event)
                if time.monotonic() - shown > OFTEN:
                    shown = time.monotonic()
                    yield {out["state"]: say("writing", count=results.count),
                           out["text"]: results.text(asked.prompt)}  # fmt: skip
        except Refused as refused:
            yield {out["state"]: why(say, refused), out["text"]: results.text(asked.prompt)}
            return
        finally:
            self.running.end(who, stop)
        updates = self._over(results, asked)
        if stop.is_set():
            updates[out["state"]] = say("stopped")
        else:
            updates[out["state"]] = say(
                "done", records=len(results.records), seconds=f"{time.monotonic() - started:.1f}",
                tokens=results.usage.get("completion_tokens", 0),
            ) + "".join(f"\n{warning}" for warning in results.warnings)  # fmt: skip
        history = [*history, {"asked": asked, "held": held, "text": results.text(asked.prompt),
                              "table": results.table(say("media"))}][-KEPT:]  # fmt: skip
        yield updates | {self.history: history, self.past: _listed(history)}
        if asked.settings.get("scores") and results.records:
            yield await self._scored(api, asked.model, results)

    def _cleared(
        self, about: Mapping[str, Any], body: dict[str, Any], api: Api, results: Results
    ) -> dict[Any, Any]:
        """What is shown as soon as something is asked."""
        out, kinds = self.out, results.kinds
        return {
            out["state"]: self.say("waiting"), self.sounds: [],
            out["text"]: gr.Textbox("", visible=bool(results.texts)),
            out["likely"]: gr.HighlightedText([], visible="logprobs" in body),
            out["pictures"]: gr.Gallery([], visible="image" in [kinds[n] for n in body["want"]]),
            out["table"]: gr.Dataframe(pd.DataFrame(), visible=False),
            out["csv"]: gr.DownloadButton(visible=False),
            out["ranked"]: gr.Dataframe(pd.DataFrame(), visible=False),
            out["command"]: as_command(body, kinds), out["python"]: as_python(body, kinds),
            out["curl"]: as_curl(body, self.where, api.has_key),
        }  # fmt: skip

    def _over(self, results: Results, asked: Asked) -> dict[Any, Any]:
        """What is shown when all has come. Files go to the server's own temporary folder."""
        out, folder = self.out, Path(tempfile.mkdtemp(dir=tempfile.gettempdir()))
        table = results.table(self.say("media"))
        likely = [(text, self.say(kind)) for text, kind in results.likely()]
        updates = {
            out["text"]: results.text(asked.prompt), out["likely"]: likely,
            out["pictures"]: results.files(folder, "image"),
            self.sounds: results.files(folder, "audio"),
        }  # fmt: skip
        if len(table):
            updates[out["table"]] = gr.Dataframe(table, visible=True)
            updates[out["csv"]] = gr.DownloadButton(
                value=write_csv(table, folder / f"{asked.model}.csv"), visible=True
            )
        return updates

    async def _scored(self, api: Api, model: str, results: Results) -> dict[Any, Any]:
        records = [record for _, record in sorted(results.records.items())]
        try:
            scores = await api.scores(model, records)
        except Refused as refused:
            return {self.out["state"]: why(self.say, refused)}
        table = results.ranked(scores, self.say("row"), self.say("score"))
        return {self.out["ranked"]: gr.Dataframe(table, visible=True)}

    # --- history --------------------------------------------------------------------------

    async def _again(
        self, number: int | None, history: list[dict[str, Any]], about: dict[str, Any],
        request: gr.Request,
    ) -> list[Any]:  # fmt: skip
        """Show a request as it was asked, and what came of it."""
        if number is None or number >= len(history):
            return [gr.skip()] * (7 + len(self.settings))
        entry = history[number]
        asked: Asked = entry["asked"]
        if about.get("id") != asked.model:
            about = await Api(self.where, request.cookies).schema(asked.model)
        settings = [asked.settings.get(name) for name in self.settings]
        return [asked.model, about, entry, *settings, asked.prompt, asked.suffix,
                gr.Textbox(entry["text"], visible=True),
                gr.Dataframe(entry["table"], visible=len(entry["table"]) > 0)]  # fmt: skip


def _showing(mode: str) -> Any:
    """Where a value is given is shown only if it is given."""
    return gr.update(visible=mode == GIVEN)


def _listed(history: list[dict[str, Any]]) -> Any:
    """The history, latest first, each in a line."""
    lines = []
    for number, entry in enumerate(history):
        asked: Asked = entry["asked"]
        given = ", ".join(f"{name}={_short(value)}" for name, value in asked.given().items())
        lines.append((f"{number + 1} · {asked.model} · {given or '–'} → "
                      f"{', '.join(asked.wants())} · {asked.prompt[:20]}", number))  # fmt: skip
    return gr.Dropdown(lines[::-1], value=len(history) - 1)


def _short(value: Any) -> str:
    return "…" if isinstance(value, dict) else str(value)[:20]
