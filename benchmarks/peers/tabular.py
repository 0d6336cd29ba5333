"""Rows of a table from a peer, in an environment of its own (benchmarks/requirements-peers.txt).

    python peers/tabular.py PEER TRAIN.csv OUT.csv --rows N --seconds 120

`copula` is a Gaussian copula of our own: each column by its ranks, one correlation matrix for all.
`ctgan` trains for as many epochs as fit into the seconds, `mostlyai` is told of them.
Prints what fitting and sampling took, as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Sampler = Callable[[int], pd.DataFrame]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=FITS)
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    table = pd.read_csv(args.train, keep_default_na=False, na_values=[""])
    started = time.monotonic()
    sample = FITS[args.peer](table, args.seconds, args.seed)
    fitted = time.monotonic()
    made = sample(args.rows)
    took = {"train_seconds": fitted - started, "generate_seconds": time.monotonic() - fitted}
    made[list(table.columns)].to_csv(args.out, index=False)
    print(json.dumps(took))


def copula(table: pd.DataFrame, seconds: float, seed: int) -> Sampler:
    """Normal scores of ranks (categories: of their cumulated shares), correlated; no time limit."""
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    scores = {}
    for name, column in table.items():
        codes = column.rank(method="dense", na_option="top").to_numpy() if is_number(column) \
            else column.astype(str).rank(method="dense").to_numpy()  # fmt: skip
        order = np.argsort(codes + rng.random(len(codes)) * 0.999)  # equal ones share their range
        rank = np.empty(len(codes))
        rank[order] = np.arange(len(codes))
        scores[name] = norm.ppf((rank + 0.5) / len(codes))
    lower = np.linalg.cholesky(np.corrcoef(np.stack(list(scores.values())))
                               + 1e-9 * np.eye(len(scores)))  # fmt: skip

    def sample(num: int) -> pd.DataFrame:
        drawn = norm.cdf(rng.normal(size=(num, len(scores))) @ lower.T)
        out = {}
        for i, (name, column) in enumerate(table.items()):
            by_text = column if is_number(column) else column.astype(str)
            ordered = column.iloc[np.argsort(by_text.to_numpy(), kind="stable")].to_numpy()
            out[name] = ordered[(drawn[:, i] * len(ordered)).astype(int)]
        return pd.DataFrame(out)

    return sample


def ctgan(table: pd.DataFrame, seconds: float, seed: int) -> Sampler:
    from ctgan import CTGAN

    discrete = [name for name, column in table.items() if not is_number(column)]
    started = time.monotonic()
    probe = CTGAN(epochs=1)
    probe.set_random_state(seed)
    probe.fit(table, discrete)  # transforming the columns is a good part of this
    first = time.monotonic() - started
    started = time.monotonic()
    probe = CTGAN(epochs=9)  # the difference of so few as two is mostly noise
    probe.set_random_state(seed)
    probe.fit(table, discrete)
    each = max(0.01, (time.monotonic() - started - first) / 8)
    model = CTGAN(epochs=max(1, int((seconds - first) / each)))
    model.set_random_state(seed)
    model.fit(table, discrete)
    return lambda num: model.sample(num)


def mostlyai(table: pd.DataFrame, seconds: float, seed: int) -> Sampler:
    from mostlyai.engine import TabularARGN, set_random_state

    set_random_state(seed)
    folder = tempfile.mkdtemp(prefix="mostlyai-")
    model = TabularARGN(max_training_time=seconds / 60, workspace_dir=folder, verbose=0)
    model.fit(table)
    return lambda num: model.sample(n_samples=num)


def is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


FITS: dict[str, Callable[[pd.DataFrame, float, int], Sampler]] = {
    "copula": copula,
    "ctgan": ctgan,
    "mostlyai": mostlyai,
}


if __name__ == "__main__":
    main()
