"""The skew table as it is kept: cells, extremes, and what stands beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .answers import Answers
from .predictions import Ints
from .sampling import Floats
from .skew_null import Fair


@dataclass(frozen=True, slots=True)
class Extreme:
    """MaxSkew@C or MinSkew@C of one axis.

    Attributes:
        value: mean over the concepts used; natural logarithm.
        low, high: 95 % interval of what the model would score on average on so many answers: to be held against the floor
            and other models, not against 0.
        floor: what a fair model scores with as many answers per concept.
        null: mean of the permutation test: a fair model whose twins agree as this one's do.
        p: of the permutation test.
    """

    value: float
    low: float
    high: float
    floor: Fair
    null: float
    p: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of one axis at one concept; see `AxisSkew`."""

    concept: str
    value: str
    count: int
    share: float
    target: float
    skew: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class AxisSkew:
    """The table of one axis.

    Attributes:
        axis: its name; `gender*race` for a joint one.
        values: (K,).
        concepts: (C,), those with answers enough.
        dropped: the others, with how often each was given.
        count: (C, K), answers by value.
        share: (C, K), smoothed.
        target: (C, K), share wanted.
        skew: (C, K), ln(share / target); -inf for an absent value without smoothing.
        low, high: (C, K), 95 % interval of the Skew that is not smoothed.
        max_skew, min_skew: over the concepts.
    """

    axis: str
    values: tuple[str, ...]
    concepts: tuple[str, ...]
    dropped: Mapping[str, int]
    count: Ints
    share: Floats
    target: Floats
    skew: Floats
    low: Floats
    high: Floats
    max_skew: Extreme
    min_skew: Extreme

    def cells(self) -> Iterator[Cell]:
        """The cells by concept and value."""
        columns = (self.count, self.share, self.target, self.skew, self.low, self.high)
        for c, concept in enumerate(self.concepts):
            for k, value in enumerate(self.values):
                yield Cell(concept, value, *(column[c, k].item() for column in columns))


@dataclass(frozen=True, slots=True, eq=False)
class SkewTable:
    """What one model at one state of its weights answers, and how that depends on the values.

    Attributes:
        axes: by name.
        smoothing, target, min_count, seed: as asked for.
        rows, sets: how many there were; sets is None where they are not known.
        answers: what Skew cannot see: flips, worst cell, recall.
        warnings: what forbids to rank the model by Skew, in plain words; one a line.
    """

    axes: Mapping[str, AxisSkew]
    smoothing: float
    target: str
    min_count: int
    seed: int
    rows: int
    sets: int | None
    answers: Answers
    warnings: tuple[str, ...]
