"""What `omnifill demo` shows of letters."""

from __future__ import annotations

import numpy as np

from omnifill.demo import ACCENTED, UNSEEN, letters, side_by_side


def test_letters_that_are_kept_aside_have_a_letter_and_an_accent_that_are_learned() -> None:
    table = letters()
    parts = table["name"].str.extract(ACCENTED)
    aside = table["part"] == "test"
    assert aside.sum() == UNSEEN and not table["name"].duplicated().any()
    for axis in (0, 1):
        assert set(parts.loc[aside, axis]) <= set(parts.loc[~aside, axis])


def test_drawings_are_shown_two_rows_of_pixels_in_a_line() -> None:
    one, other = np.array([[1, 0], [1, 1]], bool), np.array([[0, 0], [0, 1]], bool)
    assert side_by_side(np.stack([one, other])) == "   █▄ ▄"
