"""Small pages that need no script and no extra: the login form, and how to get the real page."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto;
  padding: 0 1rem }}
input, button {{ font: inherit; padding: .5rem .75rem; max-width: 100%; box-sizing: border-box }}
code {{ padding: .15rem .35rem; border: 1px solid; border-radius: .25rem }}
</style></head><body><main>
{body}
</main></body></html>
"""
ABSENT = (
    "<h1>Omnifill</h1><p>The API runs: its description is at <a href='/openapi.json'>/openapi.json"
    "</a>. To get a page here as well, run</p><p><code>pip install 'omnifill[ui]'</code></p>"
    "<p>and start <code>omnifill serve</code> again.</p>",
    "<h1>Omnifill</h1><p>API 正在运行，说明见 <a href='/openapi.json'>/openapi.json</a>。"
    "若要在此使用网页，请运行</p><p><code>pip install 'omnifill[ui]'</code></p>"
    "<p>然后重新启动 <code>omnifill serve</code>。</p>",
)
OFF = (
    "<h1>Omnifill</h1><p>The API runs: its description is at <a href='/openapi.json'>/openapi.json"
    "</a>. The page was left out by <code>--no-page</code>.</p>",
    "<h1>Omnifill</h1><p>API 正在运行，说明见 <a href='/openapi.json'>/openapi.json</a>。"
    "网页已被 <code>--no-page</code> 关闭。</p>",
)


def document(title: str, body: str, chinese: bool, status: int = 200) -> HTMLResponse:
    """A page of ours. `body`: HTML that holds nothing a visitor or a model said."""
    page = PAGE.format(lang="zh-CN" if chinese else "en", title=title, body=body)
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(page, status, headers)


def is_chinese(accepted: str) -> bool:
    """Whether a header Accept-Language likes Chinese better than English."""
    best = {"zh": 0.0, "en": 0.0}
    for part in accepted.split(","):
        found = re.fullmatch(r"\s*(zh|en)\b[\w-]*\s*(?:;\s*q\s*=\s*([\d.]{1,6}))?\s*", part, re.I)
        if found:
            try:
                weight = float(found[2] or 1)
            except ValueError:
                continue
            best[found[1].lower()] = max(best[found[1].lower()], weight)
    return best["zh"] > best["en"]


def add_absent(app: FastAPI, wanted: bool) -> None:
    """What `/` says where there is no page. `wanted`: it is only missing its extra."""

    @app.get("/", include_in_schema=False)
    async def absent(request: Request) -> HTMLResponse:
        chinese = is_chinese(request.headers.get("accept-language", ""))
        return document("Omnifill", (ABSENT if wanted else OFF)[chinese], chinese)
