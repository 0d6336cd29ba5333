"""Stopped at any moment, a run goes on to the very same weights. Real processes, real signals."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import mixed_table

from omnifill import api, cli

STEPS = 60
SETTINGS = ["--set", "model.size=nano", "--set", "train.save_every=7", "--set", "model.dropout=0.1",
            "--set", "train.eval_every=10", "--set", "train.ema=0.9"]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interrupt") / "table.csv"
    mixed_table(120, seed=5).to_csv(path, index=False)
    return path


def start(table: Path, run: Path, *more: str, steps: int = STEPS) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "omnifill", "train", str(table), "--out", str(run),
               "--steps", str(steps), *SETTINGS, *more]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err.decode()


def wait_for_checkpoint(process: subprocess.Popen[bytes], run: Path, number: int) -> None:
    """Until the run has written so many checkpoints (or has ended)."""
    target = f"step-{7 * number:08d}"
    while process.poll() is None and not (run / "checkpoints" / target).exists():
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(table: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the run that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    status, err = finish(start(table, run))
    assert status == 0, err
    return (run / "model.safetensors").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
@pytest.mark.parametrize("number", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_at_once_and_resumed_equals_the_uninterrupted_run(
    table: Path, whole: bytes, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    process = start(table, run)
    wait_for_checkpoint(process, run, number)
    process.kill()
    status, err = finish(process)
    assert status == -signal.SIGKILL, err
    status, err = finish(start(table, run, "--resume"))
    assert status == 0, err
    assert (run / "model.safetensors").read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_asked_to_stop_it_saves_says_so_and_resumes_exactly(
    table: Path, whole: bytes, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    process = start(table, run)
    wait_for_checkpoint(process, run, 2)
    process.send_signal(getattr(signal, name))
    status, err = finish(process)
    assert status == 130, err
    assert "saved" in err and "--resume" in err and "Traceback" not in err
    assert not (run / "lock").exists()
    status, err = finish(start(table, run, "--resume"))
    assert status == 0, err
    assert (run / "model.safetensors").read_bytes() == whole


def test_what_a_killed_process_left_half_written_is_in_nobodys_way(
    table: Path, tmp_path: Path
) -> None:
    """Killed while it wrote the first file of all, or a checkpoint; what is not ours stays."""
    run = tmp_path / "run"
    (run / "checkpoints" / ".step-00000007.4194999.part").mkdir(parents=True)
    (run / "checkpoints").rename(tmp_path / "kept")
    (run / ".run.json.4194999.part").write_text('{"format"', encoding="utf-8")
    assert finish(start(table, run, steps=8))[0] == 0
    (tmp_path / "kept" / ".step-00000007.4194999.part").rename(
        run / "checkpoints" / ".step-00000007.4194999.part"
    )
    assert finish(start(table, run, "--resume", steps=8))[0] == 0
    assert not [*run.rglob(".*.part")]
    own = tmp_path / "own"
    own.mkdir()
    (own / ".film.12.part").write_text("half of it", encoding="utf-8")
    status, err = finish(start(table, own, steps=8))
    assert status == 2 and "not empty" in err and (own / ".film.12.part").exists()


def test_two_trainings_do_not_write_into_one_folder(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(table, run, steps=100_000)
    wait_for_checkpoint(process, run, 1)
    status, err = finish(start(table, run, "--resume"))
    process.kill()
    finish(process)
    assert status == 2 and "another training" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
def test_a_stream_that_is_stopped_says_so_by_its_status(tmp_path: Path) -> None:
    # Of one text, which goes on until it is stopped; a row's text may end by chance before.
    (tmp_path / "book.txt").write_text("one two three four five six\n" * 90, encoding="utf-8")
    recipe = {"model": {"size": "nano"}}
    api.train(tmp_path / "book.txt", tmp_path / "run", steps=30, recipe=recipe)
    command = [sys.executable, "-m", "omnifill", "generate", str(tmp_path / "run"), "--stream",
               "--max-tokens", "1000000", "--prompt", "one"]  # fmt: skip
    # Where tests run in the background, Ctrl-C is for others, and children inherit that.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    process.stdout.read(1)  # it has begun
    process.send_signal(signal.SIGINT)
    status, err = finish(process)
    assert status == 130 and "Traceback" not in err


CELLS = {
    "transformer x causal": [],
    "rnn x masked": ["--set", "model.backbone=rnn", "--set", "objective.name=masked"],
    "cnn x seq2seq": ["--set", "model.backbone=cnn", "--set", "objective.name=seq2seq"],
}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
@pytest.mark.parametrize("cell", CELLS)
def test_killed_at_any_moment_a_cell_ends_with_the_same_weights(
    table: Path, tmp_path: Path, cell: str
) -> None:
    whole, rng = tmp_path / "whole", random.Random(cell)
    started = time.monotonic()
    status, err = finish(start(table, whole, *CELLS[cell]))
    assert status == 0, err
    seconds, expected = time.monotonic() - started, (whole / "model.safetensors").read_bytes()
    kills, number = 0, 0
    while kills < 10:
        run, number = tmp_path / f"run-{number}", number + 1
        while not (run / "model.safetensors").exists():
            more = ["--resume"] if (run / "run.json").exists() else []
            process = start(table, run, *CELLS[cell], *more)
            try:
                process.wait(rng.uniform(0.2, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            finish(process)
        finish(start(table, run, "--resume"))
        assert (run / "model.safetensors").read_bytes() == expected


def test_a_command_that_is_stopped_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typer makes a status of Ctrl-C, and no word."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "load", stopped)
    monkeypatch.setattr("sys.argv", ["omnifill", "generate", "run"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
