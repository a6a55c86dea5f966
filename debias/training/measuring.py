"""A model in training asked about pictures: answers of all processes together, its skew table, its accuracy."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from accelerate.utils import gather_object

from storage.errors import CounterpoiseError
from storage.manifest import load_dataset
from storage.metadata import table as records
from storage.verdicts import rejected_sets

from ..asking import Asker
from ..instance import dataset_concepts
from ..models.base import MultimodalModel
from ..pools import Pool, dataset_pool
from ..predicting import predict, predictions_schema
from ..predictions import Predictions, predictions_from
from ..questions import choices
from ..sampling import drawn
from ..skew import skew_table_from
from ..skew_table import SkewTable
from .recipe import HELDOUT, TRAIN, Recipe
from .subject import Share

#: Of the permutation test; a table of an epoch is looked at for its course, not for its last digits.
PERMUTATIONS = 199


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset's images that a model is asked about.

    Attributes:
        name: as the recipe has it.
        dataset: folder or URI.
        split: None for all.
    """

    name: str
    dataset: str
    split: str | None = None


def source_of(recipe: Recipe, name: str) -> Source:
    """What a recipe means by a pool: "train", "heldout", or the whole of another dataset."""
    splits = {TRAIN: recipe.split, HELDOUT: recipe.heldout}
    return Source(name, recipe.dataset, splits[name]) if name in splits else Source(name, name)


def chosen_sets(source: Source, images: int | None, seed: int) -> list[str]:
    """Ids of whole sets with so many images at least, or all: the concepts in turn, a concept's sets by hash.

    Raises:
        CounterpoiseError: there are none.
    """
    manifest = load_dataset(source.dataset)
    found = (
        records(source.dataset)
        .filter("kept AND member = 0")
        .project("set_id, concept, split")
        .to_arrow_table()
    )
    if source.split is not None:
        found = found.filter(pc.equal(found["split"], source.split))
    rejected = rejected_sets(source.dataset)
    rows = [row for row in found.to_pylist() if row["set_id"] not in rejected]
    if not rows:
        dataset_pool(source.dataset, source.split)  # says why nothing is left
    by_concept: dict[str, list[str]] = {}
    for row in rows:
        by_concept.setdefault(row["concept"], []).append(row["set_id"])
    ranked = [
        (rank, concept, name)
        for concept, names in by_concept.items()
        for rank, name in enumerate(sorted(names, key=lambda name: drawn("skew images", seed, name)))
    ]
    members = math.prod(map(len, manifest.axes.values()))
    wanted = len(ranked) if images is None else -(-images // members)
    return [name for *_, name in sorted(ranked)[:wanted]]


def ask(model: MultimodalModel, source: Source, sets: Sequence[str], share: Share, batch: int) -> pa.Table:
    """A model's answers on whole sets, by key; each process asks about its share of them."""
    mine = frozenset(sets[share.rank :: share.processes])
    pool = dataset_pool(source.dataset, source.split, mine)
    rows = _asked(model, pool, batch) if mine else []
    if share.processes > 1:
        rows = gather_object(rows)
    return pa.Table.from_pylist(rows, schema=predictions_schema(pool.axes)).sort_by("key")


def _asked(model: MultimodalModel, pool: Pool, batch: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = predict(Asker(model), pool, choices(pool.groups), batch).to_pylist()
    return found


def checked(table: pa.Table, source: Source) -> Predictions:
    """Answers on a dataset's images as predictions with all of its values and concepts."""
    axes = load_dataset(source.dataset).axes
    column = {name: table[name].to_pylist() for name in table.column_names}
    return predictions_from(
        column["predicted"],
        {axis: column[axis] for axis in axes},
        key=column["key"],
        set_id=column["set_id"],
        concept=column["concept"],
        options=column["options"],
        values=axes,
        concepts=dataset_concepts(source.dataset),
        source=source.name,
    )


def skew_of(predictions: Predictions, recipe: Recipe, only: Collection[str] | None = None) -> SkewTable:
    """The skew table by the recipe's axes, smoothing and least counts; `only` on these concepts, where it is given."""
    return skew_table_from(
        predictions,
        recipe.axes,
        smoothing=recipe.smoothing,
        min_count=recipe.min_count,
        seed=recipe.seed,
        permutations=PERMUTATIONS,
        only=only,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a model does on a pool.

    Attributes:
        pool: as the recipe has it.
        accuracy: share of answers that are the true concept.
        table: None where no concept was given often enough to be measured.
        note: why there is none.
    """

    pool: str
    accuracy: float
    table: SkewTable | None
    note: str | None = None


def evaluated(table: pa.Table, source: Source, recipe: Recipe) -> Evaluation:
    """Accuracy and skew table of answers; a pool too small for Skew has its accuracy alone."""
    predictions = checked(table, source)
    assert predictions.concept is not None
    found = Evaluation(source.name, float((predictions.predicted == predictions.concept).mean()), None)
    known = load_dataset(source.dataset).axes
    own = [axis for axis in recipe.axes or tuple(known) if all(part in known for part in axis.split("*"))]
    try:
        return replace(found, table=skew_of(predictions, replace(recipe, axes=tuple(own) or None)))
    except CounterpoiseError as error:
        return replace(found, note=str(error))
