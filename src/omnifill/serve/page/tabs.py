"""The smaller tabs: a chat, what a model is, and the server's figures."""

from __future__ import annotations

import html
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gradio as gr
import pandas as pd

from omnifill.serve.page.client import Api, Refused
from omnifill.serve.page.session import Running, until
from omnifill.serve.page.words import Say

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
EVERY = 2.0
"""Seconds between two looks at the figures."""
OFTEN = 0.1
"""Seconds between two changes of what is shown."""
LIMITS = ("low", "high", "decimals", "format", "width", "height", "mode", "rate", "samples")


def why(say: Say, refused: Refused) -> str:
    """What is said where the API refuses."""
    return say("unreachable") if refused.why is None else say("refused", why=refused.why)


# --- chat ---------------------------------------------------------------------------------


def chat_tab(say: Say, where: str, running: Running, model: Any) -> Any:
    """A conversation, for models with a template of one."""
    with gr.Tab(say("tab_chat"), id="chat", visible=False) as tab:
        system = gr.Textbox(label=say("system"), lines=1)
        talk: Any = gr.State([])
        shown = gr.Chatbot(label=say("chat"), render_markdown=False, sanitize_html=True,
                           latex_delimiters=[], height=420, buttons=["copy"],
                           feedback_options=None)  # fmt: skip
        message = gr.Textbox(label=say("message"), lines=2, max_lines=8)
        with gr.Row():
            send = gr.Button(say("send"), variant="primary")
            stop = gr.Button(say("stop_now"))
            clear = gr.Button(say("clear"))
        state = gr.Textbox(say("ready"), label=say("state"), interactive=False)

    async def told(
        name: str, first: str, said: str, talk: list[dict[str, str]], request: gr.Request
    ) -> AsyncIterator[Any]:
        who = f"{request.session_hash} chat"
        talk = [*talk, {"role": "user", "content": said}]
        start = [{"role": "system", "content": first}] if first else []
        stopping = running.begin(who)
        body = {"model": name, "messages": start + talk}
        events = Api(where, request.cookies).events("/v1/chat/completions", body)
        text, at = "", 0.0
        yield "", talk, as_shown(talk), say("waiting")
        try:
            async for event in until(events, stopping):
                text += "".join(c["delta"].get("content") or "" for c in event["choices"])
                if time.monotonic() - at > OFTEN:
                    at = time.monotonic()
                    yield "", talk, as_shown([*talk, answer(text)]), say("waiting")
            end = say("stopped") if stopping.is_set() else say("ready")
        except Refused as refused:
            end = why(say, refused)
        finally:
            running.end(who, stopping)
        talk = [*talk, answer(text)] if text else talk
        yield "", talk, as_shown(talk), end

    inputs, outputs = [model, system, message, talk], [message, talk, shown, state]
    send.click(told, inputs, outputs, **PRIVATE)
    message.submit(told, inputs, outputs, **PRIVATE)
    stop.click(stopping(running, " chat"), None, None, **PRIVATE)
    clear.click(lambda: ([], []), None, [talk, shown], **PRIVATE)
    return tab


def answer(text: str) -> dict[str, str]:
    """What the model says, as a message."""
    return {"role": "assistant", "content": text}


