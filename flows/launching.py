"""Training in processes of its own: accelerate's launcher as a child, its ranks' end as a file, nobody left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from storage.backend import explain
from storage.errors import CounterpoiseError

from .children import child, end_with_parent

if TYPE_CHECKING:
    from debias.training.recipe import Launch, Recipe
    from debias.training.run import Outcome

RANK = "COUNTERPOISE_RANK_OF"
LOG, RECIPE, ENDED = "launch.log", "launch.yaml", "ended.json"
_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Ended:
    """How processes that trained ended: the lines that they tell, and why the run fell short, or nothing."""

    lines: tuple[str, ...]
    shortfall: str


def is_rank() -> bool:
    """Whether this process is one that `launch` made."""
    return RANK in os.environ


class Stopped(Exception):
    """Whoever waited was told to stop; the processes were ended."""


def launch(
    recipe: Recipe,
    folder: str,
    resume: bool,
    measure: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run `counterpoise train` in the recipe's number of processes and wait for them.

    Args:
        recipe: what is asked for; written to the folder, where the processes read it.
        folder: of the run.
        resume: go on with what is there.
        measure: measure the base model and train nothing.
        stopped: asked again and again; where it says so, the processes are ended.

    Raises:
        CounterpoiseError: what a rank says is wrong, or that the launcher failed.
        Stopped: `stopped` said so.
    """
    how = recipe.launch
    if how.config is not None and not Path(how.config).is_file():
        raise CounterpoiseError(
            f"launch.config: given {how.config!r}, wanted a file that `accelerate config` wrote."
        )
    root = Path(folder)
    _prepare(root, recipe)
    command, environment = _command(how, folder, resume, measure), os.environ | {RANK: str(os.getpid())}
    with (root / LOG).open("wb") as log, child(command, log, environment) as launcher:
        while launcher.poll() is None:
            if stopped():
                raise Stopped
            time.sleep(_POLL)
    return ended(folder, launcher.returncode)


def _prepare(root: Path, recipe: Recipe) -> None:
    """The folder with the recipe in it, and without what an earlier start said at its end."""
    from debias.training.recipe import recipe_to_dict

    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / ENDED).unlink(missing_ok=True)
        (root / RECIPE).write_text(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False), "utf-8")
    except OSError as error:
        raise explain(error, str(root)) from error


def _command(how: Launch, folder: str, resume: bool, measure: bool) -> list[str]:
    """The launcher's: accelerate's with its configuration, else torchrun, which accelerate runs for one machine itself."""
    processes = str(how.processes)
    if how.config is not None:
        options = [
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            how.config,
            "--num_processes",
            processes,
        ]
    elif how.processes > 1:
        options = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    else:
        options = []
    mine = ["-m", "flows", "train", str(Path(folder) / RECIPE), "--out", folder, "--runner", "none"]
    mine += ["--resume" if resume else "--fresh", *(["--measure"] if measure else [])]
    return [sys.executable, *options, *mine]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def rank_ended(folder: str, run: Callable[[], Outcome], told: Callable[[Outcome], list[str]]) -> None:
    """Run as one of several processes, and leave how it ended, as `told` says it, where `launch` looks for it."""
    end_with_parent()
    if not _alive(int(os.environ[RANK])):
        raise SystemExit(1)  # it died before it could be waited for
    try:
        outcome = run()
    except CounterpoiseError as error:
        _note(folder, {"error": str(error)})
        raise
    if os.environ.get("RANK", "0") == "0":
        _note(folder, {"lines": told(outcome), "shortfall": outcome.shortfall})


def _note(folder: str, body: object) -> None:
    """The first that ends says how."""
    path = Path(folder) / ENDED
    half = path.with_name(f".{ENDED}.{os.getpid()}")
    half.write_text(json.dumps(body), "utf-8")
    try:
        os.link(half, path)
    except FileExistsError:
        pass
    finally:
        half.unlink()


def ended(folder: str, status: int | None = None) -> Ended:
    """How the processes that trained in a folder ended; `status` is the launcher's, where it is known.

    Raises:
        CounterpoiseError: what a rank said was wrong, or that none said anything.
    """
    root = Path(folder)
    try:
        body = json.loads((root / ENDED).read_text("utf-8"))
    except FileNotFoundError:
        how = "" if status is None else f" with status {status}"
        raise CounterpoiseError(
            f"the launched processes ended{how} and said nothing; see {root / LOG}, and run the same again "
            "to go on from the last checkpoint."
        ) from None
    if "error" in body:
        raise CounterpoiseError(body["error"])
    return Ended(tuple(body["lines"]), body["shortfall"])
