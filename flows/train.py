"""`counterpoise train`: a recipe to a trained model, in this process or in several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from debias.training.recipe import Recipe
    from debias.training.run import Outcome

OUT = "out/train"


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", show_default=False, help=f"The run's folder. Default: {OUT}/NAME."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with what is in DIR, or remove it and begin anew.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, model and dataset and say what would be done.")
    ] = False,
) -> None:
    """Fine-tune a model; run again, it goes on.

    Exit status 3 means that training was stopped, or that bias did not fall: one line says why.
    """
    from .launching import is_rank, launch, rank_ended
    from .recipes import load_recipe

    console, err = Console(), Console(stderr=True)
    chosen = load_recipe(recipe)
    folder = out or f"{OUT}/{Path(recipe).stem}"
    if is_rank():
        rank_ended(folder, lambda: _run(chosen, folder, not resume, Console(quiet=True)))
    elif dry_run:
        _dry_run(chosen, folder, console, err)
    elif chosen.launch.processes > 1:
        with err.status("checking recipe and dataset"):
            _check(chosen)
        _end(*launch(recipe, chosen.launch, folder, resume, err), console)
    else:
        outcome = _run(chosen, folder, not resume, err)
        _end(told(outcome), outcome.shortfall, console)


def _run(recipe: Recipe, folder: str, fresh: bool, err: Console) -> Outcome:
    from .progress import counting_to

    with err.status("loading"):
        quiet()
        from debias.training.run import train as run

    with counting_to(err, "training") as told:
        return run(recipe, folder, fresh, told)


def quiet() -> None:
    """Leave the terminal to this program's own lines."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _check(recipe: Recipe) -> None:
    from debias.training.checking import check_recipe

    check_recipe(recipe)


def _dry_run(recipe: Recipe, folder: str, console: Console, err: Console) -> None:
    from .skew_view import say

    with err.status("checking recipe, model and dataset"):
        quiet()
        from debias.training.planning import preview

        found = preview(recipe)
    for name, value in found.items():
        say(console, f"{name:12}{value}")
    say(console, f"{'folder':12}{folder}")


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


def _end(lines: list[str], shortfall: str, console: Console) -> None:
    from .skew_view import say

    for line in lines:
        say(console, line)
    if shortfall:
        typer.echo(shortfall, err=True)
        raise typer.Exit(3)