def as_shown(talk: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation for Gradio's part, which puts messages into the page as HTML: what was said is
    escaped here, so that it is text whatever it holds."""
    return [{**one, "content": html.escape(one["content"])} for one in talk]


def stopping(running: Running, what: str = "") -> Any:
    def stop(request: gr.Request) -> None:
        running.stop(f"{request.session_hash}{what}")

    return stop


# --- what a model is ----------------------------------------------------------------------


def report_tab(say: Say, about: Any) -> Any:
    """What the API tells of a model, and how to learn how good it is."""
    with gr.Tab(say("tab_report"), id="report") as tab:
        facts = gr.Dataframe(label=say("about_model"), interactive=False, wrap=True)
        fields = gr.Dataframe(label=say("about_fields"), interactive=False, wrap=True)
        command = gr.Textbox(label=say("write_report"), interactive=False, buttons=["copy"])

    def told(known: dict[str, Any]) -> tuple[Any, Any, str]:
        name = known.get("id", "RUN")
        how = f"omnifill evaluate {name} --report report.html"
        return told_facts(say, known), told_fields(say, known), how

    about.change(told, about, [facts, fields, command], **PRIVATE)
    return tab


def told_facts(say: Say, about: Mapping[str, Any]) -> pd.DataFrame:
    """What is true of a model as a whole."""
    names = ("id", "objective", "context", "masked", "chats", "sha256")
    rows = [(name, _shown(say, about[name])) for name in names if name in about]
    rows += [("task", f"{', '.join(task['given'])} → {', '.join(task['want'])}")
             for task in about.get("tasks", ())]  # fmt: skip
    return pd.DataFrame(rows, columns=[say("property"), say("value")], dtype=object)


def told_fields(say: Say, about: Mapping[str, Any]) -> pd.DataFrame:
    """Each field with its type and what it holds."""
    columns = [say(name) for name in ("field", "type", "blanks", "holds")]
    rows = []
    for field in about.get("fields", ()):
        values = [str(value) for value in field.get("values", ())]
        holds = ", ".join(values[:20]) + (" …" if len(values) > 20 else "")
        holds = holds or ", ".join(f"{key} {field[key]}" for key in LIMITS if key in field)
        rows.append((field["name"], field["type"], _shown(say, field["optional"]), holds))
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _shown(say: Say, value: Any) -> str:
    return say("yes" if value else "no") if isinstance(value, bool) else str(value)


# --- figures ------------------------------------------------------------------------------


def metrics_tab(say: Say, where: str, others: list[Any]) -> None:
    """The server's figures, looked at as long as none of the `others` is shown."""
    with gr.Tab(say("tab_metrics"), id="metrics") as tab:
        table = gr.Dataframe(label=say("figures"), interactive=False)
        before: Any = gr.State((0.0, 0.0))
        timer = gr.Timer(EVERY, active=False)

    async def look(last: tuple[float, float], request: gr.Request) -> tuple[Any, Any]:
        try:
            found = await Api(where, request.cookies).metrics()
        except Refused as refused:
            return pd.DataFrame([[why(say, refused)]], columns=[say("figure")]), last
        now = time.monotonic(), found.get("omnifill_tokens_written", 0.0)
        return told_figures(say, found, last, now), now

    async def shown(last: tuple[float, float], request: gr.Request) -> tuple[Any, Any, Any]:
        return *(await look(last, request)), gr.Timer(active=True)

    tab.select(shown, before, [table, before, timer], **PRIVATE)
    for other in others:
        other.select(lambda: gr.Timer(active=False), None, timer, **PRIVATE)
    timer.tick(look, before, [table, before], **PRIVATE)


def told_figures(
    say: Say, found: Mapping[str, float], last: tuple[float, float], now: tuple[float, float]
) -> pd.DataFrame:
    """The main figures. `last`, `now`: a time and how many tokens had been written then."""
    speed = (now[1] - last[1]) / (now[0] - last[0]) if last[0] else 0.0
    count = found.get("omnifill_first_token_seconds_count", 0.0)
    first = found.get("omnifill_first_token_seconds_sum", 0.0) / count if count else 0.0
    rows = [
        ("open", found.get("omnifill_requests_open", 0.0)),
        ("waiting_requests", found.get("omnifill_requests_waiting", 0.0)),
        ("rows_used", found.get("omnifill_rows_used", 0.0)),
        ("written", now[1]), ("speed", round(speed, 1)), ("first", round(first, 3)),
        ("answered", found.get("omnifill_requests_total", 0.0)),
        ("full", found.get("omnifill_refusals_total", 0.0)),
        ("restarts", found.get("omnifill_engine_restarts", 0.0)),
    ]  # fmt: skip
    return pd.DataFrame([(say(name), f"{value:g}") for name, value in rows],
                        columns=[say("figure"), say("value")])  # fmt: skip
