"""Training in several processes: accelerate's launcher as a child, its ranks' end as a file, nobody left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from storage.errors import CounterpoiseError

from .children import child, end_with_parent

if TYPE_CHECKING:
    from debias.training.recipe import Launch
    from debias.training.run import Outcome

RANK = "COUNTERPOISE_RANK_OF"
LOG = "launch.log"
_ENDED = "ended.json"
_POLL = 0.2


def is_rank() -> bool:
    """Whether this process is one that `launch` made."""
    return RANK in os.environ


def launch(recipe: str, how: Launch, folder: str, resume: bool, err: Console) -> tuple[list[str], str]:
    """Run `counterpoise train` in several processes and wait for them; what they tell, and the shortfall.

    Raises:
        CounterpoiseError: what a rank says is wrong, or that the launcher failed.
    """
    if how.config is not None and not Path(how.config).is_file():
        raise CounterpoiseError(
            f"launch.config: given {how.config!r}, wanted a file that `accelerate config` wrote."
        )
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    (root / _ENDED).unlink(missing_ok=True)
    waiting = err.status(f"training in {how.processes} processes, log in {root / LOG}")
    command, environment = _command(recipe, how, folder, resume), os.environ | {RANK: str(os.getpid())}
    with (root / LOG).open("wb") as log, child(command, log, environment) as launcher, waiting:
        while launcher.poll() is None:
            time.sleep(_POLL)
    return _ended(root, launcher.returncode)


def _command(recipe: str, how: Launch, folder: str, resume: bool) -> list[str]:
    """The launcher's: accelerate's with its configuration, else torchrun, which accelerate runs for one machine itself."""
    processes = str(how.processes)
    if how.config is not None:
        options = ["accelerate.commands.launch", "--config_file", how.config, "--num_processes", processes]
    else:
        options = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    mine = ["-m", "flows", "train", recipe, "--out", folder, "--resume" if resume else "--fresh"]
    return [sys.executable, "-m", *options, *mine]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def rank_ended(folder: str, run: Callable[[], Outcome]) -> None:
    """Run as one of several processes, and leave how it ended where `launch` looks for it."""
    from .train import told

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
    path = Path(folder) / _ENDED
    half = path.with_name(f".{_ENDED}.{os.getpid()}")
    half.write_text(json.dumps(body), "utf-8")
    try:
        os.link(half, path)
    except FileExistsError:
        pass
    finally:
        half.unlink()


def _ended(root: Path, status: int) -> tuple[list[str], str]:
    try:
        body = json.loads((root / _ENDED).read_text("utf-8"))
    except FileNotFoundError:
        raise CounterpoiseError(
            f"the launched processes ended with status {status} and said nothing; see {root / LOG}, and run the same again "
            "to go on from the last checkpoint."
        ) from None
    if "error" in body:
        raise CounterpoiseError(body["error"])
    return body["lines"], body["shortfall"]
