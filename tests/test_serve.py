"""The server as the official client, and whoever means it harm, meets it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import httpx2
import numpy as np
import openai
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image
from sqlalchemy import select, update
from tests.test_exchange import OPENED, pair, saved, theirs, tokenizer, with_adapter  # noqa: F401
from tests.test_images import PIXELS, bars
from tests.test_sounds import RECIPE as TONES
from tests.test_sounds import tones

from omnifill import api
from omnifill.serve.front import has_page
from omnifill.serve.guard import Guard, Keys
from omnifill.serve.limits import Limits
from omnifill.serve.opener import COMMAND, Opener
from omnifill.serve.opener import OPENED as VALUE
from omnifill.serve.refusals import Refusal
from omnifill.serve.store import JOBS, PARTS, Store

KEY = "a-key-of-many-letters"


HURRIED = ("from omnifill.serve import server; server.GRACE = 1; "
           "from omnifill.cli import main; main()")  # fmt: skip
"""A server that has little patience when it is asked to go."""


def free_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    *runs: str, jobs: Path | str | None = None, killed: bool = False, page: bool = False,
    hurried: bool = False, unsaid: str | None = None, **environment: str,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:  # fmt: skip
    """`omnifill serve` in a process of its own, as a user starts it -> its address."""
    port = free_port()
    program = ["-c", HURRIED] if hurried else ["-m", "omnifill"]
    command = [sys.executable, *program, "serve", *runs, "--port", str(port),
               "--threads", "1", "--rows", "4", "--waiting", "6",
               "--page" if page else "--no-page"]  # fmt: skip
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        tempfile.TemporaryDirectory() as folder,
    ):
        command += ["--jobs", str(jobs or Path(folder) / "jobs.sqlite")]
        process = subprocess.Popen(command, stderr=log, env=os.environ | environment)
        try:
            while "serving" not in said(log):
                assert process.poll() is None, said(log)
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == (-signal.SIGKILL if killed else 0)
            assert unsaid is None or unsaid not in said(log)
            assert "Traceback" not in said(log) and "engine:" not in said(log), said(log)


def said(log: IO[str]) -> str:
    """All that a process has said."""
    log.seek(0)
    return log.read()


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A text model whose texts hardly end by themselves."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "book.txt").write_text("春 rain 🍵 and sun " * 400, encoding="utf-8")
    small = {"model": {"dim": 32, "layers": 2}}
    return api.train(folder / "book.txt", folder / "writer", steps=10, recipe=small)


@pytest.fixture(scope="module")
def server(model: api.Model, writer: api.Model) -> Iterator[str]:
    runs = (f"drinks={model.run.folder.path}", f"writer={writer.run.folder.path}")
    with serving(*runs) as (where, _):
        yield where


@pytest.fixture
def client(server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="unused", max_retries=0)


def asked(server: str, path: str, body: Any, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{server}{path}", json=body, headers=headers, timeout=60)


def events(server: str, path: str, body: Any) -> list[Any]:
    """Server-sent events; the last is '[DONE]', and there is one."""
    with httpx2.stream("POST", f"{server}{path}", json=body | {"stream": True}, timeout=60) as got:
        assert got.status_code == 200
        lines = [line[6:] for line in got.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]" and lines.count("[DONE]") == 1
    return [json.loads(line) for line in lines[:-1]]


def test_completions_are_what_the_library_generates(
    client: openai.OpenAI, writer: api.Model
) -> None:
    made = client.completions.create(model="writer", prompt="rain ", n=3, seed=5, max_tokens=20)
    texts = writer.generate(3, prompt="rain ", seed=5, max_tokens=20, missing=True)["text"]
    assert ["rain " + choice.text for choice in made.choices] == texts.tolist()
    assert made.usage is not None and 0 < made.usage.completion_tokens <= 60
    assert {choice.finish_reason for choice in made.choices} <= {"stop", "length"}


@pytest.mark.parametrize("stop", [None, ["sun"], "n a"])
def test_streamed_equals_whole(client: openai.OpenAI, stop: Any) -> None:
    asked: dict[str, Any] = {"model": "writer", "prompt": "春", "n": 2, "seed": 2, "max_tokens": 40}
    asked |= {} if stop is None else {"stop": stop}
    whole = client.completions.create(**asked)
    texts, reasons = ["", ""], [None, None]
    usage = None
    for piece in client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = piece.usage or usage
        for choice in piece.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    for text in texts if stop else []:
        assert not any(s in text for s in ([stop] if isinstance(stop, str) else stop))


def test_streams_beside_each_other_each_equal_their_whole(server: str) -> None:
    """Of many at once each is told several tokens at a time."""
    bodies = [{"model": "writer", "prompt": "rain ", "n": 2, "seed": seed, "logprobs": 2,
               "max_tokens": 10 + 9 * seed} for seed in range(5)]  # fmt: skip
    with ThreadPoolExecutor(len(bodies)) as pool:
        streams = list(pool.map(lambda body: events(server, "/v1/completions", body), bodies))
    for body, stream in zip(bodies, streams, strict=True):
        whole = asked(server, "/v1/completions", body).json()["choices"]
        for row, choice in enumerate(whole):
            told = [e["choices"][0] for e in stream if e["choices"][0]["index"] == row]
            assert "".join(piece["text"] for piece in told) == choice["text"]
            assert [piece["finish_reason"] for piece in told][-1] == choice["finish_reason"]
            for name in ("tokens", "text_offset"):
                parts = [value for piece in told for value in piece["logprobs"][name]]
                assert parts == choice["logprobs"][name]


def test_a_stream_has_the_lines_that_every_reader_finds(server: str) -> None:
    """Some take U+2028, U+2029 and U+0085 for the end of a line, too."""
    prompt = "rain\u2028sun\u2029warm\x85"
    body = {"model": "writer", "prompt": prompt, "echo": True, "max_tokens": 3}
    told = "".join(e["choices"][0]["text"] for e in events(server, "/v1/completions", body))
    assert told.startswith(prompt)


def test_what_cannot_be_asked_of_a_path_is_told_what_can(server: str) -> None:
    got = httpx2.request("PATCH", f"{server}/v1/jobs")
    assert got.status_code == 405 and got.headers["allow"] == "GET, POST"
    assert httpx2.get(f"{server}/v1/completions").headers["allow"] == "POST"


def test_asked_together_is_asked_alone(server: str, writer: api.Model) -> None:
    """Four at a time, with settings of their own."""
    options = [{"seed": s, "max_tokens": 10 + 7 * s, "top_k": 1 + s, "temperature": 1.0 + s / 10}
               for s in range(4)]  # fmt: skip
    got: dict[int, str] = {}

    def ask(i: int) -> None:
        body = {"model": "writer", "prompt": "sun", **options[i]}
        got[i] = asked(server, "/v1/completions", body).json()["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, option in enumerate(options):
        assert "sun" + got[i] == writer.generate(1, prompt="sun", **option)["text"][0]


def test_log_probabilities_of_what_is_written_and_of_the_prompt(
    client: openai.OpenAI, writer: api.Model
) -> None:
    """What lm-evaluation-harness asks for: `echo`, and the likelihood of every token of a text."""
    text = "rain and sun"
    told = client.completions.create(
        model="writer", prompt=text, echo=True, logprobs=1, max_tokens=0
    ).choices[0]
    assert told.text == text and told.logprobs is not None
    assert "".join(told.logprobs.tokens or []) == text
    whole = writer.score(pd.DataFrame({"text": [text]}))["text"][0]
    assert sum(told.logprobs.token_logprobs or []) == pytest.approx(whole, abs=1e-3)
    ids = writer.run.vocabulary["text"].codec.encode(text).tolist()
    by_ids = client.completions.create(
        model="writer", prompt=ids, echo=True, logprobs=1, max_tokens=0
    ).choices[0]
    assert by_ids == told
    made = client.completions.create(model="writer", prompt=text, logprobs=2, max_tokens=6, seed=1)
    tokens = writer.tokens(1, prompt=text, max_tokens=6, seed=1, top=2)[0]
    found = made.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs == pytest.approx([t.log_prob for t in tokens], abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_lm_evaluation_harness_is_told_what_transformers_says(
    kind: str,
    pair: Any,
    tokenizer: Any,
) -> None:
    """As its own client for servers asks: how texts become tokens, the token that stands before a
    text, and how likely each token is behind those before it."""
    theirs, ours, opened = pair(kind)
    with serving(f"one={ours.run.folder.path}") as (where, _):
        about = httpx2.get(f"{where}/tokenizer_info").json()
        assert about["eos_token"] == "</s>" and about["bos_token"] == ("<s>" if opened else None)
        before = about["bos_token"] or about["eos_token"]
        ids = []
        for text in (before, "the cat sat 你好"):
            body = {"prompt": text, "add_special_tokens": False}
            ids += asked(where, "/tokenize", body).json()["tokens"]
        assert ids[0] == tokenizer.token_to_id(before)
        assert asked(where, "/detokenize", {"tokens": ids}).json() == {"prompt": "the cat sat 你好"}
        body = {"model": "one", "prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1,
                "seed": 1234, "echo": True}  # fmt: skip
        told = asked(where, "/v1/completions", body).json()["choices"][0]
    with torch.no_grad():
        scores = theirs(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    want = scores[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]
    found = told["logprobs"]["token_logprobs"]
    assert len(found) == len(ids) + 1 and found[0] is None
    assert found[1:-1] == pytest.approx(want.tolist(), abs=1e-4)
    best = [max(top.values()) for top in told["logprobs"]["top_logprobs"][1:-1]]
    assert best == pytest.approx(scores[:-1].amax(dim=1).tolist(), abs=1e-4)
    assert told["text"].startswith("the cat sat 你好")
    assert "".join(told["logprobs"]["tokens"][:-1]) == "the cat sat 你好"


def test_who_serves_several_models_must_be_told_which(server: str) -> None:
    refused = asked(server, "/tokenize", {"prompt": "a"})
    assert refused.status_code == 400 and "drinks, writer" in refused.text
    refused = httpx2.get(f"{server}/tokenizer_info")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "model"
    about = httpx2.get(f"{server}/tokenizer_info?model=writer").json()
    assert set(about.values()) == {None}


def test_chats_of_a_checkpoint_with_a_template(
    pair: Any, tmp_path: Path
) -> None:  # fmt: skip
    _, ours, _ = pair("llama")
    folder = ours.run.folder.path / "origin"
    folder.mkdir(exist_ok=True)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}", encoding="utf-8"
    )
    with serving(f"chat={ours.run.folder.path}") as (where, _):
        client = openai.OpenAI(base_url=f"{where}/v1", api_key="unused", max_retries=0)
        messages: Any = [{"role": "user", "content": [{"type": "text", "text": "the cat"}]}]
        asked: dict[str, Any] = {"model": "chat", "messages": messages, "seed": 1, "max_tokens": 8}
        whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
        pieces = [
            piece.choices[0].delta.content or ""
            for piece in client.chat.completions.create(**asked, stream=True)
        ]
        answer = whole.choices[0]
        assert "".join(pieces) == answer.message.content
        assert answer.logprobs is not None and answer.logprobs.content is not None
        assert len(answer.logprobs.content[0].top_logprobs) == 2
        plain = ours.generate(1, prompt=[{"role": "user", "content": "the cat"}], seed=1,
                              max_tokens=8)  # fmt: skip
        assert answer.message.content == plain["text"][0]


def test_records_are_what_the_library_generates(server: str, model: api.Model) -> None:
    body = {"model": "drinks", "given": {"kind": "tea", "count": 7}, "n": 6, "seed": 3}
    got = asked(server, "/v1/records", body).json()
    made = model.generate(6, given={"kind": "tea", "count": 7}, seed=3)
    made = made.astype(object).where(made.notna(), None)
    assert got["data"] == made.to_dict("records")
    streamed = events(server, "/v1/records", body)
    assert [e["record"] for e in streamed if e["object"] == "record"] == got["data"]
    texts: dict[int, str] = {}
    for event in streamed:
        if event.get("field") == "note":
            texts[event["row"]] = texts.get(event["row"], "") + event.get("text", "")
    for row, record in enumerate(got["data"]):
        assert (record["note"] or "") == texts.get(row, "")


def test_records_that_are_compared_come_as_a_whole(server: str, model: api.Model) -> None:
    body = {"model": "drinks", "given": {"kind": "tea"}, "want": ["note"], "n": 2,
            "aims": ["length<=12"], "candidates": 4}  # fmt: skip
    got = asked(server, "/v1/records", body).json()
    made = model.generate(2, given={"kind": "tea"}, want="note", aims=["length<=12"], candidates=4)
    assert [r["note"] for r in got["data"]] == made["note"].tolist()
    assert got["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("compared", [{"candidates": 3}, {"rerank": 2}, {"beams": 2}, {
    "aims": ["length>=1"], "candidates": 2}])  # fmt: skip
def test_why_compared_texts_end_is_told(server: str, compared: dict[str, Any]) -> None:
    def ends(model: str, **more: Any) -> set[str]:
        body = {"model": model, "n": 2, "seed": 3} | compared | more
        answer = asked(server, "/v1/records", body).json()
        return {end for ends in answer["finish_reasons"] for end in ends.values()}

    assert ends("writer", max_tokens=3) == {"length"}
    if "beams" not in compared:  # which take no stop strings
        assert ends("writer", stop=["n", "r", "a", "i", " "], max_tokens=200) == {"stop"}
    assert ends("drinks", want=["note"]) == {"stop"}


def test_scores_and_vectors_are_the_library_s(
    server: str, client: openai.OpenAI, model: api.Model
) -> None:
    rows = [{"kind": "tea", "note": "warm"}, {"kind": "咖啡", "note": "kalt a"}]
    told = asked(server, "/v1/records/score", {"model": "drinks", "records": rows}).json()
    got = told["data"]
    assert not told["warnings"]
    unseen = asked(server, "/v1/records/score", {"model": "drinks", "records": [{"kind": "mud"}]})
    assert unseen.json()["data"][0]["row"] is None and "mud" in unseen.json()["warnings"][0]
    want = model.score(pd.DataFrame(rows))
    assert [g["row"] for g in got] == pytest.approx(want["row"].tolist(), abs=1e-6)
    assert [g["fields"]["note"] for g in got] == pytest.approx(want["note"].tolist(), abs=1e-6)
    texts = ["warm", "kalt 热"]
    found = client.embeddings.create(model="drinks", input=texts)  # in base64
    assert np.allclose([one.embedding for one in found.data], model.embed(texts), atol=1e-6)
    plain = asked(server, "/v1/embeddings", {"model": "drinks", "input": rows}).json()
    vectors = [one["embedding"] for one in plain["data"]]
    assert np.allclose(vectors, model.embed(pd.DataFrame(rows)), atol=1e-6)


def test_texts_are_tokens_and_back(server: str, writer: api.Model) -> None:
    ids = asked(server, "/tokenize", {"model": "writer", "prompt": "rain 🍵"}).json()["tokens"]
    assert ids == writer.run.vocabulary["text"].codec.encode("rain 🍵").tolist()
    back = asked(server, "/detokenize", {"model": "writer", "tokens": ids}).json()
    assert back == {"prompt": "rain 🍵"}


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/v1/completions", {"prompt": "a", "user": "me"}, "user"),
    ("/v1/completions", {"prompt": "a", "n": 0}, "n"),
    ("/v1/completions", {"prompt": "a", "n": 10**18}, "n"),
    ("/v1/completions", {"prompt": "a", "n": True}, "n"),
    ("/v1/completions", {"prompt": "a", "temperature": False}, "temperature"),
    ("/v1/completions", {"prompt": "a", "top_p": "0.5"}, "top_p"),
    ("/v1/completions", {"prompt": "a", "stream": 1}, "stream"),
    ("/v1/completions", {"prompt": "a", "max_tokens": "12"}, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "temperature": -0.1}, "temperature"),
    ("/v1/completions", {"prompt": "a", "stream_options": {}}, "stream_options"),
    ("/v1/completions", {"prompt": []}, "prompt"),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    ("/v1/completions", {"prompt": [1 << 30]}, "prompt"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "model"),
    ("/v1/records", {"want": ["note"], "steps": 3}, "steps"),
    ("/v1/records", {"want": ["note"], "order": "random"}, "order"),
    ("/v1/records", {"want": ["note"], "aims": ["lenth<=5"]}, "aims"),
    ("/v1/records", {"given": {"count": True}}, "given.count"),
    ("/v1/records/score", {"records": [{}]}, None),
    ("/v1/records", {"want": ["nott"]}, "want"),
    ("/v1/records", {"want": []}, "want"),
    ("/v1/records", {"given": {"nothing": 1}}, "given"),
    ("/v1/records", {"given": {"note": "a" * 200_001}}, "given.note"),
    ("/v1/records", {"want": ["note"], "beams": 5}, "beams"),
    ("/tokenize", {"prompt": "a", "add_special_tokens": 0}, "add_special_tokens"),
    ("/v1/images/generations", {"prompt": "a"}, "model"),
    ("/v1/audio/speech", {"input": "a"}, "model"),
    ("/v1/embeddings", {"input": ["a", {"note": "b"}]}, "input"),
])  # fmt: skip
def test_what_has_no_effect_is_refused_by_name(
    server: str, path: str, body: dict[str, Any], param: str | None
) -> None:
    which = "drinks" if "records" in path or "audio" in path or "images" in path else "writer"
    got = asked(server, path, {"model": which} | body)
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    assert (param is None or error["param"].startswith(param)) and len(error["message"]) > 10


@pytest.mark.parametrize(("body", "part"), [
    ({"stop": ["", "a"]}, "stop.0: String should have at least 1"),
    ({"stop": ["a"] * 9}, "at most 8 items"), ({"prompt": []}, "prompt: List should have at least"),
    ({"prompt": [-1]}, "prompt.0: Input should be greater"), ({"stop": 3}, "valid string"),
    ({"prompt": ["a"] * 100}, "100 prompts and 51,200 tokens"), ({"seed": 10**999}, "seed: "),
    ({"seed": 10**1000}, "a number of 1,001 digits, where 1000 are the most"),
])  # fmt: skip
def test_what_is_off_is_told_of_the_type_that_was_meant(
    server: str, body: dict[str, Any], part: str
) -> None:
    got = asked(server, "/v1/completions", {"model": "writer", "prompt": "rain "} | body)
    assert got.status_code == 400 and part in got.json()["error"]["message"], got.text


def test_a_body_that_does_not_say_what_it_is_hears_how_to(server: str) -> None:
    got = httpx2.post(f"{server}/v1/completions", content=b'{"model": "writer", "prompt": "a"}')
    assert got.status_code == 400 and "Content-Type: application/json" in got.text


@pytest.mark.parametrize(("body", "status"), [
    (b"[" * 100_000, 400), (b'{"a":' * 50 + b"1" + b"}" * 50, 400), (b"{", 400), (b"", 400),
    (b"\xff\xfe", 400), (b'{"model": NaN}', 400), (b'{"model": "a", "model": "b"}', 400),
    (b'{"a": "' + b'\\"' * 1_000_000, 400), (b"[" + b"0," * 20_000 + b"0]", 400),
    (b'{"model": "\x00"}', 400), (b" " * (9 << 20), 413),
    (b'{"model": "writer", "prompt": "\\ud800"}', 400),
])  # fmt: skip
def test_hostile_bodies_are_refused(server: str, body: bytes, status: int) -> None:
    started = time.monotonic()
    got = httpx2.post(f"{server}/v1/completions", content=body, timeout=30,
                      headers={"content-type": "application/json"})  # fmt: skip
    assert got.status_code == status, got.text
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in got.text and time.monotonic() - started < 10


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/v1/records/score", {"records": [{"size": 1}, {"size": True}]}, "records[1].size"),
    ("/v1/records", {"given": {"size": True}}, "given.size"),
])  # fmt: skip
def test_a_value_that_is_off_is_named_by_its_place(
    server: str, path: str, body: dict[str, Any], param: str
) -> None:
    got = asked(server, path, {"model": "drinks"} | body)
    assert got.status_code == 400 and got.json()["error"]["param"] == param, got.text


def test_a_compressed_body_is_refused_by_its_header(server: str) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    got = httpx2.post(f"{server}/v1/records", content=b"{}", headers=headers)
    assert got.status_code == 400 and got.json()["error"]["param"] == "Content-Encoding"


def test_a_header_that_is_off_is_named(server: str) -> None:
    got = asked(server, "/v1/jobs", {"requests": []}, **{"Idempotency-Key": "x" * 300})
    assert got.status_code == 400 and "Idempotency-Key" in got.text


DEEP = '{"model": "\u2200", "given": ' + "[" * 60_000 + "]" * 60_000 + "}"
HALF = b'{"model": "drinks", "records": [{"kind": "\\ud800", "note": "\\uDFFF"}]}'


@pytest.mark.parametrize(("path", "body", "kind"), [
    ("/v1/records", DEEP.encode("utf-16-le"), "application/json"),
    ("/v1/records", DEEP.encode("utf-16"), "text/plain"),
    ("/v1/records", b'{"model": "drinks"}'.decode().encode("utf-16"), "application/json"),
    ("/v1/records", b' {"model": "drinks", "given": {"size": NaN}}', "Application/JSON"),
    ("/v1/records", b' {"model": "nix", "model": "drinks"}', "application/JSON; charset=utf-8"),
    ("/v1/records/score", HALF, "application/json"),
    ("/v1/jobs", b'{"requests": [' + HALF + b"]}", "application/json"),
])  # fmt: skip
def test_a_body_is_looked_through_whatever_it_is_called(
    server: str, path: str, body: bytes, kind: str
) -> None:
    got = httpx2.post(f"{server}{path}", content=body, headers={"content-type": kind})
    assert got.status_code == 400 and got.json()["error"]["message"], got.text


PHOTO = {"photo": {"type": "image", "options": {"width": 4, "height": 4, "mode": "RGB"}}}


def opened(values: list[Any], opener: Opener) -> list[Any]:
    """What an opener makes of each value of a photo, one after another: a value, or why not."""

    async def all_of_them() -> list[Any]:
        out: list[Any] = []
        for value in values:
            message = {"model": "m", "wish": {"given": {"photo": value, "label": "x"}}}
            try:
                got = await opener.opened(message, PHOTO)
            except Refusal as refusal:
                out.append(str(refusal))
            else:
                assert got["wish"]["given"]["label"] == "x"
                out.append(base64.b64decode(got["wish"]["given"]["photo"][VALUE]))
        await opener.stop()
        return out

    return asyncio.run(all_of_them())


def photo(side: int) -> dict[str, str]:
    data = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(data, "PNG")
    return {"data": base64.b64encode(data.getvalue()).decode()}


def test_a_string_is_never_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    value = base64.b64encode(b"\x00" * 48).decode()
    for wrong in (str(tmp_path / "a.png"), {"url": "http://x"}, 3, {VALUE: value}):
        (why,) = opened([wrong], Opener())
        assert "given.photo: must be" in why
    (why,) = opened([{"data": "%%%"}], Opener())
    assert "given.photo: the data is no base64" in why
    for lie, part in ({"type": "audio"}, "photo.type: is 'image'"), ({"type": 5}, "photo.type: is"):
        (why,) = opened([photo(4) | lie], Opener())
        assert part in why
    told = [photo(4) | {"format": kind} for kind in ("PNG", "webp", ["png"])]
    found = opened(told, Opener())
    assert isinstance(found[0], bytes) and "format: is 'png'" in found[1] and "by its" in found[2]


def test_files_are_opened_apart_and_none_of_them_stops_the_others() -> None:
    """Not one that ends the process that opens it, nor one over which it never ends."""
    red = bytes([255, 0, 0]) * 16
    text = {"data": base64.b64encode(b"no picture").decode()}
    got = opened([photo(4), text, photo(9)], Opener())
    assert got[0] == got[2] == red and "given.photo: is no picture" in got[1]
    for program in ("import sys; sys.stdin.buffer.read(1)", "import time; time.sleep(60)"):
        opener = Opener([sys.executable, "-c", program], seconds=1.0)
        (why,) = opened([photo(4)], opener)
        assert "given.photo: cannot be opened in 1 s" in why
        opener.command, opener.seconds = COMMAND, 20.0
        assert opened([photo(4)], opener) == [red]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no memory")
def test_a_file_that_takes_too_much_memory_is_refused() -> None:
    small = "from omnifill.serve import opener as o; o.MEMORY = 400 << 20; o.main()"
    got = opened([photo(6000), photo(4)], Opener([sys.executable, "-c", small]))
    assert "given.photo: " in got[0] and got[1] == bytes([255, 0, 0]) * 16


def test_full_is_said_at_once_and_every_request_ends(server: str) -> None:
    """Forty at once on four rows and six places: each is answered, or told to come again."""
    found: list[tuple[int, float, str | None]] = []

    def ask(i: int) -> None:
        body = {"model": "writer", "prompt": "sun", "seed": i, "max_tokens": 60, "min_p": 0}
        started = time.monotonic()
        got = asked(server, "/v1/completions", body)
        found.append((got.status_code, time.monotonic() - started, got.headers.get("retry-after")))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 40 and {status for status, *_ in found} <= {200, 429}
    refused = [one for one in found if one[0] == 429]
    assert refused and all(retry == "1" for *_, retry in refused)
    assert sum(status == 200 for status, *_ in found) >= 6


def test_who_leaves_frees_what_he_had(server: str) -> None:
    body = {"model": "writer", "prompt": "sun", "max_tokens": 4000, "stream": True, "min_p": 0,
            "n": 2}  # fmt: skip
    for _ in range(3):
        with httpx2.stream("POST", f"{server}/v1/completions", json=body, timeout=60) as got:
            next(got.iter_raw())
    with suppress(httpx2.TimeoutException):
        httpx2.post(f"{server}/v1/completions", json=body | {"stream": False}, timeout=0.3)
    until_free(server)


def test_what_prompts_begin_with_is_read_once(server: str) -> None:
    """Which is counted, and changes nothing."""
    body = {"model": "writer", "prompt": "q7" * 90, "max_tokens": 9, "seed": 1}
    first, again = (asked(server, "/v1/completions", body).json()["choices"] for _ in range(2))
    assert first == again
    for _ in range(50):
        told = httpx2.get(f"{server}/metrics").text
        if re.search(r"^omnifill_tokens_reused [1-9]", told, re.MULTILINE):
            return
        time.sleep(0.1)
    pytest.fail("nothing was read once alone")


def until_told(server: str, figure: str) -> None:
    """Wait until a line is among the figures."""
    for _ in range(200):
        if figure in httpx2.get(f"{server}/metrics").text:
            return
        time.sleep(0.05)
    pytest.fail(f"never told: {figure}")


def until_free(server: str) -> None:
    """Wait until no row is used and no request is under way."""
    for _ in range(200):
        told = httpx2.get(f"{server}/metrics").text
        figures = dict(line.rsplit(" ", 1) for line in told.splitlines() if line[0] != "#")
        used = figures["omnifill_rows_used"], figures["omnifill_requests_open"]
        if used == ("0.0", "0.0"):
            return
        time.sleep(0.1)
    pytest.fail(f"still in use: {used}")


def test_models_and_the_document(server: str, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["drinks", "writer"]
    schema = httpx2.get(f"{server}/v1/models/drinks/schema").json()
    kinds = {field["name"]: field["type"] for field in schema["fields"]}
    assert kinds == {"kind": "category", "size": "number", "count": "number", "day": "datetime",
                     "note": "text"}  # fmt: skip
    assert httpx2.get(f"{server}/v1/models/../etc").status_code == 404
    missing = httpx2.get(f"{server}/v1/models/drink")
    assert missing.status_code == 404 and "did you mean 'drinks'" in missing.text
    document = httpx2.get(f"{server}/openapi.json").json()
    assert "422" not in json.dumps(document["paths"])
    assert httpx2.get(f"{server}/ready").json() == {"status": "ready"}


def test_another_host_name_is_refused(server: str) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1"):
        got = httpx2.get(f"{server}/health", headers={"host": host})
        assert got.status_code == 400, host
    assert httpx2.get(f"{server}/health").headers["x-content-type-options"] == "nosniff"


def test_every_route_asks_for_the_key(model: api.Model) -> None:
    run = f"drinks={model.run.folder.path}"
    with serving(run, OMNIFILL_API_KEY=KEY) as (where, _):
        document = httpx2.get(f"{where}/openapi.json", headers={"Authorization": f"Bearer {KEY}"})
        for path, methods in document.json()["paths"].items():
            for method in methods:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
                    url = f"{where}{path.replace('{name}', 'drinks')}"
                    got = httpx2.request(method, url, headers=headers, json={})
                    assert got.status_code == 401, (method, path, headers)
        client = openai.OpenAI(base_url=f"{where}/v1", api_key=KEY)
        assert len(client.models.list().data) == 1
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{where}/v1", api_key="no", max_retries=0).models.list()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_asked_to_go_it_ends_what_it_has_and_leaves_no_process(writer: api.Model) -> None:
    run = f"writer={writer.run.folder.path}"
    with serving(run) as (where, process):
        body = {"model": "writer", "prompt": "sun", "max_tokens": 150, "min_p": 0, "seed": 1}
        got: list[httpx2.Response] = []
        thread = threading.Thread(target=lambda: got.append(asked(where, "/v1/completions", body)))
        thread.start()
        while thread.is_alive() and (
            "omnifill_requests_open 1.0" not in httpx2.get(f"{where}/metrics").text
        ):
            time.sleep(0.01)
        engines = children(process.pid)
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        text = got[0].json()["choices"][0]["text"]
        asked_for = {"prompt": "sun", "max_tokens": 150, "min_p": 0, "seed": 1}
        assert "sun" + text == writer.generate(1, **asked_for)["text"][0]
        process.wait(40)
    assert engines and not any(Path(f"/proc/{pid}").exists() for pid in engines)


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked for in /proc")
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("page", [
    False, pytest.param(True, marks=pytest.mark.skipif(not has_page(), reason="needs a page")),
])  # fmt: skip
def test_asked_to_go_while_it_starts_it_leaves_nothing(
    page: bool, writer: api.Model, tmp_path: Path, signum: int, status: int
) -> None:
    """By whoever started it, or by Ctrl-C, which reaches all that a terminal has started. Without
    a page that comes while the process of the engine is made."""
    command = [sys.executable, "-m", "omnifill", "serve", str(writer.run.folder.path), "--jobs",
               str(tmp_path / "jobs"), "--port", str(free_port())]  # fmt: skip
    said = subprocess.PIPE
    process = subprocess.Popen(command + ["--no-page"] * (not page), stderr=said,
                               env=os.environ | {"TMPDIR": str(tmp_path)},
                               start_new_session=True, preexec_fn=_hears_ctrl_c)  # fmt: skip
    while not children(process.pid) or (page and not list(tmp_path.glob("omnifill-page-*"))):
        assert process.poll() is None
    engines = children(process.pid)
    os.killpg(process.pid, signum)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status and b"Traceback" not in told, told
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)
    assert not list(tmp_path.glob("omnifill-page-*"))


def _hears_ctrl_c() -> None:
    """Tests may run where it is not heard, which programs that are started take over."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def children(pid: int) -> list[str]:
    """Processes that a process has started; [] where the system doesn't tell."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


@pytest.mark.parametrize(("words", "part"), [
    (["{run}", "{run}"], "two models cannot both be called"),
    (["nowhere"], "no such run folder"), (["={run}"], "say NAME=PATH"),
    (["{run}", "--host", "0.0.0.0"], "a key is needed"),
    (["{run}", "--keys", "nowhere.txt"], "cannot be read"),
])  # fmt: skip
def test_wrong_words_are_one_message(
    words: list[str], part: str, model: api.Model, command: Any, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, _, said = command("serve", *(w.format(run=model.run.folder.path) for w in words))
    assert status == 2 and part in said and "Traceback" not in said


def test_short_keys_are_refused(
    model: api.Model, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIFILL_API_KEY", "short")
    status, _, said = command("serve", model.run.folder.path)
    assert status == 2 and "16 printable" in said


def told(where: str, id_: str) -> dict[str, Any]:
    """A job when it is over."""
    while True:
        about: dict[str, Any] = httpx2.get(f"{where}/v1/jobs/{id_}").json()
        if about["state"] not in ("queued", "running"):
            return about
        time.sleep(0.05)


def some_requests(num: int) -> dict[str, Any]:
    bodies = [{"model": "drinks", "given": {"kind": "tea"}, "n": 3, "seed": s} for s in range(num)]
    return {"requests": [{"path": "/v1/records", "body": body} for body in bodies]}


def test_long_work_is_what_would_have_been_answered(server: str, model: api.Model) -> None:
    made = asked(server, "/v1/jobs", some_requests(5))
    assert made.status_code == 202
    about = told(server, made.json()["id"])
    assert (about["state"], about["finished"], about["total"]) == ("done", 5, 5)
    got = httpx2.get(f"{server}/v1/jobs/{about['id']}/result")
    assert hashlib.sha256(got.content).hexdigest() == about["sha256"]
    assert got.headers["x-content-sha256"] == about["sha256"]
    lines = [json.loads(line) for line in got.text.splitlines()]
    for number, line in enumerate(lines):
        whole = asked(server, "/v1/records", some_requests(5)["requests"][number]["body"]).json()
        assert (line["index"], line["status"], line["body"]) == (number, 200, whole)


def test_the_same_key_is_the_same_job(server: str) -> None:
    """Ten at the same moment, too."""
    got: list[httpx2.Response] = []

    def hand_in() -> None:
        key = {"Idempotency-Key": "monday"}
        got.append(httpx2.post(f"{server}/v1/jobs", json=some_requests(2), headers=key))

    threads = [threading.Thread(target=hand_in) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.json()["id"] for one in got}) == 1
    assert sorted(one.status_code for one in got) == [200] * 9 + [202]
    other = httpx2.post(f"{server}/v1/jobs", json=some_requests(3),
                        headers={"Idempotency-Key": "monday"})  # fmt: skip
    assert other.status_code == 409


@pytest.mark.parametrize(("one", "param"), [
    ({"path": "/etc", "body": {}}, "requests.1.path"),
    ({"path": "/v1/records", "body": {"model": "drinks", "m": 1}}, "requests.1.m"),
    ({"path": "/v1/records", "body": {"model": "drinks", "stream": True}}, "requests.1.stream"),
    ({"path": "/v1/records", "body": {}}, "requests.1.model"),
])  # fmt: skip
def test_a_job_is_checked_before_it_is_taken(server: str, one: Any, param: str) -> None:
    body = some_requests(1)
    body["requests"].append(one)
    got = asked(server, "/v1/jobs", body)
    assert got.status_code == 400 and got.json()["error"]["param"] == param


def test_what_fails_within_a_job_is_told_there(server: str) -> None:
    body = some_requests(2)
    body["requests"][1]["body"]["given"] = {"nothing": 1}
    about = told(server, asked(server, "/v1/jobs", body).json()["id"])
    lines = httpx2.get(f"{server}/v1/jobs/{about['id']}/result").text.splitlines()
    assert [json.loads(line)["status"] for line in lines] == [200, 400]
    missing = httpx2.get(f"{server}/v1/jobs/../../x")
    assert missing.status_code == 404
    assert httpx2.get(f"{server}/v1/jobs/{'0' * 32}").status_code == 404


def test_a_job_can_be_called_off(server: str) -> None:
    id_ = asked(server, "/v1/jobs", some_requests(200)).json()["id"]
    assert httpx2.delete(f"{server}/v1/jobs/{id_}").status_code == 409  # it is under way
    got = httpx2.post(f"{server}/v1/jobs/{id_}/cancel").json()
    assert got["state"] == "cancelled" == told(server, id_)["state"]
    assert httpx2.get(f"{server}/v1/jobs/{id_}/result").status_code == 409
    assert httpx2.delete(f"{server}/v1/jobs/{id_}").json()["id"] == id_
    assert httpx2.get(f"{server}/v1/jobs/{id_}").status_code == 404


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.slow
def test_a_killed_server_goes_on_where_it_was(model: api.Model, tmp_path: Path) -> None:
    """Nothing acknowledged is lost, and no part is made twice."""
    run, url = f"drinks={model.run.folder.path}", tmp_path / "jobs.sqlite"
    with serving(run, jobs=url) as (where, _):
        id_ = asked(where, "/v1/jobs", some_requests(30)).json()["id"]
        told(where, id_)
        want = httpx2.get(f"{where}/v1/jobs/{id_}/result").content
    url.unlink()
    with serving(run, jobs=url, killed=True) as (where, process):
        id_ = asked(where, "/v1/jobs", some_requests(30)).json()["id"]
        while httpx2.get(f"{where}/v1/jobs/{id_}").json()["finished"] < 5:
            time.sleep(0.01)
        process.kill()
    store = Store(f"sqlite:///{url}")
    with store.engine.begin() as db:
        before = len(db.execute(select(PARTS.c.number)).all())
        db.execute(update(JOBS).values(lease=0.0))  # as if its time had gone by
    store.close()
    assert 5 <= before < 30
    with serving(run, jobs=url) as (where, _):
        about = told(where, id_)
        assert (about["state"], about["finished"]) == ("done", 30)
        assert httpx2.get(f"{where}/v1/jobs/{id_}/result").content == want


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_adapters_are_models_beside_one_base(tokenizer: Any, tmp_path: Path) -> None:
    model = theirs("llama", tokenizer.get_vocab_size())
    source = saved(tmp_path / "hf", model, tokenizer, "llama" in OPENED)
    with_adapter(model, ["q_proj", "v_proj"], tmp_path / "adapter")
    base = api.import_checkpoint(source, tmp_path / "run")
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 12, "seed": 2}
    want = [one.generate(1, **options)["text"][0]
            for one in (base, base.adapted(tmp_path / "adapter"))]  # fmt: skip
    assert want[0] != want[1]
    words = (f"base={tmp_path / 'run'}", "--adapter", f"tuned=base:{tmp_path / 'adapter'}",
             "--memory", "2")  # fmt: skip
    with serving(*words) as (where, _):
        got = [
            asked(where, "/v1/completions", {"model": name, **options}).json()["choices"][0]["text"]
            for name in ("base", "tuned")
        ]
    assert ["the cat" + text for text in got] == want


def test_what_takes_too_long_when_it_goes_is_told_so(writer: api.Model) -> None:
    body = {"model": "writer", "prompt": "rain ", "max_tokens": 4000, "n": 128, "min_p": 0}
    path, folder = "/v1/completions", writer.run.folder.path
    with ThreadPoolExecutor(2) as pool, serving(f"writer={folder}", hurried=True) as (where, one):
        stream = pool.submit(events, where, path, body)
        until_told(where, "omnifill_rows_used 4.0")
        whole = pool.submit(asked, where, path, body)
        until_told(where, "omnifill_requests_open 2.0")
        one.send_signal(signal.SIGTERM)
        assert whole.result(30).status_code == 503
        assert whole.result().json()["error"]["code"] == "going"
        assert stream.result(30)[-1]["error"]["code"] == "going"


def test_who_asks_it_twice_to_go_waits_for_nobody(writer: api.Model) -> None:
    body = {"model": "writer", "prompt": "rain ", "max_tokens": 4000, "n": 128, "min_p": 0}
    with (
        ThreadPoolExecutor(1) as pool,
        serving(f"writer={writer.run.folder.path}") as (where, process),
    ):
        told = pool.submit(asked, where, "/v1/completions", body)
        until_told(where, "omnifill_rows_used 4.0")
        process.send_signal(signal.SIGTERM)
        with suppress(httpx2.TransportError):
            while True:  # as long as it does not go
                httpx2.get(f"{where}/health")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and time.monotonic() - started < 20
        assert told.result(5).json()["error"]["code"] == "going"


def test_warnings_of_what_is_compared_go_to_the_client_and_to_no_log(writer: api.Model) -> None:
    secret = "a secret of mine"
    body = {"model": "writer", "max_tokens": 4, "aims": [f"contains={secret}"], "candidates": 2}
    with serving(f"writer={writer.run.folder.path}", unsaid=secret) as (where, _):
        (warning,) = asked(where, "/v1/records", body).json()["warnings"]
    assert secret in warning


@pytest.mark.parametrize(("words", "part"), [
    (["--memory", "nan"], "above 0"), (["--memory", "-1"], "above 0"),
    (["--adapter", "x=nowhere"], "there is no folder"), (["--adapter", "drinks"], "NAME=PATH"),
    (["--memory", "0.000001"], "the weights alone take"),
    (["--jobs", "nowhere/at/all/jobs"], "is no folder that can be written in"),
])  # fmt: skip
def test_what_cannot_be_served_is_said(
    words: list[str], part: str, model: api.Model, command: Any
) -> None:
    status, _, said = command("serve", model.run.folder.path, *words)
    assert status == 2 and part in said


def test_a_run_that_is_not_finished_says_how_to_go_on(
    model: api.Model, tmp_path: Path, command: Any
) -> None:
    shutil.copytree(model.run.folder.path, tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    (tmp_path / "run" / "run.json").write_text(json.dumps(state | {"state": "training"}), "utf-8")
    (tmp_path / "run" / "model.safetensors").unlink()
    status, _, said = command("serve", tmp_path / "run")
    assert status == 2 and "--resume" in said


def test_models_that_take_more_than_they_may_are_not_served(model: api.Model) -> None:
    """Their weights would fit."""
    command = [sys.executable, "-m", "omnifill", "serve", str(model.run.folder.path),
               "--memory", "0.2", "--no-page"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "--memory 0.2" in found.stderr and "what is kept of texts and prompts" in found.stderr


def test_what_one_cannot_have_ends_no_other_answer(server: str, writer: api.Model) -> None:
    """Beams find fewer records than are asked for, which shows in the middle of the work."""
    body = {"model": "writer", "prompt": "sun", "seed": 9, "max_tokens": 120, "min_p": 0}
    got: list[httpx2.Response] = []
    thread = threading.Thread(target=lambda: got.append(asked(server, "/v1/completions", body)))
    thread.start()
    search = {"model": "drinks", "want": ["kind"], "beams": 4, "n": 4, "no_missing": ["kind"]}
    while thread.is_alive():
        refused = asked(server, "/v1/records", search)
        assert refused.status_code == 400 and "different records" in refused.text
    thread.join()
    del body["model"]
    whole = writer.generate(1, **body)["text"][0]
    assert "sun" + got[0].json()["choices"][0]["text"] == whole


@pytest.fixture
def sent() -> list[Any]:
    """What the guard sent."""
    return []


def at_the_gate(
    guard: Guard, sent: list[Any], receive: Any, *headers: tuple[bytes, bytes],
    path: str = "/v1/records",
) -> None:  # fmt: skip
    """One request, to the guard alone."""

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path,
             "headers": [(b"host", b"localhost"), *headers]}  # fmt: skip
    asyncio.run(guard(scope, receive, send))


async def let_in(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_a_body_that_does_not_come_is_not_waited_for(sent: list[Any]) -> None:
    async def receive() -> Any:
        await asyncio.sleep(60)

    guard = Guard(let_in, Keys(), ["localhost"], replace(Limits(), arrival=0.05))
    at_the_gate(guard, sent, receive, (b"content-length", b"10"))
    assert sent[0]["status"] == 408 and b'"slow"' in sent[1]["body"]


def test_a_full_server_says_so_before_it_reads(sent: list[Any]) -> None:
    """Jobs are kept, not written at once: they come in."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{", "more_body": False}  # which is no JSON

    full = Refusal(429, "no room", retry=1, code="full")
    for told, path, status in (
        (full, "/v1/records", 429), (None, "/v1/records", 400), (full, "/v1/jobs", 400),
    ):  # fmt: skip
        guard = Guard(let_in, Keys(), ["localhost"], Limits(), full=lambda told=told: told)
        sent.clear()
        at_the_gate(guard, sent, receive, path=path)
        assert sent[0]["status"] == status


