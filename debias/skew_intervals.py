"""Intervals of Skew by a bootstrap that resamples sets, or rows where no sets are known.

Not printed in the paper, our reading. Letters: U units (sets, or kinds of rows), B draws, K values, C concepts.

Drawn are N - 1 of a stratum's N units, each counted N / (N - 1) times (Rao and Wu 1988), so that variances are right for
small strata too. Strata are what the design of a pool fixes: the true concept, and for single rows also the values. Of a
share p = n_a / n the linear part n_a - p n is resampled, since n is as random as n_a. The interval lies on the scale of log
odds with half an answer added to both sides (Haldane 1956); its width is Student's t, by the sets that the concept was
given in, times the standard error, which is at least that of the two half answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .predictions import Ints, Predictions
from .sampling import Floats
from .skew_formula import extremes, share

_MOST = 2**21  # numbers held at a time
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is resampled.

    Attributes:
        rows: (r,), rows that stand for all: every row where sets are known, else one of each kind.
        unit: (r,), the unit of each of them.
        base: (U,), how many such units there are: 1 for a set, the number of such rows for a kind of rows.
        stratum: (U,), from 0.
    """

    rows: Ints
    unit: Ints
    base: Ints
    stratum: Ints


def units_of(predictions: Predictions) -> Units:
    """The sets; without them the different rows, with how many of each there are."""
    rows = len(predictions)
    truth = np.zeros(rows, np.int64) if predictions.concept is None else predictions.concept
    if predictions.set_id is not None:
        unit = predictions.set_id.codes
        sets = len(predictions.set_id.values)
        stratum = np.full(sets, len(predictions.concepts))
        np.minimum.at(stratum, unit, truth)
        return Units(np.arange(rows), unit, np.ones(sets, np.int64), _strata(stratum, np.ones(sets)))
    cell = truth
    for column in predictions.axes.values():
        cell = cell * len(column.values) + column.codes
    kind = cell * len(predictions.concepts) + predictions.predicted
    _, first, base = np.unique(kind, return_index=True, return_counts=True)
    return Units(first, np.arange(len(first)), base, _strata(cell[first], base))


def _strata(code: Ints, base: npt.NDArray[np.generic]) -> Ints:
    """Strata from 0; those of a single unit are joined, since one says nothing of how units differ."""
    _, stratum = np.unique(code, return_inverse=True)
    sizes = np.bincount(stratum, weights=base)
    joined = np.where(sizes[stratum] < 2, -1, stratum)
    if base[joined == -1].sum() == 1:
        joined[joined == -1] = int(sizes.argmax())
    _, again = np.unique(joined, return_inverse=True)
    return again.astype(np.int64)


