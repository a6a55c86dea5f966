"""Whether a recipe and its dataset go together; asked before a model is opened."""

from __future__ import annotations

import difflib

from storage.errors import CounterpoiseError
from storage.manifest import load_dataset

from ..predictions import JOINT
from .capability import read_questions
from .measuring import chosen_sets, source_of
from .preparing import check_parts
from .recipe import METHODS, TRAIN, Recipe


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be trained.

    Raises:
        CounterpoiseError: names the key, what was given and what is wanted.
    """
    if recipe.method not in METHODS:
        raise CounterpoiseError(f"method: given {recipe.method!r}, wanted one of {', '.join(METHODS)}.")
    if recipe.measures and not recipe.smoothing > 0:
        raise CounterpoiseError(
            f"smoothing: given {recipe.smoothing:g}, wanted a number above 0: without smoothing a value that the "
            "model never gives has an infinite Skew."
        )
    if recipe.method == "consistency" and not recipe.divergence > 0:
        raise CounterpoiseError("consistency: given 0, wanted a factor above 0 with method consistency.")
    check_parts(recipe)
    _check_axes(recipe)
    chosen_sets(source_of(recipe, TRAIN), None, recipe.seed)
    for name in dict.fromkeys([*recipe.evaluate_on, *([recipe.skew_pool] if recipe.measures else [])]):
        chosen_sets(source_of(recipe, name), None, recipe.seed)
    if recipe.questions is not None:
        read_questions(recipe.questions)


def _check_axes(recipe: Recipe) -> None:
    known = load_dataset(recipe.dataset).axes
    for axis in recipe.axes or ():
        for part in axis.split(JOINT):
            if part not in known:
                near = difflib.get_close_matches(part, known, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise CounterpoiseError(
                    f"axes: given {axis!r}, but {recipe.dataset} has the axes {', '.join(known)}; name those{hint}."
                )
