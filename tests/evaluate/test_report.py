"""The report is one page that needs nothing else, shows what it was given, and runs nothing."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.conftest import mixed_table

from omnifill import api
from omnifill.errors import RequestError
from omnifill.evaluate.measures import off_by, reliability
from omnifill.evaluate.report import contents
from omnifill.evaluate.run import evaluate_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed and collects what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def report(model: api.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    model.evaluate(report=path)
    return path


def test_the_page_is_whole_and_reaches_for_nothing(report: Path) -> None:
    page = page_of(report)
    assert page.open == []  # an unclosed <p> would stand here too: we close what we open
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert not re.search(r"@import|url\(\s*['\"]?http", report.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    for heading in ("What to distrust", "How good it is", "Columns", "Samples to read", "Again"):
        assert heading in page.text


def test_every_field_is_described_measured_drawn_and_shown(report: Path, model: api.Model) -> None:
    page = page_of(report)
    for name in model.fields:
        assert page.text.count(name) >= 3
    assert "svg" in page.tags and "ngram" in page.text and "real" in page.text
    assert {"likeliest", "middle", "least likely"} <= {
        text.split(",")[0] for text in page.text if " nats" in text
    }


def test_what_a_text_has_from_the_training_part_is_marked(tmp_path: Path) -> None:
    table = mixed_table(300)
    table["note"] = [f"the very same words in every note, and {i % 7}" for i in range(300)]
    recipe = {"model": {"size": "nano"}, "schema": {"fields": {"note": {"type": "text"}}}}
    model = api.train(table, tmp_path / "run", steps=120, recipe=recipe)
    model.evaluate(report=tmp_path / "report.html")
    marked = re.findall(r"<mark title[^>]*>([^<]*)</mark>", (tmp_path / "report.html").read_text())
    assert marked and all(any(m in note for note in table["note"]) for m in marked)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_shows_the_page_light_and_dark(report: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    corners = []
    for scheme in ("1", "0"):  # light, dark
        shot = tmp_path / f"page{scheme}.png"
        done = subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
             "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
             "--window-size=1000,3000",
             f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
             f"--blink-settings=preferredColorScheme={scheme}", report.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr  # no error of the page's own
        picture = imread(shot)
        assert picture[:, :, :3].std() > 0.05  # something is drawn
        corners.append(float(picture[2, 2, :3].mean()))
    assert corners[0] > 0.95 and corners[1] < 0.2


def test_the_same_run_gives_the_same_page(report: Path, model: api.Model, tmp_path: Path) -> None:
    model.evaluate(report=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == report.read_bytes()


def test_records_cannot_put_anything_into_the_page(tmp_path: Path) -> None:
    table = mixed_table(200).rename(columns={"kind": "<script>x</script>", "size": "$a_b$"})
    table["note"] = "</table><img src=x onerror=alert(1)> & $\\frac$"
    model = api.train(table, tmp_path / "run", steps=5, recipe={"model": {"size": "nano"}})
    model.evaluate(report=tmp_path / "report.html")
    page = page_of(tmp_path / "report.html")
    assert page.open == [] and not {"img", "script"} & page.tags


def test_a_stream_of_text_has_a_page_too(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("".join(f"Line {i * i % 97} of the book, again.\n" for i in range(600)))
    model = api.train(book, tmp_path / "run", steps=5, recipe={"model": {"size": "nano"}})
    result = model.evaluate(report=tmp_path / "report.html")
    assert page_of(tmp_path / "report.html").open == []
    assert (
        result["baselines"]["ngram"]["fields"]["text"]["bits_per_byte"]["value"]
        < (result["fields"]["text"]["bits_per_byte"]["value"])
    )


@pytest.mark.parametrize(
    ("name", "says"), [("page.pdf", "with .html"), ("nowhere/page.html", "no folder")]
)
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    model: api.Model, tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        model.evaluate("no such file", report=tmp_path / name)


def test_calibration_is_nought_where_the_sure_are_right_as_often_as_they_say() -> None:
    import numpy as np

    sure = np.repeat([0.55, 0.95], 100)
    right = np.concatenate([np.arange(100) < 55, np.arange(100) < 95]).astype(float)
    points = reliability(sure, right)
    assert off_by(points) == pytest.approx(0, abs=1e-12)
    assert [num for _, _, num in points] == [100, 100]
    assert off_by(reliability(sure, np.zeros(200))) == pytest.approx(0.75)


def test_only_groups_that_it_is_worse_for_are_named_and_no_sample_comes_twice(
    model: api.Model,
) -> None:
    found = evaluate_run(model.run, model._unseen(None), *model._learned_from())
    twice = dataclasses.replace(found, made={n: [*v, *v] for n, v in found.made.items()})
    low, high = ({"value": v, "low": v - 1, "high": v + 1, "n": 30} for v in (3.0, 9.0))
    groups = [{"field": "kind", "value": "tea", "nats": low, "others": high},
              {"field": "kind", "value": "ماء", "nats": high, "others": low}]  # fmt: skip
    twice.figures["groups"] = groups
    shown = contents(model.run, twice)
    assert [g["value"] for g in shown["groups"]] == ["ماء"] and shown["has_groups"]
    cells = [tuple(cell[0] for cell in sample["cells"]) for sample in shown["samples"]]
    assert len(cells) == len(set(cells)) == 9
