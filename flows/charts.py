"""Charts of the report, drawn by matplotlib without a display, as SVG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

KEPT, REJECTED, LIMIT = "#2b5c8a", "#d98c5f", "#444444"
STYLE: Any = {
    "svg.hashsalt": "counterpoise",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def histogram(score: str, bins: Sequence[Mapping[str, Any]], limit: float | None) -> str:
    """Images by score, kept and rejected on top of each other, with the limit as a line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.2, 1.9)
        left = [row["low"] for row in bins]
        width = [row["high"] - row["low"] for row in bins] if len(bins) > 1 else [0.03 * max(1, abs(left[0]))]
        kept, rejected = ([row[name] for row in bins] for name in ("kept", "rejected"))
        axes.bar(left, kept, width, align="edge", color=KEPT, label="kept")
        axes.bar(left, rejected, width, kept, align="edge", color=REJECTED, label="rejected")
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linewidth=1, linestyle="--", label="limit")
        axes.set_xlabel(score)
        axes.set_ylabel("images")
        _legend(axes)
        return _uri(figure)


def distributions(with_p2p: Sequence[float], without: Sequence[float], label: str) -> str:
    """Two sets of values as histograms over the same bins, with their medians."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(6.4, 2.2)
        both = [*with_p2p, *without]
        low, high = min(both), max(both)
        edges = [low + (high - low or 1.0) * step / 24 for step in range(25)]
        for values, colour, name in (
            (with_p2p, KEPT, "prompt-to-prompt"),
            (without, REJECTED, "same seed only"),
        ):
            axes.hist(values, edges, color=colour, alpha=0.65, label=name)
            axes.axvline(_median(values), color=colour, linewidth=1.2, linestyle="--")
        axes.set_xlabel(label)
        axes.set_ylabel("edits")
        _legend(axes)
        return _uri(figure)


def _legend(axes: Axes) -> None:
    """The legend above the axes, where no bar is."""
    axes.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)


def _median(values: Sequence[float]) -> float:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
