"""What a run tells while it goes on: `metrics.jsonl`, TensorBoard events, one live line."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from omnifill.train.loop import Report

TIMES = ("seconds", "tokens_per_second")
"""Keys of a report that time decides, not the seed."""


def seconds_spent(path: Path) -> float:
    """Time of training until now by a file of reports, over all its sessions."""
    spent = last = 0.0
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError):  # the line that a kill cut short
            now = float(json.loads(line)["seconds"])
            spent, last = spent + (last if now < last else 0.0), now
    return spent + last


class MetricsFile:
    """Appends a line a report; a resumed run first drops what lies after its checkpoint."""

    def __init__(self, path: Path, from_step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= from_step:
                        kept.append(line)
                except (ValueError, KeyError):
                    break  # the line that a kill cut short
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.path = path

    def __call__(self, report: Report) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")


class Events:
    """TensorBoard scalars under `tb/`, if the extra `track` is installed."""

    def __init__(self, folder: Path, from_step: int) -> None:
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.writer = SummaryWriter(str(folder / "tb"), purge_step=from_step or None)

    def __call__(self, report: Report) -> None:
        if self.writer is None:
            return
        self.writer.add_scalar("loss/train", report.loss, report.step)
        self.writer.add_scalar("rate", report.rate, report.step)
        self.writer.add_scalar("tokens_per_second", report.tokens_per_second, report.step)
        if report.valid is not None:
            self.writer.add_scalar("loss/valid", report.valid, report.step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class LiveLine:
    """One line on a terminal, rewritten in place; a plain line at each validation elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.begin()

    def begin(self, label: str = "") -> None:
        """Tell of another training from here on; `label`: what of, if it is not the model's."""
        self.label = label
        self.valid: float | None = None
        self.started = time.monotonic()
        self.first_step: int | None = None

    def __call__(self, report: Report) -> None:
        self.valid = report.valid if report.valid is not None else self.valid
        if self.first_step is None:
            self.first_step, self.started = report.step, time.monotonic()
        if not self.live:
            return
        done = max(1, report.step - self.first_step)
        left = (time.monotonic() - self.started) / done * (report.steps - report.step)
        valid = "" if self.valid is None else f" · valid {self.valid:.4f}"
        self.stream.write(
            f"\r\033[K{self.label}step {report.step}/{report.steps} · "
            f"loss {report.loss:.4f}{valid} · {report.tokens_per_second:,.0f} tokens/s · "
            f"{clock(left)} left"
        )
        self.stream.flush()

    def say(self, text: str) -> None:
        """A line that stays, above the live one."""
        self.stream.write(f"\r\033[K{text}\n" if self.live else f"{text}\n")
        self.stream.flush()

    def close(self) -> None:
        if self.live:
            self.stream.write("\r\033[K")
            self.stream.flush()


def clock(seconds: float) -> str:
    """75 -> '1:15'."""
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    tail = f"{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
    return f"{hours}:{tail}" if hours else tail
