"""A compiled step writes what the step writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnifill import api
from omnifill.errors import RequestError


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler about itself
@pytest.mark.parametrize("backbone", ["rnn", "cnn"])
def test_compiled_is_plain(backbone: str, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("rain and sun 热 " * 300, encoding="utf-8")
    small = {"backbone": backbone, "dim": 32, "layers": 2}
    model = api.train(tmp_path / "book.txt", tmp_path / "run", steps=8, recipe={"model": small})
    asked = [{"prompt": "rain", "max_tokens": 40, "seed": s} for s in range(3)]
    whole = model.generate(3, max_tokens=30, seed=7)
    plain = ["".join(model.stream(**one)) for one in asked]
    quick = api.load(tmp_path / "run").compiled()
    assert ["".join(quick.stream(**one)) for one in asked] == plain
    assert quick.generate(3, max_tokens=30, seed=7).equals(whole)


def test_other_networks_are_refused(model: api.Model) -> None:
    with pytest.raises(RequestError, match="recurrent and convolutional"):
        model.compiled()
