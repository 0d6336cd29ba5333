"""Ten defects planted in data or training, each through a whole run: the evaluation names it.

And three sound tables, of which it names nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from omnifill import api
from omnifill.form.vocabulary import CODE_COLUMN

pytestmark = pytest.mark.slow
SPLIT = {"data": {"split": {"column": "part"}}}
SHOPS = ["north", "south", "east"]


def sales(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """A sound table: what is bought, where, how much, and what it costs hang together."""
    rng = np.random.default_rng(seed)
    shop = rng.integers(0, 3, rows)
    goods = np.where(rng.random(rows) < 0.8, shop, rng.integers(0, 3, rows))
    weight = np.round(rng.gamma(3, 1 + goods), 2)
    late = np.where(rng.random(rows) < 0.15 + 0.5 * (weight > 6), "late", "early")
    return pd.DataFrame({
        "shop": np.array(SHOPS)[shop], "goods": np.array(["tea", "rice", "salt"])[goods],
        "weight": weight, "price": np.round(weight * (2 + goods) + rng.normal(0, 1, rows), 2),
        "late": late,
    })  # fmt: skip


def people(rows: int = 700, seed: int = 1) -> pd.DataFrame:
    """Another, of ages, incomes with blanks, and dates."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, rows)
    job = np.where(age > 65, 0, rng.integers(1, 4, rows))
    income = np.round(rng.lognormal(7 + 0.3 * job, 0.4, rows), 1)
    since = pd.to_datetime("1990-01-01") + pd.to_timedelta(rng.integers(0, 9000, rows), unit="D")
    table = pd.DataFrame({
        "age": age, "job": np.array(["retired", "office", "shop", "field"])[job],
        "income": income, "since": since.strftime("%Y-%m-%d"),
    })  # fmt: skip
    table.loc[rng.random(rows) < 0.1, "income"] = np.nan
    return table


def notes(rows: int = 500, seed: int = 2) -> pd.DataFrame:
    """A third, of short texts and what they are about."""
    rng = np.random.default_rng(seed)
    about = rng.integers(0, 2, rows)
    words = [[f"storm{i}" for i in range(40)], [f"match{i}" for i in range(40)]]
    text = [" ".join(rng.choice(words[a], rng.integers(4, 9))) for a in about]
    return pd.DataFrame({"about": np.array(["weather", "sport"])[about], "text": text})


def split(table: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """`table` to learn from, `test` held out."""
    part = np.where(np.arange(len(table)) % 10 == 0, "valid", "train")
    return pd.concat([table.assign(part=part), test.assign(part="test")], ignore_index=True)


@dataclass
class Defect:
    table: Callable[[], pd.DataFrame]
    flag: str
    field: str
    recipe: dict[str, Any] = field(default_factory=dict)
    steps: int = 150


def leaked_label() -> pd.DataFrame:
    table = sales()
    return table.assign(code=table["late"].map({"late": "L1", "early": "E7"}))


def train_in_test() -> pd.DataFrame:
    return split(sales(500), sales(500).head(120))


def shuffled() -> pd.DataFrame:
    table = sales(3000)
    rng = np.random.default_rng(5)
    return table.assign(late=rng.permutation(table["late"]), goods=table["goods"])


def no_data_for_a_group() -> pd.DataFrame:
    return split(sales(500), sales(150, seed=8).assign(shop=["west"] * 30 + ["north"] * 120))


def drifted() -> pd.DataFrame:
    later = sales(200, seed=8)
    return split(sales(500), later.assign(weight=later["weight"] + 9))


def repeated() -> pd.DataFrame:
    return pd.concat([people(250)] * 3, ignore_index=True)


def constant() -> pd.DataFrame:
    return sales().assign(country="NL")


def known_by_heart(known: pd.DataFrame, unseen: pd.DataFrame) -> pd.DataFrame:
    """Validation on training records: nobody notices what is learned by heart until the test."""
    parts = ((known, "train"), (known, "valid"), (unseen, "test"))
    return pd.concat([t.assign(part=p) for t, p in parts], ignore_index=True)


def of_one_kind() -> pd.DataFrame:
    """Few different texts, many of each: what is generated can only be copies of them."""
    return known_by_heart(pd.concat([notes(40)] * 15, ignore_index=True), notes(200, seed=9))


def by_heart() -> pd.DataFrame:
    return known_by_heart(people(60), people(150, seed=7))


def failed() -> pd.DataFrame:
    """A group whose values follow no rule, beside one whose values are always the same."""
    rng = np.random.default_rng(3)
    wild = rng.random(3000) < 0.3
    tame = rng.integers(0, 3000, 3000)
    values = {n: np.where(wild, rng.integers(0, 200, 3000), 7) for n in ("a", "b", "c")}
    return pd.DataFrame({"kind": np.where(wild, "wild", "tame"), "number": tame, **values})


STUBBORN = {"train": {"patience": 1000, "lr": 0.02}, "model": {"size": "tiny", "dropout": 0.0}}
DEFECTS = {
    "a label leaked into a column": Defect(
        leaked_label, "a column that gives another away", "code"),
    "training rows in the test part": Defect(
        train_in_test, "rows of the training part are in the test", "", SPLIT),
    "shuffled labels": Defect(shuffled, "nothing tells this column", "late"),
    "a group without data": Defect(no_data_for_a_group, "a group without data", "shop", SPLIT),
    "a test part of another kind": Defect(drifted, "unlike the training part", "weight", SPLIT),
    "repeated records": Defect(repeated, "repeated records", ""),
    "a constant column": Defect(constant, "a constant column", "country"),
    "a copied training set": Defect(
        of_one_kind, "copied records", "", SPLIT | STUBBORN, steps=600),
    "a training part learned by heart": Defect(
        by_heart, "over-fitting", "", SPLIT | STUBBORN, steps=500),
    "a group that the model fails": Defect(failed, "a group it fails", "kind"),
}  # fmt: skip


def flags_of(defect: Defect, folder: Path) -> list[tuple[str, str]]:
    recipe = {"model": {"size": "nano"}} | defect.recipe
    model = api.train(defect.table(), folder / "run", steps=defect.steps, recipe=recipe)
    return [(flag["name"], flag["field"]) for flag in model.evaluate()["flags"]]


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_named(name: str, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    assert (defect.flag, defect.field) in flags_of(defect, tmp_path)


def test_a_model_that_collapsed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores damaged after training: a column comes out as one value."""
    model = api.train(sales(), tmp_path / "run", steps=60, recipe={"model": {"size": "nano"}})
    columns, shop = model.run.objective.columns, model.run.vocabulary["shop"].block
    sound = columns._barred

    def damaged(scores: Tensor, block: int, rows: Tensor) -> Tensor:
        scores = sound(scores, block, rows)
        if block == shop:
            scores[:, CODE_COLUMN + 2] += 20
        return scores

    monkeypatch.setattr(columns, "_barred", damaged)
    flags = model.evaluate()["flags"]
    assert ("a collapsed column", "shop") in {(flag["name"], flag["field"]) for flag in flags}


@pytest.mark.parametrize("table", [lambda: sales(3000), people, notes])
def test_a_sound_table_raises_no_flag(table: Callable[[], pd.DataFrame], tmp_path: Path) -> None:
    assert flags_of(Defect(table, "", "", steps=300), tmp_path) == []
