"""Rows are compared as the field compares them, and a classifier tells what differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from omnifill.evaluate.baselines import independent, resampled
from omnifill.evaluate.rows import (
    Arrays,
    as_arrays,
    auc,
    column_shapes,
    ks_distance,
    learnt,
    pair_trends,
    quality,
    two_sample,
    variation,
)
from omnifill.schema import FieldSpec, Schema

Floats = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=40)


def rows(num: int, seed: int, slope: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    kind = rng.integers(-1, 3, num)
    size = slope * kind + rng.normal(0, 0.5, num)
    size[rng.random(num) < 0.1] = np.nan
    return {"kind": kind, "size": size, "weight": rng.normal(0, 1, num)}


@settings(deadline=None)
@given(Floats, Floats)
def test_the_distance_of_numbers_is_scipys(a: list[float], b: list[float]) -> None:
    ours = ks_distance(np.array([*a, np.nan]), np.array(b))
    assert ours == pytest.approx(ks_2samp(a, b, method="asymp").statistic)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=4, max_size=60))
def test_the_area_under_the_curve_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    label, score = (np.array(x) for x in zip(*pairs, strict=True))
    if len(set(label)) < 2:
        assert np.isnan(auc(label, score))
    else:
        assert auc(label, score) == pytest.approx(roc_auc_score(label, score))


def test_variation_counts_what_is_only_on_one_side_however_sparse() -> None:
    real, made = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    assert variation(real, made) == pytest.approx(0.5)
    far = 1 << 40
    assert variation(real * far, made * far) == pytest.approx(0.5)


def test_a_copy_is_perfect_and_what_hangs_together_is_missed_if_drawn_apart() -> None:
    real = rows(4000, 0)
    assert set(column_shapes(real, real).values()) == {1.0}
    assert set(pair_trends(real, real).values()) == {1.0}
    columns = {n: v.tolist() for n, v in real.items()}
    apart = {n: np.array(v) for n, v in independent(columns, 4000, 0).items()}
    again = {n: np.array(v) for n, v in resampled(columns, 4000, 0).items()}
    figures, copies = quality(real, apart), quality(real, again)
    assert figures["column_shapes"]["value"] > 0.97 < copies["column_shapes"]["value"]
    assert figures["pair_trends"]["value"] < 0.9 < 0.97 < copies["pair_trends"]["value"]
    assert copies["pair_trends"]["low"] < copies["pair_trends"]["value"]


def test_a_classifier_tells_other_rows_and_not_more_of_the_same() -> None:
    same = two_sample(rows(1500, 1), rows(3000, 2))
    other = two_sample(rows(1500, 1), rows(1500, 3, slope=-1.0))
    assert same["value"] > 0.85 and same["n"] == 3000
    assert other["value"] < 0.5 and other["low"] <= other["value"] <= other["high"]


@pytest.mark.parametrize("unit", [1e31, 1e96, 1e300])
def test_numbers_beyond_single_precision_are_compared_like_others(unit: float) -> None:
    kind = FieldSpec(name="kind", type="category", codec="category")
    size = FieldSpec(name="size", type="number", codec="number")
    schema = Schema(fields=(kind, size))
    parts = [rows(400, seed) for seed in (1, 2)]
    small, huge = (
        as_arrays(schema, *({"kind": p["kind"].tolist(), "size": (p["size"] * by).tolist()}
                            for p in parts))
        for by in (1.0, unit)
    )  # fmt: skip
    assert two_sample(*huge)["value"] == pytest.approx(two_sample(*small)["value"], abs=0.02)
    assert pair_trends(*huge) == pytest.approx(pair_trends(*small))


def test_what_is_learnt_from_rows_shows_on_real_ones() -> None:
    test, target = rows(800, 4), "kind"
    good = learnt(rows(1500, 5), test, target)["value"]
    wrong = learnt(rows(1500, 6, slope=-1.0), test, target)["value"]
    assert good > 0.6 > wrong


def test_a_table_without_pairs_or_rows_has_no_such_figures() -> None:
    one = {"kind": np.array([0, 1, 1])}
    assert set(quality(one, one)) == {"column_shapes"}
    assert quality({}, {}) == {}
