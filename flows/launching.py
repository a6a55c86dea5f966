"""Training in several processes: accelerate's launcher as a child, its ranks' end as a file, nobody left behind."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.training.recipe import Launch
    from debias.training.run import Outcome

RANK = "COUNTERPOISE_RANK_OF"
LOG = "launch.log"
_ENDED = "ended.json"
_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
_POLL, _PATIENCE = 0.2, 10.0


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
    with (root / LOG).open("wb") as log, _child(_command(recipe, how, folder, resume), log) as child, waiting:
        while child.poll() is None:
            time.sleep(_POLL)
    return _ended(root, child.returncode)


def _command(recipe: str, how: Launch, folder: str, resume: bool) -> list[str]:
    """The launcher's: accelerate's with its configuration, else torchrun, which accelerate runs for one machine itself."""
    processes = str(how.processes)
    if how.config is not None:
        options = ["accelerate.commands.launch", "--config_file", how.config, "--num_processes", processes]
    else:
        options = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    mine = ["-m", "flows", "train", recipe, "--out", folder, "--resume" if resume else "--fresh"]
    return [sys.executable, "-m", *options, *mine]


@contextmanager
def _child(command: list[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, which is ended with this block, or with this process."""
    environment = os.environ | {RANK: str(os.getpid())}
    child = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True, preexec_fn=end_with_parent
    )  # type: ignore[call-overload]
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield child
    finally:
        signal.signal(signal.SIGTERM, before)
        _end_group(child)


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
