"""Prefect's server: one of our own that Ctrl-C does not reach, and one that does not answer, as one line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from httpx import HTTPError

from storage import CounterpoiseError


def start_apart() -> None:
    """Start Prefect's temporary server, if one is needed, so that Ctrl-C on a terminal does not reach it.

    A terminal sends Ctrl-C to everything that was started from the command, and a flow whose server is gone waits for
    it for minutes. What is blocked in the thread that starts a process stays blocked in the process.

    Raises:
        RuntimeError: it did not start.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    failed: list[Exception] = []

    def start() -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except Exception as error:
            failed.append(error)

    starting = threading.Thread(target=copy_context().run, args=(start,), daemon=True)
    starting.start()
    while starting.is_alive():  # in small pieces, so that this thread hears Ctrl-C
        starting.join(0.2)
    if failed:
        raise failed[0]


@contextmanager
def of_the_server(instead: str = "") -> Iterator[None]:
    """Inside the block, a failure of the server is an error for the user; `instead` is what else they may do.

    Raises:
        CounterpoiseError: it failed.
    """
    try:
        yield
    except (RuntimeError, HTTPError) as error:
        if not _is_of_the_server(error):
            raise
        reason = str(error) or type(error).__name__
        raise CounterpoiseError(
            f"Prefect's server does not answer ({reason}): what is finished stays; run the same again, "
            f"see to PREFECT_API_URL if you set it{instead}"
        ) from error


def _is_of_the_server(error: Exception) -> bool:
    """Whether it is Prefect's server that failed, not the work."""
    started = ("attempting to connect", "Failed to reach API")
    return isinstance(error, HTTPError) or any(text in str(error) for text in started)
