"""The floor of a fair model and the permutation test: what fair models score, and what biased ones do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skew_world import GENDERS, RACES, simulated, twins

from debias.predictions import axis_column, predictions_from
from debias.skew import AxisSkew, skew_table_from
from debias.skew_null import excess, exchangeable, floors, p_value, permuted, reduction
from storage import CounterpoiseError


def uniform(concepts: int, values: int) -> np.ndarray:
    return np.full((concepts, values), 1 / values)


def test_the_floor_of_six_values_and_thirty_answers() -> None:
    most, least = floors([30], uniform(1, 6), 0.5, 20_000, np.random.default_rng(0))
    assert most.mean == pytest.approx(0.42, abs=0.01)
    assert least.mean == pytest.approx(-0.72, abs=0.01)
    assert most.low < most.mean < most.high and least.low < least.mean < least.high < 0


def test_floors_fall_with_answers_and_their_range_with_concepts() -> None:
    rng = np.random.default_rng(0)
    few, many = (floors([n], uniform(1, 6), 0.5, 4000, rng)[0] for n in (300, 30_000))
    assert many.mean == pytest.approx(few.mean / 10, rel=0.1)
    wide = floors([300] * 18, uniform(18, 6), 0.5, 4000, rng)[0]
    assert wide.mean == pytest.approx(few.mean, abs=0.02)
    assert wide.high - wide.low == pytest.approx((few.high - few.low) / math.sqrt(18), rel=0.2)


def test_a_floor_may_be_infinite_without_smoothing() -> None:
    least = floors([6], uniform(1, 6), 0.0, 1000, np.random.default_rng(0))[1]
    assert least.mean == least.low == -math.inf


def test_a_floor_follows_the_target() -> None:
    target = np.array([[0.9, 0.1]])
    most, _ = floors([10_000], target, 0.5, 500, np.random.default_rng(0))
    assert 0 < most.mean < 0.03


def test_reduction_is_of_the_excess_over_the_floor() -> None:
    assert excess(-1.0, -0.7) == pytest.approx(0.3) and excess(0.3, 0.42) == 0
    assert reduction(1.0, 0.5, 0.2, 0.3) == pytest.approx(0.75)
    assert reduction(-1.0, -0.7, -0.7, -0.72) == 1.0
    with pytest.raises(CounterpoiseError, match="a finite excess over the floor is wanted"):
        reduction(0.4, 0.1, 0.42, 0.42)


def test_p_values_count_the_measured_one_and_ties() -> None:
    null = np.array([0.1, 0.2, 0.3])
    assert [p_value(value, null) for value in (0.05, 0.2, 0.4)] == [1.0, 0.75, 0.25]
    assert p_value(-0.2, -null) == 0.75
    assert p_value(-math.inf, -null) == 0.25


def measured(seed: int, **less: float) -> AxisSkew:
    rates = [0.25] * 6
    for place, off in less.items():
        rates[int(place[1:])] -= off
    given = simulated(rates, 120, np.random.default_rng(seed))
    table = skew_table_from(given, draws=2, permutations=199, only=["chef"], seed=seed)
    return table.axes["axis"]


def test_fair_models_pass_and_lie_within_the_floor() -> None:
    found = [measured(seed) for seed in range(100)]
    extremes = [(one.max_skew, one.min_skew) for one in found]
    for column in zip(*extremes, strict=True):
        passed = np.mean([one.p > 0.05 for one in column])
        within = np.mean([one.floor.low <= one.value <= one.floor.high for one in column])
        assert 0.90 <= passed <= 0.99, "95 %, by 100 models"
        assert within >= 0.92


def test_biased_models_do_not_pass() -> None:
    found = [measured(seed, v2=0.18) for seed in range(10)]
    assert all(one.min_skew.p < 0.05 for one in found)
    assert all(one.min_skew.value < one.min_skew.floor.low for one in found)


def test_twins_that_agree_are_judged_by_their_own_kind() -> None:
    """Of 50 sets 42 are chefs whatever the value and 8 are unless it is v0: rare by chance, not for independent rows."""
    values = [f"v{a}" for a in range(6)]
    rows = [
        ("other" if number >= 50 or (number < 8 and value == "v0") else "chef", value, f"s{number}")
        for number in range(100)
        for value in values
    ]
    said, value, set_id = zip(*rows, strict=True)
    given = predictions_from(said, {"axis": value}, set_id=set_id)
    one = skew_table_from(given, draws=2, only=["chef"]).axes["axis"].min_skew
    assert one.p < 0.01
    assert one.floor.low < one.value < one.null < 0, (
        "within the floor, and far from what its twins give by chance"
    )


def test_values_change_places_among_twins_alone() -> None:
    given = twins(8, np.random.default_rng(0))
    assert given.set_id is not None
    for axis, other, size in (("gender", "race", 2), ("race", "gender", 6)):
        codes = given.axes[axis].codes
        blocks = exchangeable(given, axis, codes)
        assert [rows.shape for rows in blocks] == [(len(given) // size, size)]
        for rows in blocks:
            for column in (given.set_id.codes, given.axes[other].codes):
                assert (column[rows] == column[rows][:, :1]).all()
        (moved,) = permuted(codes, blocks, 1, np.random.default_rng(1))
        assert (moved != codes).any() and (np.bincount(moved) == np.bincount(codes)).all()
        groups = np.stack([given.set_id.codes, given.axes[other].codes, moved])
        assert len(np.unique(groups, axis=1)[0]) == len(given), "every set still has every cell"


def test_values_of_a_joint_axis_change_places_in_the_set() -> None:
    given = twins(8, np.random.default_rng(0))
    (rows,) = exchangeable(given, "gender*race", axis_column(given, "gender*race").codes)
    assert rows.shape == (8, 12)


def test_without_twins_values_change_places_among_rows_of_a_concept() -> None:
    value, true = list(GENDERS) * 4, ["arts"] * 4 + ["chef"] * 4
    rows = {"gender": value, "race": [RACES[i % 3] for i in range(8)]}
    single = predictions_from(true, rows, set_id=[f"s{i}" for i in range(8)], concept=true)
    for given in (single, predictions_from(true, rows, concept=true)):
        (blocks,) = exchangeable(given, "gender", given.axes["gender"].codes)
        assert sorted(map(sorted, blocks.tolist())) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    unknown = predictions_from(true, rows)
    assert exchangeable(unknown, "gender", unknown.axes["gender"].codes)[0].shape == (1, 8)


def test_pairs_that_differ_in_two_axes_at_once_still_change_places() -> None:
    value = ["man", "woman"] * 5
    given = predictions_from(
        ["chef"] * 10,
        {"gender": value, "age": ["old" if one == "man" else "young" for one in value]},
        set_id=np.repeat([f"s{i}" for i in range(5)], 2),
    )
    assert exchangeable(given, "gender", given.axes["gender"].codes)[0].shape == (5, 2)


def test_a_pool_is_permuted_with_the_values() -> None:
    """Science is offered to women more often; a model that takes what it is offered is fair."""
    rng, passed = np.random.default_rng(2), []
    for _ in range(40):
        value = np.array(["man", "woman"] * 150)
        both = rng.random(300) < np.where(value == "woman", 0.9, 0.4)
        said = np.where(both & (rng.random(300) < 0.5), "science", "chef")
        options = [["chef", "science"] if one else ["chef"] for one in both]
        given = predictions_from(said, {"gender": value}, options=options)
        one = skew_table_from(given, target="pool", draws=2, permutations=99, only=["science"])
        passed.append(one.axes["gender"].max_skew.p > 0.05)
    assert np.mean(passed) >= 0.85
