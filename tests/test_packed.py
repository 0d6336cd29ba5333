"""Weights in fewer bits: what it costs is said, and little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.test_exchange import Pair, pair, tokenizer  # noqa: F401
from torch import nn

from omnifill import api
from omnifill.errors import RequestError, RunError
from omnifill.model.packed import Packed, PackedTable

KINDS = ("int8", "bf16")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [96, 131])
def test_products_and_rows_are_those_of_the_rounded_matrix(
    kind: Any, bias: bool, width: int
) -> None:
    """Few slots or many, all rows or some, in rows of any size."""
    torch.manual_seed(0)
    plain = nn.Linear(width, 130, bias=bias)
    plain.weight.data *= torch.logspace(-3, 2, 130)[:, None]
    packed, table = Packed.of(kind, plain), PackedTable.of(kind, plain)
    meant = packed.rows(slice(None))
    bits = plain.weight.abs().amax(dim=1, keepdim=True) / 254 if kind == "int8" else (
        plain.weight.abs() / 256)  # fmt: skip
    assert bool(((meant - plain.weight).abs() <= bits * 1.001).all())
    torch.testing.assert_close(table(torch.tensor([[3, 129]])), meant[torch.tensor([[3, 129]])])
    spread = meant.norm(dim=1) * 0.02
    for num in (1, 2, 7, 40):
        x = torch.randn(2, num, width)
        want = nn.functional.linear(x, meant, plain.bias)
        with torch.no_grad():
            assert bool(((packed(x) - want).abs() < spread).all())
            some = packed.told(x, slice(5, 90))
            assert bool(((some - want[..., 5:90]).abs() < spread[5:90]).all())
            torch.testing.assert_close(
                packed.told(x, [2, 4]), want[..., [2, 4]], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_its_likelihood(
    model: api.Model, kind: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    run, out = str(model.run.folder.path), tmp_path / "small"
    code, _, said = command("convert", run, "--weights", kind, "--out", str(out))
    assert code == 0 and "nats a record (" in said and "unseen ones" in said
    small = api.load(out)
    records = model.generate(40, seed=1)
    before, after = model.score(records)["row"], small.score(records)["row"]
    assert float((before.sum() - after.sum()) / before.sum()) == pytest.approx(0, abs=0.005)
    assert not np.allclose(before, after, rtol=1e-7)
    files = [folder / "model.safetensors" for folder in (Path(run), out)]
    assert files[1].stat().st_size < (0.5 if kind == "int8" else 0.7) * files[0].stat().st_size
    pd.testing.assert_frame_equal(small.generate(4, seed=3), api.load(out).generate(4, seed=3))
    assert len(small.fill(records.assign(**{records.columns[0]: None}))) == 40
    with pytest.raises(RunError, match=f"its weights are {kind}, to generate with"):
        small.convert(tmp_path / "again", kind)
    recipe = api.build_recipe(None, **{"train.base": str(out), "train.steps": 2})
    with pytest.raises(RunError, match=f"its weights are {kind}"):
        api.train(records, tmp_path / "more", recipe=recipe)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen 2"])
def test_an_imported_checkpoint_is_rounded_too(
    kind: str, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    """Tied heads and others; texts of one row and of several are the same."""
    ours = pair(kind)[1]
    assert ours.convert(tmp_path / "int8", "int8") is None
    small = api.load(tmp_path / "int8")
    texts = pd.DataFrame({"text": ["the cat sat on the mat", "你好, the mat"]})
    np.testing.assert_allclose(small.score(texts), ours.score(texts), rtol=0.02)
    options: dict[str, Any] = {"prompt": "the cat", "max_tokens": 10, "temperature": 0}
    assert len(set(small.generate(3, **options)["text"])) == 1
    for refused in (lambda: small.export(tmp_path / "hf"), lambda: small.adapted(tmp_path)):
        with pytest.raises(RunError, match="its weights are int8"):
            refused()


@pytest.mark.parametrize("backbone", ["rnn", "cnn"])
def test_other_networks_are_rounded_too(backbone: str, tmp_path: Path) -> None:
    data = pd.DataFrame({"text": [f"the cat sat on {i} mats" for i in range(80)]})
    recipe = {"model": {"size": "nano", "backbone": backbone}}
    model = api.train(data, tmp_path / "run", steps=20, recipe=recipe)
    cost = model.convert(tmp_path / "int8", "int8", data)
    assert cost is not None and cost.records == 80
    assert cost.after == pytest.approx(cost.before, rel=0.01)
    assert len(api.load(tmp_path / "int8").generate(3, max_tokens=20)) == 3


def test_another_kind_is_refused(model: api.Model, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--weights: .*'int4'"):
        model.convert(tmp_path / "out", "int4")
    assert not (tmp_path / "out").exists()
