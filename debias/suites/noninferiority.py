"""Is a model no worse than another by more than a margin, on the same questions?

d_i = score now - score then of question i (with its sign turned where less is better); D is their mean. Letters: n
questions, U units, B draws; a unit is what is resampled, a question or those of one picture.

Non-inferior: the lower end of the 95 % interval of D, which is a one-sided bound of 97.5 %, lies above -margin; inferior:
its upper end lies below; else inconclusive. Where every task has to pass, no correction for their number is needed
(intersection-union test, Berger 1982).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest

from ..predictions import Ints
from ..sampling import Floats

DRAWS = 10_000
#: Fewer units that differ say little of how often a question is lost that was not seen lost; then `score_interval` counts.
FEW = 30
NON_INFERIOR, INFERIOR, INCONCLUSIVE = "non-inferior", "inferior", "inconclusive"
_Z = 1.959963984540054
_MOST = 2**21  # numbers held at a time


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions.

    Attributes:
        questions: n.
        units: U.
        now, then: means of their scores.
        difference: D; above 0 the model of now is better.
        low, high: ends of the 95 % interval of D; infinite where nothing is known.
        gained, lost: questions whose score rose, fell.
        method: "bootstrap", or "score" where `score_interval` was asked as well.
        p: of the exact McNemar test, where all scores are 0 or 1, and a question is a unit.
        verdict: NON_INFERIOR, INFERIOR or INCONCLUSIVE.
    """

    questions: int
    units: int
    now: float
    then: float
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    method: str
    p: float | None
    verdict: str


def compare(
    now: Floats,
    then: Floats,
    units: Ints,
    margin: float,
    rng: np.random.Generator,
    sign: int = 1,
    draws: int = DRAWS,
) -> Comparison:
    """Test one model against another.

    Args:
        now: (n,), scores of the one.
        then: (n,), of the other on the same questions.
        units: (n,), from 0, the unit of each question.
        margin: what may be lost at most, in units of the score, > 0.
        rng: of the bootstrap.
        sign: 1 where more is better, else -1.
        draws: B.
    """
    off = sign * (now - then)
    sums = np.bincount(units, weights=off).astype(float)
    sizes = np.bincount(units).astype(float)
    low, high = bootstrap_interval(sums, sizes, rng, draws)
    method = "bootstrap"
    if np.count_nonzero(np.abs(sums) > 1e-12) < FEW:
        method = "score"
        inside = all(((one >= 0) & (one <= 1)).all() for one in (now, then))
        wide = _score_of_units(sums, sizes) if inside else (-math.inf, math.inf)
        low, high = min(low, wide[0]), max(high, wide[1])
    gained, lost = int((off > 0).sum()), int((off < 0).sum())
    single = len(sums) == len(off) and set(np.unique([now, then])) <= {0.0, 1.0}
    return Comparison(
        len(off), len(sums), float(now.mean()), float(then.mean()), float(off.mean()), low, high, gained, lost, method,
        mcnemar(gained, lost) if single else None, verdict(low, high, margin),
    )  # fmt: skip


def bootstrap_interval(
    sums: Floats, sizes: Floats, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """95 % interval of D = sum(sums) / sum(sizes), by percentiles over resampled units (Efron 1979).

    Drawn are U - 1 of U units (Rao and Wu 1988). Units with equal sum and size are drawn together, by a multinomial, which
    is the same distribution.

    Args:
        sums: (U,), sum of d_i in each unit.
        sizes: (U,), questions in each.
        rng: of the draws.
        draws: B.
    """
    if len(sums) < 2:
        return -math.inf, math.inf
    kinds, base = np.unique(np.stack([sums, sizes], 1), axis=0, return_counts=True)
    step = max(1, _MOST // len(kinds))
    found = []
    for start in range(0, draws, step):
        times = rng.multinomial(len(sums) - 1, base / len(sums), size=min(step, draws - start)) @ kinds
        found.append(times[:, 0] / times[:, 1])
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


def score_interval(gained: float, lost: float, questions: float) -> tuple[float, float]:
    """95 % score interval of a difference of paired proportions (Tango 1998, equations 7 and 8).

    Unlike the bootstrap it is right where few questions differ: with none of n the ends are z^2 / (n + z^2) away from 0.
    For scores between 0 and 1, with sums instead of counts, it is the wider the more scores lie between, as d^2 <= |d|.

    Args:
        gained: questions right now and wrong then, or the sum of what was gained.
        lost: the other way about.
        questions: all of them.
    """
    middle = (gained - lost) / questions
    low, high = -1.0 + 1e-12, 1.0 - 1e-12

    def over(difference: float, limit: float) -> float:
        return _tango(gained, lost, questions, difference) - limit

    lower = -1.0 if over(low, _Z) <= 0 else float(brentq(over, low, middle, args=(_Z,), xtol=1e-13))
    upper = 1.0 if over(high, -_Z) >= 0 else float(brentq(over, middle, high, args=(-_Z,), xtol=1e-13))
    return lower, upper


def _tango(gained: float, lost: float, n: float, difference: float) -> float:
    """The score statistic if D were `difference`; q is the likeliest share of lost questions then."""
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    above = gained - lost - n * difference
    return above / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, above) if above else 0.0


def _score_of_units(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """`score_interval` as if every unit were of the largest size, so that none gains or loses more than 1."""
    most = float(sizes.max())
    gained, lost = float(sums[sums > 0].sum()), float(-sums[sums < 0].sum())
    return score_interval(gained / most, lost / most, float(sizes.sum()) / most)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p of the exact McNemar test (McNemar 1947): gained is binomial with one half of those that differ."""
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def verdict(low: float, high: float, margin: float) -> str:
    """What a 95 % interval of D says of a margin."""
    return NON_INFERIOR if low > -margin else INFERIOR if high < -margin else INCONCLUSIVE
