"""A run before and after, read from its folder: what each pool's answers were, and both on the same concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from ..refresh import retained
from ..skew_table import SkewTable
from .evaluating import evaluation_place, kept_evaluation
from .folder import RunFolder
from .measuring import Evaluation, checked, skew_of, source_of
from .recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A pool before and after training.

    Attributes:
        pool: as the recipe has it.
        before: None where the run did not come to it.
        after: None where training was stopped.
        concepts: that both tables have answers enough of, sorted; None where one of them is missing.
        same_before, same_after: the tables on these concepts alone; None where there is none.
    """

    pool: str
    before: Evaluation | None
    after: Evaluation | None
    concepts: tuple[str, ...] | None = None
    same_before: SkewTable | None = None
    same_after: SkewTable | None = None


def compared(recipe: Recipe, folder: RunFolder) -> list[Compared]:
    """The pools that a recipe evaluates on, in its order; no model is asked."""
    return [_pool(recipe, folder, pool) for pool in recipe.evaluate_on]


def _pool(recipe: Recipe, folder: RunFolder, pool: str) -> Compared:
    kept = [kept_evaluation(folder, pool, epochs) for epochs in (0, recipe.epochs)]
    before, after = (None if one is None else one[1] for one in kept)
    found = Compared(pool, before, after)
    if before is None or after is None or before.table is None or after.table is None:
        return found
    concepts = retained([before.table, after.table])
    same = [
        _on_same(recipe, folder, pool, epochs, table, concepts)
        for epochs, table in ((0, before.table), (recipe.epochs, after.table))
    ]
    return replace(found, concepts=tuple(concepts), same_before=same[0], same_after=same[1])


def _on_same(
    recipe: Recipe, folder: RunFolder, pool: str, epochs: int, table: SkewTable, concepts: Sequence[str]
) -> SkewTable | None:
    """A table on these concepts alone, measured anew from the answers where it has others."""
    if not concepts:
        return None
    if all(set(one.concepts) == set(concepts) for one in table.axes.values()):
        return table
    answers = pq.read_table(folder.path / f"{evaluation_place(pool, epochs)}.parquet")
    own = replace(recipe, axes=tuple(table.axes))
    return skew_of(checked(answers, source_of(recipe, pool)), own, only=concepts)
