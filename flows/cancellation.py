"""Whether somebody cancelled the flow run that is at work here; for runs that no worker watches over."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run

_PAUSE = 3.0
_ENDING = (StateType.CANCELLING, StateType.CANCELLED)


def cancellation() -> Callable[[], bool]:
    """What tells whether this flow run was cancelled; it asks Prefect now and then, and a server that is gone says no."""
    run, asked = flow_run.id, time.monotonic()

    def cancelled() -> bool:
        nonlocal asked
        if run is None or time.monotonic() - asked < _PAUSE:
            return False
        asked = time.monotonic()
        with suppress(Exception), get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(str(run))).state_type in _ENDING
        return False

    return cancelled
