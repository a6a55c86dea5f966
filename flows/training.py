"""A training run as the command and the flow see it: what is asked for, its steps as children, what it says at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import CounterpoiseError

from .launching import Ended, launch
from .recipes import load_recipe, recipe_from_dict

if TYPE_CHECKING:
    from debias.training.recipe import Recipe
    from debias.training.run import Outcome

OUT = "out/train"
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A recipe and where its run goes.

    Attributes:
        recipe: what is asked for.
        folder: of the run.
        fresh: begin anew, whatever is there.
    """

    recipe: Recipe
    folder: str
    fresh: bool = False

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return Path(self.folder).name or "training"


def open_job(
    recipe: str | Document, dataset: str | None = None, out: str | None = None, fresh: bool = False
) -> Job:
    """What is asked for, checked as far as words go.

    Args:
        recipe: a YAML file, the name of a shipped recipe, or the document itself.
        dataset: instead of the recipe's.
        out: the run's folder; None for one named as the file.
        fresh: begin anew.

    Raises:
        CounterpoiseError: one line with the field, what was given and what is wanted.
    """
    if isinstance(recipe, str):
        chosen, folder = load_recipe(recipe), out or f"{OUT}/{Path(recipe).stem}"
    elif out is None:
        raise CounterpoiseError("out: given none, wanted the run's folder beside a recipe that is no file.")
    else:
        chosen, folder = recipe_from_dict(recipe), out
    if dataset is not None and not dataset.strip():
        raise CounterpoiseError(
            f"dataset: given {dataset!r}, wanted the folder or URI of a dataset, or none for the recipe's."
        )
    return Job(chosen if dataset is None else replace(chosen, dataset=dataset), folder, fresh)


def check(job: Job) -> None:
    """Refuse a recipe that does not go with its dataset, before a process is started or another machine asked."""
    from debias.training.checking import check_recipe

    check_recipe(job.recipe)


def refresh(job: Job, stopped: Callable[[], bool] = lambda: False) -> Ended:
    """Measure the base model in processes of their own; what was measured before is not asked again."""
    return launch(job.recipe, job.folder, not job.fresh, measure=True, stopped=stopped)


def fit(job: Job, stopped: Callable[[], bool] = lambda: False) -> Ended:
    """Train and evaluate in processes of their own, after `refresh`."""
    return launch(job.recipe, job.folder, resume=True, stopped=stopped)


def portable(job: Job) -> dict[str, Any]:
    """The job as parameters for another process, which may start in another folder: local paths are whole there."""
    from debias.training.recipe import HELDOUT, TRAIN, recipe_to_dict

    def pool(name: str) -> str:
        return name if name in (TRAIN, HELDOUT) else whole(name)

    given = job.recipe
    config, questions = given.launch.config, given.questions
    moved = replace(
        given,
        model=whole(given.model) if Path(given.model).is_dir() else given.model,
        dataset=whole(given.dataset),
        skew_pool=pool(given.skew_pool),
        evaluate_on=tuple(map(pool, given.evaluate_on)),
        questions=None if questions is None else whole(questions),
        launch=replace(given.launch, config=None if config is None else whole(config)),
    )
    return {"recipe": recipe_to_dict(moved), "out": whole(job.folder), "fresh": job.fresh}


def whole(path: str) -> str:
    """A local path from the root; a URI as it is."""
    return path if "://" in path else str(Path(path).absolute())


def told(outcome: Outcome) -> list[str]:
    """What is printed of a run that ended."""
    lines = [f"steps       {outcome.steps}"]
    for pool, was in outcome.before.items():
        now = outcome.after.get(pool)
        after = "" if now is None else f" to {now.accuracy:.1%}"
        lines.append(f"{pool:11} accuracy {was.accuracy:.1%}{after}")
        if was.table is None or now is None or now.table is None:
            continue
        for axis, one in was.table.axes.items():
            other = now.table.axes[axis]
            for name, a, b in (
                ("MaxSkew", one.max_skew, other.max_skew),
                ("MinSkew", one.min_skew, other.min_skew),
            ):
                fair = f"(fair {a.floor.mean:.2f}, {b.floor.mean:.2f})"
                lines.append(f"{'':11} {axis} {name} {a.value:.2f} to {b.value:.2f} {fair}")
    if outcome.model:
        lines.append(f"model       {outcome.model}")
    return lines


def measured(outcome: Outcome) -> list[str]:
    """What is printed of a base model that was measured."""
    lines = []
    for pool, was in outcome.before.items():
        lines.append(f"{pool:11} accuracy {was.accuracy:.1%}{f'; {was.note}' if was.note else ''}")
        for axis, one in was.table.axes.items() if was.table else ():
            for name, value in (("MaxSkew", one.max_skew), ("MinSkew", one.min_skew)):
                lines.append(f"{'':11} {axis} {name} {value.value:.2f} (fair {value.floor.mean:.2f})")
    return lines
