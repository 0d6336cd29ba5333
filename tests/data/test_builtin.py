"""The built-in drawings."""

from __future__ import annotations

import numpy as np
import pytest

from omnifill.data.builtin import SIDE, glyph_records
from omnifill.errors import DataError


def test_glyphs_are_drawings_of_named_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = glyph_records()
    assert 5000 < len(frame) < 8000 and list(frame) == ["name", "category", "script", "glyph"]
    drawn = dict(zip(frame["name"], frame["glyph"], strict=True))
    assert all(g.shape == (SIDE, SIDE) and g.dtype == np.uint8 and g.any() for g in drawn.values())
    plain, accent = (drawn[f"LATIN SMALL LETTER E{more}"] for more in ("", " WITH ACUTE"))
    assert set(np.unique(plain)) == {0, 255}
    low = slice(SIDE // 2, None)
    assert (plain[low] == accent[low]).all() and accent.sum() > plain.sum(), "the same, and more"
    monkeypatch.setattr("omnifill.data.builtin.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'omnifill\[report\]'"):
        glyph_records()
