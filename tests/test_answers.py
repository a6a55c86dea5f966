"""What stands beside Skew, against sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skew_world import twins

from debias.answers import answers_of, cramers_v, flip_rate, recall, skew_size, skewness, worst_cell
from debias.predictions import predictions_from
from storage import CounterpoiseError

GIVEN = predictions_from(
    ["chef", "chef", "arts", "arts", "arts", "chef", "arts"],
    {"gender": ["man", "woman", "woman", "man", "woman", "man", "man"]},
    set_id=["a", "a", "a", "b", "b", "c", "c"],
    concept=["chef", "chef", "chef", "arts", "arts", "arts", "arts"],
)
PLAIN = predictions_from(["chef", "arts"], {"gender": ["man", "woman"]})


def test_flips_within_sets() -> None:
    found = flip_rate(GIVEN)
    assert found is not None
    assert (found.sets, found.of_sets, found.of_pairs) == (3, pytest.approx(2 / 3), pytest.approx(3 / 5))
    assert flip_rate(PLAIN) is None
    single = predictions_from(["a", "b"], {"x": ["p", "q"]}, set_id=["s", "t"])
    assert flip_rate(single) is None


def test_recall() -> None:
    assert recall(GIVEN) == pytest.approx({"arts": 3 / 4, "chef": 2 / 3})
    assert recall(PLAIN) == {}


def test_the_worst_cell() -> None:
    found = worst_cell(GIVEN, min_count=3)
    assert found is not None
    assert (found.cell, found.rows, found.accuracy) == ({"gender": "woman"}, 3, pytest.approx(2 / 3))
    assert worst_cell(GIVEN, min_count=5) is None and worst_cell(PLAIN, 1) is None
    four = worst_cell(GIVEN, min_count=4)
    assert four is not None and four.cell == {"gender": "man"} and four.accuracy == 0.75
    both = twins(60, np.random.default_rng(0), less={("chef", "woman"): 0.3})
    cell = worst_cell(both, 30)
    assert cell is not None and cell.cell["gender"] == "woman" and set(cell.cell) == {"gender", "race"}


def test_cramers_v() -> None:
    assert cramers_v(np.array([[10, 0], [0, 10]])) == pytest.approx(1)
    assert cramers_v(np.array([[5, 5], [10, 10]])) == pytest.approx(0)
    # chi^2 = 20 (12 * 7 - 8 * 13)^2 / ... by hand: table [[12, 8], [13, 7]] of 40
    chi = 40 * (12 * 7 - 8 * 13) ** 2 / (20 * 20 * 25 * 15)
    assert cramers_v(np.array([[12, 8], [13, 7]])) == pytest.approx((chi / 40) ** 0.5)
    assert cramers_v(np.array([[12, 8], [13, 7], [0, 0]])) == pytest.approx((chi / 40) ** 0.5)
    assert cramers_v(np.array([[12, 8]])) == 0


def test_skewness() -> None:
    assert skewness([0.0, 0.0, 0.0, 1.0]) == pytest.approx(2 / 3**0.5)
    assert skewness([0.1, 0.2, 0.3]) == pytest.approx(0)
    assert skewness([0.4, 0.4, 0.4]) is None and skewness([0.1, 0.4]) is None


def test_skew_size_stands_out_where_few_concepts_are_biased() -> None:
    names = [f"c{i:02d}" for i in range(12)]
    few = twins(240, np.random.default_rng(1), less={("c00", "woman"): 0.6}, concepts=names)
    most = twins(
        240, np.random.default_rng(1), less={(name, "woman"): 0.6 for name in names[1:]}, concepts=names
    )
    found = skew_size(few, "gender")
    assert max(found.effects, key=lambda name: found.effects[name]) == "c00"
    assert found.value is not None and found.value > 2
    other = skew_size(most, "gender").value
    assert other is not None and other < 0
    with pytest.raises(CounterpoiseError, match="true concepts"):
        skew_size(PLAIN, "gender")


def test_together() -> None:
    found = answers_of(GIVEN, ["gender"], 3)
    assert found.given == {"arts": 4, "chef": 3}
    assert set(found.skew_size) == {"gender"} and answers_of(PLAIN, ["gender"], 1).skew_size == {}
