"""A training run handed to a deployment on a work pool: found, started, waited for; what goes wrong is one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from storage.errors import CounterpoiseError

from .launching import Stopped
from .training import Job, portable, whole

if TYPE_CHECKING:
    from debias.training.recipe import Launch

FLOW, _MANY = "train", 200
POLL, PATIENCE, OUTAGE = 2.0, 60.0, 600.0
_AT_WORK = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)
_ENTRYPOINT = "flows/train.py:train"


@dataclass(frozen=True, slots=True)
class Target:
    """A deployment that trains.

    Attributes:
        id: of the deployment.
        name: FLOW/NAME.
        pool: its work pool; None where it is served without one.
    """

    id: UUID
    name: str
    pool: str | None


def find_target(launch: Launch) -> Target | None:
    """The deployment that a recipe hands training to; None to train here, as also where this is that pool.

    Raises:
        CounterpoiseError: there is no such deployment, or which one is not said.
    """
    if not launch.elsewhere:
        return None
    with get_client(sync_client=True) as client:
        found = _named(client, launch) if launch.deployment else _of_pool(client, str(launch.work_pool))
    return None if _is_here(found) else found


def _is_here(target: Target) -> bool:
    """Whether this flow run is one that the target's pool or deployment started."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return False
    return run.deployment_id == target.id or (target.pool is not None and run.work_pool_name == target.pool)


def _named(client: SyncPrefectClient, launch: Launch) -> Target:
    name, pool = str(launch.deployment), launch.work_pool
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        made = _make(name.split("/")[1], pool or "POOL")
        raise CounterpoiseError(
            f"launch.deployment: given {name!r}, which Prefect{_server()} does not know; {made}"
        ) from None
    if pool is not None and found.work_pool_name != pool:
        raise CounterpoiseError(
            f"launch.work_pool: given {pool!r}, but the deployment {name} is on {found.work_pool_name!r}; leave one out."
        )
    return Target(found.id, name, found.work_pool_name)


def _of_pool(client: SyncPrefectClient, pool: str) -> Target:
    found: list[DeploymentResponse] = client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        sort=DeploymentSort.NAME_ASC,
        limit=_MANY,
    )
    if len(found) > 1:
        names = ", ".join(sorted(f"{FLOW}/{one.name}" for one in found))
        raise CounterpoiseError(
            f"launch.work_pool: {pool!r} has several deployments of {FLOW}: {names}; name one as launch.deployment."
        )
    if found:
        return Target(found[0].id, f"{FLOW}/{found[0].name}", pool)
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        raise CounterpoiseError(
            f"launch.work_pool: given {pool!r}, which Prefect{_server()} does not know; make it by `prefect work-pool "
            f"create {pool} --type process`, or leave it out to train here."
        ) from None
    raise CounterpoiseError(
        f"launch.work_pool: {pool!r} has no deployment of the flow {FLOW}; {_make(pool, pool)}"
    )


def _make(name: str, pool: str) -> str:
    return f"make it by `prefect deploy {_ENTRYPOINT} --name {name} --pool {pool}`, or leave it out to train here."


def _server() -> str:
    url = PREFECT_API_URL.value()
    return f" at {url}" if url else "'s temporary server (PREFECT_API_URL is not set)"


def hand_over(target: Target, job: Job, stopped: Callable[[], bool], note: Callable[[str], None]) -> None:
    """Start the deployment with the job as a part of this flow run, and wait for its end.

    Args:
        target: the deployment.
        job: local paths in it have to be the same for the pool's workers.
        stopped: asked again and again; where it says so, that run is cancelled.
        note: hears what is worth a line.

    Raises:
        CounterpoiseError: it failed, crashed or was cancelled, nobody takes it, or another run works on the same folder.
        Stopped: `stopped` said so.
    """
    tag = f"training:{whole(job.folder)}"
    with get_client(sync_client=True) as client:
        _refuse_another(client, tag, job)
        begun = run_deployment(
            target.id,
            parameters=portable(job),
            flow_run_name=job.name,
            tags=[tag],
            timeout=0,
            as_subflow=True,
        )
        run = cast(FlowRun, begun)
        note(f"handed to {target.name} as run {run.name} ({run.id})")
        with _cancelled_with_this(client, run.id):
            run = _wait(client, run.id, target, stopped)
    _check_end(run, target)


def _refuse_another(client: SyncPrefectClient, tag: str, job: Job) -> None:
    at_work = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[tag]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_AT_WORK))),
        ),
        sort=FlowRunSort.ID_DESC,
        limit=1,
    )
    if at_work:
        one = at_work[0]
        raise CounterpoiseError(
            f"{job.folder}: the run {one.name} ({one.id}) trains in this folder and is {one.state_name}; wait for it, "
            f"cancel it by `prefect flow-run cancel {one.id}`, or give another --out."
        )


@contextmanager
def _cancelled_with_this(client: SyncPrefectClient, run: UUID) -> Iterator[None]:
    """What ends the block early, Ctrl-C too, cancels the run."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            client.set_flow_run_state(run, Cancelling(message="Whoever waited for it ended."))
        raise


def _wait(client: SyncPrefectClient, run: UUID, target: Target, stopped: Callable[[], bool]) -> FlowRun:
    heard = taken = time.monotonic()
    while True:
        try:
            found = client.read_flow_run(run)
            if found.state is not None and found.state.is_final():
                return found
            heard = time.monotonic()
            if found.state_type is not StateType.SCHEDULED or _is_polled(client, target):
                taken = heard
        except HTTPError:  # a server that is restarted is waited for
            if time.monotonic() - heard > OUTAGE:
                raise
        if stopped():
            raise Stopped
        if time.monotonic() - taken > PATIENCE:
            raise CounterpoiseError(_nobody(target))
        time.sleep(POLL)


def _is_polled(client: SyncPrefectClient, target: Target) -> bool:
    """Whether somebody is there who may take a run, now or when others are done."""
    if target.pool is None:
        status = client.read_deployment(target.id).status
        return status is not None and status.value == "READY"
    pool = client.read_work_pool(target.pool)
    if pool.is_paused:
        return False
    if pool.is_push_pool or pool.is_managed_pool:
        return True
    workers = client.read_workers_for_work_pool(target.pool, offset=0, limit=_MANY)
    return any(worker.status is WorkerStatus.ONLINE for worker in workers)


def _nobody(target: Target) -> str:
    if target.pool is None:
        return f"{target.name}: nobody serves this deployment; start what serves it, or leave launch.deployment out."
    return (
        f"{target.name}: no worker polls the work pool {target.pool!r}, or it is paused; start one by `prefect worker "
        f"start --pool {target.pool}`, resume it by `prefect work-pool resume {target.pool}`, or leave launch.work_pool "
        "out to train here."
    )


def _check_end(run: FlowRun, target: Target) -> None:
    if run.state_type is StateType.COMPLETED:
        return
    said = (run.state.message if run.state else None) or "no reason is on record"
    reason = " ".join(said.removeprefix("Flow run encountered an exception: ").split()).rstrip(".")
    raise CounterpoiseError(
        f"{target.name}: the run {run.name} ({run.id}) is {run.state_name}: {reason}. Its log is in Prefect's UI; the "
        "same again continues what is finished."
    )
