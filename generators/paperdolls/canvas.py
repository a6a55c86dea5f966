"""A small drawing surface: coordinates in [0, 128], supersampled, with a mask of the person beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
SUPERSAMPLING = 3

Colour = tuple[int, int, int]
Point = tuple[float, float]


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` made darker (factor < 1) or lighter (factor > 1)."""
    r, g, b = (max(0, min(255, round(part * factor))) for part in colour)
    return r, g, b


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour that lies `share` of the way from `first` to `second`."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(first, second, strict=True))
    return r, g, b


class Canvas:
    """Draws flat shapes; while `person` is true they also count as the person in the mask."""

    def __init__(self, background: Colour) -> None:
        side = SIDE * SUPERSAMPLING
        self._image = Image.new("RGB", (side, side), background)
        self._mask = Image.new("L", (side, side), 0)
        self._pens = (ImageDraw.Draw(self._image), ImageDraw.Draw(self._mask))
        self.person = False

    def _box(self, cx: float, cy: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        k = SUPERSAMPLING
        return (cx - rx) * k, (cy - ry) * k, (cx + rx) * k, (cy + ry) * k

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]

    def _fills(self, fill: Colour) -> tuple[Colour, int]:
        return fill, 255 if self.person else 0

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse around (cx, cy)."""
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.ellipse(self._box(cx, cy, rx, ry), fill=ink)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0) -> None:
        """Fill a rectangle, with rounded corners if `radius` is positive."""
        k = SUPERSAMPLING
        box = (min(x0, x1) * k, min(y0, y1) * k, max(x0, x1) * k, max(y0, y1) * k)
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.rounded_rectangle(box, radius=radius * k, fill=ink)

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.polygon(self._scaled(points), fill=ink)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1) -> None:
        """Draw a line with round joints and round ends."""
        thick = max(1, round(width * SUPERSAMPLING))
        ends = [(x / SUPERSAMPLING, y / SUPERSAMPLING) for x, y in self._scaled(points)]
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.line(self._scaled(points), fill=ink, width=thick, joint="curve")
            if width >= 2:
                for x, y in (ends[0], ends[-1]):
                    pen.ellipse(self._box(x, y, width / 2, width / 2), fill=ink)

    def arc(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        fill: Colour,
        width: float = 1,
    ) -> None:
        """Draw part of an ellipse's outline; angles in degrees, clockwise from three o'clock."""
        thick = max(1, round(width * SUPERSAMPLING))
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.arc(self._box(cx, cy, rx, ry), start, end, fill=ink, width=thick)

    def chord(
        self, cx: float, cy: float, rx: float, ry: float, start: float, end: float, fill: Colour
    ) -> None:
        """Fill the part of an ellipse that a chord cuts off; angles as in `arc`."""
        for pen, ink in zip(self._pens, self._fills(fill), strict=True):
            pen.chord(self._box(cx, cy, rx, ry), start, end, fill=ink)

    def finish(self, tint: tuple[float, float, float]) -> tuple[Image.Image, Image.Image]:
        """Return the picture (128 x 128 RGB), multiplied by `tint`, and the person mask (L, 0 or 255)."""
        image = np.asarray(self._image.reduce(SUPERSAMPLING), dtype=np.float32) * np.asarray(tint, np.float32)
        mask = self._mask.reduce(SUPERSAMPLING).point(lambda level: 255 if level >= 128 else 0)
        return Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)), mask
