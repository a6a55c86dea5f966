"""The proof of CSD on the embedded world: `python -m tests.benchmarks.csd`.

    dataset     generate what arms are fine-tuned on, and render the pools          cached in build/csd
    base        train towers, biased base models and one without bias
    search      every rate of every arm, on the validation pool
    arms        every arm with every seed, and its rebound
    table       the table, from what is on disk

Without a command: arms and table. All commands continue what was stopped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

import csd_run
from csd_arms import ARMS, SEARCH_SEED, TRAINED_ON
from csd_world import MODELS, ROOT

app = typer.Typer(add_completion=False, help=__doc__)
Jobs = Annotated[int, typer.Option(help="Processes side by side, one thread each.")]
Only = Annotated[list[str] | None, typer.Option(help="These arms alone; may be given again.")]
console = Console()


def _call(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT)
    if done.returncode not in (0, 3):
        raise typer.Exit(done.returncode)


@app.callback(invoke_without_command=True)
def _plain(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        arms()
        table()


@app.command()
def dataset() -> None:
    """Generate the datasets and render the pools."""
    csd_run.make_datasets(_call)


@app.command()
def base() -> None:
    """Train towers and base models."""
    for what in (
        ("tower", "llava"),
        ("base", "llava"),
        ("null", "llava"),
        ("tower", "qwen"),
        ("base", "qwen"),
    ):
        name = f"{what[1]}-{what[0]}"
        if not (MODELS / name / "config.json").exists():
            _call(["-m", "flows.world", *what, "--out", str(MODELS)])


@app.command()
def search(jobs: Jobs = 2, only: Only = None) -> None:
    """Try every rate of every arm."""
    names = only or list(ARMS)
    pool = csd_run.Pool(jobs, console)
    pool.run([("measure", name) for name in csd_run.BASES if (MODELS / csd_run.BASES[name]).exists()])
    pool.run(csd_run.search_jobs(names))
    for name, found in csd_run.choose(names).items():
        console.print(name, found, highlight=False)


@app.command()
def arms(jobs: Jobs = 2, only: Only = None) -> None:
    """Train and measure every arm with every seed."""
    names, pool = only or list(ARMS), csd_run.Pool(jobs, console)
    pool.run(csd_run.arm_jobs(names))
    pool.run(csd_run.rebound_jobs([name for name in names if name in TRAINED_ON]))


@app.command()
def table() -> None:
    """Print the table."""
    from csd_table import show

    raise typer.Exit(show(console))


@app.command(hidden=True)
def one(name: str, seed: int) -> None:
    """One arm with one seed."""
    csd_run.run_arm(name, seed, csd_run.rate_of(name), csd_run.folder_of(name, seed), searching=False)


@app.command(hidden=True)
def rebound(name: str, seed: int, what: str) -> None:
    """One arm's model, trained on."""
    csd_run.run_rebound(name, seed, what)


@app.command("search-one", hidden=True)
def search_one(name: str, rate: float) -> None:
    """One rate of one arm."""
    csd_run.run_arm(name, SEARCH_SEED, rate, csd_run.search_folder(name, rate), searching=True)


@app.command(hidden=True)
def measure(name: str) -> None:
    """A base model as it is."""
    csd_run.run_base(name)


if __name__ == "__main__":
    app()
