"""Training in processes of its own: accelerate's launcher as a child, its ranks' end as a file, nobody left behind."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from storage.backend import explain
from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.training.recipe import Launch, Recipe
    from debias.training.run import Outcome

RANK = "COUNTERPOISE_RANK_OF"
LOG, RECIPE, ENDED = "launch.log", "launch.yaml", "ended.json"
_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
_POLL, _PATIENCE = 0.2, 10.0


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
    with (root / LOG).open("wb") as log, _child(_command(how, folder, resume, measure), log) as child:
        while child.poll() is None:
            if stopped():
                raise Stopped
            time.sleep(_POLL)
    return ended(folder, child.returncode)


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


@contextmanager
def _child(command: list[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, which is ended with this block, or with this process."""
    environment = os.environ | {RANK: str(os.getpid())}
    child = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True, preexec_fn=end_with_parent
    )  # type: ignore[call-overload]
    try:
        with _ended_by_sigterm():
            yield child
    finally:
        _end_group(child)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM is as Ctrl-C; where somebody else hears it, such as Prefect, it is left to them."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the launcher, first by asking; its ranks end with it, whatever group they are in (`end_with_parent`)."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, how)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.05)
    child.wait()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, however that dies. Linux; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)


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
