"""Prefect's records of a dataset: its flow runs and their shards read, their states set."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.states import Completed, Crashed

from .reconcile import Disagreement, Run, address, dataset_tag
from .server import of_the_server

_PAGE = 200
_TASK = re.compile(r"shard-([0-9]{5,})")
_HASH = re.compile(r"manifest ([0-9a-f]{64})")


def read_runs(dataset: str) -> list[Run]:
    """Every flow run of this dataset and every task run of its shards.

    Raises:
        CounterpoiseError: the server does not answer.
    """
    with of_the_server(), get_client(sync_client=True) as client:
        flows = list(_flow_runs(client, dataset))
        tasks = [task for flow in flows for task in _task_runs(client, flow)]
    return [*map(_flow, flows), *(run for run in map(_task, tasks) if run is not None)]


def set_states(found: Iterable[Disagreement]) -> list[Disagreement]:
    """Set the states that storage contradicts, whatever Prefect's rules say of the change; those that were set.

    Raises:
        CounterpoiseError: the server does not answer.
    """
    changed: list[Disagreement] = []
    with of_the_server(), get_client(sync_client=True) as client:
        for one in found:
            message = f"Reconciled with storage: {one.storage}."
            if one.manifest_sha256:
                message = f"Reconciled with storage: manifest {one.manifest_sha256}"
            state: Any = (Completed if one.wanted == "COMPLETED" else Crashed)(message=message)
            setter = client.set_flow_run_state if one.run.shard is None else client.set_task_run_state
            setter(UUID(one.run.id), state, force=True)
            changed.append(one)
    return changed


def _flow_runs(client: SyncPrefectClient, dataset: str) -> Iterator[FlowRun]:
    """Runs that carry the dataset's tag, or (started otherwise) its full place as their name."""
    seen: set[UUID] = set()
    for wanted in (
        FlowRunFilter(tags=FlowRunFilterTags(any_=[dataset_tag(dataset)])),
        FlowRunFilter(name=FlowRunFilterName(any_=[address(dataset)])),
    ):
        asked = {"flow_filter": FlowFilter(name=FlowFilterName(any_=["generate"])), "flow_run_filter": wanted}
        for run in _all(client.read_flow_runs, sort=FlowRunSort.ID_DESC, **asked):
            if run.id not in seen:
                seen.add(run.id)
                yield run


def _task_runs(client: SyncPrefectClient, flow: FlowRun) -> Iterator[TaskRun]:
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow.id]))
    yield from _all(client.read_task_runs, sort=TaskRunSort.ID_DESC, flow_run_filter=wanted)


def _all(read: Callable[..., list[Any]], **asked: Any) -> Iterator[Any]:
    """Everything that a question finds, page by page."""
    offset = 0
    while page := read(limit=_PAGE, offset=offset, **asked):
        yield from page
        offset += len(page)


def _flow(run: FlowRun) -> Run:
    return Run(str(run.id), run.name, str(run.id), _state(run), _order(run))


def _task(run: TaskRun) -> Run | None:
    match = _TASK.fullmatch(run.name)
    if match is None:
        return None
    flow = str(run.flow_run_id)
    return Run(str(run.id), run.name, flow, _state(run), _order(run), int(match[1]), _manifest(run))


def _state(run: FlowRun | TaskRun) -> str:
    return run.state_type.value if run.state_type else "PENDING"


def _order(run: FlowRun | TaskRun) -> str:
    began = run.start_time or run.expected_start_time
    return began.isoformat() if began else ""


def _manifest(run: TaskRun) -> str | None:
    """The hash that the run returned or that a reconciliation noted; None if neither can be read.

    Only JSON is read: a pickle of somebody else's would be run.
    """
    if run.state is None or run.state_type is None or run.state_type.value != "COMPLETED":
        return None
    noted = _HASH.search(run.state.message or "")
    if noted:
        return noted[1]
    kind = getattr(getattr(run.state.data, "serializer", None), "type", None)
    if kind != "json":
        return None
    try:
        result: Any = asyncio.run(run.state.aresult(raise_on_failure=False, retry_result_failure=False))
        return str(result["manifest_sha256"])
    except Exception:  # lost, cut short or of another version: it is not on record
        return None
