"""What one pass over a source saw of a column of pictures or sounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnifill.data.cells import Chunk, Problem
from omnifill.data.media import Kind, MediaFile, kind_of_name, load_cell
from omnifill.errors import DataError, ValueRefused

USUAL_SIDE = 64
"""Pixels of the longer side that pictures are scaled down to, where the recipe names no size."""
USUAL_RATE = 16_000
"""Samples a second that sounds are brought down to, where the recipe names no rate."""
MOST_SECONDS = 10.0
"""Of a sound, where the recipe does not say."""
SHOWN = 5
"""Broken files that are named where none can be read."""


@dataclass
class MediaProfile:
    """Sizes and modes of pictures, rates and lengths of sounds, by their headers; broken files."""

    kind: Kind | None = None
    none: bool = False
    """Whether some cell is no picture and no sound, and no path of one."""
    held: bool = False
    """Whether cells hold pictures or sounds themselves, and not their paths alone."""
    num: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height)."""
    modes: Counter[str] = field(default_factory=Counter)
    rates: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)

    def add(self, chunk: Chunk, name: str) -> None:
        """Look at a chunk's cells; a column of anything else is given up at its first cell."""
        for row, cell in enumerate(chunk.columns[name]):
            if self.none:
                return
            if cell is not None:
                self._look(cell, chunk.folder, f"{chunk.where(row, name)}, {cell}")

    def _look(self, cell: Any, folder: Path | None, where: str) -> None:
        named = cell.kind or kind_of_name(cell.name) if isinstance(cell, MediaFile) else None
        if isinstance(cell, str):
            named = kind_of_name(cell)
            if named is None:
                self._give_up(where)
                return
        elif not isinstance(cell, MediaFile):
            self._give_up(where)
            return
        kind = named or "image"
        if self.kind not in (None, kind):
            self._give_up(where)
            return
        self.num += 1
        self.kind = kind
        self.held = self.held or isinstance(cell, MediaFile)
        try:
            self._measure(load_cell(cell, folder))
        except ValueRefused as error:
            if len(self.broken) < SHOWN:
                self.broken.append(Problem(where, str(error)))

    def _give_up(self, where: str) -> None:
        """A column of texts; DataError if it has held pictures or sounds themselves."""
        if self.held:
            kind = "a picture" if self.kind == "image" else "a sound"
            raise DataError(f"{where}: is not {kind}, as the cells before it are; leave such rows "
                            f"out, or their cells blank")  # fmt: skip
        self.none = True

    def _measure(self, value: Any) -> None:
        if self.kind == "audio":
            from omnifill.data.audio import measure

            rate, seconds = measure(value)
            self.rates[rate] += 1
            self.seconds.append(seconds)
            return
        from omnifill.data.image import header

        width, height, mode = header(value)
        self.sizes[width, height] += 1
        self.modes[mode] += 1

    @property
    def found(self) -> Kind | None:
        """What the column holds: pictures, sounds, or neither."""
        return None if self.none else self.kind

    def why(self, name: str) -> str:
        """In words, as `inspect` shows it. DataError if all files are broken."""
        if not self.sizes and not self.rates:
            first = "".join(f"\n  {p.where}: {p.what}" for p in self.broken)
            raise DataError(
                f"none of {self.num} files can be read (if they are only names: --field "
                f"{name}:text):{first}"
            )
        if self.kind == "audio":
            return self._why_sounds()
        mode = {"L": "grey", "RGB": "in colour", "RGBA": "with alpha"}[self.mode()]
        if len(self.sizes) == 1:
            (width, height), *_ = self.sizes
            return f"pictures of {width} × {height} pixels, {mode}"
        widths, heights = zip(*self.sizes, strict=True)
        return (
            f"pictures from {min(widths)} × {min(heights)} to {max(widths)} × {max(heights)} "
            f"pixels, {mode}"
        )

    def changed(self, options: Mapping[str, Any]) -> str:
        """What all of them become, if that is not what they are."""
        if self.kind == "audio":
            rate, most = options["rate"], options["seconds"]
            cut = sum(s > most for s in self.seconds)
            what = f"; {cut} of them {'is' if cut == 1 else 'are'} cut at {most:g} s" if cut else ""
            return what + ("" if set(self.rates) == {rate} else f"; brought to {rate:,} Hz")
        size = (options["width"], options["height"])
        return "" if set(self.sizes) == {size} else f"; brought to {size[0]} × {size[1]}"

    def _why_sounds(self) -> str:
        rates = ", ".join(f"{rate:,}" for rate in sorted(self.rates)[:3])
        more = " and other" if len(self.rates) > 3 else ""
        return (
            f"sounds of {min(self.seconds):.2f} to {max(self.seconds):.2f} s, "
            f"{sum(self.seconds) / 60:.1f} min in all, at {rates}{more} Hz"
        )

    def _longest(self) -> float:
        """Seconds: the longest sound, unless it is far longer than nearly all others."""
        usual = sorted(self.seconds)[int(0.95 * (len(self.seconds) - 1))]
        longest = max(self.seconds)
        return math.ceil(100 * min(longest, 1.5 * usual, MOST_SECONDS)) / 100

    def mode(self) -> str:
        """The plainest mode that holds all of them."""
        return max(self.modes, key=("L", "RGB", "RGBA").index, default="RGB")

    def options(self) -> dict[str, Any]:
        """The size and mode of the field's pictures; the rate and longest length of its sounds."""
        if self.kind == "audio":
            rate = min(self.rates.most_common(1)[0][0], USUAL_RATE)
            return {"rate": max(4000, rate), "seconds": max(0.05, self._longest())}
        width, height = (self._median(axis) for axis in (0, 1))
        if len(self.sizes) == 1:
            (width, height), *_ = self.sizes
        scale = min(1.0, USUAL_SIDE / max(width, height))
        return {
            "height": max(1, round(height * scale)), "width": max(1, round(width * scale)),
            "mode": self.mode(),
        }  # fmt: skip

    def _median(self, axis: int) -> int:
        counts: Counter[int] = Counter()
        for size, num in self.sizes.items():
            counts[size[axis]] += num
        half, seen = sum(counts.values()) / 2, 0
        for side in sorted(counts):
            seen += counts[side]
            if seen >= half:
                return side
        raise AssertionError("asked for the median of nothing")
