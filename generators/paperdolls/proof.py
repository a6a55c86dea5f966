"""The proof of prompt-to-prompt on the shipped model: what edits change outside the person, with it and without."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from generators.candidates import Factory
from generators.comparison import Comparison, compare
from generators.concepts import CONCEPTS
from generators.plan import make_plan
from generators.prompts import TEMPLATES
from generators.scorers import load_scorers
from generators.sdxl import SdxlEngine
from generators.spec import Edit, Sampler, ScorerChoice, Spec

from .data import AXES
from .evaluation import EDIT, GUIDANCE

RATIO_BAR = 0.75
ACCURACY_BAR = 0.02


def spec(sets_per_concept: int, sampler: Sampler, edit: Edit) -> Spec:
    """Return a spec over the 18 concepts with the embedded model: bases over gender and age, edits over race."""
    return Spec(
        name="proof", seed=3, model="embedded", concepts=tuple(CONCEPTS.values()), axes=AXES,
        base_axes=("gender", "age"), edit_axes=("race",), templates=TEMPLATES, sets_per_concept=sets_per_concept,
        candidates={"default": 1}, sets_per_shard=4, sampler=sampler, edit=edit,
        scorers=ScorerChoice(nsfw=None, faces=None),
    )  # fmt: skip


def measure(bases: int, seed: int, sampler: Sampler, edit: Edit) -> Comparison:
    """Compare over `bases` bases (four a set), each with its five edits."""
    sets = -(-bases // 4)
    chosen = spec(-(-sets // len(CONCEPTS)), sampler, edit)
    factory = Factory(chosen, SdxlEngine("embedded"), load_scorers(chosen))
    steps = iter(track(range(sets), description="comparing", console=Console(stderr=True)))
    next(steps)
    return compare(factory, make_plan(chosen)[:sets], seed, on_set=lambda: next(steps, None))


def passed(found: Comparison) -> bool:
    """Tell whether the background changes less, surely, at no more than two points lower attribute accuracy."""
    return (
        found.ratio <= RATIO_BAR
        and found.high < 1
        and found.accuracy_with >= found.accuracy_without - ACCURACY_BAR
    )


def run(bases: int, seed: int, sampler: Sampler | None = None, edit: Edit | None = None) -> bool:
    """Measure, print a table, and tell whether the bars are met."""
    found = measure(bases, seed, sampler or Sampler(steps=15, guidance=GUIDANCE), edit or EDIT)
    table = Table(
        "figure",
        "prompt-to-prompt",
        "independent prompts",
        title=f"{found.bases} bases, {len(found.without)} edits",
    )
    for name, part in (("median", 50), ("90th percentile", 90)):
        pair = [np.nanpercentile(side, part) for side in (found.with_p2p, found.without)]
        table.add_row(f"background_change, {name}", *(f"{value:.2f}" for value in pair))
    table.add_row(
        "attributes read as prompted", f"{found.accuracy_with:.1%}", f"{found.accuracy_without:.1%}"
    )
    Console().print(table)
    Console().print(
        f"ratio of medians {found.ratio:.3f} (95 % interval {found.low:.3f} to {found.high:.3f}; bar {RATIO_BAR})"
    )
    return passed(found)
