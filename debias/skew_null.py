"""What a fair model scores: the floor of MaxSkew and MinSkew, the excess over it, and a permutation test.

Not printed in the paper, our reading. MaxSkew is a mean of maxima over noisy shares, so that even a perfectly fair model
does not score 0: with 6 values and 30 answers per concept about 0.42, and -0.72 for MinSkew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from storage.errors import CounterpoiseError

from .predictions import JOINT, Ints, Predictions
from .sampling import Floats
from .skew_formula import extremes, share, skew

Blocks = list[Ints]


@dataclass(frozen=True, slots=True)
class Fair:
    """What a fair model scores over many draws.

    Attributes:
        mean: over the draws; the floor.
        low, high: 95 % of the draws lie between.
    """

    mean: float
    low: float
    high: float


def floors(
    answers: Sequence[int] | Ints, target: Floats, smoothing: float, draws: int, rng: np.random.Generator
) -> tuple[Fair, Fair]:
    """MaxSkew and MinSkew of a model that gives each concept to the values in their target shares, row by row.

    Args:
        answers: (C,), how often each concept was given.
        target: (C, K).
        smoothing: as the table has it.
        draws: simulated models.
        rng: of the draws.
    """
    counts = np.stack(
        [rng.multinomial(n, shares, size=draws) for n, shares in zip(answers, target, strict=True)], axis=1
    )
    most, least = extremes(skew(share(counts, smoothing), target))
    return _fair(most), _fair(least)


def _fair(found: Floats) -> Fair:
    # inverted_cdf: no arithmetic between draws, of which some may be infinite
    low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return Fair(float(found.mean()), float(low), float(high))


def excess(value: float, floor: float) -> float:
    """How much further from 0 than a fair model, from 0: max(0, |value| - |floor|), for MaxSkew or MinSkew."""
    return max(0.0, abs(value) - abs(floor))


def reduction(before: float, after: float, floor_before: float, floor_after: float) -> float:
    """Share of the excess over the floor that is gone: 1 - excess after / excess before; 1 is as fair as fair can be.

    Raises:
        CounterpoiseError: there was no excess that could be reduced.
    """
    had = excess(before, floor_before)
    if not 0 < had < np.inf:
        raise CounterpoiseError(
            f"MaxSkew or MinSkew {before:.4g} with a floor of {floor_before:.4g}: a finite excess over the floor is "
            "wanted before it can be reduced."
        )
    return 1 - excess(after, floor_after) / had


def exchangeable(predictions: Predictions, axis: str, codes: Ints) -> Blocks:
    """Rows whose values on an axis may change places if the answers do not depend on it, as blocks, (groups, rows).

    They are twins: rows of one set that agree in the other axes; where no set has such, rows of one set; where there
    are no sets, or none has two values, rows of one true concept, if that is known.
    """
    rows = len(predictions)
    tries = []
    if predictions.set_id is not None:
        others = [column.codes for name, column in predictions.axes.items() if name not in axis.split(JOINT)]
        tries = [[predictions.set_id.codes, *others], [predictions.set_id.codes]]
    tries.append([np.zeros(rows, np.int64) if predictions.concept is None else predictions.concept])
    for columns in tries:
        group = np.unique(np.stack(columns), axis=1, return_inverse=True)[1].ravel()
        different = len(np.unique(np.stack([group, codes]), axis=1)[0])
        if different > group.max() + 1:
            break
    return _blocks(group)


def _blocks(group: Ints) -> Blocks:
    """Rows of the groups with two members or more, groups of one size together."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    return [order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes[sizes > 1])]


def permuted(codes: Ints, blocks: Blocks, draws: int, rng: np.random.Generator) -> Iterator[Ints]:
    """The values, (n,), again and again with those of exchangeable rows in random order."""
    for _ in range(draws):
        found = codes.copy()
        for rows in blocks:
            found[rows] = rng.permuted(codes[rows], axis=1)
        yield found


def null_scores(
    codes: Ints,
    blocks: Blocks,
    score: Callable[[Ints], tuple[float, float]],
    draws: int,
    rng: np.random.Generator,
    advance: Callable[[], None],
) -> tuple[Floats, Floats]:
    """MaxSkew and MinSkew, (draws,) each, with the values of exchangeable rows in random order."""
    found = []
    for one in permuted(codes, blocks, draws, rng):
        found.append(score(one))
        advance()
    most, least = zip(*found, strict=True)
    return np.array(most), np.array(least)


def p_value(value: float, null: Floats) -> float:
    """Share of fair models at least as far from 0, one-sided, with the +1 of Phipson and Smyth (2010)."""
    # what is equal but for the last bits is equal
    return float((1 + np.sum(np.abs(null) >= abs(value) * (1 - 1e-12))) / (1 + len(null)))
