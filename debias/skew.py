"""The skew table: for one model at one state of its weights, how often it gives each concept to each value.

    predictions = predictions_from(predicted, {"gender": gender, "race": race}, set_id=set_id, concept=concept)
    table = skew_table_from(predictions, ["gender", "race", "gender*race"])

Cells hold counts, shares, Skew and intervals (`skew_intervals`); every MaxSkew and MinSkew stands beside the floor of a
fair model and a permutation test (`skew_null`), and beside the table what Skew cannot see (`answers`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from storage.errors import CounterpoiseError

from .answers import answers_of
from .predictions import Column, Ints, Predictions, axis_column
from .sampling import Floats
from .skew_formula import extremes, share, shrunk, skew
from .skew_intervals import (
    Given,
    Spread,
    extreme_errors,
    given_in,
    share_interval,
    spreads,
    students_t,
    units_of,
)
from .skew_null import Fair, exchangeable, floors, null_scores, p_value
from .skew_table import AxisSkew, Cell, Extreme, SkewTable

__all__ = ["POOL", "UNIFORM", "AxisSkew", "Cell", "Extreme", "SkewTable", "skew_table_from"]

UNIFORM, POOL = "uniform", "pool"
DRAWS, PERMUTATIONS, FLOORS = 2000, 999, 4000


def skew_table_from(
    predictions: Predictions,
    axes: Sequence[str] | None = None,
    *,
    target: str = UNIFORM,
    smoothing: float = 0.5,
    min_count: int = 30,
    seed: int = 0,
    draws: int = DRAWS,
    permutations: int = PERMUTATIONS,
    only: Collection[str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> SkewTable:
    """Measure.

    Args:
        predictions: as `predictions_from` or `read_predictions` give them.
        axes: names, joint ones such as `gender*race` too; None for all.
        target: "uniform" for 1 / K; "pool" for the value's share in the rows that were offered the concept.
        smoothing: answers added to every value, from 0.
        min_count: concepts given less often are dropped, from 1.
        seed: of every draw.
        draws: of the bootstrap.
        permutations: of the test.
        only: drop all concepts but these, such as those that another model's table kept, to compare with it.
        advance: called `draws + permutations * axes` times.

    Raises:
        CounterpoiseError: an axis is unknown, no concept has answers enough, or a target is 0.
    """
    _check(target, smoothing, min_count, draws, permutations)
    names = list(dict.fromkeys(axes or predictions.axes))
    given = np.bincount(predictions.predicted, minlength=len(predictions.concepts))
    used = _used(predictions, given, min_count, only)
    columns = {axis: axis_column(predictions, axis) for axis in names}
    units = units_of(predictions)
    for axis, column in columns.items():
        targets(predictions, axis, column, used, target)  # a pool without a value is told before the work
    where = [
        given_in(units, predictions.predicted, column.codes, used, len(column.values))
        for column in columns.values()
    ]
    varied = spreads(units, where, smoothing or 0.5, draws, _rng(seed, "bootstrap"), advance)
    measured = {}
    for (axis, column), there, spread in zip(columns.items(), where, varied, strict=True):
        task = _Axis(predictions, axis, column, used, target, smoothing)
        measured[axis] = task.measure(given, there, spread, permutations, seed, advance)
    answers = answers_of(predictions, names, min_count)
    sets = None if predictions.set_id is None else len(predictions.set_id.values)
    return SkewTable(
        measured, smoothing, target, min_count, seed, len(predictions), sets, answers,
        tuple(warnings_of(predictions.concepts, given, used)),
    )  # fmt: skip


def targets(predictions: Predictions, axis: str, column: Column, used: Ints, target: str) -> Floats:
    """Share wanted of each value at each of the used concepts, (C, K).

    Raises:
        CounterpoiseError: of target "pool", a concept was never offered to a value.
    """
    values = len(column.values)
    if target == UNIFORM:
        return np.full((len(used), values), 1 / values)
    counts = _offered(predictions, column.codes, used, values)
    if not counts.all():
        concept, value = np.argwhere(counts == 0)[0]
        raise CounterpoiseError(
            f"{predictions.source}: no row of {axis} {column.values[value]!r} was offered "
            f"{predictions.concepts[used[concept]]!r}, so that target pool is 0 there; offer it to all values, or take "
            "target uniform."
        )
    shares: Floats = counts / counts.sum(1, keepdims=True)
    return shares


def _offered(predictions: Predictions, codes: Ints, used: Ints, values: int) -> Ints:
    """How many rows of each value were offered each of the used concepts, (C, K); all rows where that is not known."""
    options = predictions.options
    if options is None:
        return np.tile(np.bincount(codes, minlength=values), (len(used), 1))
    offers = len(options.offered)
    by_offer = np.bincount(options.codes * values + codes, minlength=offers * values).reshape(offers, values)
    found: Ints = options.offered[:, used].T.astype(np.int64) @ by_offer
    return found


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis that is measured."""

    predictions: Predictions
    axis: str
    column: Column
    used: Ints
    target: str
    smoothing: float

    def measure(
        self,
        given: Ints,
        there: Sequence[Given],
        spread: Spread,
        permutations: int,
        seed: int,
        advance: Callable[[], None],
    ) -> AxisSkew:
        """The axis' table; `given` is how often each concept was given, used or not."""
        predictions, column, used = self.predictions, self.column, self.used
        counts = self._counts(column.codes)
        target = targets(predictions, self.axis, column, used, self.target)
        shares = share(counts, self.smoothing)
        skews = skew(shares, target)
        units = np.array([one.base for one in there])
        low, high = (side - np.log(target) for side in share_interval(counts, spread.count, units))
        fair = floors(given[used], target, self.smoothing, FLOORS, _rng(seed, "floor", self.axis))
        blocks = exchangeable(predictions, self.axis, column.codes)
        rng = _rng(seed, "permutation", self.axis)
        null = null_scores(column.codes, blocks, self._score, permutations, rng, advance)
        reach = students_t((units - 1).sum()).item()
        finite = skew(share(counts, self.smoothing or 0.5), target)
        errors = extreme_errors(shrunk(finite, low, high), spread)
        most, least = (
            _extreme(float(value), float(middle), reach * max(error, 1e-12), floor, found)
            for value, middle, error, floor, found in zip(
                extremes(skews), extremes(finite), errors, fair, null, strict=True
            )
        )
        kept = set(used.tolist())
        dropped = {name: int(given[c]) for c, name in enumerate(predictions.concepts) if c not in kept}
        names = tuple(predictions.concepts[c] for c in used)
        return AxisSkew(
            self.axis, column.values, names, dropped, counts, shares, target, skews,
            np.minimum(low, skews), np.maximum(high, skews), most, least,
        )  # fmt: skip

    def _score(self, codes: Ints) -> tuple[float, float]:
        """MaxSkew and MinSkew if the rows had these values."""
        target = np.full((len(self.used), len(self.column.values)), 1 / len(self.column.values))
        if self.target == POOL:
            offered = _offered(self.predictions, codes, self.used, len(self.column.values))
            target = np.maximum(offered, 0.5) / offered.sum(1, keepdims=True)
        most, least = extremes(skew(share(self._counts(codes), self.smoothing), target))
        return float(most), float(least)

    def _counts(self, codes: Ints) -> Ints:
        """Answers by concept and value, (C, K)."""
        values, concepts = len(self.column.values), len(self.predictions.concepts)
        flat = np.bincount(self.predictions.predicted * values + codes, minlength=concepts * values)
        return flat.reshape(concepts, values)[self.used]


