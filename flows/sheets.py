"""Contact sheets: one row per kept set, one column per cell, with the labels that the prompts asked for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise

from PIL import Image, ImageDraw, ImageFont

from storage import Sample
from storage.checks import cell_values
from storage.images import decoded, synthetic_png, synthetic_xmp
from storage.reading import decode

URI_LIMIT = 200_000
_PAPER, _INK, _SOFT, _MARK = (255, 255, 255), (32, 33, 36), (110, 113, 120), (43, 92, 138)
_GAP, _MARGIN = 3, 10
_QUALITIES = (85, 75, 65, 50, 35)
_SCALES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)

Axes = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One kept set: its pictures by member, None where there is none; `bases` were sampled, not edited."""

    concept: str
    set_id: str
    images: tuple[Image.Image | None, ...]
    bases: frozenset[int] = frozenset()


def kept_rows(
    samples: Iterable[Sample], cells: int, nsfw_limit: float | None = None, side: int = 64
) -> list[Row]:
    """The kept sets of samples as rows, in their order; a set with a flagged image is never shown.

    Args:
        samples: as `storage.read_samples` gives them, members of a candidate together.
        cells: number of members of a whole set.
        nsfw_limit: the score above which an image counts as flagged; 0.5 if None.
        side: pixels to which the pictures are reduced, so that many sets fit the memory.
    """
    limit = 0.5 if nsfw_limit is None else nsfw_limit
    rows: list[Row] = []
    for _, group in groupby(
        (one for one in samples if one.kept), key=lambda one: (one.set_id, one.candidate)
    ):
        members = list(group)
        if any(_flagged(one, limit) for one in members):
            continue
        images: list[Image.Image | None] = [None] * cells
        for one in members:
            images[one.member] = _decoded(one, side)
        bases = frozenset(one.base for one in members)
        rows.append(Row(members[0].concept, members[0].set_id, tuple(images), bases))
    return rows


def _flagged(sample: Sample, limit: float) -> bool:
    score = sample.scores.get("nsfw")
    return isinstance(score, int | float) and score > limit


def _decoded(sample: Sample, side: int) -> Image.Image | None:
    """The picture of a kept sample, if it is what its record says."""
    if sample.image is None:
        return None
    decode(sample)
    return thumbnail(decoded(sample.image, sample.key), side)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the cells of a sheet are, in pixels."""

    side: int
    left: int
    top: int
    columns: tuple[int, ...]

    @property
    def right(self) -> int:
        return self.columns[-1] + self.side


def draw_sheet(axes: Axes, rows: Sequence[Row], side: int = 64) -> Image.Image:
    """A sheet with a header of one line per axis; a bar under a picture marks a base.

    Args:
        axes: values of every axis, in the order that numbers the cells.
        rows: the sets to show.
        side: width and height of a picture in pixels.
    """
    header = [_wrapped(values, side) for values in _spans(axes)]
    left = _MARGIN + max([_width(text) for row in rows for text in (row.concept, row.set_id)] or [0]) + 10
    top = _MARGIN + sum(_line() * max(len(lines) for lines, _ in level) + 4 for level in header)
    layout = _Layout(side, left, top, tuple(_columns(axes, side, left)))
    height = top + max(1, len(rows)) * (side + 2 * _GAP) + _MARGIN
    sheet = Image.new("RGB", (layout.right + _MARGIN, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_header(pen, header, layout)
    for place, row in enumerate(rows):
        _draw_row(sheet, pen, row, layout, top + place * (side + 2 * _GAP))
    return sheet


def _draw_header(
    pen: ImageDraw.ImageDraw, header: list[list[tuple[list[str], int]]], layout: _Layout
) -> None:
    y = _MARGIN
    for level in header:
        start = 0
        for lines, span in level:
            first, last = layout.columns[start], layout.columns[start + span - 1] + layout.side
            if span > 1:
                pen.line(
                    (first, y + _line() * len(lines) + 1, last, y + _line() * len(lines) + 1), fill=_SOFT
                )
            for number, text in enumerate(lines):
                pen.text(((first + last) / 2, y + number * _line()), text, _INK, _font(), anchor="ma")
            start += span
        y += _line() * max(len(lines) for lines, _ in level) + 4


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: Row, layout: _Layout, y: int) -> None:
    middle = y + layout.side // 2
    pen.text((_MARGIN, middle - 1), row.concept, _INK, _font(), anchor="ls")
    pen.text((_MARGIN, middle + 3), row.set_id, _SOFT, _font(), anchor="la")
    for index, (x, image) in enumerate(zip(layout.columns, row.images, strict=True)):
        if image is None:
            pen.rectangle((x, y, x + layout.side - 1, y + layout.side - 1), outline=_SOFT)
            continue
        sheet.paste(thumbnail(image, layout.side), (x, y))
        if index in row.bases:
            pen.rectangle((x, y + layout.side + 1, x + layout.side - 1, y + layout.side + 2), fill=_MARK)


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """A picture inside a white square of `side` pixels."""
    small = image.copy()
    if small.size != (side, side):
        factor = side / max(small.size)
        size = (max(1, round(small.width * factor)), max(1, round(small.height * factor)))
        small = small.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), _PAPER)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def _columns(axes: Axes, side: int, left: int) -> list[int]:
    """Left edges; cells that differ in an outer axis stand further apart."""
    values = [tuple(cell.values()) for cell in cell_values(axes)]
    edges, x = [left], left
    for before, after in pairwise(values):
        outer = next(
            place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]
        )
        x += side + _GAP * (len(axes) - outer)
        edges.append(x)
    return edges


def _spans(axes: Axes) -> list[list[tuple[str, int]]]:
    """For each axis the values of its columns, equal neighbours (under the same outer values) as one span."""
    values = [tuple(cell.values()) for cell in cell_values(axes)]
    levels = []
    for depth in range(len(axes)):
        groups = groupby(values, key=lambda cell, depth=depth: cell[: depth + 1])  # type: ignore[misc]
        levels.append([(key[depth], len(list(group))) for key, group in groups])
    return levels


def _wrapped(level: list[tuple[str, int]], side: int) -> list[tuple[list[str], int]]:
    return [(_lines(value, (side + _GAP) * span), span) for value, span in level]


def _lines(text: str, width: int) -> list[str]:
    """Words on as many lines as it takes; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        while _width(word) > width and len(word) > 2:
            word = word.removesuffix("…")[:-1] + "…"
        if lines and _width(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines or [""]


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(12)


def _width(text: str) -> int:
    return int(_font().getlength(text)) + 1


def _line() -> int:
    return 15


def png_bytes(image: Image.Image) -> bytes:
    """A sheet as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, pnginfo=synthetic_png())
    return buffer.getvalue()


def webp_uri(image: Image.Image, limit: int = URI_LIMIT) -> str:
    """A picture as a WebP data URI of at most `limit` characters: first quality gives way, then size."""
    for scale in _SCALES:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image if scale == 1.0 else image.resize(size, Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            uri = _uri(small, quality)
            if len(uri) <= limit:
                return uri
    return _uri(image.resize((32, 32)), 20)


def _uri(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4, xmp=synthetic_xmp())
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
