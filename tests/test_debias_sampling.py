"""Bias-aware resampling: the published values, the draws, and that nothing but seed, epoch and key decides."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debias.sampling import copies, copies_of, fraction, keep_probability, multiplicity, uniform
from storage import CounterpoiseError

KEYS = [f"chef_{i // 24:04d}-{i % 24:02d}" for i in range(20_000)]
SKEWS = st.floats(-5, 5)
TAUS = st.floats(0.05, 20)


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        (-2.88, 3.88),
        (-1.0, 2.0),
        (-0.3, 1.3),
        (0.0, 1.0),
        (-0.0, 1.0),
        (1.0, 0.5),
        (0.4, 1 / 1.4),
        (1.48, 1 / 2.48),
    ],
)
def test_expected_copies(skew: float, expected: float) -> None:
    assert multiplicity(skew) == pytest.approx(expected, abs=1e-12)


def test_keep_probability() -> None:
    assert keep_probability(0.5878) == pytest.approx(0.6298, abs=5e-5)
    assert keep_probability([-3.0, 0.0, 1.0, 3.0]) == pytest.approx([1, 1, 0.5, 0.25])
    assert keep_probability(2.0, tau1=4.0) == pytest.approx(4 / 6)


def test_taus() -> None:
    assert multiplicity([-1.0, 1.0], tau1=3.0, tau2=0.5) == pytest.approx([3.0, 0.75])
    assert multiplicity(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("skew", [-2.88, -1.0, -0.3, 0.0, 0.5878, 2.0])
def test_the_mean_of_the_draws_is_the_expectation(skew: float) -> None:
    drawn = copies_of([skew] * len(KEYS), KEYS, seed=3, epoch=1)
    low = math.floor(multiplicity(skew))
    assert set(drawn.tolist()) <= {low, low + 1} and drawn.dtype == np.int32
    error = 4 * 0.5 / math.sqrt(len(KEYS))
    assert drawn.mean() == pytest.approx(float(multiplicity(skew)), abs=error)


@pytest.mark.parametrize(("skew", "count"), [(-2.0, 3), (-1.0, 2), (0.0, 1)])
def test_whole_expectations_leave_nothing_to_chance(skew: float, count: int) -> None:
    assert {copies(skew, key, seed, 0) for key in KEYS[:50] for seed in range(4)} == {count}


@given(skew=SKEWS, seed=st.integers(-(2**40), 2**40), epoch=st.integers(0, 100), tau1=TAUS, tau2=TAUS)
def test_one_and_many_agree_and_stay_next_to_the_expectation(
    skew: float, seed: int, epoch: int, tau1: float, tau2: float
) -> None:
    skews = [skew, -skew, 0.0]
    many = copies_of(skews, KEYS[:3], seed, epoch, tau1, tau2)
    assert many.tolist() == [
        copies(one, key, seed, epoch, tau1, tau2) for one, key in zip(skews, KEYS, strict=False)
    ]
    assert (np.abs(many - multiplicity(skews, tau1, tau2)) < 1).all() and many.min() >= 0
    if skew < 0:
        assert copies(skew, "a", seed, epoch, tau1, tau2) >= 1, "what is under-represented is never dropped"
    elif skew > 0:
        assert copies(skew, "a", seed, epoch, tau1, tau2) <= 1


@given(skews=st.lists(SKEWS, min_size=2, max_size=2).map(sorted))
def test_more_skew_never_gives_more_copies(skews: list[float]) -> None:
    assert copies(skews[1], "a", 0, 0) <= copies(skews[0], "a", 0, 0)


def test_order_does_not_matter_and_epochs_and_seeds_do() -> None:
    skews = np.linspace(-2, 2, len(KEYS))
    drawn = copies_of(skews, KEYS, 0, 0)
    assert (copies_of(skews[::-1], KEYS[::-1], 0, 0)[::-1] == drawn).all()
    for seed, epoch in ((1, 0), (0, 1)):
        other = copies_of(skews, KEYS, seed, epoch)
        assert 0.1 < (other != drawn).mean() < 0.5


def test_draws_are_uniform_and_independent_between_epochs() -> None:
    first, second = uniform(KEYS, 0, 0), uniform(KEYS, 0, 1)
    assert first.min() >= 0 and first.max() < 1
    assert np.histogram(first, 10, (0, 1))[0] == pytest.approx([2000] * 10, abs=180)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_draws_of_this_version_are_those_of_the_next() -> None:
    assert uniform(["chef_0000-00", "é"], 7, 2).tolist() == [0.6449724350129181, 0.6602274749955207]


def test_another_process_draws_the_same() -> None:
    code = (
        "import json, sys; from debias.sampling import copies\n"
        "print(json.dumps([copies(-0.5, f'k{i}', 1, 2) for i in range(64)]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(" False")[0] == json.dumps([copies(-0.5, f"k{i}", 1, 2) for i in range(64)])


@pytest.mark.parametrize("skew", [math.inf, -math.inf, math.nan])
def test_infinite_skew_is_refused(skew: float) -> None:
    for call in (
        lambda: copies(skew, "a", 0, 0),
        lambda: multiplicity([0.0, skew]),
        lambda: keep_probability(skew),
    ):
        with pytest.raises(CounterpoiseError, match="smoothing"):
            call()


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_taus_are_above_zero(tau: float) -> None:
    with pytest.raises(CounterpoiseError, match="tau1"):
        copies(1.0, "a", 0, 0, tau1=tau)
    with pytest.raises(CounterpoiseError, match="tau2"):
        copies(-1.0, "a", 0, 0, tau2=tau)


def test_keys_and_skews_have_to_fit() -> None:
    with pytest.raises(CounterpoiseError, match="2 keys and skews of shape"):
        copies_of([0.0], ["a", "b"], 0, 0)


def test_the_largest_hash_is_below_one() -> None:
    assert fraction(b"\xff" * 32) < 1 and fraction(bytes(32)) == 0
