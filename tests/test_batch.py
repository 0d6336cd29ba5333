"""A file of requests: answered as by the library, and gone on with where it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from omnifill import api
from omnifill.serve.batch import read_requests
from omnifill.serve.limits import Limits
from omnifill.serve.store import Store


def requests_file(path: Path, num: int) -> Path:
    lines = [json.dumps({"given": {"kind": "咖啡"}, "n": 4, "seed": s}) for s in range(num)]
    lines.append(json.dumps({"path": "/v1/records/score", "body": {"records": [{"kind": "tea"}]}}))
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def test_answers_are_the_library_s(model: api.Model, command: Any, tmp_path: Path) -> None:
    file, out = requests_file(tmp_path / "asked.jsonl", 3), tmp_path / "answers.jsonl"
    status, shown, _ = command("batch", model.run.folder.path, file, "--out", out, "--threads", 1)
    assert status == 0 and shown == ""
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["index"], line["status"]) for line in lines] == [(i, 200) for i in range(4)]
    for seed, line in enumerate(lines[:3]):
        made = model.generate(4, given={"kind": "咖啡"}, seed=seed)
        made = made.astype(object).where(made.notna(), None)
        assert line["body"]["data"] == made.to_dict("records")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.jsonl", "asked.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.slow
def test_what_is_stopped_goes_on(model: api.Model, tmp_path: Path) -> None:
    """By Ctrl-C; the answers are those of a run that was not stopped."""
    file = requests_file(tmp_path / "asked.jsonl", 1000)
    words = [sys.executable, "-m", "omnifill", "batch", str(model.run.folder.path), str(file),
             "--threads", "1", "--rows", "4", "--out"]  # fmt: skip
    whole, out = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    subprocess.run([*words, str(whole)], check=True, capture_output=True)
    kept = out.with_name("answers.jsonl.jobs")
    process = subprocess.Popen([*words, str(out)], stderr=subprocess.PIPE, text=True)
    while finished(kept) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in said, said
    assert not out.exists() and 3 <= finished(kept) < 301
    done = subprocess.run([*words, str(out)], check=True, capture_output=True, text=True)
    assert out.read_bytes() == whole.read_bytes() and "Traceback" not in done.stderr
    assert not kept.exists()


def finished(kept: Path) -> int:
    """Answers that are in the database."""
    if not kept.exists() or os.path.getsize(kept) == 0:
        return 0
    store = Store(f"sqlite:///{kept}")
    try:
        return sum(job["finished"] for job in store.listed("batch", 1))
    finally:
        store.close()


@pytest.mark.parametrize(("line", "part"), [
    ("{", "line 2: this is no JSON"), ("[1]", "line 2: must be an object"),
    ('{"given": {}, "m": 1}', "line 2: m: unknown"), ('{"path": "/x", "body": {}}', "line 2: path"),
    ('{"stream": true}', "line 2: stream"), ('{"path": [], "body": {}}', "line 2: path"),
    ("[" * 100_000, "brackets"), ('{"given": {"kind": "\\ud800"}}', "line 2: \\ud800"),
    ('{"given": {"size": NaN}}', "line 2: this is no JSON (NaN"),
    ('{"n": 1, "n": 2}', "line 2: this is no JSON (a key stands twice"),
])  # fmt: skip
def test_a_wrong_line_is_named_before_any_work(
    line: str, part: str, model: api.Model, command: Any, tmp_path: Path
) -> None:
    file, out = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    file.write_text(f'{{"n": 1}}\n{line}\n', encoding="utf-8")
    status, _, said = command("batch", model.run.folder.path, file, "--out", out)
    assert status == 2 and part in said and [p.name for p in tmp_path.iterdir()] == [file.name]


def test_lines_end_where_json_lines_says(tmp_path: Path) -> None:
    """Not at what else separates lines in Unicode; and a mark of byte order is none of them."""
    file = tmp_path / "asked.jsonl"
    given = {"a": "x\u2028y\x85z\u2029"}
    lines = [json.dumps({"given": given}, ensure_ascii=False)] * 2
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = read_requests(file, "m", Limits())
    assert [one["body"]["given"] for one in found] == [given, given]
