"""What is wrong with a run, by name, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Sequence

from storage.skewed import join_skew

from ..skew_null import excess
from ..skew_table import AxisSkew, SkewTable
from .recipe import Recipe

_SHOWN = 3


def spread(one: AxisSkew) -> float:
    """Excess of MaxSkew - MinSkew over what a fair model scores: the sum of both excesses."""
    return excess(one.max_skew.value, one.max_skew.floor.mean) + excess(
        one.min_skew.value, one.min_skew.floor.mean
    )


def plateau(before: SkewTable, after: SkewTable, recipe: Recipe) -> str | None:
    """Bias did not fall: on every axis that had an excess, less than the wanted share of it is gone; None if it fell."""
    had = {axis: spread(one) for axis, one in before.axes.items() if spread(one) > 0 and axis in after.axes}
    left = {axis: spread(after.axes[axis]) for axis in had}
    if not had or any(left[axis] <= (1 - recipe.plateau) * had[axis] for axis in had):
        return None
    told = ", ".join(f"{axis} {had[axis]:.2f} to {left[axis]:.2f}" for axis in had)
    return (
        f"bias plateaus: the excess of MaxSkew - MinSkew over a fair model's went from {told}; at least "
        f"{recipe.plateau:.0%} of it were to go (plateau). Either Skew is measured on other images than are trained on "
        "(skew_pool), the data are unbalanced, or steps are too few or too small (learning_rate, epochs)."
    )


def unbalanced(recipe: Recipe, sidecar: str | None) -> str:
    """Which cells are handed out most unevenly, by concept, axis and value, as a sentence."""
    if sidecar is None:
        return "No Skew was used, so that every picture was handed out once."
    rows = [row for row in join_skew(recipe.dataset, sidecar).values if row["images"]]
    by_concept: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in rows:
        share = row["multiplicity"] / row["images"]
        by_concept.setdefault((row["concept"], row["axis"]), []).append((share, row["value"]))
    uneven = sorted(by_concept.items(), key=lambda item: -_ratio(item[1]))[:_SHOWN]
    told = [
        f"{concept} {max(cells)[1]} {max(cells)[0]:.2f} and {min(cells)[1]} {min(cells)[0]:.2f}"
        for (concept, _), cells in uneven
    ]
    return f"Copies of a picture in the last epoch, the least even: {', '.join(told)}."


def _ratio(cells: Sequence[tuple[float, str]]) -> float:
    return max(cells)[0] / max(min(cells)[0], 1e-9)


def capability_fell(
    base: float, now: float, epoch: int, recipe: Recipe, rate: float, checkpoint: str
) -> str | None:
    """Capability fell by more than `stop_drop`; None if it did not."""
    if now >= base - recipe.stop_drop:
        return None
    what = (
        "the learning rate or the resampling is too strong"
        if recipe.measures
        else "the learning rate is too strong"
    )
    cure = "lower learning_rate"
    if recipe.measures:
        cure += f", raise tau1 and tau2 (now {recipe.tau1:g} and {recipe.tau2:g}), or lower skew_clamp"
    return (
        f"capability falls: {now:.1%} right after epoch {epoch}, {base:.1%} before training, which is more than stop_drop "
        f"{recipe.stop_drop:g} lower; {what}: {cure} (learning rate {rate:g}). {checkpoint}"
    )
