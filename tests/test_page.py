"""The page as a visitor's browser meets it: Chromium without a window, and the real server."""

from __future__ import annotations

import base64
import io
import itertools
import json
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from tests.test_exchange import Pair, pair, tokenizer  # noqa: F401
from tests.test_images import bars
from tests.test_serve import KEY, serving, until_free, writer  # noqa: F401

from omnifill import api, cli
from omnifill.printer import given_values
from omnifill.serve.front import is_of_page
from omnifill.serve.page.ask import Asked, as_command, as_curl, as_python
from omnifill.serve.page.words import WORDS, words
from omnifill.serve.plain import add_absent, is_chinese

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("gradio", reason="needs the extra `ui`")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
pytestmark = pytest.mark.slow
WAIT = 60_000
EVIL = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model of small pictures and their labels; it has learned nothing."""
    folder = tmp_path_factory.mktemp("page")
    for number, row in enumerate(bars(40).itertuples()):
        (folder / "bars" / str(row.label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row.image).save(folder / "bars" / str(row.label) / f"{number}.png")
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {"image": {"codec": "pixels"}}}}
    return api.train(folder / "bars", folder / "pictures", steps=3, recipe=recipe)


@pytest.fixture(scope="module")
def chat(pair: Callable[[str], Pair]) -> api.Model:
    """An imported checkpoint with a chat template."""
    ours = pair("llama")[1]
    folder = ours.run.folder.path / "origin"
    folder.mkdir(exist_ok=True)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}", encoding="utf-8"
    )
    return ours


@pytest.fixture(scope="module")
def server(
    model: api.Model, writer: api.Model, pictures: api.Model, chat: api.Model
) -> Iterator[str]:
    runs = {"drinks": model, "writer": writer, "pictures": pictures, "chat": chat}
    paths = [f"{name}={one.run.folder.path}" for name, one in runs.items()]
    with serving(*paths, page=True) as (where, _):
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """The page in English, in a context of its own. Whatever it asks for must be ours."""
    context = browser.new_context(locale="en-GB")
    opened, asked = context.new_page(), []
    opened.set_default_timeout(WAIT)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(server)
    opened.wait_for_selector("fieldset.mode")
    yield opened
    assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []
    context.close()


def choose(page: Any, label: str, value: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=value, exact=True).click()


def open_model(page: Any, name: str, field: str) -> None:
    choose(page, "Model", name)
    page.locator("fieldset.mode", has_text=field).wait_for()
    page.wait_for_timeout(500)


def mode(page: Any, field: str, how: str) -> None:
    page.locator("fieldset.mode", has_text=field).get_by_role("radio", name=how).check()


def setting(page: Any, **values: str) -> None:
    if not page.locator("#n").is_visible():
        page.get_by_role("button", name="More settings").click()
    for name, value in values.items():
        page.locator(f"#{name} textarea, #{name} input").first.fill(value)


def state(page: Any) -> str:
    return str(page.input_value("#state textarea"))


def text(page: Any) -> str:
    return str(page.input_value("#text textarea"))


def until(page: Any, *starts: str) -> str:
    """Wait until the state begins with one of these."""
    end = time.monotonic() + WAIT / 1000
    while not state(page).startswith(starts):
        assert time.monotonic() < end, state(page)
        page.wait_for_timeout(50)
    return state(page)


def generate(page: Any, *starts: str) -> str:
    before = state(page)
    page.click("#generate")
    page.wait_for_function("b => document.querySelector('#state textarea').value !== b", arg=before)
    return until(page, *(starts or ("Done",)))


@needs_browser
def test_fields_are_drawn_by_type_and_rows_are_the_library_s(page: Any, model: api.Model) -> None:
    """Given and wanted, a number, a choice and a date; the table, its CSV, and the history."""
    for field, label in (("kind", "combobox"), ("count", "textbox"), ("day", None), ("note", None)):
        mode(page, field, "given")
        part = page.get_by_label(f"{field}: value").first
        part.wait_for()
        assert label is None or part.get_attribute("role") in (label, None)
    for field in ("day", "note"):
        mode(page, field, "wanted")
        page.get_by_label(f"{field}: value").first.wait_for(state="hidden")
    choose(page, "kind: value", "tea")
    page.get_by_label("count: value").fill("7")
    setting(page, n="3", seed="3")
    page.get_by_label("Show how likely each record is").check()
    assert generate(page).startswith("Done. Records: 3")
    want = model.generate(3, given={"kind": "tea", "count": 7}, seed=3)
    with page.expect_download() as coming:
        page.locator("#csv").click()
    got = pd.read_csv(coming.value.path())
    assert got.columns.tolist() == want.columns.tolist()
    assert got["count"].tolist() == [7] * 3 and got["kind"].tolist() == ["tea"] * 3
    assert got["note"].fillna("").tolist() == want["note"].fillna("").tolist()
    assert got["size"].tolist() == pytest.approx(want["size"].tolist(), nan_ok=True)
    page.locator("#ranked").wait_for()
    page.get_by_role("button", name="The same elsewhere").click()
    page.locator("#command textarea").wait_for()
    assert page.input_value("#command textarea").startswith(
        "omnifill generate drinks --given kind=tea --given count=7 --want size,day,note -n 3"
    )
    shown = text(page)
    setting(page, n="1", seed="9")
    generate(page)
    assert text(page) != shown
    page.get_by_role("button", name="History").click()
    page.get_by_label("What was asked in this session").click()
    page.get_by_role("option", name="1 · drinks").click()
    page.locator("#again").click()
    page.wait_for_function("t => document.querySelector('#text textarea').value === t", arg=shown)
    assert page.input_value("#n textarea, #n input") == "3"
    assert page.get_by_label("count: value").input_value() == "7"


def again(page: Any, number: int) -> None:
    page.get_by_label("What was asked in this session").click()
    page.get_by_role("option", name=f"{number} · ").click()
    page.locator("#again").click()


@needs_browser
def test_what_is_shown_again_is_all_of_that_request(page: Any) -> None:
    """Its state, copies, file and blank values, whatever was asked and typed since."""
    for field in ("kind", "day", "count"):
        mode(page, field, "given")
    mode(page, "note", "left out")
    page.get_by_label("count: value").fill("7")
    setting(page, n="3")
    page.get_by_label("Show how likely each token was").check()
    for name in ("The same elsewhere", "History"):
        page.get_by_role("button", name=name).click()
    told = generate(page, "Done. Records: 3")
    assert page.locator("#likely").count() == 0  # no text was wanted
    names = ("command", "python", "curl")
    copies = {name: page.input_value(f"#{name} textarea") for name in names}
    assert copies["command"].startswith("# the command line cannot say this")
    assert '"kind": null' in copies["curl"]
    choose(page, "kind: value", "tea")
    page.get_by_label("day: value").first.fill("2024-03-03")
    page.keyboard.press("Enter")
    page.get_by_label("Show how likely each record is").check()
    setting(page, n="2")
    generate(page, "Done. Records: 2")
    page.get_by_text("Records, the likeliest first").wait_for()
    assert page.input_value("#command textarea").startswith("omnifill generate drinks --given kind")
    setting(page, top_p="7")
    generate(page, "Refused")
    page.locator("#csv").wait_for(state="hidden")
    again(page, 2)
    page.get_by_text("Records, the likeliest first").wait_for()
    again(page, 1)
    until(page, told)
    page.locator("#ranked").wait_for(state="hidden")
    assert {name: page.input_value(f"#{name} textarea") for name in names} == copies
    assert "kind: blank, count=7, day: blank" in page.input_value("#past input")
    for _ in range(2):  # also the same one once more, when something else was typed
        page.wait_for_function(
            "document.querySelector('[aria-label=\"kind: value\"]').value === ''"
        )
        assert page.get_by_label("day: value").first.input_value() == ""
        assert page.get_by_label("count: value").input_value() == "7"
        choose(page, "kind: value", "tea")
        page.locator("#again").click()
    with page.expect_download() as coming:
        page.locator("#csv").click()
    assert len(pd.read_csv(coming.value.path())) == 3


@needs_browser
@pytest.mark.slow
def test_wide_from_the_first_view_and_narrow_on_a_phone(page: Any) -> None:
    def width(found: str) -> float:
        return float(page.locator(found).first.bounding_box()["width"])

    page.set_viewport_size({"width": 1280, "height": 900})
    for tab in ("Report", "Metrics", "Fields"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert width(".gradio-container") == 1216, tab
    state_box, switch = (page.locator(found).first.bounding_box()
                         for found in ("#state", "fieldset.mode"))  # fmt: skip
    assert state_box["x"] > switch["x"] + switch["width"] and state_box["y"] < 400
    page.set_viewport_size({"width": 390, "height": 844})
    setting(page, n="2")
    boxes = [page.locator(f"#{name}").bounding_box()
             for name in ("n", "seed", "temperature", "top_p", "min_p")]  # fmt: skip
    assert all(box["width"] > 120 for box in boxes)
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"]
    generate(page)
    page.locator("#table .header-cell").first.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("""() => [...document.querySelectorAll('#table .header-cell .text')]
        .every(one => one.getBoundingClientRect().height < 30)""")  # no word is broken
    page.get_by_role("tab", name="Report").click()
    page.wait_for_timeout(500)
    assert page.evaluate("""() => [...document.querySelectorAll('.virtual-table-viewport')]
        .every(one => one.scrollWidth <= one.clientWidth || one.offsetHeight > one.clientHeight
               || getComputedStyle(one).overflowX === 'auto')""")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("""() => {
        const label = [...document.querySelectorAll('[data-testid=block-info]')]
            .find(one => one.textContent.includes('How good it is')), words = new Range()
        words.selectNodeContents(label)
        const button = label.parentElement.querySelector('button').getBoundingClientRect()
        return [...words.getClientRects()].every(one => one.right <= button.left)
    }""")  # nothing lies under the button that copies


@needs_browser
def test_text_streams_shows_its_probabilities_and_stops(
    page: Any, server: str, writer: api.Model
) -> None:
    open_model(page, "writer", "text")
    page.locator("#prompt textarea, #prompt input").first.fill("rain ")
    setting(page, max_tokens="20", seed="5")
    page.get_by_label("Show how likely each token was").check()
    generate(page)
    want = writer.generate(1, prompt="rain ", seed=5, max_tokens=20)["text"][0]
    assert text(page) == want
    page.locator("#likely").wait_for()
    assert "less than 10 %" in page.locator("#likely").inner_text()
    page.get_by_label("Show how likely each token was").uncheck()
    setting(page, max_tokens="16000", min_p="1")  # the likeliest token is never the end
    page.click("#generate")
    until(page, "Writing")
    page.wait_for_function("document.querySelector('#text textarea').value.length > 40")
    first = text(page)
    page.wait_for_function("n => document.querySelector('#text textarea').value.length > n",
                           arg=len(first))  # fmt: skip
    assert text(page).startswith(first)
    page.locator("#halt").click()
    until(page, "Stopped")
    until_free(server)


@needs_browser
@pytest.mark.slow
def test_a_picture_is_drawn_or_uploaded_and_pictures_are_shown(page: Any) -> None:
    open_model(page, "pictures", "image")
    setting(page, n="2")
    generate(page)
    page.wait_for_function("document.querySelectorAll('#pictures img').length >= 2")
    mode(page, "image", "given")
    canvas = page.locator("canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.7, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    with page.expect_request(lambda r: r.url.endswith("/queue/join?")):
        page.click("#generate")
    until(page, "Done. Records: 2, tokens: 2")
    page.get_by_role("button", name="The same elsewhere").click()
    assert "--given image=@image.png" in page.input_value("#command textarea")


@needs_browser
def test_a_chat_and_what_a_model_says_is_no_html(page: Any) -> None:
    open_model(page, "chat", "text")
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Your message").fill(f"the cat {EVIL}")
    page.get_by_role("button", name="Send").click()
    page.locator("[data-testid=bot]").wait_for()
    page.get_by_text(EVIL).first.wait_for()
    assert page.title() != "owned" and page.locator("img[src=x]").count() == 0


@needs_browser
def test_given_markup_stays_text_in_every_part(page: Any) -> None:
    mode(page, "note", "given")
    page.get_by_label("note: value").fill(EVIL)
    page.get_by_role("button", name="The same elsewhere").click()
    page.get_by_role("button", name="History").click()
    generate(page)
    page.locator("#table").get_by_text("onerror").first.wait_for(state="attached")
    page.wait_for_timeout(300)
    assert page.title() != "owned" and page.locator("img[src=x]").count() == 0


@needs_browser
def test_what_is_wrong_is_said(page: Any) -> None:
    setting(page, top_p="7")
    assert "top_p" in generate(page, "Refused")
    setting(page, top_p="many")
    assert generate(page, "This is no number") == "This is no number: many"
    for field in ("kind", "size", "count", "day", "note"):
        mode(page, field, "left out")
    setting(page, top_p="")
    generate(page, "Say which field")


@needs_browser
@pytest.mark.slow
def test_by_keyboard_alone(page: Any) -> None:
    """Tab to a switch, choose, fill, generate: nothing needs a mouse."""

    def reach(found: str) -> None:
        for _ in range(80):
            if page.evaluate("s => document.activeElement.matches(s)", found):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab never comes to {found}")

    page.locator("h1").click()
    reach("fieldset.mode input[value=given]")
    page.keyboard.press("Space")
    page.get_by_label("kind: value").wait_for()
    reach("[aria-label='kind: value']")
    page.get_by_role("option", name="tea").wait_for()
    page.keyboard.type("tea", delay=100)  # as somebody types: the list is drawn anew at each letter
    page.get_by_role("option", name="ماء").wait_for(state="detached")
    page.keyboard.press("Enter")
    page.get_by_role("option", name="tea").wait_for(state="detached")  # it is chosen
    reach("#generate")
    page.keyboard.press("Enter")
    until(page, "Done. Records: 1")
    page.locator("#table").get_by_text("tea").first.wait_for(state="attached")


@needs_browser
@pytest.mark.slow
def test_both_languages_and_colours(browser: Any, server: str) -> None:
    context = browser.new_context(locale="zh-CN", color_scheme="dark",
                                  viewport={"width": 390, "height": 844})  # fmt: skip
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(server)
    page.get_by_role("button", name="生成", exact=True).wait_for()
    assert page.url == f"{server}/zh/" and page.get_attribute("html", "lang") == "zh-CN"
    assert "dark" in (page.get_attribute("body", "class") or "")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#generate")
    until(page, "完成")
    page.locator("#table").get_by_text("note").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("link", name="English").click()
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    assert page.get_attribute("html", "lang") == "en"
    page.get_by_role("link", name="light").click()
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    assert "dark" not in (page.get_attribute("body", "class") or "")
    page.get_by_role("tab", name="Metrics").click()
    page.get_by_text("requests answered").first.wait_for()
    page.get_by_role("tab", name="Report").click()
    page.get_by_text("one of", exact=False).first.wait_for(state="attached")
    context.close()


@needs_browser
def test_a_browser_logs_in_with_the_key(browser: Any, model: api.Model) -> None:
    """Every file of the page asks for it as well; scripts cannot read the cookie."""
    run = f"drinks={model.run.folder.path}"
    with serving(run, page=True, OMNIFILL_API_KEY=KEY) as (where, _):
        for path in ("/", "/zh/", "/config", "/gradio_api/queue/data?session_hash=a",
                     "/gradio_api/file=/etc/passwd", "/theme.css"):  # fmt: skip
            assert httpx2.get(where + path).status_code == 401, path
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(where)
        assert page.url == f"{where}/login"
        page.get_by_label("Your key").fill("a-wrong-key-of-letters")
        page.keyboard.press("Enter")
        page.get_by_text("This is no key").wait_for()
        assert context.cookies() == []
        page.get_by_label("Your key").fill(KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("fieldset.mode")
        cookie = context.cookies()[0]
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["path"] == "/"
        assert generate(page).startswith("Done")
        page.get_by_role("link", name="log out").click()
        page.get_by_label("Your key").wait_for()
        assert context.cookies() == []
        context.close()
        told = [httpx2.post(f"{where}/login", data={"key": "wrong"}).status_code for _ in range(12)]
        assert told[0] == 401 and told[-1] == 429


def test_what_the_page_sends_about_itself(server: str) -> None:
    got = httpx2.get(server, headers={"Origin": "http://evil.example"})
    assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
    assert not any(name.startswith("access-control") for name in got.headers)
    assert "https://" not in got.text.replace("https://omnifill", "").split("</head>")[0].split(
        "<script>window.gradio_config")[0]  # fmt: skip
    assert httpx2.get(f"{server}/v1/models").headers["content-security-policy"].startswith(
        "default-src 'none'")  # fmt: skip
    for path in ("/monitoring", "/gradio_api/proxy=http://evil.example", "/gradio_api/info",
                 "/gradio_api/file=http://evil.example", "/login_check",
                 "/v1/nothing"):  # fmt: skip
        got = httpx2.get(server + path, follow_redirects=False)
        assert got.status_code == 404 and "error" in got.json(), path
    assert httpx2.get(f"{server}/gradio_api/file=/etc/passwd").status_code in (403, 404)


@pytest.mark.parametrize(("method", "path", "body"), [
    ("GET", f"/assets/{'a' * 300}", None), ("GET", f"/zh/static/{'a' * 300}", None),
    ("GET", "/gradio_api/queue/data?session_hash=x", None),
    ("POST", "/gradio_api/queue/join", {"data": [], "fn_index": -5, "session_hash": "x"}),
    ("POST", "/gradio_api/component_server",
     {"data": [1], "component_id": 1, "fn_name": "ls", "session_hash": "x"}),
    ("POST", "/gradio_api/cancel", {"data": ["\ud800"], "fn_index": 1, "session_hash": "x"}),
    ("POST", "/gradio_api/upload", {"files": 1}),
])  # fmt: skip
def test_what_the_page_would_never_ask_is_no_fault(
    server: str, method: str, path: str, body: Any
) -> None:
    data = None if body is None else json.dumps(body)
    got = httpx2.request(method, server + path, content=data, timeout=20,
                         headers={"Content-Type": "application/json"})  # fmt: skip
    assert got.status_code < 500 and "Traceback" not in got.text, got.text


def test_which_paths_are_the_page_s() -> None:
    assert all(map(is_of_page, ("/", "/zh", "/zh/", "/config", "/zh/gradio_api/queue/join")))
    assert not any(map(is_of_page, ("/v1/models", "/health", "/zh/v1/models", "/openapi.json",
                                    "/gradio_api/run/predict", "/zhx/")))  # fmt: skip


@pytest.mark.parametrize(("wanted", "part"), [(True, "omnifill[ui]"), (False, "--no-page")])
def test_without_the_page_it_says_how_to_get_it(wanted: bool, part: str) -> None:
    app = FastAPI()
    add_absent(app, wanted)
    client = TestClient(app)
    assert part in client.get("/").text
    assert part in client.get("/", headers={"Accept-Language": "zh-CN,en;q=0.5"}).text


@pytest.mark.parametrize(("said", "chinese"), [
    ("", False), ("en-GB,en;q=0.9", False), ("zh-CN,zh;q=0.9,en;q=0.8", True),
    ("de,zh;q=0.3", True),
    ("en,zh;q=0.9", False), ("zh;q=nothing", False), ("zh;q=0", False), ("*" * 5000, False),
])  # fmt: skip
def test_the_browser_says_its_language(said: str, chinese: bool) -> None:
    assert is_chinese(said) == chinese


def test_every_word_is_in_both_languages() -> None:
    for name, (english, chinese) in WORDS.items():
        assert english and chinese, name
        braces = [sorted(part.split("}")[0] for part in one.split("{")[1:])
                  for one in (english, chinese)]  # fmt: skip
        assert braces[0] == braces[1], name
    assert words("zh")("generate") == "生成"


def test_the_same_elsewhere_is_the_same(model: api.Model, capsys: Any, tmp_path: Path) -> None:
    """The Python that the page shows makes what the page made."""
    modes = {"kind": "given", "note": "wanted", "day": "out"}
    settings = {"n": 2, "seed": 4, "stop": "a b\nc", "temperature": None}
    asked = Asked(str(model.run.folder.path), modes, {"kind": "tea"}, settings)
    body, kinds = asked.body(), {"kind": "category", "note": "text", "day": "datetime"}
    assert body == {"model": asked.model, "given": {"kind": "tea"}, "want": ["note"], "n": 2,
                    "seed": 4, "stop": ["a b", "c"]}  # fmt: skip
    (tmp_path / "shown.py").write_text(as_python(body, kinds), encoding="utf-8")
    runpy.run_path(str(tmp_path / "shown.py"))
    want = model.generate(2, given={"kind": "tea"}, want=["note"], seed=4, stop=["a b", "c"])
    assert capsys.readouterr().out.strip() == str(want).strip()
    assert "--stop 'a b' --stop c" in as_command(body, kinds, "")
    assert "$OMNIFILL_API_KEY" in as_curl(body, "http://127.0.0.1:1", True)


@pytest.mark.parametrize(("given", "want", "can"), [
    ({"a": "x"}, ["b"], True), ({"a": 1.5}, ["c, d"], True), ({}, ["b", "c, d"], True),
    ({}, ["b", "c"], True), ({}, ['say "b"', "c, d", "b"], True), ({"a": "-x=1"}, ["b"], True),
    ({"a": ""}, ["b"], True), ({"a=b": "c"}, ["b"], True), ({}, ["b,c"], True),
    ({"a": None}, ["b"], False), ({"a": "@home"}, ["b"], False), ({"a": "b=c"}, ["b"], False),
    ({}, ["b", " c "], False),
])  # fmt: skip
def test_the_command_says_the_same_or_that_it_cannot(
    given: dict[str, Any], want: list[str], can: bool
) -> None:
    """As the command line reads it: a value of @ is a file, and no word means blank."""
    kinds = dict.fromkeys(["a", "b", "c", "b,c", "c, d", "a=b", 'say "b"', " c "], "text")
    told = as_command({"model": "run", "given": given, "want": want}, kinds, "# no")
    assert (told != "# no") == can
    if can:
        parts = shlex.split(told)
        items = [part for flag, part in itertools.pairwise(parts) if flag == "--given"]
        model: Any = SimpleNamespace(fields=list(kinds))
        assert given_values(items, model) == {name: str(value) for name, value in given.items()}
        line = parts[parts.index("--want") + 1]
        assert ([line] if line in kinds else cli._names("--want", line)) == want


def test_a_drawing_has_the_size_and_colours_of_the_model() -> None:
    from omnifill.serve.page.fields import read_drawing

    drawn = Image.fromarray(np.full((280, 280, 3), 255, np.uint8))
    told = read_drawing({"composite": drawn}, {"width": 28, "height": 14, "mode": "L"})
    made = Image.open(io.BytesIO(base64.b64decode(told["data"])))
    assert made.size == (28, 14) and made.mode == "L"


def test_a_page_that_nobody_uses_wakes_seldom() -> None:
    """Gradio looks each millisecond, on a processor that the model wants. While a page is
    shown they look often enough that nobody waits for it."""
    code = """
import asyncio
from gradio import queueing
from omnifill.serve.page.mount import Mounted

page, slept = Mounted("http://localhost", False), []
page.build()
async def sleep(seconds):
    slept.append(seconds)
    queue.stopped = True
async def inner(scope, receive, send):
    for queue in page.queues:
        print(queue.sleep_when_free)
queueing.asyncio.sleep = sleep
for queue in page.queues:
    for loop in (queue.start_processing, queue.start_progress_updates):
        queue.stopped = False
        asyncio.run(loop())
print(*slept)
page.inner = inner
asyncio.run(page({"path": "/config", "headers": [], "query_string": b""}, None, None))
print(*(queue.sleep_when_free for queue in page.queues))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rest, shown = ["0.5"] * 4, ["0.02"] * 2
    assert found.stdout.split() == [*rest, *shown, *rest[:2]]


def test_help_and_the_package_import_no_gradio() -> None:
    code = ("import sys, omnifill, omnifill.serve.run, omnifill.serve.command, omnifill.serve.app\n"
            "sys.exit('gradio' in sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
