"""How far a long piece of work is, with an estimate of its end: on a terminal's stderr only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import ClassVar, TextIO

PATIENCE = 1.0
"""Seconds of silence: what is done sooner needs no bar."""


class Progress:
    """`with Progress("encoding", total, "rows") as p: … p.advance(n)`."""

    quiet: ClassVar[bool] = False
    """Shown nowhere in this process."""

    def __init__(
        self, label: str, total: int | None = None, unit: str = "rows",
        stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.label, self.total, self.unit = label, total, unit
        self.stream = stream or sys.stderr
        self.done = 0
        self.started = self.shown = time.monotonic()
        self.live = self.stream.isatty() and not self.quiet

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.live:
            self.stream.write("\r\033[K")
            self.stream.flush()

    def advance(self, num: int = 1) -> None:
        """Count `num` more as done."""
        self.done += num
        now = time.monotonic()
        if not self.live or now - self.started < PATIENCE or now - self.shown < 0.2:
            return
        self.shown = now
        rate = self.done / (now - self.started)
        text = f"{self.label}: {self.done:,}"
        if self.total:
            left = max(0.0, (self.total - self.done) / max(rate, 1e-9))
            text += f" of {self.total:,} {self.unit} ({self.done / self.total:.0%})"
            text += f" · {left:.0f} s left"
        else:
            text += f" {self.unit}"
        self.stream.write(f"\r\033[K{text} · {rate:,.0f} {self.unit}/s")
        self.stream.flush()
