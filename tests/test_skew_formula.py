"""The formulas of Skew against sums made by hand, and with resampling against the published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debias.instance import weight
from debias.sampling import copies_of, keep_probability, multiplicity
from debias.skew_formula import extremes, share, shrunk, skew
from storage import CounterpoiseError


@pytest.mark.parametrize(
    ("part", "expected", "factor", "copies"),
    [(0.1, -1.6094, 5.0, 2.6094), (0.9, 0.5878, 0.5556, 0.6298)],
)
def test_published_values(part: float, expected: float, factor: float, copies: float) -> None:
    found = skew(np.array([part]), np.array([0.5]))
    assert found == pytest.approx([expected], abs=5e-5)
    assert weight(found, None) == pytest.approx([factor], abs=5e-5)
    assert multiplicity(found) == pytest.approx([copies], abs=5e-5)


def test_keeping_is_the_multiplicity_above_zero() -> None:
    assert keep_probability(math.log(0.9 / 0.5)) == pytest.approx(0.6298, abs=5e-5)


@pytest.mark.parametrize(("value", "copies"), [(-2.88, 3.88), (-1.0, 2.0), (-0.3, 1.3), (0.0, 1.0)])
def test_simulated_multiplicities(value: float, copies: float) -> None:
    keys = [f"chef_{i:05d}-00" for i in range(20_000)]
    assert copies_of([value] * len(keys), keys, seed=0, epoch=0).mean() == pytest.approx(copies, abs=0.015)


def test_shares_are_smoothed_as_said() -> None:
    assert share(np.array([3, 7]), 0.5) == pytest.approx([3.5 / 11, 7.5 / 11])
    assert share(np.array([[0, 30, 0], [1, 1, 2]]), 0.0) == pytest.approx(
        np.array([[0, 1, 0], [0.25, 0.25, 0.5]])
    )


def test_an_absent_value_is_minus_infinity_without_smoothing_and_never_zero() -> None:
    third = np.full(3, 1 / 3)
    assert skew(share(np.array([0, 10, 20]), 0.0), third)[0] == -math.inf
    assert skew(share(np.array([0, 10, 20]), 0.5), third)[0] == pytest.approx(math.log(0.5 / 31.5 * 3))


def test_extremes_are_means_over_concepts_of_the_largest_and_smallest() -> None:
    most, least = extremes(np.array([[0.1, -0.3, 0.0], [-1.0, 0.5, 0.2]]))
    assert (float(most), float(least)) == pytest.approx(((0.1 + 0.5) / 2, (-0.3 - 1.0) / 2))


@given(counts=st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(any), smoothing=st.floats(0.1, 5))
def test_one_value_is_never_above_its_target_unless_another_is_below(
    counts: list[int], smoothing: float
) -> None:
    shares = share(np.array(counts), smoothing)
    assert shares.sum() == pytest.approx(1)
    found = skew(shares, np.full(len(counts), 1 / len(counts)))
    assert found.max() >= -1e-12 and found.min() <= 1e-12
    assert found.max() <= math.log(len(counts)) + 1e-12


def test_shrinking_by_hand() -> None:
    value, error = np.array([[1.0, -0.5], [0.2, 0.0]]), np.array([[0.1, 0.1], [0.2, 0.2]])
    weights = error**-4
    spread = ((value**2 - error**2) * weights).sum() / weights.sum()
    found = shrunk(value, value - 1.96 * error, value + 1.96 * error)
    assert found == pytest.approx(value * spread / (spread + error**2))
    assert 0.98 < found[0, 0] < 1 and found[1, 0] / value[1, 0] < found[0, 0]


def test_where_all_is_noise_nothing_is_left() -> None:
    value = np.array([0.1, -0.1, 0.05, -0.12])
    assert shrunk(value, value - 0.4, value + 0.4).tolist() == [0.0] * 4


def test_what_is_infinite_stays_and_what_is_unknown_becomes_zero() -> None:
    value, low = np.array([-math.inf, 0.4, 1.0]), np.array([-math.inf, -math.inf, 0.9])
    found = shrunk(value, low, np.array([-1.0, 0.7, 1.1]))
    assert found[:2].tolist() == [-math.inf, 0.0] and 0.9 < found[2] < 1
    assert shrunk(value[:2], low[:2], np.array([-1.0, 0.7])).tolist() == [-math.inf, 0.0]


def test_weights_are_clamped_on_both_sides() -> None:
    assert weight(np.array([-2.88, 0.5, 3.0]), 2.0) == pytest.approx(
        [math.exp(2), math.exp(-0.5), math.exp(-2)]
    )
    assert weight(np.array([-2.88]), None) == pytest.approx([17.81], abs=0.01)
    for clamp in (0.0, -1.0, math.nan):
        with pytest.raises(CounterpoiseError, match="clamp"):
            weight(np.array([1.0]), clamp)
