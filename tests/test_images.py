"""Pictures go the whole way: folder or table in, pictures out, every direction from one model."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.test_skeleton import StopAt, weights

from omnifill import Partial, api
from omnifill.data.shards import open_shard
from omnifill.errors import (
    DataError,
    Interrupted,
    RecipeError,
    RequestError,
    RunError,
    ValueRefused,
)
from omnifill.form.layout import ASKED, Former, Orders, draw_orders
from omnifill.form.stream import noisy
from omnifill.generate import likelihood
from omnifill.generate.filters import MEDIA_MIN_P
from omnifill.train.loop import Report
from omnifill.train.metrics import LiveLine
from omnifill.types import Sound

NANO = {"model": {"size": "nano"}}
LEARNED = {
    "model": {"size": "nano"}, "train": {"save_every": 7},
    "schema": {"fields": {"image": {
        "options": {"channels": 8, "levels": [5, 5]}, "learn": {"batch": 16},
    }}},
}  # fmt: skip
PIXELS = {"model": {"size": "nano"}, "schema": {"fields": {"image": {"codec": "pixels"}}}}


def bars(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    """Upright and lying bars of 6 × 6 pixels in black and white."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    for _ in range(rows):
        grid, place = np.zeros((6, 6), np.uint8), rng.integers(0, 6)
        upright = rng.random() < 0.5
        grid[(slice(None), place) if upright else (place, slice(None))] = 255
        pictures.append(grid)
        labels.append("upright" if upright else "lying")
    return pd.DataFrame({"image": pictures, "label": labels})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bars as files in folders of their labels."""
    path = tmp_path_factory.mktemp("bars") / "bars"
    for number, row in enumerate(bars().itertuples()):
        (path / str(row.label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row.image).save(path / str(row.label) / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def exact(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model of pixels that has learned what bars are."""
    out = tmp_path_factory.mktemp("runs") / "pixels"
    return api.train(folder, out, steps=240, recipe=PIXELS)


