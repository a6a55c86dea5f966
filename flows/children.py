"""Programs as children in a process group of their own; nobody is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

_PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
_PATIENCE = 10.0


@contextmanager
def child(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, which is ended with this block, or with this process.

    Args:
        command: program and arguments.
        log: takes both of its streams.
        environment: all of its variables.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        with _ended_by_sigterm():
            yield process
    finally:
        _end_group(process)


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


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a child, first by asking; its own end with it, whatever group they are in, if they `end_with_parent`."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
    process.wait()


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, however that dies. Linux; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
