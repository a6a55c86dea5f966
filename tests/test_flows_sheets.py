"""Contact sheets: the right picture in the right place, nothing flagged, never too large."""

from __future__ import annotations

import base64
import io
import random
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from storage_world import AXES, candidate, plan_rows

from flows.sheets import Row, draw_sheet, kept_rows, png_bytes, webp_uri
from storage import CounterpoiseError

RED, GREEN, BLUE = (200, 0, 0), (0, 160, 0), (0, 0, 200)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, colour)


def runs_of(sheet: Image.Image, colour: tuple[int, int, int], row: int) -> list[tuple[int, int]]:
    """First and last x of each run of a colour in one line of pixels."""
    line = [sheet.getpixel((x, row)) == colour for x in range(sheet.width)]
    edges = [x for x in range(len(line)) if line[x] != (line[x - 1] if x else False)]
    return list(zip(edges[::2], [x - 1 for x in edges[1::2]], strict=True))


def line_with(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return next(y for y in range(sheet.height) if runs_of(sheet, colour, y))


def test_pictures_stand_in_the_order_of_the_cells() -> None:
    axes = {"gender": ("woman", "man"), "race": ("White", "Black")}
    row = Row("chef", "chef_0000", (plain(RED), plain(GREEN), plain(BLUE), plain(RED)), frozenset({2}))
    sheet = draw_sheet(axes, [row], side=16)
    y = line_with(sheet, GREEN)
    red, green, blue = (runs_of(sheet, colour, y) for colour in (RED, GREEN, BLUE))
    assert red[0][1] < green[0][0] <= green[0][1] < blue[0][0] <= blue[0][1] < red[1][0]
    assert [last - first + 1 for first, last in (*red, *green, *blue)] == [16] * 4
    assert blue[0][0] - green[0][1] > green[0][0] - red[0][1], "another gender stands further apart"


def test_a_bar_marks_the_bases_alone() -> None:
    axes = {"race": ("White", "Black")}
    marked = draw_sheet(axes, [Row("chef", "chef_0000", (plain(RED), plain(GREEN)), frozenset({1}))], side=16)
    bare = draw_sheet(axes, [Row("chef", "chef_0000", (plain(RED), plain(GREEN)))], side=16)
    changed = [
        (x, y)
        for x in range(bare.width)
        for y in range(bare.height)
        if bare.getpixel((x, y)) != marked.getpixel((x, y))
    ]
    first, last = runs_of(bare, GREEN, line_with(bare, GREEN))[0]
    assert {x for x, _ in changed} == set(range(first, last + 1))


def test_labels_change_the_sheet() -> None:
    row = Row("chef", "chef_0000", (plain(RED), plain(RED)))
    first = draw_sheet({"race": ("White", "Black")}, [row])
    assert png_bytes(first) != png_bytes(draw_sheet({"race": ("White", "Asian")}, [row]))
    assert png_bytes(first) != png_bytes(
        draw_sheet({"race": ("White", "Black")}, [replace(row, concept="arts")])
    )
    assert png_bytes(first) == png_bytes(draw_sheet({"race": ("White", "Black")}, [row]))


def test_a_long_label_does_not_widen_the_sheet() -> None:
    row = Row("chef", "chef_0000", (plain(RED), plain(RED)))
    short = draw_sheet({"race": ("White", "Black")}, [row], side=24)
    long = draw_sheet({"race": ("White", "Extraordinarilylongword and more")}, [row], side=24)
    assert long.width == short.width
    assert long.height > short.height


def test_a_missing_picture_leaves_a_frame() -> None:
    sheet = draw_sheet({"race": ("White", "Black")}, [Row("chef", "chef_0000", (plain(RED), None))], side=16)
    assert len(runs_of(sheet, RED, line_with(sheet, RED) + 8)) == 1


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (8, 8)])
def test_pictures_keep_their_proportions(size: tuple[int, int]) -> None:
    sheet = draw_sheet(
        {"race": ("White", "Black")}, [Row("a", "a_0", (plain(RED, size), plain(BLUE, size)))], side=32
    )
    middle = [y for y in range(sheet.height) if runs_of(sheet, RED, y)]
    first, last = runs_of(sheet, RED, middle[len(middle) // 2])[0]
    width, height = last - first + 1, len(middle)
    assert max(width, height) == 32
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)


def test_only_kept_sets_become_rows() -> None:
    plan = plan_rows()
    samples = [*candidate(plan[0], 0, False), *candidate(plan[0], 1, True), *candidate(plan[1], 0, False)]
    rows = kept_rows(samples, cells=6)
    assert [row.set_id for row in rows] == [plan[0]["set_id"]]
    assert rows[0].bases == {1, 4}
    assert [image.size for image in rows[0].images if image] == [(64, 64)] * 6
    assert len(rows[0].images) == 6


@pytest.mark.parametrize(("limit", "shown"), [(None, 0), (0.7, 1), (0.2, 0)])
def test_a_flagged_picture_hides_its_set(limit: float | None, shown: int) -> None:
    samples: list[Any] = candidate(plan_rows()[0], 0, True)
    samples[3] = replace(samples[3], scores={**samples[3].scores, "nsfw": 0.6})
    assert len(kept_rows(samples, cells=6, nsfw_limit=limit)) == shown


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(1).randbytes(width * height * 3))


@pytest.mark.parametrize("limit", [200_000, 40_000, 5_000])
def test_a_data_uri_keeps_its_limit_whatever_the_picture(limit: int) -> None:
    uri = webp_uri(noise(900, 700), limit)
    assert len(uri) <= limit
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))
    assert (image.format, image.width / image.height) == ("WEBP", pytest.approx(9 / 7, rel=0.05))


def test_a_small_picture_keeps_its_size() -> None:
    uri = webp_uri(plain(RED, (50, 40)))
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == (50, 40)


def test_the_dataset_axes_of_the_record_fit_the_sheet() -> None:
    rows = kept_rows(candidate(plan_rows()[0], 0, True), cells=6)
    assert draw_sheet(AXES, rows).width > 6 * 64


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "size", "claim"])
def test_stored_pictures_are_checked_before_they_are_decoded(kind: str) -> None:
    (sample, *_) = candidate(plan_rows()[0], 0, True)
    buffer = io.BytesIO()
    plain(RED, (8, 8)).save(buffer, kind if kind in ("EPS", "TIFF") else "PNG")
    change = {"size": {"width": 9}, "claim": {"width": 2**15, "height": 2**15}}.get(kind, {})
    with pytest.raises(CounterpoiseError, match="sample 'chef_0000-00': image"):
        kept_rows([replace(sample, image=buffer.getvalue(), **change)], 6)