@pytest.fixture(scope="module")
def learned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A model over a codec that learns; both barely trained."""
    out = tmp_path_factory.mktemp("runs") / "codec"
    return api.train(folder, out, steps=20, recipe=LEARNED)


def test_a_folder_a_table_of_paths_and_arrays_train_the_same_model(
    folder: Path, tmp_path: Path
) -> None:
    files = sorted(folder.rglob("*.png"))
    table = pd.DataFrame({"image": [f.relative_to(folder).as_posix() for f in files],
                          "label": [f.parent.name for f in files]})  # fmt: skip
    table.to_csv(folder / "table.csv", index=False)
    arrays = table.assign(image=[np.array(opened(f)) for f in files])
    pictures = table.assign(image=[opened(f) for f in files])
    stored = tmp_path / "table.parquet"
    table.assign(image=[f.read_bytes() for f in files]).to_parquet(stored)
    sums = set()
    for number, data in enumerate([folder, folder / "table.csv", arrays, pictures, stored]):
        run = tmp_path / str(number)
        model = api.train(data, run, steps=3, recipe=PIXELS)
        assert [f.type for f in model.run.schema.fields] == ["image", "category"]
        sums.add(weights(run))
    (folder / "table.csv").unlink()
    assert len(sums) == 1


def test_every_direction_comes_from_one_model(exact: api.Model) -> None:
    made = exact.generate(16, seed=3)
    assert all(isinstance(p, Image.Image) and p.size == (6, 6) for p in made["image"])
    for label, axis in (("upright", 0), ("lying", 1)):
        asked = exact.generate(24, given={"label": label}, seed=1, temperature=0.7)
        whole = [np.array(p).std(axis=axis).max() == 0 for p in asked["image"]]
        assert np.mean(whole) > 0.7, f"most are {label} bars"
    table = bars(40, seed=9)
    told = exact.fill(table.assign(label=None))["label"]
    assert (told == table["label"]).mean() > 0.9
    chances = exact.probabilities(table, "label")
    assert (chances.idxmax(axis=1) == told).all()
    likely = exact.score(table)
    noise = [np.random.default_rng(i).integers(0, 2, (6, 6), np.uint8) * 255 for i in range(40)]
    assert (exact.score(table.assign(image=noise))["image"] < likely["image"]).all()


def test_a_label_beside_a_picture_is_told_directly_and_by_bayes_rule(
    exact: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = bars(6, seed=3)[["image"]]
    monkeypatch.setattr(likelihood, "NEAR", np.inf)
    told = exact.probabilities(table, "label")
    monkeypatch.setattr(likelihood, "MOST_VALUES", 0)
    direct = exact.probabilities(table, "label")
    joint = np.stack([exact.score(table.assign(label=name))["row"] for name in told], axis=1)
    both = 0.7 * np.log(direct) + 0.3 * joint
    both = np.exp(both.sub(both.max(axis=1), axis=0))
    np.testing.assert_allclose(told, both.div(both.sum(axis=1), axis=0), rtol=1e-4, atol=1e-9)
    assert not np.allclose(told, direct)


def test_codes_of_the_last_picture_are_noisy_in_training_and_no_others(
    exact: api.Model, learned: api.Model
) -> None:
    """And those of exact pixels never."""
    vocabulary, shard = learned.run.vocabulary, open_shard(learned.run.folder.encoded / "train")
    image, label = (vocabulary[name] for name in ("image", "label"))
    which = np.arange(40)
    fields = np.array([[label.index, image.index], [image.index, label.index]] * 20)
    orders = Orders(fields, np.ones_like(fields, bool))
    clean = Former(vocabulary).records(shard, which, orders)
    rng = np.random.default_rng(0)
    assert noisy(clean, orders, vocabulary, 0.0, rng) is clean
    noise = noisy(clean, orders, vocabulary, 1.0, rng)
    other = (noise.ids != clean.ids).numpy()
    assert other[::2].mean() > 0.1 and not other[1::2].any()
    assert not other[:, :2].any()  # the label, and what comes before all
    assert torch.equal(noise.target, clean.target) and torch.equal(noise.weight, clean.weight)
    shown = noise.ids[other]
    assert ((shown >= image.first) & (shown < image.first + image.codec.size)).all()
    assert exact.run.recipe.form.noise is None and not exact.run.vocabulary["image"].noisy
    shares = other[::2].mean(axis=1)
    assert shares.min() < 0.15 and shares.max() > 0.3  # another share of each row


def test_noise_is_for_causal_models(folder: Path, tmp_path: Path) -> None:
    for recipe in ({**LEARNED, "objective": {"name": "masked"}}, PIXELS):
        with pytest.raises(RecipeError, match=r"form\.noise: is about pictures and sounds of caus"):
            api.train(folder, tmp_path / "run", steps=1, recipe={**recipe, "form": {"noise": 0.5}})


def test_pictures_alone_have_their_tail_cut_by_default(exact: api.Model) -> None:
    def drawn(**sampling: float) -> list[bytes]:
        return [
            p.tobytes() for p in exact.generate(96, seed=4, temperature=1.5, **sampling)["image"]
        ]

    assert drawn() == drawn(min_p=MEDIA_MIN_P["image"]) != drawn(min_p=0.0)
    label = exact.generate(40, want=["label"], seed=2)
    pd.testing.assert_frame_equal(label, exact.generate(40, want=["label"], seed=2, min_p=0))


def test_near_codes_begin_alike_and_a_label_counts_beside_a_picture(learned: api.Model) -> None:
    run = learned.run
    assert (run.vocabulary["image"].first, 5, 5) in run.network.config.ordered
    assert run.schema["label"].weight > run.schema["image"].weight == 1


def test_a_picture_leans_on_what_is_given(exact: api.Model) -> None:
    """It is laid behind its label, and what is given counts for more than once."""
    assert exact.run.vocabulary.in_order(exact.fields) == ["label", "image"]

    def drawn(**more: Any) -> list[bytes]:
        made = exact.generate(96, given={"label": "lying"}, seed=2, **more)["image"]
        return [picture.tobytes() for picture in made]

    assert drawn() == drawn(guidance=2.0) != drawn(guidance=1.0)
    new, same = (exact.generate(3, seed=2, **more)["image"] for more in ({}, {"guidance": 1.0}))
    assert [p.tobytes() for p in new] == [p.tobytes() for p in same]  # from nothing
    blank = pd.DataFrame({"label": ["lying"] * 96, "image": None})
    filled = [exact.fill(blank, draw=True, seed=1, **more)["image"] for more in
              ({}, {"guidance": 2.0}, {"guidance": 1.0})]  # fmt: skip
    usual, named, plain = ([p.tobytes() for p in pictures] for pictures in filled)
    assert usual == named != plain
    beside = pd.concat([blank, pd.DataFrame({"label": [None], "image": None})], ignore_index=True)
    assert [p.tobytes() for p in exact.fill(beside, draw=True, seed=1)["image"][:96]] == usual


def test_a_folder_of_pictures_may_be_called_as_a_version(
    exact: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "v1.5"
    assert command("generate", exact.run.folder.path, "--out", out, "-n", "2")[0] == 0
    assert len(list(out.glob("*.png"))) == 3  # two, and the sheet


def test_pictures_are_the_same_alone_and_in_a_batch(learned: api.Model) -> None:
    many = learned.generate(21, seed=5)
    few = learned.generate(4, seed=5)
    for a, b in zip(many["image"], few["image"], strict=False):
        assert a.tobytes() == b.tobytes()
    filled = learned.fill(bars(5).assign(image=None))
    assert all(isinstance(p, Image.Image) for p in filled["image"])


def test_a_codec_that_learns_is_a_stage_that_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    api.train(folder, tmp_path / "whole", steps=20, recipe=LEARNED)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        api.train(folder, tmp_path / "cut", steps=20, recipe=LEARNED, live=StopAt(10))
    state = json.loads((tmp_path / "cut" / "run.json").read_text(encoding="utf-8"))
    assert state["state"] == "learning codecs", "it was cut before the model's first step"
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    api.train(folder, tmp_path / "cut", recipe=LEARNED, resume=True)
    names = ["model.safetensors", "codecs/0000/image.safetensors", "recipe.yaml"]
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    api.train(folder, tmp_path / "again", recipe=tmp_path / "whole" / "recipe.yaml")
    for name in names[:2]:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_codec_cut_before_its_first_checkpoint_resumes_exactly(
    folder: Path, tmp_path: Path
) -> None:
    recipe = {**LEARNED, "train": {"save_every": 50}}
    api.train(folder, tmp_path / "whole", steps=12, recipe=recipe)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        api.train(folder, tmp_path / "cut", steps=12, recipe=recipe, live=StopAt(10))
    assert not list((tmp_path / "cut" / "checkpoints").rglob("step-*"))
    torch.manual_seed(4321)  # another process has drawn other numbers before
    api.train(folder, tmp_path / "cut", recipe=recipe, resume=True)
    for name in ("codecs/0000/image.safetensors", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_codec_is_shared_by_several_models(
    learned: api.Model, exact: api.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, weights_of = learned.run.folder.path, "codecs/0000/image.safetensors"
    others = bars(60, seed=4).rename(columns={"image": "drawing", "label": "way"})
    shared = {"model": {"size": "nano"}, "train": {"codec": str(source)}}
    model = api.train(others, tmp_path / "run", steps=5, recipe=shared)
    assert "codec of drawing" not in capsys.readouterr().err, "nothing is left to learn"
    assert (tmp_path / "run" / weights_of).read_bytes() == (source / weights_of).read_bytes()
    ours, theirs = (m.run.vocabulary[n].codec for m, n in ((model, "drawing"), (learned, "image")))
    value = others["drawing"][0].tobytes()
    assert (ours.encode(value) == theirs.encode(value)).all()
    api.train(others, tmp_path / "again", recipe=tmp_path / "run" / "recipe.yaml")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    pictures = [Image.fromarray(np.asarray(picture)) for picture in others["drawing"]]
    larger = others.assign(drawing=[p.resize((9 + i % 2, 7)) for i, p in enumerate(pictures)])
    why = api.train(larger, tmp_path / "sizes", steps=1, recipe=shared).run.schema["drawing"].why
    assert "as the codec of" in why and "brought to" not in why, "it is not, but to the codec's"

    foreign = tmp_path / "foreign"
    shutil.copytree(source, foreign)
    schema = json.loads((foreign / "schema.json").read_text(encoding="utf-8"))
    schema["fields"][1]["codec"] = "no_such_module_of_ours:Evil"
    (foreign / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (foreign / "sums.json").unlink()  # as whoever wrote it would
    with pytest.raises(RunError, match="names code of its own"):
        api.train(others, tmp_path / "no", recipe={"train": {"codec": str(foreign)}})
    with pytest.raises(RunError, match="has no codec that has learned"):
        api.train(others, tmp_path / "no", recipe={"train": {"codec": str(exact.run.folder.path)}})
    pixels = {**shared, "schema": {"fields": {"drawing": {"codec": "pixels"}}}}
    with pytest.raises(RunError, match=r"no field here can use .* ones there: image \(image\)"):
        api.train(others, tmp_path / "no", recipe=pixels)
    with pytest.raises(RunError, match="there is no such run folder"):
        api.train(others, tmp_path / "no", recipe={"train": {"codec": str(tmp_path / "none")}})
    for setting in ({"learn": {"batch": 8}}, {"options": {"stride": 4}}):
        recipe = {**shared, "schema": {"fields": {"drawing": setting}}}
        with pytest.raises(RecipeError, match=f"drawing.{next(iter(setting))}.*has no effect"):
            api.train(others, tmp_path / "no", recipe=recipe)


def test_a_codec_learns_under_a_budget_and_says_how_good_it_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**LEARNED, "model": {"size": "nano"}}
    api.train(folder, tmp_path / "run", budget="12s", recipe=recipe)
    assert "codec of image: " in (said := capsys.readouterr().err) and "psnr" in said
    tree = api.load(tmp_path / "run").run.recipe.schema_.fields["image"].learn
    assert tree is not None and tree.steps and tree.schedule


def test_generated_pictures_are_files_that_say_what_made_them(
    exact: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    run, out = exact.run.folder.path, tmp_path / "made"
    assert command("generate", run, "-n", 3, "--seed", 7, "--out", out)[0] == 0
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["image"] for r in records] == ["00001.png", "00002.png", "00003.png"]
    direct = exact.generate(3, seed=7)
    for record, picture in zip(records, direct["image"], strict=True):
        file = out / record["image"]
        assert opened(file).tobytes() == picture.tobytes()
        words = text_chunks(file)
        assert f"model {exact.run.sha256}, seed 7" in words["Description"]
        assert "trainedAlgorithmicMedia" in words["XML:com.adobe.xmp"]
    assert opened(out / "sheet.png").size[0] > 3 * 60
    assert command("generate", run, "--seed", 7, "--out", tmp_path / "bare", "--no-label")[0] == 0
    assert text_chunks(tmp_path / "bare" / "00001.png") == {}
    again = tmp_path / "again"
    assert command("generate", run, "-n", 3, "--seed", 7, "--out", again)[0] == 0
    assert all((again / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())


@pytest.mark.parametrize("ending", ["webp", "jpeg"])
def test_pictures_of_other_formats_say_what_made_them(
    exact: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]], ending: str
) -> None:
    run, out = exact.run.folder.path, tmp_path / "made"
    asked = ("generate", run, "-n", 2, "--seed", 7, "--format", ending)
    status, _, err = command(*asked, "--out", out)
    assert status == 0, err
    for file, picture in zip(sorted(out.glob("0*")), exact.generate(2, seed=7)["image"],
                             strict=True):  # fmt: skip
        assert file.suffix == f".{ending}"
        with Image.open(file) as read:
            assert read.format == ending.upper() and read.size == picture.size
            near = np.abs(np.array(read.convert("L"), int) - np.array(picture))
            assert near.max() <= (0 if ending == "webp" else 40)
        said = file.read_bytes()
        assert f"model {exact.run.sha256}, seed 7".encode() in said
        assert b"trainedAlgorithmicMedia" in said and b"x:xmpmeta" in said
    assert command(*asked, "--out", tmp_path / "again")[0] == 0
    assert all((tmp_path / "again" / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())
    assert command(*asked, "--out", tmp_path / "bare", "--no-label")[0] == 0
    assert b"Omnifill" not in (tmp_path / "bare" / f"00001.{ending}").read_bytes()


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def text_chunks(path: Path) -> dict[str, str]:
    """The text in a PNG file, read by its specification alone."""
    data, at, out = path.read_bytes(), 8, {}
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size :][:4])[0]
        if kind in (b"tEXt", b"iTXt"):
            key, _, rest = body.partition(b"\0")
            out[key.decode()] = (rest if kind == b"tEXt" else rest.split(b"\0", 4)[-1]).decode()
        at += 12 + size
    return out


def test_a_picture_is_given_by_its_path(
    exact: api.Model, folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    run, file = exact.run.folder.path, next((folder / "upright").iterdir())
    for value in (f"image={file}", f"image=@{file}"):
        status, out, err = command("generate", run, "--given", value, "--format", "jsonl")
        assert status == 0, err
        assert json.loads(out)["image"] == str(file)
    (tmp_path / "t.csv").write_text(f"image,label\n{file.name},\nx.png,\n", encoding="utf-8")
    (tmp_path / file.name).write_bytes(file.read_bytes())
    status, _, err = command("fill", run, tmp_path / "t.csv", "--out", tmp_path / "u.csv")
    assert status == 2 and "t.csv:3, column 'image': x.png there is no such file" in err
    (tmp_path / "t.csv").write_text(f"image,label\n{file.name},\n,lying\n", encoding="utf-8")
    status, _, err = command("fill", run, tmp_path / "t.csv", "--out", tmp_path / "u.csv")
    assert status == 0, err
    filled = pd.read_csv(tmp_path / "u.csv")
    assert filled["image"].tolist() == [file.name, "u.csv-files/00001.png"]
    assert filled["label"].tolist() == ["upright", "lying"]
    made = exact.fill(pd.DataFrame({"image": [opened(file), None], "label": [None, "lying"]}))
    assert opened(tmp_path / "u.csv-files" / "00001.png").tobytes() == made["image"][1].tobytes()
    assert exact.run.sha256 in text_chunks(tmp_path / "u.csv-files" / "00001.png")["Description"]
    again = command("fill", run, tmp_path / "u.csv", "--out", tmp_path / "v.csv")
    assert again[0] == 0 and not (tmp_path / "v.csv-files").exists(), "nothing was left to fill"
    (tmp_path / "u.csv").unlink()
    status, _, err = command("fill", run, tmp_path / "t.csv", "--out", tmp_path / "u.csv")
    assert status == 2 and "u.csv-files: holds files already" in err
    assert not (tmp_path / "u.csv").exists()
    assert command("generate", run, "--given", "image=nowhere.png")[0] == 2
    with pytest.raises(ValueRefused, match="field 'image'"):
        exact.generate(1, given={"image": 5})


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--no-label"], "none are written here"), (["--keep", "x.png"], "name it with --given"),
     (["--format", "jsonl"], "name a folder"), (["--out", "x.csv"], "name a folder"),
     (["--out", "new", "--format", "flac"], "is for sounds, and none"),
     (["--out", "new", "--format", "png,webp"], "two formats of the same"),
     (["--out", "new", "--format", "gif"], "no format called 'gif'"),
     (["--format", "webp"], "name a folder"),
     (["--out", "full"], "holds files already"), (["--out", "no/where"], "there is no folder")],
)  # fmt: skip
def test_pictures_go_to_a_new_folder_alone(
    exact: api.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str],
    message: str, command: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("x", encoding="utf-8")
    status, _, err = command("generate", exact.run.folder.path, *options)
    assert status == 2 and message in err
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_only_what_a_task_wants_decides_where_records_go(
    folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = {**PIXELS, "form": {"tasks": [{"given": ["image"], "want": ["label"]}]}}
    run = tmp_path / "run"
    model = api.train(folder, run, steps=3, recipe=recipe)
    model.evaluate(bars(30), report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "image: generated" not in page, "pictures that were given are not shown as made"
    file = next((folder / "lying").iterdir())
    status, out, err = command("generate", run, "--given", f"image={file}", "--format", "jsonl")
    assert status == 0 and json.loads(out)["label"] in ("lying", "upright"), err
    status, _, err = command("generate", run, "--given", f"image={file}", "--no-label", "--out",
                             tmp_path / "x.csv")  # fmt: skip
    assert status == 2 and "none are written here" in err


def test_messages_name_files_and_print_no_pixels(exact: api.Model) -> None:
    bad = pd.DataFrame({"image": [np.full((6, 6), 999)], "label": [None]})
    with pytest.raises(DataError) as error:
        exact.fill(bad)
    assert "row 1, column 'image': is an array" in str(error.value) and "[999" not in str(
        error.value
    )
    with pytest.raises(ValueRefused, match=r"field 'image': is an array"):
        exact.generate(1, given={"image": bad["image"][0]})


def test_what_pictures_become_is_told(folder: Path) -> None:
    def why(options: dict[str, int]) -> str:
        tree = {"schema": {"fields": {"image": {"options": options}}}}
        return api.inspect(folder, api.build_recipe(tree)).schema["image"].why

    assert why({}) == "pictures of 6 × 6 pixels, grey"
    assert why({"height": 4, "width": 5}) == "pictures of 6 × 6 pixels, grey; brought to 5 × 4"


def test_the_live_line_begins_anew_after_a_codec() -> None:
    line = LiveLine(io.StringIO())
    line.live = True
    line.begin("codec of image · ")
    line(Report(90, 100, 1.0, 0.5, 1.0, 9.0, 1.0, 1.0))
    line.begin()
    line(Report(1, 100, 2.0, None, 1.0, 9.0, 1.0, 1.0))
    shown = cast(io.StringIO, line.stream).getvalue().split("\r")[-1]
    assert "step 1/100" in shown and "codec" not in shown and "valid" not in shown
    assert line.first_step == 1, "time is counted from here"


def test_what_cannot_be_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    def recipe(**field: object) -> dict[str, object]:
        return {**NANO, "schema": {"fields": {"image": field}}}

    for wrong, message in (
        (recipe(codec="bpe"), "image or pixels"),
        (recipe(max_tokens=9), "max_tokens: is for texts"),
        (recipe(codec="pixels", learn={"steps": 3}), "does not learn"),
        (recipe(options={"stride": 5}), "fields.image.options.stride"),
        (recipe(codec="pixels", options={"height": 64, "width": 64}), "1,024 are the most"),
    ):
        with pytest.raises(RecipeError, match=message):
            api.train(folder, tmp_path / "run", steps=2, recipe=wrong)
        assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="18 of 18 files cannot be read"):
        api.train(pd.DataFrame({"image": ["a", "b"] * 9}), tmp_path / "run", steps=2,
                  recipe=recipe(type="image", options={"height": 4, "width": 4}))  # fmt: skip


def test_inspect_draws_a_sheet_of_the_pictures(
    folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = command("inspect", folder, "--sheet", tmp_path / "s.png")
    assert status == 0 and "pictures of 6 × 6 pixels, grey" in out
    assert opened(tmp_path / "s.png").size[0] > 10 * 60
    assert command("inspect", folder, "--sheet", tmp_path / "s.gif")[0] == 2
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n3,4\n" * 9, encoding="utf-8")
    status, _, err = command("inspect", tmp_path / "t.csv", "--sheet", tmp_path / "t.png")
    assert status == 2 and "no field holds any" in err


def test_masked_models_make_pictures_in_one_step_or_many(folder: Path, tmp_path: Path) -> None:
    recipe = {**PIXELS, "objective": {"name": "masked"}}
    model = api.train(folder, tmp_path / "run", steps=60, recipe=recipe)
    for steps in (1, 4, None):
        made = model.generate(3, given={"label": "lying"}, steps=steps)
        assert all(p.size == (6, 6) for p in made["image"])


@pytest.mark.slow
def test_a_region_is_painted_in_and_the_rest_stays(
    folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = {**PIXELS, "objective": {"name": "masked"}}
    model = api.train(folder, tmp_path / "run", steps=300, recipe=recipe)
    half = np.zeros((6, 6), bool)
    half[:, :4] = True
    table = bars(40, seed=6)
    whole = []
    for picture in table[table["label"] == "lying"]["image"].head(8):
        given = {"image": Partial(picture, half)}
        made = model.generate(2, given=given, seed=1, temperature=0)["image"]
        for ours in map(np.array, made):
            np.testing.assert_array_equal(ours[:, :4], picture[:, :4])
            whole.append((ours == picture).all())
    assert np.mean(whole) > 0.5, "the bar goes on"
    for share, num in (("50%", 18), ("90%", 32)):  # variations
        given = {"image": Partial(picture, share)}
        made = [np.array(p) for p in model.generate(6, given=given, seed=4)["image"]]
        apart = [int((ours != picture).sum()) for ours in made]
        kept = np.all([ours == picture for ours in made], axis=0).sum()
        assert max(apart) <= 36 - num and kept >= num
        again = model.generate(2, given=given, seed=4)["image"]
        assert all((np.array(a) == b).all() for a, b in zip(again, made, strict=False))
    Image.fromarray(picture).save(tmp_path / "p.png")
    Image.fromarray(half).save(tmp_path / "keep.png")
    given = f"image={tmp_path / 'p.png'}"
    status, _, err = command("generate", model.run.folder.path, "--given", given, "--keep",
                             tmp_path / "keep.png", "--out", tmp_path / "made")  # fmt: skip
    assert status == 0, err
    ours = np.array(opened(tmp_path / "made" / "00001.png"))
    np.testing.assert_array_equal(ours[:, :4], picture[:, :4])


def test_other_models_go_on_from_the_top_alone(exact: api.Model, learned: api.Model) -> None:
    picture = bars(1, seed=2)["image"][0]
    top, left = np.zeros((2, 6, 6), bool)
    top[:4], left[:, :4] = True, True
    for model in (exact, learned):
        given = {"image": Partial(picture, top), "label": "upright"}
        made = model.generate(3, given=given, want=["image"], seed=4)
        for ours in made["image"]:
            np.testing.assert_array_equal(np.array(ours)[:4], picture[:4])
        few = model.generate(1, given=given, want=["image"], seed=4)
        assert few["image"][0].tobytes() == made["image"][0].tobytes()
        with pytest.raises(RequestError, match="needs a masked"):
            model.generate(1, given={"image": Partial(picture, left)})
    grid = np.zeros((6, 6), np.uint8)
    grid[:4, 2] = 255
    more = exact.generate(12, given={"image": Partial(grid, top), "label": "upright"})
    assert np.mean([(np.array(p)[:, 2] == 255).all() for p in more["image"]]) > 0.7


def test_an_unknown_region_has_no_effect(learned: api.Model) -> None:
    keep = np.zeros((6, 6), bool)
    keep[:4] = True
    picture = bars(1, seed=2)["image"][0]
    other = np.where(keep, picture, 255 - picture)
    model = api.load(learned.run.folder.path)
    for parameter in model.run.vocabulary["image"].codec.network.parameters():  # type: ignore
        torch.nn.init.normal_(parameter, std=0.3)  # codes that lean on all that is around them
    codec = model.run.vocabulary["image"].codec
    assert (codec.encode(picture.tobytes()) != codec.encode(other.tobytes()))[:6].any()
    made = [model.generate(2, given={"image": Partial(p, keep)}, seed=1)["image"]
            for p in (picture, other)]  # fmt: skip
    for a, b in zip(*made, strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_cannot_be_known_in_part_is_refused(exact: api.Model) -> None:
    picture = bars(1)["image"][0]
    whole = np.ones((6, 6), np.uint8)
    for given, options, message in (
        ({"image": Partial(picture, whole)}, {}, "nothing to make"),
        ({"image": Partial(picture, 0 * whole)}, {}, "too little"),
        ({"image": Partial(picture, "100%")}, {}, "nothing to make"),
        ({"image": Partial(picture, "0%")}, {}, "too little"),
        ({"image": Partial(picture, "40%")}, {}, "needs a masked model"),
        ({"image": Partial(picture, whole), "label": Partial("lying", 1)}, {}, "only one field"),
        ({"label": Partial("lying", 1)}, {}, "cannot be known in part"),
        ({"image": Partial(picture, "nowhere.png")}, {}, "keep: there is no such file"),
        ({"image": Partial(picture, np.arange(36).reshape(6, 6) < 9)}, {"rerank": 3}, "leave out"),
    ):
        with pytest.raises((RequestError, ValueRefused), match=message):
            exact.generate(1, given=given, **options)


def test_evaluation_and_report_know_pictures(exact: api.Model, tmp_path: Path) -> None:
    found = exact.evaluate(bars(60, seed=4), report=tmp_path / "report.html")
    assert found["fields"]["image"]["bits"]["value"] < 64
    assert found["fields"]["label"]["accuracy"]["value"] > 0.9
    image, real = (part["fields"]["image"] for part in (found, found["baselines"]["held_out"]))
    assert image["label_recovered"]["value"] > 0.8 and real["label_recovered"]["value"] > 0.9
    assert image["psnr"]["value"] > 60 and image["ssim"]["value"] > 0.999, "pixels are exact"
    others = {kind: found["baselines"][kind]["fields"]["image"]["frechet"]["value"]
              for kind in ("resampled", "mean", "noise")}  # fmt: skip
    assert image["frechet"]["value"] < min(others["mean"], others["noise"]) / 2
    assert "vae" not in found["baselines"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pictures of 6 × 6 pixels" in page and page.count("<figcaption>image: ") == 4
    assert page.count('alt="(picture of 6 × 6)"') == 9 and "from the closest" not in page


def test_a_vae_is_trained_beside_where_one_is_asked_for(
    exact: api.Model, command: Callable[..., tuple[int, str, str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # A step takes a second.
    monkeypatch.setattr("omnifill.evaluate.vae.monotonic", itertools.count().__next__)
    found = exact.evaluate(bars(60, seed=4), report=tmp_path / "report.html", vae="1m")
    vae, mean = (found["baselines"][kind]["fields"]["image"] for kind in ("vae", "mean"))
    assert 0 < vae["frechet"]["value"] != mean["frechet"]["value"]
    assert vae["label_recovered"]["n"] == 60, "how well it learns is tested in test_media.py"
    assert "vae" in (tmp_path / "report.html").read_text(encoding="utf-8")
    for wrong, why in (("soon", "--vae: 'soon' is not a time"), ("0s", "longer than nothing")):
        with pytest.raises(RequestError, match=why):
            exact.evaluate(bars(60), vae=wrong)
    with pytest.raises(RequestError, match=r"3 of field 'image' are too few .*at least 4"):
        exact.evaluate(bars(3), vae="2s")
    plain = api.train(pd.DataFrame({"a": ["x", "y"] * 40}), tmp_path / "plain", steps=2)
    with pytest.raises(RequestError, match="no training part with pictures"):
        plain.evaluate(vae="2s")
    run = str(plain.run.folder.path)
    code, _, said = command("evaluate", run, run, "--vae", "1m")
    assert code == 2 and "--report and --vae go with one run" in said


def test_figures_of_sorted_files_are_of_all_kinds(
    exact: api.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnifill.evaluate.media.COMPARED", 30)
    monkeypatch.setattr("omnifill.evaluate.measures.MOST_ROWS", 30)
    found = exact.evaluate(bars(120, seed=7).sort_values("label"))
    assert found["baselines"]["resampled"]["fields"]["image"]["precision"]["value"] > 0.7
    plain = found["baselines"]["most_frequent_or_median"]["fields"]["label"]["accuracy"]["value"]
    assert 0.3 < plain < 0.8, "both labels are asked for"


def test_records_without_a_picture_or_a_label_do_not_disturb_the_figures(tmp_path: Path) -> None:
    table = bars(120, seed=3)
    lacking = pd.DataFrame({"image": [None] * 40, "label": ["none"] * 40})
    table.loc[::5, "label"] = None
    whole = pd.concat([table, lacking], ignore_index=True)
    model = api.train(whole, tmp_path / "run", steps=40, recipe=PIXELS)
    unseen = bars(60, seed=8)
    unseen.loc[::3, "label"] = None
    found = model.evaluate(pd.concat([unseen, lacking[:9]], ignore_index=True))
    real = found["baselines"]["held_out"]["fields"]["image"]["label_recovered"]
    assert real["n"] == 40 and real["value"] > 0.9, "a blank label is none to tell"
    alone = pd.DataFrame({"image": [*bars(60)["image"], *[None] * 60],
                          "label": [None] * 60 + ["a", "b"] * 30})  # fmt: skip
    apart = api.train(alone, tmp_path / "apart", steps=5, recipe=PIXELS)
    assert "frechet" in apart.evaluate(alone)["fields"]["image"]


def test_a_run_of_pictures_and_sounds(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    rng = np.random.default_rng(0)
    sounds = [Sound(rng.normal(0, 0.1, 600 + 9 * i).clip(-1, 1), 4000) for i in range(60)]
    recipe = {**PIXELS, "schema": {"fields": {"image": {"codec": "pixels"}, "audio": {
        "options": {"channels": 8, "blocks": 1, "levels": [4, 4], "frames": 20},
    }}}}  # fmt: skip
    model = api.train(bars(60).assign(audio=sounds), tmp_path / "run", steps=6, recipe=recipe)
    made = model.generate(2, seed=1)
    assert isinstance(made["image"][0], Image.Image) and isinstance(made["audio"][0], Sound)
    out = tmp_path / "out"
    status, _, err = command("generate", tmp_path / "run", "-n", 2, "--seed", 1, "--format",
                             "webp,flac", "--out", out)  # fmt: skip
    assert status == 0, err
    names = {f.name for f in out.iterdir()}
    assert names == {"00001-1.webp", "00001-2.flac", "00002-1.webp", "00002-2.flac", "sheet.png",
                     "results.jsonl"}  # fmt: skip


def test_aims_and_beams_over_pictures_are_refused_by_name(exact: api.Model) -> None:
    with pytest.raises(RequestError):
        exact.generate(1, want=["image"], prompt="a bar")


def test_a_label_is_told_from_a_picture_more_often_than_a_picture_from_it(
    learned: api.Model,
) -> None:
    vocabulary, form = learned.run.vocabulary, learned.run.recipe.form
    assert form.mix is not None and form.mix.one_last == 0.8
    orders = draw_orders(np.zeros((4000, 2), bool), vocabulary, form, np.random.default_rng(0))
    share = float((orders.fields[:, 1] == vocabulary["label"].index).mean())
    assert share == pytest.approx(0.8 * ASKED / (1 + ASKED), abs=0.03)
