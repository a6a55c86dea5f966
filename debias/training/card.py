"""The card of a trained model: what it was trained from and on, its Skew beside a fair model's, its capability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..skew_table import Extreme
from .folder import CARD, MODEL, RunFolder
from .measuring import Evaluation
from .recipe import Recipe

_UNKNOWN = "see the base model's card"


def write_card(
    folder: RunFolder,
    recipe: Recipe,
    facts: Mapping[str, Any],
    before: Mapping[str, Evaluation],
    after: Mapping[str, Evaluation],
    shortfall: str,
) -> None:
    """README.md in the run's folder, and beside the model.

    Args:
        folder: of the run.
        recipe: what was asked for.
        facts: `root_sha256`, `steps`, and `capability`, a pair.
        before: evaluations by pool.
        after: the same after training.
        shortfall: a diagnosis, or nothing.
    """
    text = "\n".join(_lines(recipe, facts, before, after, shortfall)) + "\n"
    folder.write_text(CARD, text)
    folder.write_text(f"{MODEL}/{CARD}", text)


def licence(model: str) -> str | None:
    """The licence that a model's folder states in its own card; None where it states none."""
    try:
        text = (Path(model) / CARD).read_text("utf-8")
        head = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return None if found is None else str(found)


def _lines(
    recipe: Recipe,
    facts: Mapping[str, Any],
    before: Mapping[str, Evaluation],
    after: Mapping[str, Evaluation],
    shortfall: str,
) -> Iterator[str]:
    known = licence(recipe.model)
    head = {
        "base_model": recipe.model,
        "library_name": "transformers",
        "tags": ["counterpoise", recipe.method],
    }
    yield f"---\n{yaml.safe_dump({**head, **({'license': known} if known else {})}, sort_keys=False)}---"
    yield f"# {recipe.model}, debiased by {recipe.method}\n"
    tuned = "LoRA" if recipe.lora else "Full fine-tuning"
    yield f"{tuned} of `{recipe.model}` for {recipe.epochs} epochs, {facts['steps']} steps; `recipe.json` has the rest."
    yield "Labels mean prompted appearance, never identity. Lower Skew on these pools proves nothing about others.\n"
    yield f"- licence of the base model: {known or _UNKNOWN}"
    yield f"- data: `{recipe.dataset}`, split `{recipe.split}`, shards {facts['root_sha256']}"
    was, now = facts["capability"]
    if was is not None and now is not None:
        what = "general questions" if recipe.questions else f"accuracy on {recipe.evaluate_on[0]}"
        yield f"- capability ({what}): {was:.4f} before, {now:.4f} after"
    if shortfall:
        yield f"- **{shortfall}**"
    yield "\n## Skew, before and after\n"
    yield "Fair: what a fair model scores with as many answers; not 0.\n"
    yield "| pool | axis | | before | fair | after | fair |\n|---|---|---|---|---|---|---|"
    for pool in before:
        yield from _rows(before[pool], after[pool])


def _rows(before: Evaluation, after: Evaluation) -> Iterator[str]:
    if before.table is None or after.table is None:
        yield f"| {before.pool} | | | not measured: {before.note or after.note} | | | |"
        return
    for axis, was in before.table.axes.items():
        now = after.table.axes[axis]
        for name, one, other in (
            ("MaxSkew", was.max_skew, now.max_skew),
            ("MinSkew", was.min_skew, now.min_skew),
        ):
            yield f"| {before.pool} | {axis} | {name} | {_cells(one)} | {_cells(other)} |"


def _cells(one: Extreme) -> str:
    return f"{one.value:.3f} | {one.floor.mean:.3f}"
