"""Prefect's server that does not answer, as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from httpx import HTTPError

from storage import CounterpoiseError


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
            f"Prefect's server does not answer ({reason}): finished shards stay; run the same again, "
            f"see to PREFECT_API_URL if you set it{instead}"
        ) from error


def _is_of_the_server(error: Exception) -> bool:
    """Whether it is Prefect's server that failed, not the work."""
    started = ("attempting to connect", "Failed to reach API")
    return isinstance(error, HTTPError) or any(text in str(error) for text in started)
