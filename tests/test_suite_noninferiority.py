"""Intervals and verdicts against values by hand, scipy, and models whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import bootstrap

from debias.suites.noninferiority import (
    FEW,
    INCONCLUSIVE,
    INFERIOR,
    NON_INFERIOR,
    bootstrap_interval,
    compare,
    mcnemar,
    score_interval,
    verdict,
)

Z = 1.959963984540054


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (0, 6, 2 / 2**6),
        (1, 6, 2 * (1 + 7) / 2**7),
        (5, 5, 1.0),
        (3, 7, 2 * (1 + 10 + 45 + 120) / 2**10),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p) == mcnemar(lost, gained)


@pytest.mark.parametrize("questions", [10, 380, 5000])
def test_score_interval_where_nothing_differs(questions: int) -> None:
    """The statistic is sqrt(n D / (1 - D)) then, so that the ends are z^2 / (n + z^2)."""
    end = Z**2 / (questions + Z**2)
    assert score_interval(0, 0, questions) == pytest.approx((-end, end), abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "questions"), [(1, 8, 40), (0, 6, 40), (12, 3, 50), (40, 30, 1000)]
)
def test_score_interval_against_a_search(gained: int, lost: int, questions: int) -> None:
    """At the ends, the score statistic at the likeliest multinomial with that difference, found by search, is +-z."""

    def statistic(difference: float) -> float:
        def unlikely(q: float) -> float:
            gain, same = q + difference, 1 - 2 * q - difference
            if min(gain, same, q) <= 0:
                return math.inf
            rest = questions - gained - lost
            return -(gained * math.log(gain) + lost * math.log(q) + rest * math.log(same))

        low, high = max(0.0, -difference), (1 - difference) / 2
        q = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        above = gained - lost - questions * difference
        return float(above / math.sqrt(questions * (2 * q + difference - difference**2)))

    low, high = score_interval(gained, lost, questions)
    assert statistic(low) == pytest.approx(Z, abs=1e-3) and statistic(high) == pytest.approx(-Z, abs=1e-3)
    assert score_interval(lost, gained, questions) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("gained", "lost", "questions"), [(10, 0, 10), (0, 10, 10), (1, 0, 1), (0, 1, 2)])
def test_score_interval_at_the_ends(gained: int, lost: int, questions: int) -> None:
    low, high = score_interval(gained, lost, questions)
    assert -1 <= low <= (gained - lost) / questions <= high <= 1 and high - low > 0.1


def test_bootstrap_is_that_of_scipy() -> None:
    off = rng(3).choice([-1.0, -0.3, 0.0, 0.6, 1.0], 400, p=[0.1, 0.1, 0.6, 0.1, 0.1])
    theirs = bootstrap(
        (off,), np.mean, n_resamples=20_000, method="percentile", rng=rng(1)
    ).confidence_interval
    mine = bootstrap_interval(off, np.ones(400), rng(1), 20_000)
    assert mine == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert bootstrap_interval(off, np.ones(400), rng(1)) == bootstrap_interval(off, np.ones(400), rng(1))


def test_units_are_resampled_whole() -> None:
    """Ten copies of each question are worth no more than one."""
    off = rng(5).choice([-1.0, 0.0, 1.0], 200)
    single = bootstrap_interval(off, np.ones(200), rng(2))
    whole = bootstrap_interval(10 * off, np.full(200, 10.0), rng(2))
    as_single = bootstrap_interval(np.repeat(off, 10), np.ones(2000), rng(2))
    assert whole == pytest.approx(single, abs=1e-12)
    assert as_single[1] - as_single[0] < 0.4 * (single[1] - single[0])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.009, 0.5, NON_INFERIOR), (-0.01, 0.5, INCONCLUSIVE), (-0.5, -0.01, INCONCLUSIVE), (-0.5, -0.011, INFERIOR),
     (-math.inf, math.inf, INCONCLUSIVE)],
)  # fmt: skip
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(low, high, 0.01) == said


def test_equal_answers_to_few_questions_show_nothing() -> None:
    """The bootstrap alone would say 0 to 0; a loss of 1 % is not seen in 100 questions one time in three."""
    few, many = np.ones(100), np.ones(400)
    found = compare(few, few, np.arange(100), 0.01, rng())
    assert (found.verdict, found.method, found.p) == (INCONCLUSIVE, "score", 1.0)
    assert compare(many, many, np.arange(400), 0.01, rng()).verdict == NON_INFERIOR


def test_what_is_said_of_a_comparison() -> None:
    now, then = np.array([1.0, 0, 1, 0] * 100), np.array([1.0, 1, 0, 0] * 100)
    found = compare(now, then, np.arange(400), 0.01, rng())
    assert (found.gained, found.lost, found.difference, found.method) == (100, 100, 0.0, "bootstrap")
    assert found.p == 1.0 and found.now == found.then == 0.5
    assert compare(now * 0.3, then, np.arange(400), 0.01, rng()).p is None
    assert compare(now, then, np.arange(400) // 2, 0.01, rng()).p is None
    less = compare(now, np.zeros(400), np.arange(400), 0.01, rng(), sign=-1)
    assert less.difference == -0.5 and less.verdict == INFERIOR


def test_scores_without_bounds_need_many_that_differ() -> None:
    then = np.linspace(0, 100, 200)
    now = then + np.where(np.arange(200) < FEW - 1, 1.0, 0.0)
    found = compare(now, then, np.arange(200), 0.5, rng())
    assert math.isinf(found.low) and found.verdict == INCONCLUSIVE
    now[FEW - 1] += 1
    assert compare(now, then, np.arange(200), 0.5, rng()).verdict == NON_INFERIOR


TRUTHS = ((0.01, -0.01), (0.02, -0.01), (0.1, -0.03), (0.3, -0.05))
CASES = [*itertools.product((100, 400), TRUTHS), (2000, TRUTHS[1])]


@pytest.mark.parametrize(("questions", "truth"), CASES)
def test_the_bound_holds_the_truth(questions: int, truth: tuple[float, float]) -> None:
    """Of 400 models that lose exactly the margin, few may pass: 2.5 %, and 5 % of 400 is 3 standard errors off that."""
    differing, difference = truth
    gain, loss = (differing + difference) / 2, (differing - difference) / 2
    dice, passed, units = rng(questions), 0, np.arange(questions)
    for number in range(400):
        u = dice.random(questions)
        off = (u < gain).astype(float) - (u > 1 - loss)
        now, then = (off > 0).astype(float), (off < 0).astype(float)
        passed += compare(now, then, units, 1.0, rng(number), draws=500).low > difference
    assert passed <= 20, passed


def test_the_bootstrap_alone_would_not_hold_it() -> None:
    """Where one question of a hundred is lost and none gained, it says that none is whenever none was seen."""
    dice, passed = rng(9), 0
    for number in range(400):
        off = -(dice.random(100) < 0.01).astype(float)
        passed += bootstrap_interval(off, np.ones(100), rng(number), 500)[0] > -0.01
    assert passed / 400 == pytest.approx(0.99**100, abs=0.08)


def test_the_bound_holds_the_truth_of_units() -> None:
    """Pairs of questions of one picture that mostly go together, with scores of thirds."""
    dice, passed, units = rng(1), 0, np.repeat(np.arange(150), 2)
    for number in range(400):
        shared = dice.choice([-1, -1 / 3, 0, 1 / 3, 2 / 3], 150)
        own = dice.choice([-1, -1 / 3, 0, 1 / 3, 2 / 3], 300)
        off = np.where(dice.random(300) < 0.8, np.repeat(shared, 2), own)
        now, then = np.maximum(off, 0), np.maximum(-off, 0)
        passed += compare(now, then, units, 1.0, rng(number), draws=500).low > -1 / 15
    assert passed <= 20, passed