def multiplicities(units: Units, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each unit counts in each draw, some draws at a time, (b, U)."""
    members = [np.flatnonzero(units.stratum == one) for one in range(int(units.stratum.max()) + 1)]
    step = max(1, _MOST // len(units.base))
    for start in range(0, draws, step):
        found = np.zeros((min(step, draws - start), len(units.base)))
        for mine in members:
            size = int(units.base[mine].sum())
            if size > 1:
                drawn = rng.multinomial(size - 1, units.base[mine] / size, size=len(found))
                found[:, mine] = drawn * (size / (size - 1))
        yield found


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Where a concept was given.

    Attributes:
        units: (u,), places of the units.
        counts: (u, K), how often each unit has it, by value.
        share: (K,), n_a / n.
        base: how many units there are, kinds of rows counted by their rows.
    """

    units: Ints
    counts: Floats
    share: Floats
    base: int


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What the draws say of one axis.

    Attributes:
        count: (C, K), variance of the resampled n_a - p n; in answers.
        off: (B, C, K), how far each resampled Skew is from their mean.
    """

    count: Floats
    off: npt.NDArray[np.float32]


def given_in(units: Units, predicted: Ints, codes: Ints, concepts: Ints, values: int) -> list[Given]:
    """For each of the concepts, (C,), where it was given; `predicted` and `codes` are of all rows, (n,)."""
    said, value = predicted[units.rows], codes[units.rows]
    found = []
    for concept in concepts:
        mine = said == concept
        places, inverse = np.unique(units.unit[mine], return_inverse=True)
        flat = np.bincount(inverse * values + value[mine], minlength=len(places) * values)
        counts, base = flat.reshape(-1, values).astype(float), units.base[places]
        answers = base @ counts
        found.append(Given(places, counts, answers / answers.sum(), int(base.sum())))
    return found


def spreads(
    units: Units,
    axes: Sequence[Sequence[Given]],
    smoothing: float,
    draws: int,
    rng: np.random.Generator,
    advance: Callable[[], None],
) -> list[Spread]:
    """Resample all axes together.

    Args:
        units: what is resampled.
        axes: for each axis where its concepts were given.
        smoothing: of the resampled Skew, above 0.
        draws: B.
        rng: of the draws.
        advance: called after each draw.
    """
    sums = [_Sums(given, smoothing) for given in axes]
    for times in multiplicities(units, draws, rng):
        for one in sums:
            one.add(times)
        for _ in times:
            advance()
    return [one.spread() for one in sums]


class _Sums:
    """The draws of one axis."""

    def __init__(self, given: Sequence[Given], smoothing: float) -> None:
        self._given, self._smoothing = given, smoothing
        self._squares = np.zeros((len(given), len(given[0].share)))
        self._logs: list[npt.NDArray[np.float32]] = []

    def add(self, times: Floats) -> None:
        """Some draws, (b, U)."""
        logs = np.empty((len(times), *self._squares.shape), np.float32)
        for place, one in enumerate(self._given):
            counts = times[:, one.units] @ one.counts
            off = counts - one.share * counts.sum(1, keepdims=True)  # 0 on average
            self._squares[place] += (off**2).sum(0)
            logs[:, place] = np.log(
                share(counts, self._smoothing)
            )  # Skew but for the target, which is the same
        self._logs.append(logs)

    def spread(self) -> Spread:
        """What they say."""
        logs = np.concatenate(self._logs)
        return Spread(self._squares / len(logs), logs - logs.mean(0))


def extreme_errors(shrunk: Floats, spread: Spread) -> list[float]:
    """Standard errors of MaxSkew and MinSkew.

    The draws scatter around Skews that were shrunk, (C, K). Around the measured ones, which are noise once already, a fair
    model's extremes would scatter half as much again as they do.
    """
    return [float(found.std(ddof=1)) for found in extremes(shrunk + spread.off)]


def share_interval(counts: Ints, variance: Floats, sets: Ints) -> tuple[Floats, Floats]:
    """95 % interval of the logarithm of each share, (C, K) twice.

    Args:
        counts: (C, K), answers by value.
        variance: (C, K), of the resampled n_a - p n.
        sets: (C,), units that the concept was given in; a single one leaves the share unknown.
    """
    n = counts.sum(1, keepdims=True) + 1
    part = (counts + 0.5) / n
    halves = 0.25 * ((1 - part) ** 2 + part**2)
    error = np.sqrt(np.maximum(variance, halves)) / (n * part * (1 - part))
    width, middle = students_t(sets - 1)[:, None] * error, np.log(part / (1 - part))
    return -np.logaddexp(0.0, width - middle), -np.logaddexp(0.0, -width - middle)


def students_t(df: Ints | np.int64) -> Floats:
    """The 97.5 % point of Student's t; infinite for 0 degrees of freedom.

    Exact for 1 and 2, else Abramowitz and Stegun 26.7.5, right to 1 % at 3 and to 0.1 % from 5.
    """
    z, n = _Z, np.maximum(df, 3).astype(float)
    terms = (
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    exact = [df < 1, df == 1, df == 2]
    return np.select(exact, [math.inf, math.tan(0.475 * math.pi), 0.95 / math.sqrt(0.04875)], z + sum(terms))
