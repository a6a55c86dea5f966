"""Settings for Prefect, made before it is imported: where it keeps its records, how loud it is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

QUIET = "CRITICAL"
_ROOT = Path(__file__).resolve().parents[1]


def prefect_home() -> Path:
    """`out/prefect` of the checkout that this file lies in; of the present folder if it is installed."""
    checkout = (_ROOT / "Makefile").is_file() and os.access(_ROOT, os.W_OK)
    return (_ROOT if checkout else Path.cwd()) / "out" / "prefect"


def prepare_prefect(verbose: bool = False) -> None:
    """Set what the user did not: a home that `make ui` shows, a patient start of the server, JSON results.

    Args:
        verbose: show Prefect's log on the terminal; without, errors are told once, by the command.
    """
    if not {"PREFECT_HOME", "PREFECT_API_URL"} & set(os.environ):
        os.environ["PREFECT_HOME"] = str(home := prefect_home())
        with contextlib.suppress(
            OSError
        ):  # Prefect makes the last folder of it alone, and says so if it cannot
            home.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "240")
    os.environ.setdefault("PREFECT_RESULTS_DEFAULT_SERIALIZER", "json")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO" if verbose else QUIET)
