"""An environment for lmms-eval: one that is named, or one of its own in the cache, made once and whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from debias.suites.lmms_eval import NAME, REQUIREMENTS, VERSION, VERSIONS, environment, reason
from storage.errors import CounterpoiseError

from .children import child

_POLL = 0.1


def cache() -> Path:
    """Where environments are kept: counterpoise's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterpoise"


def suite_python(given: str | None, err: Console) -> str:
    """The python to call lmms-eval with; without one given, of an environment that is made if it is not there yet.

    Raises:
        CounterpoiseError: it is not there, or cannot be made.
    """
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise CounterpoiseError(
                f"--suite-python: {given} is no program that can be run; name the python of an environment with {NAME}."
            )
        return str(Path(found).absolute())
    home = cache() / f"{NAME}-{VERSION}"
    if not home.is_dir():
        _make(home, err)
    return str(home / "bin" / "python")


def _make(home: Path, err: Console) -> None:
    """Make it under another name first, so that one that is there is whole."""
    home.parent.mkdir(parents=True, exist_ok=True)
    half, log = home.with_name(f".{home.name}.{os.getpid()}"), home.with_name(f"{home.name}.log")
    python = str(half / "bin" / "python")
    steps = ([sys.executable, "-m", "venv", str(half)], [python, "-m", "pip", "install", *REQUIREMENTS])
    try:
        with (
            log.open("wb") as lines,
            err.status(f"installing {NAME} {VERSION} in {home}, once; log in {log}"),
        ):
            for step in steps:
                with child(step, lines, environment(os.environ)) as process:
                    while process.poll() is None:
                        time.sleep(_POLL)
                if process.returncode:
                    said = reason(log.read_text("utf-8", "replace"))
                    raise CounterpoiseError(
                        f"{NAME} {VERSION} could not be installed ({said}); see {log}, or name the python of one "
                        "that has it by --suite-python."
                    )
        try:
            half.rename(home)
        except OSError:
            if not home.is_dir():  # else another command was faster
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def versions(python: str) -> dict[str, str]:
    """Versions of lmms-eval, torch and transformers in an environment.

    Raises:
        CounterpoiseError: one of them is not in it.
    """
    try:
        done = subprocess.run(
            [python, "-c", VERSIONS], capture_output=True, text=True, timeout=120, env=environment(os.environ)
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CounterpoiseError(
            f"{python}: no {NAME} in its environment; install {' '.join(map(repr, REQUIREMENTS[:1]))} there, or leave "
            "--suite-python out and one is made."
        ) from error
    return {str(name): str(version) for name, version in found.items()}