def test_who_asks_too_often_is_told_when_to_come_again(sent: list[Any]) -> None:
    """Each key by itself."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    keys = Keys.of([KEY, KEY + "2"])
    guard = Guard(let_in, keys, ["localhost"], replace(Limits(), rate=2))
    for key in (KEY, KEY, KEY, KEY + "2"):
        at_the_gate(guard, sent, receive, (b"authorization", f"Bearer {key}".encode()))
    starts = [one for one in sent if one["type"].endswith("start")]
    assert [one["status"] for one in starts] == [200, 200, 429, 200]
    wait = dict(starts[2]["headers"])[b"retry-after"]
    assert 0 < int(wait) <= 61


def test_who_serves_needs_no_torch_itself() -> None:
    """The engine has it; the process that speaks HTTP starts in half the time without."""
    names = "run, app, front, link, guard"
    code = f"import sys; from omnifill.serve import {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_never_fits_is_not_put_off(server: str) -> None:
    """429 would have a client ask for ever."""
    for more in ({"n": 256, "max_tokens": 16_384}, {"prompt": ["a"] * 7}):
        got = asked(server, "/v1/completions", {"model": "writer", "prompt": "a", **more})
        assert got.status_code == 400 and got.json()["error"]["code"] == "too_much"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_engine_that_dies_is_started_again(writer: api.Model) -> None:
    run = f"writer={writer.run.folder.path}"
    with serving(run) as (where, process):
        if not (engines := children(process.pid)):
            pytest.skip("this system does not tell which processes were started")
        body = {"model": "writer", "prompt": "sun", "max_tokens": 3000, "min_p": 0, "stream": True}
        with httpx2.stream("POST", f"{where}/v1/completions", json=body, timeout=60) as got:
            lines = got.iter_lines()
            next(lines)
            os.kill(int(engines[0]), signal.SIGKILL)
            rest = [line for line in lines if line]
        if '"code": "fault"' not in rest[-2]:  # it was through before
            assert '"finish_reason"' in rest[-2]
        assert rest[-1] == "data: [DONE]"
        while httpx2.get(f"{where}/ready").status_code != 200 or children(process.pid) == engines:
            time.sleep(0.05)
        again = asked(where, "/v1/completions", body | {"stream": False, "max_tokens": 5})
        assert again.status_code == 200
        assert "omnifill_engine_restarts 1.0" in httpx2.get(f"{where}/metrics").text


def test_pictures_and_sounds_are_the_library_s(tmp_path: Path) -> None:
    """By the API's own routes with its client, in records, and as what is given."""
    painter = api.train(bars(60), tmp_path / "bars", steps=20, recipe=PIXELS)
    speaker = api.train(tones(40), tmp_path / "tones", steps=5, recipe=TONES)
    with serving(*(str(m.run.folder.path) for m in (painter, speaker))) as (where, _):
        client = openai.OpenAI(base_url=f"{where}/v1", api_key="unused", max_retries=0)
        more: dict[str, Any] = {"extra_body": {"seed": 4}}
        made = client.images.generate(model="bars", prompt="upright", n=3, size="6x6", **more)  # type: ignore[call-overload]
        want = painter.generate(3, given={"label": "upright"}, want="image", seed=4)["image"]
        files = [base64.b64decode(one.b64_json) for one in made.data]
        for data, picture in zip(files, want, strict=True):
            opened = Image.open(io.BytesIO(data))
            assert np.array_equal(np.array(opened), np.array(picture))
            assert "Generated by AI" in opened.info["Description"]
        wrong = asked(where, "/v1/images/generations",
                      {"model": "bars", "prompt": "upright", "size": "7x7"})  # fmt: skip
        assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "size"
        given = {"image": {"data": base64.b64encode(files[0]).decode()}}
        got = asked(where, "/v1/records", {"model": "bars", "given": given, "seed": 1}).json()
        label = painter.generate(1, given={"image": want[0]}, want="label", seed=1)["label"][0]
        assert got["data"][0]["label"] == label
        spoken = client.audio.speech.create(model="tones", input="high", voice=openai.omit,
                                            response_format="wav", **more)  # type: ignore[arg-type]  # fmt: skip
        samples, rate = soundfile.read(io.BytesIO(spoken.read()), dtype="float32")
        sound = speaker.generate(1, given={"label": "high"}, want="audio", seed=4)["audio"][0]
        assert rate == sound.rate and np.allclose(samples, sound.samples, atol=1e-4)
