"""What is read ahead changes nothing but how often the network is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
from tests.test_exchange import Pair, pair, tokenizer  # noqa: F401

from omnifill import api
from omnifill.generate import autoregressive
from omnifill.generate.alone import Alone
from omnifill.model.network import Network

SONG = "row, row, row your boat, gently down the stream. merrily, merrily, merrily, merrily. "


@contextmanager
def readings(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Slots of each reading of a network, with or without looking ahead."""
    sizes, forward, write = [], Network.forward, Alone.write

    def counted(self: Network, ids: Any, *args: Any, **more: Any) -> Any:
        sizes.append(ids.shape[1])
        return forward(self, ids, *args, **more)

    def written(self: Alone, ids: list[int], *args: Any) -> list[int]:
        sizes.append(len(ids))
        return write(self, ids, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward", counted)
        patch.setattr(Alone, "write", written)
        if not ahead:
            patch.setattr(autoregressive, "looks_ahead", lambda plan: False)
        yield sizes


@pytest.fixture(scope="module", params=["transformer", "rnn", "cnn"])
def singer(request: Any, tmp_path_factory: pytest.TempPathFactory) -> api.Model:
    """A run over one text that repeats itself, of a short context."""
    path = tmp_path_factory.mktemp("song") / "song.txt"
    path.write_text(SONG * 60, encoding="utf-8")
    recipe = {"model": {"size": "nano", "backbone": request.param, "context": 96}}
    return api.train(path, path.parent / "run", steps=60, recipe=recipe)


@pytest.mark.parametrize("sampling", [
    {"temperature": 0}, {"temperature": 0.8, "seed": 3},
    pytest.param({"seed": 5, "min_p": 0.0, "top_k": 9}, marks=pytest.mark.slow),
    pytest.param({"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.4},
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_text_is_the_same_in_fewer_readings(
    singer: api.Model, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beyond the context, where old slots fall out of view."""
    options: dict[str, Any] = {"prompt": SONG[:60], "max_tokens": 150, **sampling}
    with readings(False, monkeypatch) as plain:
        want = singer.generate(1, **options)["text"][0]
    with readings(True, monkeypatch) as ahead:
        assert singer.generate(1, **options)["text"][0] == want
    assert set(plain[1:]) == {1} and sum(ahead) >= len(ahead)
    if "min_p" not in sampling:
        assert len(ahead) < len(plain)
    assert options["prompt"] + "".join(singer.stream(**options)) == want


def test_fields_one_after_another_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number, a category and two texts that repeat each other."""
    rows = [{"n": i % 50, "kind": "ab"[i % 2], "one": f"{SONG[:20]}{i % 9}",
             "two": f"{SONG[:20]}{i % 9}, {SONG[:20]}"} for i in range(200)]  # fmt: skip
    out = tmp_path_factory.mktemp("two") / "run"
    run = api.train(pd.DataFrame(rows), out, steps=60, recipe={"model": {"size": "nano"}})
    for seed in range(6):
        with readings(False, monkeypatch) as plain:
            want = run.generate(1, seed=seed, max_tokens=60)
        with readings(True, monkeypatch) as ahead:
            made = run.generate(1, seed=seed, max_tokens=60)
        pd.testing.assert_frame_equal(made, want)
        assert len(ahead) <= len(plain)
    pd.testing.assert_frame_equal(run.generate(4, seed=9).iloc[:1], run.generate(1, seed=9))


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "qwen 3"])
def test_an_imported_checkpoint_looks_ahead_too(
    kind: str, pair: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One likeliest token after another soon repeats itself."""
    ours = pair(kind)[1]
    options: dict[str, Any] = {"prompt": "the cat sat on", "max_tokens": 60, "temperature": 0}
    with readings(False, monkeypatch) as plain:
        want = ours.generate(1, **options)["text"][0]
    with readings(True, monkeypatch) as ahead:
        assert ours.generate(1, **options)["text"][0] == want
    assert len(ahead) < len(plain) + (kind == "mistral")  # whose text doesn't


def test_what_a_rule_forces_is_read_at_once(
    pair: Callable[[str], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llguidance")
    ours = pair("qwen 3")[1]
    for seed in range(4):
        options: dict[str, Any] = {
            "regex": "the cat sat on the mat, [0-9]{2} times, and the cat sat on it",
            "seed": seed, "max_tokens": 80,
        }  # fmt: skip
        with readings(False, monkeypatch) as plain:
            want = ours.generate(1, **options)["text"][0]
        with readings(True, monkeypatch) as ahead:
            assert ours.generate(1, **options)["text"][0] == want
        assert len(ahead) <= len(plain) // 3
