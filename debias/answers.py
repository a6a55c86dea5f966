"""What Skew cannot see: how often twins get different answers, and whether the answers are right.

A model that always gives one answer has Skew 0; its flip rate is 0 as well, and its recall says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage.errors import CounterpoiseError

from .predictions import Ints, Predictions, axis_column
from .sampling import Floats


@dataclass(frozen=True, slots=True)
class Flips:
    """How often twins get different answers.

    Attributes:
        sets: sets with two members or more.
        of_sets: share of these whose members did not all get the same answer.
        of_pairs: share of all pairs of members of one set that got different answers.
    """

    sets: int
    of_sets: float
    of_pairs: float


@dataclass(frozen=True, slots=True)
class Worst:
    """The cell with the lowest accuracy.

    Attributes:
        cell: value of every axis.
        rows: how many it has.
        accuracy: share of them whose true concept was given.
    """

    cell: Mapping[str, str]
    rows: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class SkewSize:
    """SkewSize of one axis.

    Attributes:
        value: skewness of the effects; None where there is none.
        effects: Cramer's V by true concept.
    """

    value: float | None
    effects: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answers:
    """What stands beside a skew table; None or empty where the columns are missing that it needs.

    Attributes:
        given: how often each concept was given.
        flips: within sets.
        worst: among the cells with rows enough.
        recall: by true concept.
        skew_size: by axis.
    """

    given: Mapping[str, int]
    flips: Flips | None
    worst: Worst | None
    recall: Mapping[str, float]
    skew_size: Mapping[str, SkewSize]


def answers_of(predictions: Predictions, axes: Sequence[str], min_count: int) -> Answers:
    """All of it; `axes` may be joint, cells need `min_count` rows."""
    counts = np.bincount(predictions.predicted, minlength=len(predictions.concepts))
    known = predictions.concept is not None
    return Answers(
        dict(zip(predictions.concepts, counts.tolist(), strict=True)),
        flip_rate(predictions),
        worst_cell(predictions, min_count),
        recall(predictions),
        {axis: skew_size(predictions, axis) for axis in axes} if known else {},
    )


def flip_rate(predictions: Predictions) -> Flips | None:
    """How often members of a set got different answers; None where no set has two members."""
    if predictions.set_id is None:
        return None
    kinds, counts = np.unique(
        np.stack([predictions.set_id.codes, predictions.predicted]), axis=1, return_counts=True
    )
    members = np.bincount(predictions.set_id.codes)
    same = np.bincount(kinds[0], weights=counts * (counts - 1) / 2)
    pairs = members * (members - 1) / 2
    several = members > 1
    if not several.any():
        return None
    flipped = np.bincount(kinds[0])[several] > 1
    return Flips(int(several.sum()), float(flipped.mean()), float(1 - same.sum() / pairs.sum()))


def worst_cell(predictions: Predictions, min_count: int = 30) -> Worst | None:
    """The cell (one value of every axis) with the lowest accuracy, of those with at least `min_count` rows.

    None where true concepts are not known, or no cell has rows enough.
    """
    if predictions.concept is None:
        return None
    columns = list(predictions.axes.values())
    cells, cell = np.unique(np.stack([column.codes for column in columns]), axis=1, return_inverse=True)
    rows = np.bincount(cell.ravel())
    accuracy = np.bincount(cell.ravel(), weights=predictions.predicted == predictions.concept) / rows
    if rows.max() < min_count:
        return None
    worst = int(np.where(rows >= min_count, accuracy, np.inf).argmin())
    values = [column.values[code] for column, code in zip(columns, cells[:, worst], strict=True)]
    return Worst(dict(zip(predictions.axes, values, strict=True)), int(rows[worst]), float(accuracy[worst]))


def recall(predictions: Predictions) -> dict[str, float]:
    """For every true concept the share of its rows to which it was given; empty where that is not known."""
    truth = predictions.concept
    if truth is None:
        return {}
    rows = np.bincount(truth, minlength=len(predictions.concepts))
    right = np.bincount(truth, weights=predictions.predicted == truth, minlength=len(rows))
    return {name: float(right[c] / rows[c]) for c, name in enumerate(predictions.concepts) if rows[c]}


def cramers_v(table: Ints) -> float:
    """Cramer's V = sqrt(chi^2 / (N min(R - 1, C - 1))) of a contingency table, (R, C); in [0, 1].

    Rows and columns without counts are left out; with one row or column left V is 0.
    """
    table = table[table.any(1)][:, table.any(0)]
    least = min(table.shape) - 1
    if least < 1:
        return 0.0
    total = table.sum()
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / total
    return float(np.sqrt((((table - expected) ** 2) / expected).sum() / (total * least)))


def skewness(effects: Sequence[float] | Floats) -> float | None:
    """Fisher-Pearson coefficient of skewness, m3 / m2^(3/2) of the central moments.

    None where all effects are the same, and for fewer than three, which have none.
    """
    if len(effects) < 3:
        return None
    off = np.asarray(effects, np.float64) - np.mean(effects)
    spread = float(np.mean(off**2))
    return float(np.mean(off**3)) / spread**1.5 if spread > 1e-24 else None


def skew_size(predictions: Predictions, axis: str) -> SkewSize:
    """SkewSize: the skewness, over true concepts, of Cramer's V between an axis and the answers.

    Source: Albuquerque et al. 2024, "Evaluating Model Bias Requires Characterizing its Mistakes" (ICML). That absent rows
    and columns are left out of V's degrees of freedom is our reading.

    Args:
        predictions: with true concepts.
        axis: its name; may be joint.

    Raises:
        CounterpoiseError: there are no true concepts, or no such axis.
    """
    column, truth = axis_column(predictions, axis), predictions.concept
    if truth is None:
        raise CounterpoiseError(f"{predictions.source}: SkewSize wants true concepts, a column 'concept'.")
    values, concepts = len(column.values), len(predictions.concepts)
    effects = {}
    for place in np.unique(truth):
        mine = truth == place
        flat = np.bincount(
            predictions.predicted[mine] * values + column.codes[mine], minlength=concepts * values
        )
        effects[predictions.concepts[place]] = cramers_v(flat.reshape(concepts, values))
    return SkewSize(skewness(list(effects.values())), effects)
