"""The report's pictures, as SVG that takes the page's own colours (from the extra `report`)."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from omnifill.data.sink import check_ending
from omnifill.errors import RequestError
from omnifill.files import write_atomic

INK = "#010203"
"""Drawn in this, shown in the page's text colour: light, dark and in print alike."""
REAL, MADE = "#7a8699", "#d9622b"
BARS = 12
"""Values of a category that are drawn; the rest are one bar."""


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, label: str) -> str:
    """The figure as an <svg> element with a label for those who cannot see it."""
    import matplotlib

    out = io.StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": "omnifill"}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Letters stay letters, drawn by the browser in fonts that have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{_plain(label)}"', 1)


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() or c in " -_.,:" else " " for c in label)


def _dress(axes: Any, title: str = "") -> None:
    """Thin lines, small letters, no frame."""
    axes.set_title(_shown(title), fontsize=9, color=INK, loc="left")
    axes.tick_params(colors=INK, labelsize=7, width=0.5, length=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.5)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _shown(text: object, most: int = 24) -> str:
    """A label that is no formula and not too long."""
    shown = " ".join(str(text).split()).replace("$", r"\$")
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss over the steps."""
    figure, axes = _figure(6.4, 2.6)
    axes.plot([m["step"] for m in metrics], [m["loss"] for m in metrics], color=REAL, lw=1,
              label="training")  # fmt: skip
    valid = [m for m in metrics if m.get("valid") is not None]
    axes.plot([m["step"] for m in valid], [m["valid"] for m in valid], color=MADE, lw=1.5,
              marker="o", ms=2.5, label="validation")  # fmt: skip
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("nats a target", fontsize=8)
    late = [m["loss"] for m in metrics[len(metrics) // 20 :]] + [m["valid"] for m in valid]
    if late:  # the first steps would flatten all that follows
        low, high = min(late), max(late)
        axes.set_ylim(low - 0.05 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    _dress(axes)
    return _svg(figure, "training and validation loss over the steps")


def numbers(name: str, real: Any, made: Any, dates: bool = False) -> str:
    """Histogram of a number (or of microseconds), real and generated."""
    real, made = real[~np.isnan(real)], made[~np.isnan(made)]
    both = np.concatenate([real, made])
    low, high = np.quantile(both, [0.002, 0.998]) if len(both) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 31)
    figure, axes = _figure(3.1, 1.9)
    for values, colour, fill in ((real, REAL, True), (made, MADE, False)):
        share = np.histogram(np.clip(values, low, high), edges)[0] / max(len(values), 1)
        axes.stairs(share, edges, color=colour, fill=fill, alpha=0.5 if fill else 1, lw=1.2)
    axes.xaxis.set_major_locator(_few_ticks())
    if dates:
        axes.xaxis.set_major_formatter(lambda x, _: _day(x))
    _dress(axes, name)
    return _svg(figure, f"{name}: real and generated values")


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _day(microseconds: float) -> str:
    try:
        start = datetime.datetime(1970, 1, 1)
        return (start + datetime.timedelta(microseconds=microseconds)).strftime("%Y-%m-%d")
    except OverflowError:
        return ""


def categories(name: str, real: Mapping[str, float], made: Mapping[str, float]) -> str:
    """Shares of the commonest values, real and generated."""
    order = sorted(real, key=lambda v: -real[v])[:BARS]
    figure, axes = _figure(3.1, max(1.2, 0.35 + 0.19 * len(order)))
    places = np.arange(len(order))[::-1]
    for shares, colour, shift in ((real, REAL, 0.2), (made, MADE, -0.2)):
        axes.barh(places + shift, [shares.get(v, 0.0) for v in order], 0.38, color=colour)
    axes.set_yticks(places, [_shown(v, 16) for v in order])
    axes.xaxis.set_major_locator(_few_ticks())
    _dress(axes, name)
    return _svg(figure, f"{name}: shares of real and generated values")


def grid(
    names: Sequence[str], scores: Mapping[tuple[str, str], float], low: float, title: str
) -> str:
    """A figure for every pair of columns, from `low` (or the least) to 1."""
    cells = np.full((len(names), len(names)), np.nan)
    for (a, b), score in scores.items():
        i, j = names.index(a), names.index(b)
        cells[i, j] = cells[j, i] = score
    side = max(2.4, 0.9 + 0.26 * len(names))
    figure, axes = _figure(side + 1.0, side)
    image = axes.imshow(cells, vmin=min(low, float(np.nanmin(cells))), vmax=1, cmap="viridis")
    axes.set_xticks(range(len(names)), [_shown(n, 14) for n in names], rotation=90)
    axes.set_yticks(range(len(names)), [_shown(n, 14) for n in names])
    _bar(figure, axes, image)
    _dress(axes, title)
    return _svg(figure, f"{title}: pairs of columns")


def confusion(name: str, table: Mapping[str, Any]) -> str:
    """How often each value (rows) was answered by each (columns), as shares of the row; a row that
    was never asked for is empty."""
    cells = np.array(table["counts"], float)
    asked = cells.sum(axis=1, keepdims=True)
    cells = np.where(asked > 0, cells / np.maximum(asked, 1), np.nan)
    side = max(1.9, 1.0 + 0.2 * len(table["values"]))
    figure, axes = _figure(side + 0.9, side)
    image = axes.imshow(cells, vmin=0, vmax=1, cmap="viridis")
    for values, set_ticks, turn in (
        (table["answers"], axes.set_xticks, 90), (table["values"], axes.set_yticks, 0),
    ):  # fmt: skip
        set_ticks(range(len(values)), [_shown(v, 12) for v in values], rotation=turn)
    _bar(figure, axes, image)
    _dress(axes, name)
    return _svg(figure, f"{name}: true values (rows) and answers (columns)")


def _bar(figure: Any, axes: Any, image: Any) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(colors=INK, labelsize=7)
    bar.outline.set_visible(False)


def calibration(curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """How often an answer is right, against how sure the model was of it."""
    figure, axes = _figure(3.4, 3.0)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.6, ls=":")
    for name, points in curves.items():
        axes.plot([p[0] for p in points], [p[1] for p in points], lw=1, marker="o", ms=2.5,
                  label=_shown(name))  # fmt: skip
    axes.set_xlabel("probability of the answer", fontsize=8)
    axes.set_ylabel("share that is right", fontsize=8)
    axes.legend(fontsize=6, frameon=False, labelcolor=INK)
    _dress(axes)
    return _svg(figure, "calibration of the categories")


def check_drawing(option: str, path: Path, *endings: str) -> None:
    """RequestError if nothing can be drawn there: asked before any work is done."""
    check_ending(option, path, *endings)
    if util.find_spec("matplotlib") is None:
        raise RequestError(f"{option} draws with matplotlib: pip install 'omnifill[report]'")


def write_plot(svg: str, path: Path) -> None:
    """A picture as a file of its own, black on white."""
    drawn = svg.replace("<svg", '<svg style="background:#fff;color:#1c2430"', 1)
    write_atomic(path, drawn.encode())


def front_plot(aims: Sequence[str], kept: Any, scores: Any) -> str:
    """A line over the scores (n, aims) of every candidate; those of the `kept` stand out."""
    figure, axes = _figure(1.6 + 1.3 * len(aims), 3.2)
    places = range(len(aims))
    for row in scores:
        axes.plot(places, row, color=REAL, lw=0.6, alpha=0.5)
    for row in kept:
        axes.plot(places, row, color=MADE, lw=1.8, marker="o", ms=3.5)
    axes.set_xticks(places, [_shown(aim, 20) for aim in aims])
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("score", fontsize=8)
    _dress(axes, "unbeaten candidates")
    return _svg(figure, "scores of all candidates on every aim")
