"""Heatmaps of Skew, read back from their pixels: one scale symmetric around 0, dropped concepts blank, the same bytes."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skew_world import answered

from debias.skew import AxisSkew, skew_table_from
from flows.heatmap import (
    _DOTS,
    LIMIT,
    MOST_CELLS,
    MOST_CONCEPTS,
    heatmap,
    heatmap_uri,
    legend,
    shown_concepts,
)

ORANGE, PURPLE = np.array([127, 59, 8]), np.array([45, 0, 75])  # the ends of PuOr


def measured(counts: dict[str, tuple[int, int]], min_count: int = 30) -> AxisSkew:
    table = skew_table_from(answered(counts), permutations=19, draws=50, min_count=min_count)
    return table.axes["gender"]


def pixels(*panels: AxisSkew) -> np.ndarray:
    content = heatmap([(f"panel {number}", one) for number, one in enumerate(panels)], dots=72)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: np.ndarray, by: int = 12) -> np.ndarray:
    return np.abs(picture - colour).max(axis=2) <= by


def area(picture: np.ndarray, colour: np.ndarray) -> int:
    """Pixels of a colour outside of the colour bar, which is the last tenth."""
    return int(near(picture, colour)[:, : picture.shape[1] * 85 // 100].sum())


def test_the_scale_is_one_and_symmetric_around_0() -> None:
    strong = measured({"chef": (90, 10), "nurse": (10, 90), "cook": (50, 50)})
    weak = measured({"chef": (55, 45), "nurse": (45, 55), "cook": (50, 50)})
    alone, beside = pixels(weak), pixels(weak, strong)
    # -1.6 and +0.6: the scale goes to 1.6 on both sides, so only too seldom reaches its end
    assert area(pixels(strong), PURPLE) > 1000 and area(pixels(strong), ORANGE) < 100
    # the same weak table looks strong alone and pale beside the strong one
    assert area(alone, PURPLE) > 1000
    half = beside[:, : beside.shape[1] * 45 // 100]
    assert area(half, PURPLE) == 0 and area(half, ORANGE) == 0


def test_a_dropped_concept_is_blank() -> None:
    whole = pixels(measured({"chef": (90, 60), "nurse": (60, 90)}))
    dropped = pixels(measured({"chef": (90, 60), "nurse": (5, 6)}))
    assert whole.shape == dropped.shape
    rows = slice(whole.shape[0] * 55 // 100, whole.shape[0] * 75 // 100)  # inside of the lower row
    columns = slice(whole.shape[1] * 20 // 100, whole.shape[1] * 75 // 100)
    coloured = [float((np.ptp(one[rows, columns], axis=2) > 20).mean()) for one in (whole, dropped)]
    assert coloured[0] > 0.7 and coloured[1] < 0.01


def test_an_absent_value_has_the_colour_of_the_end_and_says_so() -> None:
    given = answered({"chef": (60, 0), "nurse": (30, 30)})
    one = skew_table_from(given, smoothing=0, permutations=19, draws=50).axes["gender"]
    assert np.isinf(one.skew).any()
    assert area(pixels(one), PURPLE) > 1000


def test_the_same_tables_give_the_same_bytes() -> None:
    panels = [("before", measured({"chef": (40, 20), "nurse": (20, 40)}))]
    assert heatmap(panels) == heatmap(panels)


def test_names_are_text_whatever_is_in_them() -> None:
    one = measured({"chef": (40, 20), "nurse": (20, 40)})
    strange = replace(one, concepts=("$chef_1^$", "<b>"), values=("$m$", "w\\n"))
    assert heatmap([("$before$", strange)])


def test_many_concepts_stay_below_the_limit_and_the_largest_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    concepts = tuple(f"concept_{number:03}" for number in range(90))
    one = measured({"chef": (40, 20)})
    names = tuple(f"a long value {number}" for number in range(12))
    table = rng.normal(size=(90, 12))
    columns = dict.fromkeys(("share", "target", "skew", "low", "high"), table)
    large = replace(one, concepts=concepts, values=names, count=np.full((90, 12), 31), **columns)
    panels = [("before", large), ("after", large)]
    shown = shown_concepts(panels)
    assert len(shown) == MOST_CELLS // 24 and shown == sorted(shown)
    assert concepts[int(np.abs(table).max(axis=1).argmax())] in shown
    assert list(legend(panels))[1] == f"The {len(shown)} concepts with the largest Skew of 90."
    assert len(shown_concepts([("alone", large)])) == MOST_CONCEPTS
    monkeypatch.setattr("flows.heatmap._DOTS", _DOTS[-1:])  # the last resort; the others take their time
    assert len(heatmap_uri(panels)) <= LIMIT
