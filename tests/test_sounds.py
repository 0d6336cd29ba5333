"""Sounds go the whole way: folder or table in, WAV files out, labels told from them."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from omnifill import Partial, api
from omnifill.data.inspect import inspect_data, render
from omnifill.data.results import encoded, write_results
from omnifill.errors import DataError, RequestError
from omnifill.form.vocabulary import Vocabulary
from omnifill.generate import wishes
from omnifill.generate.autoregressive import Autoregressive
from omnifill.generate.filters import MEDIA_MIN_P
from omnifill.generate.requests import plan_of
from omnifill.generate.wishes import Wish
from omnifill.recipe import Recipe
from omnifill.schema import FieldSpec
from omnifill.types import Sound

RECIPE = {
    "model": {"size": "nano"},
    "schema": {"fields": {"audio": {
        "options": {"channels": 8, "blocks": 1, "levels": [4, 4], "depth": 1, "frames": 20},
        "learn": {"batch": 16, "steps": 200},
    }}},
}  # fmt: skip


def tones(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Low and high tones of unequal lengths."""
    rng = np.random.default_rng(seed)
    sounds, labels = [], []
    for _ in range(rows):
        high = rng.random() < 0.5
        time = np.arange(int(4000 * rng.uniform(0.1, 0.3))) / 4000
        pitch = (1200 if high else 300) * rng.uniform(0.9, 1.1)
        sounds.append(Sound(0.5 * np.sin(2 * np.pi * pitch * time), 4000))
        labels.append("high" if high else "low")
    return pd.DataFrame({"audio": sounds, "label": labels})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tones") / "tones"
    for number, row in enumerate(tones().itertuples()):
        (path / str(row.label)).mkdir(parents=True, exist_ok=True)
        file = path / str(row.label) / f"{number}.{'flac' if number % 2 else 'wav'}"
        soundfile.write(file, row.audio.samples, row.audio.rate)
    return path


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    return api.train(folder, tmp_path_factory.mktemp("runs") / "tones", steps=60, recipe=RECIPE)


def test_inspect_tells_rates_lengths_and_broken_files(folder: Path, tmp_path: Path) -> None:
    shown = render(inspect_data(folder, Recipe()))
    assert re.search(r"sounds of 0\.1\d to 0\.(30|29) s, 0\.2 min in all, at 4,000 Hz", shown), (
        shown
    )
    frame = tones(20)
    frame.loc[0, "audio"] = Sound(np.zeros(9 * 4000), 4000)  # type: ignore[call-overload]
    shown = render(inspect_data(frame, Recipe()))
    assert "1 of them is cut at 0." in shown


def test_a_sound_is_laid_out_up_to_its_end_alone(model: api.Model) -> None:
    vocabulary, field = model.run.vocabulary, model.run.vocabulary["audio"]
    config = field.codec.config
    rng = np.random.default_rng(0)
    sizes = [200, 900, 10, config.shape.samples]
    values = [rng.integers(-99, 99, size).astype("<i2").tobytes() for size in sizes]
    whole, _ = field.codec.encode_many(values)
    column = vocabulary.encode_column("audio", [*values, None])
    frames = [config.frames_of(size) for size in sizes]
    most = config.frames
    assert frames[-1] == most > max(frames[:-1])
    # One code says that the end is there; behind the longest it is nothing new.
    assert column.lens.tolist() == [*(n + (n < most) for n in frames), 1]
    starts = np.cumsum(column.lens)[:-1]
    for codes, ids in zip(whole.reshape(len(values), -1), np.split(column.ids, starts)[:-1],
                          strict=True):  # fmt: skip
        assert np.array_equal(field.codes_of(ids), codes)
    on_canvas = Vocabulary(model.run.schema, {f.name: f.codec for f in vocabulary.fields}, True)
    assert set(on_canvas.encode_column("audio", [*values, None]).lens) == {most}


def test_nothing_is_read_behind_the_end_of_a_sound(model: api.Model) -> None:
    request = wishes.build(model.run, Wish(num=20, given={"label": "low"}))
    run = model.run
    sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
    steps = list(sampler(plan_of(run, request, 0, 20)))
    over = run.vocabulary["audio"].first + 4 * 4
    rows = np.concatenate([step.row for step in steps])
    ids = np.concatenate([step.id for step in steps])
    ended = {row: ids[rows == row].tolist() for row in range(20)}
    assert any(over in row for row in ended.values())
    assert all(over not in row[:-1] for row in ended.values())


def test_sounds_have_their_tail_cut_by_default(model: api.Model) -> None:
    def drawn(**sampling: float) -> list[bytes]:
        return [s.samples.tobytes() for s in model.generate(48, seed=4, **sampling)["audio"]]

    assert drawn() == drawn(min_p=MEDIA_MIN_P["audio"]) != drawn(min_p=0.0)