def _extreme(value: float, finite: float, reach: float, floor: Fair, null: Floats) -> Extreme:
    """An infinite value has its interval around the finite one, and itself as an end."""
    low, high = min(value, finite - reach), max(value, finite + reach)
    return Extreme(value, low, high, floor, float(null.mean()), p_value(value, null))


def _used(predictions: Predictions, given: Ints, min_count: int, only: Collection[str] | None) -> Ints:
    chosen = np.array([only is None or name in only for name in predictions.concepts])
    used = np.flatnonzero((given >= min_count) & chosen)
    if not used.size:
        most = int(np.where(chosen, given, -1).argmax())
        raise CounterpoiseError(
            f"{predictions.source}: no concept was given {min_count} times; {predictions.concepts[most]!r} was, "
            f"{int(given[most])} times. Give more predictions, or a smaller min_count (--min-count)."
        )
    return used


def warnings_of(concepts: Sequence[str], given: Ints, used: Ints) -> Iterator[str]:
    """What forbids to rank a model by Skew.

    Args:
        concepts: all of them.
        given: how often each was given.
        used: places of those with answers enough.
    """
    if np.count_nonzero(given) < 2:
        yield (
            f"Every answer is {concepts[int(given.argmax())]!r}. A model that always says the same has Skew 0 and is not "
            "fair: do not rank it by Skew."
        )
    elif 2 * len(used) < len(concepts):
        yield (
            f"Only {len(used)} of {len(concepts)} concepts were given often enough to be measured. There are too few "
            "predictions, or the model avoids the others: do not rank it by Skew without their recall."
        )


def _rng(seed: int, *words: str) -> np.random.Generator:
    """Random numbers of their own for every purpose."""
    digest = hashlib.sha256(json.dumps(["skew", seed, *words]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _check(target: str, smoothing: float, min_count: int, draws: int, permutations: int) -> None:
    if target not in (UNIFORM, POOL):
        raise CounterpoiseError(f"target: given {target!r}, wanted {UNIFORM} or {POOL}.")
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise CounterpoiseError(f"smoothing: given {smoothing}, wanted a finite number from 0.")
    for name, value, least in (
        ("min_count", min_count, 1),
        ("draws", draws, 2),
        ("permutations", permutations, 1),
    ):
        if value < least:
            raise CounterpoiseError(f"{name}: given {value}, wanted a whole number from {least}.")
