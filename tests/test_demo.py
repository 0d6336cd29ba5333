"""The built-in drawings, and the demo that uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnifill import demo
from omnifill.data.builtin import DATA_SETS, SIDE, glyph_records
from omnifill.errors import DataError, RunError


def test_glyphs_are_drawings_of_named_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = glyph_records()
    assert 5000 < len(frame) < 8000 and list(frame) == ["name", "category", "script", "glyph"]
    drawn = dict(zip(frame["name"], frame["glyph"], strict=True))
    assert all(g.shape == (SIDE, SIDE) and g.dtype == np.uint8 and g.any() for g in drawn.values())
    plain, accent = (drawn[f"LATIN SMALL LETTER E{more}"] for more in ("", " WITH ACUTE"))
    low = slice(SIDE // 2, None)
    assert (plain[low] == accent[low]).all() and accent.sum() > plain.sum(), "the same, and more"
    monkeypatch.setattr("omnifill.data.builtin.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'omnifill\[report\]'"):
        glyph_records()


def test_the_demo_of_drawings_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = glyph_records()
    letters = frame[frame["name"].str.contains("^LATIN .*LETTER")].reset_index(drop=True)
    monkeypatch.setitem(DATA_SETS, "builtin:glyphs", lambda: letters)
    said: list[str] = []
    demo._glyphs(tmp_path / "run", "20s", said.append)
    assert any("read back:" in line for line in said) and any("█" in line for line in said)
    assert "words of names read back rightly" in said[-1]
    with pytest.raises(RunError, match="holds files already"):
        demo.run_demo(tmp_path / "run", "1s", said.append)