def test_a_window_opens_with_what_is_laid_out_of_a_sound(model: api.Model) -> None:
    run = model.run
    sounds = [Sound(np.full(size, 0.1), 4000) for size in (400, 900)]
    for sound in sounds:
        request = wishes.build(run, Wish(num=2, given={"audio": sound}, want=["label"]))
        plan = plan_of(run, request, 0, 2)
        sampler = Autoregressive(run.network, run.vocabulary, run.objective.columns)
        _, ((_, cache),) = sampler.begin(plan)
        assert cache.lengths.tolist() == [1 + int(plan.shard.sizes[0])] * 2
        want = [1 + int(plan.shard.sizes[0]) + 1] * 2  # `<bos>`, the sound, the label
        assert sampler._sinks(plan, plan.orders).tolist() == want


def test_near_codes_begin_alike_and_the_one_behind_the_end_is_apart(model: api.Model) -> None:
    field = model.run.vocabulary["audio"]
    assert (field.first, 4, 4) in model.run.network.config.ordered
    assert field.codec.size == 4 * 4 + 1


def test_every_direction_comes_from_one_model(model: api.Model) -> None:
    made = model.generate(9, seed=3)
    for sound in made["audio"]:
        assert isinstance(sound, Sound) and sound.rate == 4000
        assert 0 < len(sound.samples) <= 0.35 * 4000
        assert np.abs(sound.samples).max() <= 1
    few = model.generate(2, seed=3)
    for a, b in zip(made["audio"], few["audio"], strict=False):
        assert a.samples.tobytes() == b.samples.tobytes(), "alone as in a batch"
    table = tones(30, seed=8)
    told = model.fill(table.assign(label=None))["label"]
    assert (told == table["label"]).mean() > 0.7
    assert np.isfinite(model.score(table)["row"]).all()
    assert model.evaluate(table)["fields"]["audio"]["bits"]["n"] == 30


def test_evaluation_and_report_know_sounds(model: api.Model, tmp_path: Path) -> None:
    found = model.evaluate(tones(40, seed=6), report=tmp_path / "report.html")
    ours = found["fields"]["audio"]
    others = {kind: part["fields"]["audio"] for kind, part in found["baselines"].items()
              if "audio" in part["fields"]}  # fmt: skip
    assert others["held_out"]["label_recovered"]["value"] > 0.9
    assert others["resampled"]["frechet"]["value"] < ours["frechet"]["value"]
    assert ours["frechet"]["value"] < others["mean"]["frechet"]["value"]
    assert 0 < ours["log_mel_distance"]["value"] < 60
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<figcaption>audio: ") == 4 and page.count("<audio controls") == 16
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]*)"', page)
    for sound in sounds:
        assert soundfile.info(io.BytesIO(base64.b64decode(sound))).samplerate == 4000


