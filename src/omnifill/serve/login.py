"""A key for a browser: it cannot send a bearer header by itself, so a form takes the key once and
a cookie brings it with every request of the page.

The form is plain HTML without a script; nothing that a visitor typed comes back in it.
"""

from __future__ import annotations

import time
from collections import deque
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from omnifill.serve.guard import COOKIE, Keys
from omnifill.serve.plain import document, is_chinese

MOST = 10
"""Wrong keys that one address may say in a minute."""
PLACES = 10_000
"""Addresses that are remembered at once."""
FORM = """<h1>Omnifill</h1>
<form method="post" action="/login">
<p><label for="key">{ask}</label></p>
<p><input id="key" name="key" type="password" required autofocus autocomplete="current-password">
<button>{go}</button></p>
<p role="alert">{said}</p>
</form>"""
SAID = {
    "title": ("Omnifill: log in", "Omnifill：登录"),
    "ask": ("Your key for this server", "此服务器的密钥"),
    "go": ("Log in", "登录"),
    "wrong": ("This is no key of this server.", "这不是此服务器的密钥。"),
    "wait": ("Too many wrong keys; try again in a minute.", "错误次数过多，请一分钟后再试。"),
}


class Login:
    """The routes that a browser logs in and out by."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.wrong: dict[str, deque[float]] = {}

    def add(self, app: FastAPI) -> None:
        """They are no part of the API, so its document leaves them out."""
        app.get("/login", include_in_schema=False)(self.asked)
        app.post("/login", include_in_schema=False)(self.told)
        app.get("/logout", include_in_schema=False)(self.left)

    async def asked(self, request: Request) -> Response:
        """The form."""
        return _form(request, 200)

    async def told(self, request: Request) -> Response:
        """A key was said."""
        place = request.client.host if request.client else ""
        if self._is_eager(place):
            return _form(request, 429, "wait")
        said = parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0]
        if self.keys.known(said.strip()) is None:
            self.wrong.setdefault(place, deque()).append(time.monotonic())
            return _form(request, 401, "wrong")
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, said.strip(), path="/", httponly=True, samesite="strict",
                            secure=request.url.scheme == "https")  # fmt: skip
        return response

    async def left(self) -> Response:
        """Forget the key."""
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    def _is_eager(self, place: str) -> bool:
        now = time.monotonic()
        for known, times in list(self.wrong.items()):
            while times and now - times[0] > 60:
                times.popleft()
            if not times:
                del self.wrong[known]
        return len(self.wrong.get(place, ())) >= MOST or len(self.wrong) >= PLACES


def _form(request: Request, status: int, said: str | None = None) -> HTMLResponse:
    chinese = is_chinese(request.headers.get("accept-language", ""))
    words = {name: pair[chinese] for name, pair in SAID.items()}
    body = FORM.format(ask=words["ask"], go=words["go"], said=words[said] if said else "")
    return document(words["title"], body, chinese, status)
