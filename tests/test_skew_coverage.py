"""Do intervals hold the truth as often as they say? Simulated models of known shares; prints what was found."""

from __future__ import annotations

import numpy as np
import pytest
from skew_world import simulated, truth

from debias.predictions import predictions_from
from debias.skew import skew_table_from

DRAWS = 1000
SKEWED = {2: (0.1, 0.3), 4: (0.1, 0.15, 0.25, 0.4), 6: (0.1, 0.12, 0.17, 0.22, 0.3, 0.4)}


def table_of(predictions, **more):
    return skew_table_from(predictions, draws=400, permutations=1, only=["chef"], min_count=1, **more).axes[
        "axis"
    ]


def covered(rates, sets, together, known_sets=True, draws=DRAWS) -> np.ndarray:
    """How often the interval of each value's Skew held the true one."""
    rng, right, found = np.random.default_rng(sets), truth(rates), []
    for _ in range(draws):
        one = table_of(simulated(rates, sets, rng, together=together, known_sets=known_sets))
        found.append((one.low[0] <= right) & (right <= one.high[0]))
    return np.mean(found, axis=0)


def tell(capsys: pytest.CaptureFixture[str], what: str, found: np.ndarray) -> None:
    with capsys.disabled():
        print(f"\n{what}: {found.mean():.1%} ({', '.join(f'{one:.1%}' for one in found)})", end="")


@pytest.mark.slow
@pytest.mark.parametrize("together", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["equal", "skewed"])
@pytest.mark.parametrize("values", [2, 4, 6])
def test_intervals_hold_the_true_skew(
    capsys: pytest.CaptureFixture[str], values: int, kind: str, together: float
) -> None:
    rates = [0.2] * values if kind == "equal" else SKEWED[values]
    # two values whose twins nearly always agree differ in a handful of sets, and whole numbers leave no finer steps
    least = 60 if (values, kind, together) == (2, "equal", 0.9) else 15
    found = covered(rates, round(least / min(rates)), together)
    tell(capsys, f"K {values}, {kind}, together {together}, {least} answers of the rarest", found)
    assert 0.93 <= found.mean() <= 0.97


@pytest.mark.slow
def test_intervals_of_a_handful_of_sets_that_differ_are_wide(capsys: pytest.CaptureFixture[str]) -> None:
    found = covered([0.2, 0.2], 75, 0.9)
    tell(capsys, "K 2, equal, together 0.9, 15 answers of the rarest", found)
    assert 0.95 <= found.mean() <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.2,) * 4, (0.3, 0.6, 0.9)])
def test_rows_without_sets(capsys: pytest.CaptureFixture[str], rates: tuple[float, ...]) -> None:
    found = covered(rates, 80, 0.0, known_sets=False)
    tell(capsys, f"rows, rates {rates}", found)
    assert 0.93 <= found.mean() <= 0.97


@pytest.mark.slow
def test_a_pool_of_true_concepts_does_not_widen_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    """Half the rows are chefs, most of them found; the variance is that within each half."""
    rng, found = np.random.default_rng(0), []
    values, rows = np.tile(["v0", "v1", "v2"], 160), 480
    true = np.repeat(["chef", "other"], rows // 2)
    chance = np.where(true == "chef", 0.85, 0.05) - 0.3 * ((values == "v0") & (true == "chef"))
    right = truth([0.6, 0.9, 0.9])
    for _ in range(DRAWS):
        said = np.where(rng.random(rows) < chance, "chef", "other")
        one = table_of(predictions_from(said, {"axis": values}, concept=true))
        found.append((one.low[0] <= right) & (right <= one.high[0]))
    tell(capsys, "rows of known concepts", np.mean(found, axis=0))
    assert 0.93 <= np.mean(found) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("together", [0.0, 0.9])
@pytest.mark.parametrize("rates", [(0.2,) * 6, SKEWED[6]])
def test_intervals_of_max_and_min_hold_what_is_expected_of_so_many_answers(
    capsys: pytest.CaptureFixture[str], rates: tuple[float, ...], together: float
) -> None:
    rng = np.random.default_rng(5)
    tables = [table_of(simulated(rates, 150, rng, together=together)) for _ in range(DRAWS)]
    found = []
    for extremes in ([one.max_skew for one in tables], [one.min_skew for one in tables]):
        mean = np.mean([one.value for one in extremes])
        found.append(np.mean([one.low <= mean <= one.high for one in extremes]))
    tell(capsys, f"MaxSkew and MinSkew, rates {rates}, together {together}", np.array(found))
    assert 0.93 <= np.mean(found) <= 0.99
