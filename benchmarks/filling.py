"""Blank 20 % of a table's cells, train on what is left, fill, compare with what was there.

Error of a column: the share of wrong categories, or the mean absolute error over the column's
standard deviation; a table's error is the mean over its columns. Beside it stand the plainest
filling (most frequent value, median), scikit-learn's IterativeImputer for the numbers with the most
frequent category, and a peer: random forests in turn, as MissForest does it, on at most 5,000 rows.
Same masks for all. Cells of '?' count as blanks.

    python benchmarks/filling.py --data DIR [--masks 10] [--only penguins] [--quick]
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

import harness

TABLES = {
    "penguins": ("penguins/penguins.csv", "60s"),
    "german_credit": ("german_credit/german_credit.csv", "90s"),
    "diamonds": ("diamonds/diamonds.csv.gz", "2m"),
    "auto_imports": ("auto_imports/auto_imports.csv", "60s"),
}
"""File and budget of a run."""


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--masks", type=int, default=10)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--budget", help="instead of each table's own")
    parser.add_argument("--steps", type=int, help="a number of steps instead of a budget")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    args = parser.parse_args()
    data = harness.need_data(args)
    masks = 1 if args.quick else args.masks
    for name in [args.only] if args.only else TABLES:
        file, budget = TABLES[name]
        budget = args.budget or ("20s" if args.quick else budget)
        runs = []
        for seed in range(args.seed, args.seed + masks):
            runs.append(one_mask(data / file, args, seed, budget))
            print(name, seed, {k: round(v, 4) for k, v in runs[-1].items()}, flush=True)
        figures = summary(runs)
        protocol = (
            f"{name}: {masks} masks of 20 % of the cells; `omnifill train --budget {budget}` on "
            f"the rest, then `omnifill fill`; other cells byte for byte unchanged in every run"
        )
        harness.keep(f"filling-{name}", protocol, figures, ["scikit-learn"], args.quick)


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Mean error by method, and how far each lies below the plainest filling."""
    frame = pd.DataFrame(runs)
    methods = [n for n in ("ours", "plain", "iterative", "peer") if n in frame]
    out = {f"error_{n}": float(frame[n].mean()) for n in methods}
    for name in ("ours", "iterative", "peer"):
        if name in frame:
            below = 1 - frame[name] / frame["plain"]
            out[f"below_plain_{name}"] = float(below.mean())
            out[f"below_plain_{name}_sd"] = float(below.std()) if len(frame) > 1 else 0.0
    out |= {n: float(frame[n].mean()) for n in frame if n.startswith("seconds")}
    return out


def one_mask(file: Path, args: Namespace, seed: int, budget: str) -> dict[str, float]:
    work, sets = args.work, [word for pair in args.set for word in ("--set", pair)]
    length = ["--steps", args.steps] if args.steps else ["--budget", budget]
    truth = pd.read_csv(file, keep_default_na=False, dtype=str).replace("?", "")
    rng = np.random.default_rng(seed)
    mask = (rng.random(truth.shape) < 0.2) & (truth != "").to_numpy()
    blanked = truth.mask(mask, "")
    blanked.to_csv(work / "blanked.csv", index=False)
    run = harness.fresh(work / "filling")
    seconds = harness.omnifill(
        "train", work / "blanked.csv", "--out", run, *length, "--seed", seed, *sets
    )
    harness.omnifill("fill", run, work / "blanked.csv", "--out", work / "filled.csv")
    filled = pd.read_csv(work / "filled.csv", keep_default_na=False, dtype=str)
    known = (blanked != "").to_numpy()
    assert (filled.to_numpy()[known] == blanked.to_numpy()[known]).all(), "a known cell changed"
    assert (filled.to_numpy()[mask] != "").all(), "a blank stayed"
    out = {
        "ours": error(truth, filled, mask),
        "plain": error(truth, plain(blanked), mask),
        "iterative": error(truth, iterative(blanked), mask),
        "seconds_ours": seconds,
    }
    if not args.no_peer:
        started = time.monotonic()
        rows = rng.permutation(len(truth))[:5000]  # forests are slow: a part of a large table
        answer = forests(blanked.iloc[rows])
        out["peer"] = error(truth.iloc[rows], answer, mask[rows])
        out["seconds_peer"] = time.monotonic() - started
    return out


def is_number(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column[column != ""], errors="coerce").notna().all())


def error(truth: pd.DataFrame, filled: pd.DataFrame, mask: np.ndarray) -> float:
    errors = []
    for i, name in enumerate(truth.columns):
        at = mask[:, i]
        if not at.any():
            continue
        real, ours = truth[name][at], filled[name].to_numpy()[at]
        if is_number(truth[name]):
            scale = pd.to_numeric(truth[name][truth[name] != ""]).std()
            off = np.abs(pd.to_numeric(real).to_numpy() - pd.to_numeric(ours))
            errors.append(float(off.mean() / scale))
        else:
            errors.append(float((real.to_numpy() != ours).mean()))
    return float(np.mean(errors))


def plain(table: pd.DataFrame) -> pd.DataFrame:
    out = table.copy()
    for name in table:
        known = table[name][table[name] != ""]
        value = pd.to_numeric(known).median() if is_number(known) else known.mode()[0]
        out.loc[out[name] == "", name] = str(value)
    return out


def iterative(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers by IterativeImputer, told of the categories one-hot; those by the most frequent."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer
    from sklearn.preprocessing import StandardScaler

    out = plain(table)
    numbers = [name for name in table if is_number(table[name])]
    known = table[numbers].apply(pd.to_numeric).to_numpy(float)
    scaler = StandardScaler().fit(known)
    kinds = pd.get_dummies(out.drop(columns=numbers), dtype=float).to_numpy()
    imputer = IterativeImputer(max_iter=20, skip_complete=True, random_state=0)
    whole = imputer.fit_transform(np.hstack([scaler.transform(known), kinds]))
    values = scaler.inverse_transform(whole[:, : len(numbers)])
    for i, name in enumerate(numbers):
        at = (table[name] == "").to_numpy()
        out.loc[at, name] = values[at, i].astype(str)
    return out


def forests(table: pd.DataFrame, rounds: int = 4) -> pd.DataFrame:
    """As MissForest: columns in turn, each by a forest on the others, categories one-hot."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    out, blank = plain(table), table == ""
    numbers = {name for name in table if is_number(table[name])}
    for _ in range(rounds):
        for name in blank.sum().sort_values().index:
            at = blank[name].to_numpy()
            if not at.any():
                continue
            others = out.drop(columns=name)
            mine = [n for n in others if n in numbers]
            x = pd.get_dummies(others.astype(dict.fromkeys(mine, float)), dtype=float).to_numpy()
            kind = RandomForestRegressor if name in numbers else RandomForestClassifier
            forest = kind(n_estimators=100, n_jobs=harness.THREADS, random_state=0)
            y = out[name].astype(float) if name in numbers else out[name]
            forest.fit(x[~at], y[~at])
            out.loc[at, name] = forest.predict(x[at]).astype(str)
    return out


if __name__ == "__main__":
    main()
