"""What is logged whenever a model's Skew is measured anew: cells whose sign flipped, and how many answers each had.

Within an epoch Skew is frozen, so that a cell may be corrected past 0; flips show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .skew_table import SkewTable


@dataclass(frozen=True, slots=True)
class Flip:
    """A cell whose Skew changed its sign.

    Attributes:
        axis, concept, value: the cell.
        before, after: Skew in the one table and the other.
        sure: both intervals leave out 0.
    """

    axis: str
    concept: str
    value: str
    before: float
    after: float
    sure: bool


def sign_flips(before: SkewTable, after: SkewTable) -> list[Flip]:
    """Cells that are in both tables and whose Skew is on the other side of 0 now, in the order of `after`."""
    then = {
        (axis, cell.concept, cell.value): cell for axis, one in before.axes.items() for cell in one.cells()
    }
    found = []
    for axis, one in after.axes.items():
        for now in one.cells():
            was = then.get((axis, now.concept, now.value))
            if was is not None and was.skew * now.skew < 0:
                sure = was.low * was.high > 0 and now.low * now.high > 0
                found.append(Flip(axis, now.concept, now.value, was.skew, now.skew, sure))
    return found


def cell_counts(table: SkewTable) -> Iterator[tuple[str, str, str, int]]:
    """(axis, concept, value, answers) of every cell."""
    for axis, one in table.axes.items():
        for cell in one.cells():
            yield axis, cell.concept, cell.value, cell.count


def retained(tables: Sequence[SkewTable]) -> list[str]:
    """Concepts that all tables have answers enough of, sorted: what arms are compared on (`skew_table_from(only=...)`)."""
    kept = [set(one.concepts) for table in tables for one in table.axes.values()]
    return sorted(set.intersection(*kept)) if kept else []
