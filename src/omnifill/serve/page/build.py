"""The page as a whole: its head, its tabs, and which part asks whom."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from fastapi import FastAPI

from omnifill.serve.front import CHINESE
from omnifill.serve.page.client import Api, Refused
from omnifill.serve.page.looks import CSS, HEAD, theme
from omnifill.serve.page.session import Running
from omnifill.serve.page.tabs import chat_tab, metrics_tab, report_tab
from omnifill.serve.page.words import Language, Say, words
from omnifill.serve.page.work import Work

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def mount(
    app: FastAPI, language: Language, path: str, where: str, locked: bool, running: Running
) -> Any:
    """Put the page in one language at a path of `app` -> the queue of what visitors click."""
    blocks = build(words(language), _head(words(language), language, locked), where, running)
    gr.mount_gradio_app(
        app, blocks, path, footer_links=[], run_history=False, show_error=False, ssr_mode=False,
        pwa=False, mcp_server=False, enable_monitoring=False, theme=theme(),
        head=f"<style>{CSS}</style>" + HEAD % words(language)("calendar"),
    )  # fmt: skip
    return blocks._queue


def build(say: Say, head: str, where: str, running: Running) -> Any:
    """The page in one language. `head`: HTML at its top; `where`: the address of the API."""
    with gr.Blocks(title="Omnifill", analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(head, elem_classes="head", padding=False)
        model = gr.Dropdown([], label=say("model"), interactive=True, elem_id="model")
        about: Any = gr.State({})
        work = Work(say, where, running, model, about)
        with gr.Tabs():
            with gr.Tab(say("tab_fields"), id="fields") as fields:
                work.draw()
            chat = chat_tab(say, where, running, model)
            report = report_tab(say, about)
            metrics_tab(say, where, [fields, chat, report])

        async def begun(request: gr.Request) -> Any:
            try:
                names = await Api(where, request.cookies).models()
            except Refused:
                names = []
            return gr.Dropdown(names, value=names[0] if names else None, visible=len(names) != 1)

        async def chosen(name: str | None, request: gr.Request) -> tuple[Any, Any]:
            told: dict[str, Any] = {}
            if name:
                told = await Api(where, request.cookies).schema(name)
            return told, gr.Tab(visible=bool(told.get("chats")))

        blocks.load(begun, None, model, **PRIVATE).then(
            chosen, model, [about, chat], **PRIVATE
        )  # fmt: skip
        model.select(chosen, model, [about, chat], **PRIVATE)
        blocks.unload(_leaving(running))
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


def _leaving(running: Running) -> Any:
    def leave(request: gr.Request) -> None:
        running.stop(str(request.session_hash))

    return leave


def _head(say: Say, language: Language, locked: bool) -> str:
    """Ours alone: links to the other language and colours. Nothing a model or visitor said."""
    other = ("/?lang=en", "en", "English") if language == "zh" else (f"{CHINESE}/", "zh-CN", "中文")
    own = {key: html.escape(say(key)) for key in ("about", "language", "colours", "light", "dark",
                                                  "leave")}  # fmt: skip
    leave = f"<a href='/logout'>{own['leave']}</a>" if locked else ""
    return (
        f"<header><div><h1>Omnifill</h1><p>{own['about']}</p></div><nav>"
        f"<span>{own['language']}: <a href='{other[0]}' lang='{other[1]}' hreflang='{other[1]}'>"
        f"{other[2]}</a></span>"
        f"<span>{own['colours']}: <a href='?lang={language}&amp;__theme=light'>{own['light']}</a> "
        f"<a href='?lang={language}&amp;__theme=dark'>{own['dark']}</a></span>"
        f"{leave}</nav></header>"
    )
