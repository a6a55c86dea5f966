"""How a recipe's steps are cut and how many there are, before anything is trained."""

from __future__ import annotations

import math

from storage.errors import CounterpoiseError
from storage.manifest import load_dataset

from ..loading import Batches
from .checking import check_recipe
from .data import Sizes, sizes
from .preparing import prepare
from .recipe import BATCH, MICRO_BATCH, Recipe


def preview(recipe: Recipe) -> dict[str, str]:
    """What `train` would do, by name; opens model and dataset and writes nothing.

    Raises:
        CounterpoiseError: as `train`.
    """
    check_recipe(recipe)
    model = prepare(recipe)
    chosen = sizes_of(recipe, recipe.launch.processes)
    units = Batches(
        recipe.dataset, recipe.split, seed=recipe.seed, batch_size=chosen.units, keep_sets=recipe.keeps_sets,
        rank=0, world_size=recipe.launch.processes,
    ).units  # fmt: skip
    steps = steps_of(recipe, chosen, units, recipe.launch.processes)
    trained = sum(value.numel() for value in model.model.parameters() if value.requires_grad)
    return {
        "method": recipe.method,
        "model": f"{recipe.model}, {model.adapter.name}: {trained:,} parameters trained",
        "data": f"{recipe.dataset}, {recipe.split}: {units * chosen.members * recipe.launch.processes} pictures",
        "step": f"{chosen.batch} pictures, {chosen.units * chosen.members} at a time",
        "steps": f"{steps} an epoch before resampling, {recipe.epochs} epochs",
        "rate": f"{recipe.rate(model.adapter.name):g}, {recipe.schedule}",
    }


def sizes_of(recipe: Recipe, processes: int) -> Sizes:
    """How a step of a recipe is cut; see `data.sizes`."""
    values = load_dataset(recipe.dataset).axes.values()
    members = math.prod(map(len, values)) if recipe.keeps_sets else 1
    return sizes(recipe.batch, recipe.micro_batch, members, processes, (BATCH, MICRO_BATCH))


def steps_of(recipe: Recipe, chosen: Sizes, units: int, processes: int) -> int:
    """Steps in so many units of one process.

    Raises:
        CounterpoiseError: there is none.
    """
    steps = chosen.steps(units)
    if not steps:
        raise CounterpoiseError(
            f"batch: given {chosen.batch}, but the epoch has {units * chosen.members * processes} pictures; give a smaller "
            "batch, or more data."
        )
    return min(steps, recipe.steps or steps)
