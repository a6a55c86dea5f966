"""`counterpoise train`: a recipe to a trained model, in this process, in several, or as a Prefect flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.training.run import Outcome

    from .launching import Ended
    from .training import Job

RUNNERS = ("prefect", "none")


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="DATASET", show_default=False, help="A folder or URI, instead of the recipe's."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", show_default=False, help="The run's folder. Default: out/train/NAME."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with what is in DIR, or remove it and begin anew.")
    ] = True,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="prefect|none",
            show_default=False,
            help="prefect: a flow with heatmaps and tables in Prefect's UI. none: no Prefect, here. Default: prefect if "
            "the recipe names a work pool or deployment, else none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, model and dataset and say what would be done.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Only measure the base model; training then goes on from there.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log.")] = False,
) -> None:
    """Fine-tune a model; run again, it goes on.

    Exit status 3 means that training was stopped, or that bias did not fall: one line says why.
    """
    from .launching import is_rank, rank_ended
    from .training import measured, open_job, told

    console, err = Console(), Console(stderr=True)
    job = open_job(recipe, dataset, out, not resume)
    if is_rank():
        rank_ended(job.folder, lambda: _run(job, measure, Console(quiet=True)), measured if measure else told)
    elif dry_run:
        _dry_run(job, console, err)
    else:
        _end(_ended(job, measure, _runner(runner, job, measure), recipe, verbose, err), console)


def _runner(given: str | None, job: Job, measure: bool) -> str:
    if given is not None and given not in RUNNERS:
        raise CounterpoiseError(f"--runner: given {given!r}, wanted {' or '.join(RUNNERS)}.")
    if measure and given == "prefect":
        raise CounterpoiseError(
            "--measure and --runner prefect: the flow measures and trains; leave one out."
        )
    return given or ("prefect" if job.recipe.launch.elsewhere and not measure else "none")


def _ended(job: Job, measure: bool, runner: str, recipe: str, verbose: bool, err: Console) -> Ended:
    from .launching import LOG, Ended, launch
    from .training import check, measured, told

    if runner == "prefect":
        from .home import prepare_prefect

        prepare_prefect(verbose)
        with err.status("training through Prefect"):
            from . import train as flow

            return flow.run(job, recipe)
    if job.recipe.launch.processes > 1:
        with err.status("checking recipe and dataset"):
            check(job)
        with err.status(f"training in {job.recipe.launch.processes} processes, log in {job.folder}/{LOG}"):
            return launch(job.recipe, job.folder, not job.fresh, measure)
    outcome = _run(job, measure, err)
    return Ended(tuple(measured(outcome) if measure else told(outcome)), outcome.shortfall)


def _run(job: Job, measure: bool, err: Console) -> Outcome:
    from .progress import counting_to

    with err.status("measuring" if measure else "loading"):
        quiet()
        from debias.training import run

        if measure:
            return run.measure(job.recipe, job.folder, job.fresh)
    with counting_to(err, "training") as steps:
        return run.train(job.recipe, job.folder, job.fresh, steps)


def quiet() -> None:
    """Leave the terminal to this program's own lines."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _dry_run(job: Job, console: Console, err: Console) -> None:
    from .skew_view import say

    with err.status("checking recipe, model and dataset"):
        quiet()
        from debias.training.planning import preview

        found = preview(job.recipe)
    for name, value in found.items():
        say(console, f"{name:12}{value}")
    say(console, f"{'folder':12}{job.folder}")


def _end(how: Ended, console: Console) -> None:
    from .skew_view import say

    for line in how.lines:
        say(console, line)
    if how.shortfall:
        typer.echo(how.shortfall, err=True)
        raise typer.Exit(3)
