"""Every recipe trains for a few steps on small made data of the same columns, and does what its
head says."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnifill import api
from omnifill.recipe import load_recipe

FOLDER = Path(__file__).parents[1] / "recipes"
WORDS = "tea sea sun rain house the a 雨 月 山 день и".split()
ROWS = 60


def text(rng: np.random.Generator, few: int = 3, many: int = 12) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(few, many)))


def rows(**columns: Any) -> list[dict[str, Any]]:
    """Rows of made columns: a function of (chance, row number) each."""
    rng = np.random.default_rng(0)
    return [{name: make(rng, i) for name, make in columns.items()} for i in range(ROWS)]


def said(rng: np.random.Generator, i: int) -> str:
    return f"{text(rng)} {i}"


def lines(rng: np.random.Generator, i: int) -> list[str]:
    return [f"{text(rng)} {i}", text(rng)]


def facts(rng: np.random.Generator, i: int) -> list[list[str]]:
    return [["Aarhus", "leaderName", f"Nobody_{i}"], ["Aarhus", "in", str(rng.choice(WORDS))]]


def kind(rng: np.random.Generator, i: int) -> str:
    return str(rng.choice(["one", "two", "three"]))


def asked(rng: np.random.Generator, i: int) -> str:
    return f"Write an e-mail about {text(rng)} {i}" if i % 3 else f"Sing {i}"


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return head + values.astype(np.uint8).tobytes()


def wav(seed: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        noise = np.random.default_rng(seed).integers(-9000, 9000, 900 + 40 * seed)
        file.writeframes(noise.astype("<i2").tobytes())
    return buffer.getvalue()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 4), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


ALPACA = rows(instruction=asked, input=lambda rng, i: said(rng, i) if i % 2 else "", output=said)
DIALOGUES = rows(fname=lambda _, i: f"train_{i}", dialogue=said, summary=said, topic=asked)
FACTS = rows(id=lambda _, i: f"x{i}", category=kind, triples=facts, texts=lines)
DATA: dict[str, dict[str, Any]] = {
    "language_model": {"train.jsonl.gz": rows(id=lambda _, i: f"c{i}", domain=kind, text=said)},
    "story": {name: "\n\n".join(r["text"] for r in rows(text=said) * 4)
              for name in ("alice.txt.gz", "sherlock.txt.gz")},
    "news": {"train.jsonl.gz": rows(text=said, domain=kind)},
    "poetry": {"tang.jsonl.gz": rows(title=said, author=kind, paragraphs=lines)},
    "translation": {name: "\n".join(r["x"] for r in rows(x=said)) + "\n"
                    for name in ("train.en.gz", "train.de.gz")},
    "zero_shot_translation": {"en_de.jsonl": rows(en=said, de=said),
                              "de_fr.jsonl": rows(de=said, fr=said)},
    "summarization": {"train.jsonl.gz": DIALOGUES},
    "dialogue": {"train.jsonl.gz": rows(topic=lambda rng, _: str(rng.integers(1, 4)), acts=lines,
                                        emotions=lines, en=lines, it=lines, zh=lines)},
    "email": {"a.jsonl.gz": ALPACA, "b.jsonl.gz": DIALOGUES},
    "data_to_text": {"train.jsonl.gz": FACTS},
    "instructions": {"a.jsonl.gz": ALPACA,
                     "b.jsonl.gz": rows(instruction=said, input=said, output=said)},
    "tabular": {"train.jsonl.gz": rows(age=lambda rng, _: int(rng.integers(18, 90)), work=kind,
                                       income=kind)},
    "pictures": {"train-images-idx3-ubyte.gz": idx(
                     np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8))),
                 "train-labels-idx1-ubyte.gz": idx(np.arange(ROWS) % 10)},
    "speech": {"train.csv": "audio,digit,speaker\n" + "".join(
                   f"{i}.wav,{i % 10},{'theo' if i % 2 else 'lucas'}\n" for i in range(ROWS)),
               **{f"{i}.wav": wav(i) for i in range(ROWS)}},
    "captions": {"captions.csv": "file,char,codepoints,keywords_en,keywords_zh,name_en,name_zh,"
                     "name_de,name_fr,name_es,name_pt,name_ru,name_ar,name_hi,name_ja,name_ko,"
                     "name_tr\n"
                     + "".join(f"{i}.png,x,y,k,k,red {i},红 {i}{',x' * 10}\n"
                               for i in range(ROWS)),
                 **{f"{i}.png": png(i) for i in range(ROWS)}},
    "multitask": {"a.jsonl.gz": DIALOGUES, "b.jsonl.gz": FACTS, "c.jsonl.gz": ALPACA},
}  # fmt: skip


ALONE = ("pictures", "speech", "captions")
"""Recipes that are given the first file; the others lie beside it."""


def written(folder: Path, files: dict[str, Any]) -> Sequence[Path]:
    paths = []
    for name, content in files.items():
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        data = content.encode("utf-8") if isinstance(content, str) else content
        paths.append(folder / name)
        paths[-1].write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return paths


def test_every_recipe_has_made_data_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(DATA)


@pytest.mark.parametrize("name", DATA)
def test_the_head_of_a_recipe_says_what_it_is_for_and_how_to_run_it(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    head = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True)
                   if line.startswith("#"))  # fmt: skip
    assert f"--recipe recipes/{name}.yaml --out " in head
    assert re.search(r"omnifill (generate|fill|evaluate) ", head)
    budget = load_recipe(path).train.budget
    assert budget is not None and f"Two CPU cores, {budget[:-1]} minutes" in head


@pytest.mark.parametrize("name", DATA)
def test_a_recipe_trains_and_generates_what_its_tasks_want(name: str, tmp_path: Path) -> None:
    paths = written(tmp_path, DATA[name])
    data = paths[0] if name in ALONE else paths
    model = api.train(data, tmp_path / "run", steps=2, recipe=FOLDER / f"{name}.yaml")
    tasks = model.run.recipe.form.tasks
    if not tasks:
        made = model.generate(2, max_tokens=6)
        assert list(made) == model.fields
    known = {"dialogue": "tea", "topic": "one", "triples": "Aarhus | in | sea"}
    for task in tasks:
        given = {field: known.get(field, "the sea") for field in task.given}
        if name == "dialogue" and "topic" in given:
            given["topic"] = "2"
        made = model.generate(2, given=given, want=task.want, max_tokens=6)
        assert set(task.want) <= set(made) and len(made) == 2
