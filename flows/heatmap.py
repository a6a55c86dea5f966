"""Skew by concept and value as a picture: one panel a table, all on one colour scale that is symmetric around 0."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from debias.skew_table import AxisSkew, Cell

from .charts import STYLE

Panel = tuple[str, AxisSkew]
MOST_CONCEPTS, MOST_CELLS = 40, 600
LIMIT = 190_000
_DOTS = (144, 110, 84)
#: Purple below 0, white at 0, orange above: told apart by all kinds of colour vision.
_COLOURS = matplotlib.colormaps["PuOr_r"].resampled(51)
_LEAST_SCALE = 0.1
_BLANK, _HATCH, _INK, _SOFT = "#ffffff", "#d7d7d7", "#202124", "#666666"
_CELL_WIDTH, _CELL_HEIGHT, _ROOM, _BESIDE = 0.62, 0.42, 2.0, 3


def heatmap_uri(panels: Sequence[Panel]) -> str:
    """The picture as a WebP data URI of at most `LIMIT` characters, as sharp as that allows.

    Args:
        panels: heading and table of each panel, such as before and after; the tables are of the same values.
    """
    for dots in _DOTS:
        uri = "data:image/webp;base64," + base64.b64encode(heatmap(panels, dots)).decode("ascii")
        if len(uri) <= LIMIT:
            break
    return uri


def heatmap(panels: Sequence[Panel], dots: int = _DOTS[0]) -> bytes:
    """The picture as WebP without loss.

    A cell has its Skew (bold where the 95 % interval leaves out 0) and how many answers that is from; a concept that a
    table dropped is blank and hatched.

    Args:
        panels: as `heatmap_uri` takes them.
        dots: per inch.
    """
    concepts, values = shown_concepts(panels), panels[0][1].values
    colours = ScalarMappable(Normalize(-_scale(panels), _scale(panels)), _COLOURS)
    with matplotlib.rc_context({**STYLE, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = _figure(len(panels), len(values), len(concepts))
        rows, columns = _arranged(len(panels), len(values))
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for place, (heading, one) in zip(grid, panels, strict=True):
            _label(place, heading, values, concepts)
            for row, concept in enumerate(concepts):
                _row(place, row, concept, one, colours)
        bar = figure.colorbar(colours, ax=list(grid), fraction=0.05, pad=0.015, aspect=30)
        bar.set_label("Skew")
        bar.outline.set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots, facecolor=_BLANK)
    return _small(buffer)


def _small(png: io.BytesIO) -> bytes:
    """The picture in 255 colours, a fraction of the bytes."""
    found = io.BytesIO()
    few = Image.open(png).convert("RGB").quantize(255, dither=Image.Dither.NONE).convert("RGB")
    few.save(found, "WEBP", lossless=True, quality=100, method=4)
    return found.getvalue()


def shown_concepts(panels: Sequence[Panel]) -> list[str]:
    """Concepts of any panel by name, dropped ones too; where they are too many, those that have the largest Skew."""
    size: dict[str, float] = {}
    for _, one in panels:
        for cell in one.cells():
            size[cell.concept] = max(size.get(cell.concept, 0.0), abs(cell.skew))
        for concept in one.dropped:
            size.setdefault(concept, -1.0)
    ranked = sorted(size, key=lambda concept: (-size[concept], concept))
    most = max(1, MOST_CELLS // (len(panels) * len(panels[0][1].values)))
    return sorted(ranked[: min(MOST_CONCEPTS, most)])


def _scale(panels: Sequence[Panel]) -> float:
    """The largest finite magnitude of a Skew in any panel."""
    found = np.abs(np.concatenate([one.skew.ravel() for _, one in panels]))
    return max(_LEAST_SCALE, float(found[np.isfinite(found)].max(initial=0.0)))


def _arranged(panels: int, values: int) -> tuple[int, int]:
    """Rows and columns of panels: beside each other where both can be read at the width of a page."""
    return (1, panels) if values <= _BESIDE else (panels, 1)


def _figure(panels: int, values: int, concepts: int) -> Figure:
    rows, columns = _arranged(panels, values)
    width = columns * (values * _CELL_WIDTH + 0.3) + _ROOM
    return Figure(
        figsize=(max(width, 5.0), rows * (concepts * _CELL_HEIGHT + 0.4) + 0.9), layout="constrained"
    )


def _label(place: Axes, heading: str, values: Sequence[str], concepts: Sequence[str]) -> None:
    place.set_title(heading, fontsize=9, loc="left", parse_math=False)
    place.set_xlim(0, len(values))
    place.set_ylim(len(concepts), 0)
    middle = [number + 0.5 for number in range(len(values))]
    place.set_xticks(middle, values, parse_math=False)
    if max(map(len, values)) > 8:
        for text in place.get_xticklabels():
            text.set(rotation=40, ha="right", rotation_mode="anchor")
    rows = [number + 0.5 for number in range(len(concepts))]
    place.set_yticks(rows, [concept.replace("_", " ") for concept in concepts], parse_math=False)
    place.tick_params(length=0)


def _row(place: Axes, row: int, concept: str, one: AxisSkew, colours: ScalarMappable) -> None:
    cells = [cell for cell in one.cells() if cell.concept == concept]
    if cells:
        for column, cell in enumerate(cells):
            _cell(place, row, column, cell, colours)
        return
    place.add_patch(
        Rectangle((0, row), len(one.values), 1, facecolor=_BLANK, edgecolor=_HATCH, hatch="////", linewidth=0)
    )
    given = one.dropped.get(concept, 0)
    box = {"facecolor": _BLANK, "edgecolor": "none", "pad": 1.5}
    text = f"dropped: {given} answer{'' if given == 1 else 's'}"
    place.text(len(one.values) / 2, row + 0.5, text, color=_SOFT, ha="center", va="center", bbox=box)


def _cell(place: Axes, row: int, column: int, cell: Cell, colours: ScalarMappable) -> None:
    colour: tuple[float, ...] = tuple(map(float, colours.to_rgba(np.array([cell.skew]))[0]))
    place.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=_BLANK, linewidth=1))
    sure = cell.low > 0 or cell.high < 0
    for text, height, size, weight in (
        (_number(cell.skew), 0.36, 8.5, "bold" if sure else "normal"),
        (f"n {cell.count}", 0.75, 6.5, "normal"),
    ):
        place.text(
            column + 0.5, row + height, text, color=_ink(colour), ha="center", va="center", fontsize=size,
            fontweight=weight,
        )  # fmt: skip


def _number(value: float) -> str:
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞"  # noqa: RUF001
    return f"{value:+z.2f}".replace("-", "−")  # noqa: RUF001


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever is read better on it (relative luminance, WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _INK if light > 0.18 else _BLANK


def legend(panels: Sequence[Panel]) -> Iterator[str]:
    """What has to be said beside the picture."""
    yield (
        "Skew above 0 (orange): given too often to such pictures; below 0 (purple): too seldom. Bold: the 95 % interval "
        "leaves out 0. n: answers. Hatched: dropped, the concept was given too seldom to be measured."
    )
    known = {name for _, one in panels for name in (*one.concepts, *one.dropped)}
    shown = len(shown_concepts(panels))
    if len(known) > shown:
        yield f"The {shown} concepts with the largest Skew of {len(known)}."
