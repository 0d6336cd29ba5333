"""The usual models of one column given the others, which ours stands beside field by field.

Logistic regression for categories (TF-IDF of texts, categories one-hot, numbers standardised) and
scikit-learn's IterativeImputer for numbers and dates. From the extra `evaluate`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from omnifill.evaluate.evaluation import Columns, size
from omnifill.evaluate.intervals import Measure, interval
from omnifill.evaluate.rows import as_arrays, is_number
from omnifill.evaluate.texts import units
from omnifill.schema import Schema
from omnifill.types import Floats, Ints

MOST_ROWS = 20_000
"""Training rows that are learned from, and `MOST_CLASSES` values of a category at most."""
MOST_CLASSES = 200
MOST_WORDS = 50_000
Figure = dict[str, Measure]


def logistic(schema: Schema, train: Columns, held_out: Columns, field: str) -> Figure:
    """accuracy and log_loss of a category given all other fields; {} where there are none, or
    too many values."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, held_out = (_where_known(part, field) for part in (train, held_out))
    train = _rows(train, np.arange(size(train))[:MOST_ROWS])
    y, truth = (part[field] for part in as_arrays(schema, train, held_out))
    if not 2 <= len(np.unique(y)) <= MOST_CLASSES or not len(truth):
        return {}
    x, asked = _features(schema, train, held_out, field)
    if x is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline: near is good enough
        model = LogisticRegression(max_iter=100, tol=1e-3).fit(x, y)
    prob = model.predict_proba(asked)
    right = model.classes_[prob.argmax(axis=1)] == truth
    seen = np.flatnonzero(np.isin(truth, model.classes_))
    loss = -np.log(np.maximum(prob[seen, np.searchsorted(model.classes_, truth[seen])], 1e-12))
    return {"accuracy": interval(right.astype(float)), "log_loss": interval(loss)}


def iterative(schema: Schema, train: Columns, held_out: Columns, field: str) -> Figure:
    """absolute_error and normalised_error of a number or date given the others; {} without any."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    asked = _where_known(held_out, field)
    train = _rows(train, np.arange(size(train))[:MOST_ROWS])
    arrays = as_arrays(schema, train, asked)
    if len(arrays[0]) < 2 or not size(asked):
        return {}
    # One that is always the same tells nothing, and so far from zero the others nothing either.
    numbers = [
        n for n, v in arrays[0].items() if is_number(v) and len(np.unique(v[~np.isnan(v)])) > 1
    ]
    if field not in numbers:
        return {}
    both = {n: np.concatenate([part[n] for part in arrays]) for n in arrays[0]}
    middle, spread = np.nanmean(arrays[0][field]), np.nanstd(arrays[0][field]) or 1.0
    grid = np.column_stack([_standard(both[n], arrays[0][n]) for n in numbers])
    grid[len(arrays[0][field]) :, numbers.index(field)] = np.nan
    kinds = [_one_hot(v, len(arrays[0][n])) for n, v in both.items() if n not in numbers]
    whole = np.hstack([grid, *(k.toarray() for k in kinds)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            filled = IterativeImputer(random_state=0, skip_complete=True).fit_transform(whole)
        except ValueError:  # numbers too far apart for its regressions
            return {}
    answers = filled[len(arrays[0][field]) :, numbers.index(field)] * spread + middle
    error = np.abs(answers - arrays[1][field])
    own = float(np.std(arrays[1][field])) or 1.0
    return {"absolute_error": interval(error), "normalised_error": interval(error / own)}


def _features(schema: Schema, train: Columns, asked: Columns, field: str) -> tuple[Any, Any]:
    """The other fields of both as one sparse matrix each; None where nothing is left."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    num, parts = size(train), []
    arrays = as_arrays(schema, train, asked)
    for name in arrays[0]:
        both = np.concatenate([part[name] for part in arrays])
        if name == field:
            continue
        if is_number(both):
            known = _standard(both, arrays[0][name])
            blank = np.isnan(known)
            parts.append(csr_matrix(np.column_stack([np.where(blank, 0.0, known), blank])))
        else:
            parts.append(_one_hot(both, num))
    for name in [s.name for s in schema.fields if s.type == "text" and s.name in train]:
        texts = [text or "" for part in (train, asked) for text in part[name]]
        words = TfidfVectorizer(
            tokenizer=units, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True,
            max_features=MOST_WORDS,
        )  # fmt: skip
        try:
            parts.append(words.fit(texts[:num]).transform(texts))
        except ValueError:  # no word in any of them
            continue
    if not parts:
        return None, None
    whole = hstack(parts).tocsr()
    return whole[:num], whole[num:]


def _one_hot(codes: Ints, train: int) -> Any:
    from sklearn.preprocessing import OneHotEncoder

    coder = OneHotEncoder(handle_unknown="ignore", max_categories=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of values that only the asked rows have
        return coder.fit(codes[:train, None]).transform(codes[:, None])


def _standard(values: Floats, train: Floats) -> Floats:
    spread = float(np.nanstd(train)) if not np.isnan(train).all() else 0.0
    middle = float(np.nanmean(train)) if spread else 0.0
    return np.asarray((values - middle) / (spread or 1.0))


def _where_known(columns: Columns, field: str) -> Columns:
    return _rows(columns, np.flatnonzero([v is not None for v in columns[field]]))


def _rows(columns: Columns, rows: Ints) -> Columns:
    return {name: [values[i] for i in rows.tolist()] for name, values in columns.items()}
