"""Storage against Prefect's records: where they disagree, the manifests are the truth. Knows no Prefect."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from storage import load_dataset
from storage.backend import open_backend
from storage.quarantine import require_shard
from storage.shardfile import shard_indices

Wanted = Literal["COMPLETED", "CRASHED"]
_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Run:
    """What Prefect says of one run.

    Attributes:
        id: of the flow run or task run.
        name: as the UI shows it.
        flow: id of the flow run; its own for a flow run.
        state: type of the state, such as "COMPLETED".
        order: runs that began later sort later.
        shard: that a task run makes; None for a flow run.
        manifest_sha256: that a task run returned; None if that is not on record.
    """

    id: str
    name: str
    flow: str
    state: str
    order: str
    shard: int | None = None
    manifest_sha256: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the run says that it is over."""
        return self.state in _FINAL


@dataclass(frozen=True, slots=True)
class Facts:
    """What storage says: the sha256 of every shard's manifest that is there, and how many shards are planned."""

    manifests: Mapping[int, str]
    planned: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One line of the table.

    Attributes:
        subject: the shard or the flow run.
        storage, prefect: what either says.
        run: whose state is wrong.
        wanted: the state that it should have.
        manifest_sha256: that a completed task should have returned.
    """

    subject: str
    storage: str
    prefect: str
    run: Run
    wanted: Wanted
    manifest_sha256: str | None = None


def facts(dataset: str) -> Facts:
    """What storage says.

    Raises:
        CounterpoiseError: there is no dataset.
        ShardDamaged: a manifest is damaged.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    records = [require_shard(backend, index, manifest.dataset_id) for index in shard_indices(backend)]
    return Facts({record.index: record.sha256 for record in records}, manifest.plan["shards"])


def address(dataset: str) -> str:
    """The dataset's place in full, the same from whatever folder it is named."""
    where = open_backend(dataset).where("").rstrip("/")
    return where if "://" in where else os.path.realpath(where)


def dataset_tag(dataset: str) -> str:
    """The tag by which a flow run is found again."""
    return f"dataset:{address(dataset)}"


def compare(stored: Facts, runs: Iterable[Run]) -> list[Disagreement]:
    """Every disagreement: shards in order, then flow runs in the order of their beginning."""
    ordered = sorted(runs, key=lambda run: (run.order, run.id))
    by_shard: defaultdict[int, list[Run]] = defaultdict(list)
    for run in ordered:
        if run.shard is not None:
            by_shard[run.shard].append(run)
    found: list[Disagreement] = []
    for index in sorted({*stored.manifests, *by_shard}):
        found += _of_shard(index, stored.manifests.get(index), by_shard[index])
    lost = {one.run.flow for one in found if one.wanted == "CRASHED" and one.run.ended}
    for run in ordered:
        if run.shard is None:
            found += _of_flow(run, stored, run.id in lost)
    return found


def unrecorded(stored: Facts, runs: Iterable[Run]) -> list[int]:
    """Finished shards of which Prefect has no run, as of a campaign with `--runner none`: nothing is contradicted."""
    return sorted(set(stored.manifests) - {run.shard for run in runs})


def _of_shard(index: int, manifest: str | None, runs: list[Run]) -> list[Disagreement]:
    """The last run has to say what storage says; of earlier ones, none may still be at work on a finished shard."""
    if not runs:
        return []
    subject, last = f"shard {index:05d}", runs[-1]
    if manifest is None:
        return (
            [Disagreement(subject, "no manifest", _said(last), last, "CRASHED")]
            if last.state == "COMPLETED"
            else []
        )
    there = f"manifest {manifest[:12]}"
    found = [
        Disagreement(subject, there, f"{_said(run)}, though a later run ended", run, "CRASHED")
        for run in runs[:-1]
        if not run.ended
    ]
    if last.state == "COMPLETED" and last.manifest_sha256 == manifest:
        return found
    return [*found, Disagreement(subject, there, _said(last), last, "COMPLETED", manifest)]


def _of_flow(run: Run, stored: Facts, lost: bool) -> list[Disagreement]:
    subject = f"flow run {run.name}"
    if run.state == "COMPLETED" and lost:
        return [Disagreement(subject, "a shard of it has no manifest", _said(run), run, "CRASHED")]
    if not run.ended and set(range(stored.planned)) <= set(stored.manifests):
        return [Disagreement(subject, f"all {stored.planned} shards are there", _said(run), run, "COMPLETED")]
    return []


def _said(run: Run) -> str:
    """The state in words, with the hash where it matters."""
    state = run.state.capitalize()
    if run.shard is None or run.state != "COMPLETED":
        return state
    return (
        f"{state}, {f'manifest {run.manifest_sha256[:12]}' if run.manifest_sha256 else 'no result on record'}"
    )
