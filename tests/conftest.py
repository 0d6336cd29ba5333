"""What several tests share: small tables and one small trained model of all four field types."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from omnifill import api, cli

settings.register_profile("any machine", deadline=None)  # no test fails for being slow
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1)


def mixed_table(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """All four field types with blanks, texts of unequal length in several scripts."""
    rng = np.random.default_rng(seed)
    kinds = np.array(["tea", "咖啡", "ماء"])[rng.integers(0, 3, rows)]
    size = np.round(rng.gamma(3, 2, rows), 2)
    words = ["warm", "kalt", "热", "🍵", "दूध", "a"]
    notes = [" ".join(words[i] for i in rng.integers(0, 6, n)) for n in rng.integers(1, 7, rows)]
    days = pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, rows), unit="D")
    table = pd.DataFrame({
        "kind": kinds, "size": size, "count": rng.integers(0, 500, rows),
        "day": days.strftime("%Y-%m-%d"), "note": notes,
    })  # fmt: skip
    table.loc[rng.random(rows) < 0.15, "size"] = np.nan
    table.loc[rng.random(rows) < 0.15, "note"] = None
    table.loc[rng.random(rows) < 0.15, "kind"] = None
    return table


@pytest.fixture(scope="session")
def table_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "drinks.csv"
    mixed_table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def model(table_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Model]:
    """A model trained for a few steps: enough to work, too few to be good."""
    out = tmp_path_factory.mktemp("runs") / "drinks"
    yield api.train(table_csv, out, steps=40, recipe={"model": {"size": "nano"}})


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command -> (status, output, errors)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["omnifill", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        return int(leaving.value.code or 0), *capsys.readouterr()

    return run