def test_a_sound_goes_on_from_its_beginning(
    model: api.Model, folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    start = tones(1, seed=5)["audio"][0]
    given = {"audio": Partial(start, 0.08), "label": "low"}
    made = model.generate(4, given=given, want=["audio"], seed=2, min_p=0)["audio"]
    for sound in made:
        np.testing.assert_allclose(sound.samples[:320], start.samples[:320], atol=1e-4)
    assert len({sound.samples.tobytes() for sound in made}) > 1, "they go on differently"
    file = next((folder / "low").iterdir())
    status, _, err = command("generate", model.run.folder.path, "--given", f"audio={file}",
                             "--keep", "0.08", "--out", tmp_path / "made")  # fmt: skip
    assert status == 0, err
    begun, rest = soundfile.read(file)[0], soundfile.read(tmp_path / "made" / "00001.wav")[0]
    np.testing.assert_allclose(rest[:320], begun[:320], atol=1e-3)
    status, _, err = command("generate", model.run.folder.path, "--given", f"audio={file}",
                             "--keep", "0.3")  # fmt: skip
    assert status == 2 and "the whole sound lasts" in err
    for keep in ("soon", "0", "99"):
        status, _, err = command("generate", model.run.folder.path, "--given", f"audio={file}",
                                 "--keep", keep)  # fmt: skip
        assert status == 2 and "must be seconds" in err


def test_a_streamed_sound_is_what_is_made_as_a_whole(model: api.Model, folder: Path) -> None:
    start = Partial(tones(1, seed=5)["audio"][0], 0.08)
    for seed, given in ((1, {"label": "low"}), (2, {"label": "high", "audio": start}), (3, {})):
        pieces = list(model.stream(given=given, want="audio", seed=seed))
        whole = model.generate(1, given=given, want="audio", seed=seed, missing=False)["audio"][0]
        assert np.concatenate([p.samples for p in pieces]).tobytes() == whole.samples.tobytes()
        assert all(piece.rate == 4000 for piece in pieces)
    args = [sys.executable, "-m", "omnifill", "generate", str(model.run.folder.path), "--given",
            "label=low", "--want", "audio", "--seed", "1", "--stream"]  # fmt: skip
    piped = subprocess.run(args, capture_output=True, check=True).stdout
    with soundfile.SoundFile(io.BytesIO(piped)) as file:
        assert file.samplerate == 4000 and "Generated by AI" in file.comment
        assert model.run.sha256 in file.comment and "trainedAlgorithmicMedia" in file.comment
        heard = file.read()
    first = model.generate(1, given={"label": "low"}, want="audio", seed=1, missing=False)
    np.testing.assert_allclose(heard, first["audio"][0].samples, atol=1e-4)
    files = [piped, *(encoded(first["audio"][0], kind, None) for kind in ("wav", "flac"))]
    said = [soundfile.read(io.BytesIO(data), dtype="int16")[0].tobytes() for data in files]
    assert said[0] == said[1] == said[2], "a file has the samples of a stream"
    bare = subprocess.run([*args, "--no-label"], capture_output=True, check=True).stdout
    assert b"Omnifill" not in bare and piped.endswith(bare[44:])
    with pytest.raises(RequestError, match="streaming needs a wanted text or sound"):
        model.stream(given={"audio": start.value}, want="label")
    with pytest.raises(RequestError, match="max_tokens are about texts, and 'audio' is a sound"):
        model.stream(want="audio", max_tokens=9)


def test_a_minute_of_sound_becomes_an_ogg_file(tmp_path: Path) -> None:
    spec = FieldSpec(name="audio", type="audio", codec="audio")
    wave = 0.1 * np.sin(np.arange(60 * 48_000) / 20)
    frame = pd.DataFrame({"audio": [Sound(wave, 48_000)]})
    write_results(frame, [spec], tmp_path / "made", None, {"audio": "ogg"})
    info = soundfile.info(tmp_path / "made" / "00001.ogg")
    assert info.frames == len(wave) and info.samplerate == 48_000


def test_a_streamed_sound_that_ends_at_once_has_all_that_was_known(model: api.Model) -> None:
    start = Partial(tones(1, seed=5)["audio"][0], 0.11)
    run = api.load(model.run.folder.path)
    codec = run.run.vocabulary["audio"].codec
    over = run.run.vocabulary["audio"].first + codec.size - 1
    with torch.no_grad():  # a model that ends as soon as it can
        run.run.network.head.weight[over] = 0
        run.run.network.head.weight *= 0.01
    for seed in range(20):
        given = {"label": "low", "audio": start}
        pieces = list(run.stream(given=given, want="audio", seed=seed, temperature=50.0))
        whole = run.generate(1, given=given, want="audio", seed=seed, temperature=50.0,
                             missing=False)["audio"][0]  # fmt: skip
        assert np.concatenate([p.samples for p in pieces]).tobytes() == whole.samples.tobytes()
        assert len(whole.samples) >= 440


def test_sounds_that_a_table_lacks_are_made_beside_it(
    model: api.Model, folder: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    file = next((folder / "low").iterdir())
    (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "t.csv").write_text(f"audio,label\n{file.name},\n,high\n", encoding="utf-8")
    status, _, err = command("fill", model.run.folder.path, tmp_path / "t.csv", "--out",
                             tmp_path / "u.csv")  # fmt: skip
    assert status == 0, err
    filled = pd.read_csv(tmp_path / "u.csv")
    assert filled["audio"].tolist() == [file.name, "u.csv-files/00001.wav"]
    assert model.run.sha256 in info_chunk(tmp_path / "u.csv-files" / "00001.wav")["ICMT"]
    (tmp_path / "other").mkdir()
    status, _, err = command("fill", model.run.folder.path, tmp_path / "t.csv", "--out",
                             tmp_path / "other" / "u.csv")  # fmt: skip
    assert status == 2 and "by their paths from its own folder" in err


def test_variations_and_codecs_of_sounds(model: api.Model, tmp_path: Path) -> None:
    recipe = {"model": {"size": "nano"}, "objective": {"name": "masked"},
              "train": {"codec": str(model.run.folder.path)}}  # fmt: skip
    masked = api.train(tones(60, seed=3), tmp_path / "run", steps=20, recipe=recipe)
    weights = "codecs/0000/audio.safetensors"
    ours, theirs = ((m.run.folder.path / weights).read_bytes() for m in (masked, model))
    assert ours == theirs
    sound = tones(1, seed=5)["audio"][0]
    codec = masked.run.vocabulary["audio"].codec
    values = masked.generate(4, given={"audio": Partial(sound, "60%"), "label": "low"}, seed=2)
    samples = [np.round(s.samples * 32767).astype("<i2").tobytes() for s in values["audio"]]
    assert len(set(samples)) > 1
    assert all(0 < len(value) <= 2 * codec.config.shape.samples for value in samples)


def test_generated_sounds_are_files_that_say_what_made_them(
    model: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    run, out = model.run.folder.path, tmp_path / "made"
    assert command("generate", run, "-n", 3, "--seed", 7, "--out", out)[0] == 0
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    names = [json.loads(line)["audio"] for line in lines]
    assert names == ["00001.wav", "00002.wav", "00003.wav"]
    for name, sound in zip(names, model.generate(3, seed=7)["audio"], strict=True):
        wave, rate = soundfile.read(out / name)
        assert rate == 4000
        np.testing.assert_allclose(wave, sound.samples, atol=1e-4)
        words = info_chunk(out / name)["ICMT"]
        assert f"model {model.run.sha256}, seed 7" in words and "trainedAlgorithmic" in words
    again = tmp_path / "again"
    assert command("generate", run, "-n", 3, "--seed", 7, "--out", again)[0] == 0
    assert all((again / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())
    assert command("generate", run, "--out", tmp_path / "bare", "--no-label")[0] == 0
    assert info_chunk(tmp_path / "bare" / "00001.wav") == {}


@pytest.mark.parametrize("ending", ["flac", "ogg"])
def test_sounds_of_other_formats_say_what_made_them(
    model: api.Model, tmp_path: Path, command: Callable[..., tuple[int, str, str]], ending: str
) -> None:
    run, out = model.run.folder.path, tmp_path / "made"
    asked = ("generate", run, "-n", 2, "--seed", 7, "--format", ending)
    status, _, err = command(*asked, "--out", out)
    assert status == 0, err
    for file, sound in zip(sorted(out.glob("0*")), model.generate(2, seed=7)["audio"],
                           strict=True):  # fmt: skip
        with soundfile.SoundFile(file) as read:
            assert read.format == ending.upper() and read.samplerate == 4000
            assert f"model {model.run.sha256}, seed 7" in read.comment
            assert "trainedAlgorithmicMedia" in read.comment and "Omnifill" in read.software
            wave = read.read()
        assert len(wave) == len(sound.samples)
        if ending == "flac":
            np.testing.assert_allclose(wave, sound.samples, atol=1e-4)
        else:  # its number is not drawn by the clock
            serial = int.from_bytes(file.read_bytes()[14:18], "little")
            assert serial == int(file.stem)
    assert command(*asked, "--out", tmp_path / "again")[0] == 0
    assert all((tmp_path / "again" / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())
    assert command(*asked, "--out", tmp_path / "bare", "--no-label")[0] == 0
    assert b"Omnifill" not in (tmp_path / "bare" / f"00001.{ending}").read_bytes()


def info_chunk(path: Path) -> dict[str, str]:
    """The words in a WAV file, read by its specification alone."""
    data, at, out = path.read_bytes(), 12, {}
    while at < len(data):
        kind, size = struct.unpack("<4sI", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        if kind == b"LIST" and body[:4] == b"INFO":
            inner = 4
            while inner < len(body):
                key, length = struct.unpack("<4sI", body[inner : inner + 8])
                out[key.decode()] = body[inner + 8 : inner + 8 + length].rstrip(b"\0").decode()
                inner += 8 + length + length % 2
        at += 8 + size + size % 2
    return out


def test_a_sound_is_given_by_its_path(
    model: api.Model, folder: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    file = next((folder / "low").iterdir())
    status, out, err = command("generate", model.run.folder.path, "--given", f"audio=@{file}",
                               "--format", "csv")  # fmt: skip
    assert status == 0, err
    assert out.splitlines()[0] == "audio,label" and str(file) in out


def test_without_the_extra_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    status, _, err = command("inspect", folder)
    assert status == 2 and "omnifill[audio]" in err


def test_wrong_sounds_in_a_table_name_the_row(tmp_path: Path) -> None:
    table = tones(20)
    table.loc[4, "audio"] = Sound(np.zeros(50), "8000")  # type: ignore
    with pytest.raises(DataError, match="a rate of '8000'"):
        api.train(table, tmp_path / "run", steps=1, recipe=RECIPE)
    with pytest.raises(DataError, match="a ndarray"):
        api.train(table.assign(audio=[np.zeros(9)] * 20), tmp_path / "run", steps=1, recipe=RECIPE)
