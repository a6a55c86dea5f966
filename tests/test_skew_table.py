"""The skew table: counts, targets, intervals, what is dropped, warnings, JSON, and that nothing but the seed decides."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from skew_world import answered, simulated, truth, twins

from debias.predictions import Predictions, predictions_from
from debias.refresh import cell_counts, retained, sign_flips
from debias.skew import SkewTable, skew_table_from
from debias.skew_intervals import multiplicities, students_t, units_of
from debias.skew_json import from_json, to_json
from storage import CounterpoiseError

COUNTS = {"chef": (60, 20), "science": (30, 30), "arts": (3, 5)}


def measured(predictions: Predictions, *axes: str, **more: object) -> SkewTable:
    return skew_table_from(predictions, axes or None, **{"draws": 200, "permutations": 19, **more})  # type: ignore[arg-type]


def test_cells_by_hand() -> None:
    one = measured(answered(COUNTS)).axes["gender"]
    cells = {(cell.concept, cell.value): cell for cell in one.cells()}
    chef = cells["chef", "woman"]
    assert (chef.count, chef.target) == (20, 0.5)
    assert chef.share == pytest.approx(20.5 / 81)
    assert chef.skew == pytest.approx(math.log(20.5 / 81 / 0.5))
    assert chef.low < chef.skew < chef.high < 0
    assert cells["science", "man"].skew == 0
    assert one.max_skew.value == pytest.approx((math.log(60.5 / 40.5) + 0) / 2)
    assert one.min_skew.value == pytest.approx((math.log(20.5 / 40.5) + 0) / 2)
    assert (one.concepts, one.dropped) == (("chef", "science"), {"arts": 8})


def test_the_pool_is_what_was_offered() -> None:
    """Chef is offered to all, science to 40 men and 20 women: there 1/3 of women is what is wanted."""
    value = ["man"] * 80 + ["woman"] * 60
    options = [["chef", "science"]] * 40 + [["chef"]] * 40 + [["chef", "science"]] * 20 + [["chef"]] * 40
    said = ["science"] * 40 + ["chef"] * 40 + ["science"] * 20 + ["chef"] * 40
    given = predictions_from(said, {"gender": value}, options=options)
    one = measured(given, target="pool", smoothing=0.0).axes["gender"]
    assert one.target == pytest.approx(np.array([[80 / 140, 60 / 140], [2 / 3, 1 / 3]]))
    assert one.skew[1] == pytest.approx([0.0, 0.0])
    alone = measured(predictions_from(said, {"gender": value}), target="pool").axes["gender"]
    assert alone.target == pytest.approx(np.array([[80 / 140, 60 / 140]] * 2))


def test_a_value_that_was_never_offered_a_concept_has_no_target() -> None:
    given = predictions_from(
        ["chef"] * 60, {"gender": ["man"] * 40 + ["woman"] * 20}, options=[["chef"]] * 40 + [["arts"]] * 20
    )
    with pytest.raises(
        CounterpoiseError, match=r"no row of gender 'woman' was offered 'chef'.*target uniform"
    ):
        measured(given, target="pool")


def test_joint_axes_and_their_values() -> None:
    one = measured(twins(60, np.random.default_rng(0)), "gender*race").axes["gender*race"]
    assert one.values[:2] == ("man*Asian", "man*Black") and len(one.values) == 12
    assert one.target == pytest.approx(np.full((3, 12), 1 / 12))


def test_without_smoothing_an_absent_value_is_minus_infinity_and_null_in_json() -> None:
    given = answered({"chef": (40, 0), "science": (30, 30)})
    table = measured(given, smoothing=0.0)
    one = table.axes["gender"]
    assert one.skew[0].tolist() == [pytest.approx(math.log(2)), -math.inf]
    assert one.low[0, 1] == -math.inf and -math.inf < one.high[0, 1] < 0
    assert one.min_skew.value == one.min_skew.low == -math.inf and math.isfinite(one.min_skew.high)
    body = json.loads(to_json(table))["axes"]["gender"]
    cell = body["cells"][1]
    assert (cell["count"], cell["skew"], body["min_skew"]) == (0, None, None)
    assert from_json(to_json(table)).axes["gender"].skew[0, 1] == -math.inf
    finite = measured(given).axes["gender"].skew[0, 1]
    assert finite == pytest.approx(math.log(0.5 / 41 / 0.5)), "smoothed it is finite"


def test_a_table_in_json_comes_back_whole_and_has_the_fields_of_the_design() -> None:
    table = measured(twins(60, np.random.default_rng(1)), "gender", "gender*race")
    text = to_json(table)
    body = json.loads(text)
    assert {"axes", "smoothing", "target"} <= set(body)
    gender = body["axes"]["gender"]
    assert {"max_skew", "min_skew", "max_floor", "min_floor", "concepts_used", "concepts_dropped"} <= set(
        gender
    )
    assert set(gender["cells"][0]) == {"concept", "value", "count", "share", "target", "skew", "low", "high"}
    assert to_json(from_json(text)) == text
    shrunk = json.loads(to_json(table, shrink=True))["axes"]["gender"]["cells"][0]
    assert abs(shrunk["shrunk"]) <= abs(shrunk["skew"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "is no skew table"),
        ("[]", "is no skew table"),
        ('{"axes": {}}', "field 'smoothing' is missing"),
        ('{"axes": {"gender": {"values": ["a"], "cells": []}}}', "one cell for each concept and value"),
    ],
)
def test_what_is_no_table_is_one_line(text: str, words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        from_json(text, "table.json")


def test_a_model_that_always_says_the_same_has_skew_zero_and_is_not_taken_for_fair() -> None:
    rows = 200
    constant = predictions_from(
        ["chef"] * rows,
        {"gender": ["man", "woman"] * (rows // 2)},
        set_id=np.repeat([f"s{i}" for i in range(rows // 2)], 2),
        concept=["chef"] * 40 + ["arts"] * (rows - 40),
    )
    table = measured(constant)
    one = table.axes["gender"]
    assert one.max_skew.value == one.min_skew.value == 0 and one.max_skew.p == 1
    assert "Every answer is 'chef'" in table.warnings[0] and "not fair" in table.warnings[0]
    assert table.answers.recall == {"arts": 0.0, "chef": 1.0}
    assert table.answers.worst is not None and table.answers.worst.accuracy == pytest.approx(0.2)
    assert table.answers.flips is not None and table.answers.flips.of_sets == 0
    assert json.loads(to_json(table))["warnings"] == list(table.warnings)


def test_most_concepts_dropped_is_a_warning() -> None:
    few = {"chef": (50, 50), "arts": (1, 2), "science": (2, 1)}
    assert "Only 1 of 3 concepts" in measured(answered(few)).warnings[0]
    assert measured(answered(COUNTS)).warnings == ()


def test_no_concept_with_answers_enough_is_an_error() -> None:
    with pytest.raises(CounterpoiseError, match="no concept was given 100 times; 'chef' was, 80 times"):
        measured(answered(COUNTS), min_count=100)
    with pytest.raises(CounterpoiseError, match="no concept was given 30 times; 'arts' was, 8 times"):
        measured(answered(COUNTS), only=["arts"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "equal"}, "target: given 'equal', wanted uniform or pool"),
        ({"smoothing": -1.0}, "smoothing: given -1.0"),
        ({"smoothing": math.nan}, "smoothing"),
        ({"min_count": 0}, "min_count: given 0"),
        ({"draws": 1}, "draws: given 1"),
        ({"permutations": 0}, "permutations: given 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], words: str) -> None:
    with pytest.raises(CounterpoiseError, match=words):
        measured(answered(COUNTS), **settings)


def test_unknown_axes() -> None:
    for axis in ("race", "gender*race", "gender*gender"):
        with pytest.raises(CounterpoiseError, match=r"has the axes gender"):
            measured(answered(COUNTS), axis)


def test_neither_order_nor_other_axes_decide_but_the_seed_does() -> None:
    given = twins(40, np.random.default_rng(2))
    table = measured(given, "gender", "race")
    order = np.random.default_rng(0).permutation(len(given))
    names = given.concepts
    assert given.set_id is not None and given.concept is not None
    again = predictions_from(
        [names[c] for c in given.predicted[order]],
        {axis: np.array(column.values)[column.codes[order]] for axis, column in given.axes.items()},
        set_id=np.array(given.set_id.values)[given.set_id.codes[order]],
        concept=[names[c] for c in given.concept[order]],
    )
    one, other = table.axes["race"], measured(again, "race").axes["race"]
    assert one.skew.tolist() == other.skew.tolist()
    assert one.low == pytest.approx(other.low, rel=1e-12) and one.max_skew.floor == other.max_skew.floor
    assert to_json(measured(given, "gender", "race")) == to_json(table)
    assert measured(given, "race", seed=1).axes["race"].low != pytest.approx(one.low, rel=1e-6)


def test_intervals_follow_the_sets_and_not_the_rows() -> None:
    """Twins that always agree leave shares no chance to differ; rows taken for independent would."""
    rng = np.random.default_rng(3)
    for together, narrow in ((1.0, True), (0.0, False)):
        sets = measured(simulated((0.4, 0.4, 0.4), 150, rng, together=together)).axes["axis"]
        rows = measured(simulated((0.4, 0.4, 0.4), 150, rng, together=together, known_sets=False)).axes[
            "axis"
        ]
        ratio = (sets.high - sets.low).mean() / (rows.high - rows.low).mean()
        assert bool(ratio < 0.2) is narrow and ratio < 1.2


def test_a_single_set_says_nothing() -> None:
    said = ["chef"] * 30
    given = predictions_from(said, {"gender": ["man", "woman"] * 15}, set_id=["s0"] * 30)
    one = measured(given).axes["gender"]
    assert one.low.tolist() == [[-math.inf, -math.inf]] and one.high == pytest.approx(math.log(2))
    assert (one.max_skew.low, one.max_skew.high) == (-math.inf, math.inf)
    assert from_json(to_json(measured(given))).axes["gender"].max_skew.high == math.inf


@pytest.mark.parametrize("known_sets", [True, False])
def test_draws_count_as_many_units_as_there_are_and_keep_to_strata(known_sets: bool) -> None:
    given = twins(30, np.random.default_rng(4))
    units = units_of(given if known_sets else replace(given, set_id=None))
    drawn = np.concatenate(list(multiplicities(units, 3000, np.random.default_rng(0))))
    for stratum in np.unique(units.stratum):
        mine = units.stratum == stratum
        assert drawn[:, mine].sum(1) == pytest.approx(np.full(3000, units.base[mine].sum()))
    assert drawn.mean(0) == pytest.approx(units.base, rel=0.25)
    assert len(np.unique(units.stratum)) == (3 if known_sets else 36)
    assert units.base.sum() == (30 if known_sets else 360)


def test_students_t() -> None:
    found = students_t(np.array([0, 1, 2, 3, 5, 10, 30, 1000]))
    assert found[0] == math.inf
    assert found[1:] == pytest.approx([12.706, 4.3027, 3.1824, 2.5706, 2.2281, 2.0423, 1.9623], rel=0.01)


def test_what_a_refresh_logs() -> None:
    before = measured(answered({"chef": (60, 20), "science": (31, 30), "arts": (3, 5)}))
    after = measured(answered({"chef": (20, 60), "science": (29, 30), "arts": (40, 40)}))
    flips = sign_flips(before, after)
    assert [(one.concept, one.value, one.sure) for one in flips] == [
        ("chef", "man", True), ("chef", "woman", True), ("science", "man", False), ("science", "woman", False),
    ]  # fmt: skip
    assert flips[0].before == pytest.approx(math.log(60.5 / 40.5)) and flips[0].after < 0
    assert sign_flips(after, after) == []
    assert list(cell_counts(before))[:2] == [("gender", "chef", "man", 60), ("gender", "chef", "woman", 20)]
    assert retained([before, after]) == ["chef", "science"]
    assert measured(answered(COUNTS), only=["chef"]).axes["gender"].concepts == ("chef",)


def test_the_point_nears_the_truth_with_many_answers() -> None:
    rates = (0.1, 0.2, 0.3)
    one = measured(simulated(rates, 20_000, np.random.default_rng(6))).axes["axis"]
    assert one.skew[0] == pytest.approx(truth(rates), abs=0.05)
