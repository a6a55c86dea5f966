"""`dataset.json`: what a dataset is made from, and which shards it has.

The shard manifests are the truth: a shard exists when, and only when, its manifest does. A dataset's header says
what it is made from; finishing only makes a version with another list of shards, which anybody can derive again
from the shard manifests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .backend import Backend, fault_point, open_backend
from .canonical import recipe_hash, sha256
from .document import HEADER, DatasetManifest, ShardEntry, parse, read_document
from .errors import CounterpoiseError, FileMissing, ShardDamaged
from .header import extended, new_header, require_own_shards, require_same
from .plan import plan_facts, plan_is_sound, plan_table, publish_plan, stored_plan
from .quarantine import require_shard
from .records import iter_rows, to_parquet
from .shardfile import FileRecord, ShardRecord, shard_indices, shard_name
from .versions import damaged_document, mend_copy, newest, require_version, save_version

__all__ = [
    "HEADER",
    "DatasetManifest",
    "FileRecord",
    "ShardEntry",
    "ShardRecord",
    "create_dataset",
    "finish_dataset",
    "list_shards",
    "load_dataset",
    "newest_dataset",
    "read_plan",
    "recipe_hash",
    "root_hash",
]

Where = str | os.PathLike[str]
_RELIST = "run `counterpoise generate` again to make what is missing and to bring the list up to date"


def create_dataset(
    dataset: Where, header: Mapping[str, Any], plan: Sequence[Mapping[str, Any]], extend: bool = False
) -> DatasetManifest:
    """Make a dataset's header and plan, or make sure that the ones there are the same.

    Args:
        dataset: a folder or URI.
        header: "axes" (mapping of axis to values, whose order numbers the cells) and what else the dataset is
            made from: "spec", "recipe", "split".
        plan: one flat row per planned set, with at least "set_id", "shard", "concept" and "concept_group".
        extend: the plan may begin with the stored one and go on in shards of its own; the dataset keeps its id.

    Raises:
        DatasetMismatch: the folder holds another dataset; names the first field that differs.
    """
    backend = open_backend(dataset)
    table = plan_table(plan)
    content = to_parquet(table)
    given = new_header(header, plan_facts(table, content))

    def settle(stored: dict[str, Any] | None) -> dict[str, Any]:
        if stored is None:
            require_own_shards(backend, given)
            return given
        if extend and stored["plan"]["rows_sha256"] != given["plan"]["rows_sha256"]:
            return extended(backend, stored, given, table)
        require_same(backend, stored, given, table)
        return stored if plan_is_sound(backend, stored["plan"]) else {**stored, "plan": given["plan"]}

    settled = save_version(backend, settle)
    if not plan_is_sound(backend, settled["plan"]):
        publish_plan(backend, content)
    # last: until then readers have the old list, whose plan is the beginning of the new one
    mend_copy(backend)
    return load_dataset(dataset)


def load_dataset(dataset: Where, version: int | None = None) -> DatasetManifest:
    """Read `dataset.json`, or one of the versions that it had.

    Raises:
        CounterpoiseError: there is none, or one that another version of the program wrote.
        ShardDamaged: it was changed or cut short.
    """
    backend = open_backend(dataset)
    name = HEADER if version is None else require_version(backend, version)
    try:
        body = read_document(backend, name)
    except FileMissing as error:
        raise _missing(backend) from error
    except ShardDamaged as error:
        raise damaged_document(backend, name, error) from error
    return parse(body, backend.where(name))


def newest_dataset(dataset: Where) -> DatasetManifest | None:
    """What writers go by: `load_dataset` but for a writer that was killed; None where there is no dataset."""
    backend = open_backend(dataset)
    body = newest(backend)
    return None if body is None else parse(body, backend.where(HEADER))


def _missing(backend: Backend) -> CounterpoiseError:
    return CounterpoiseError(
        f"{backend} holds no {HEADER}: give a dataset's folder or URI, or make one with `counterpoise generate`."
    )


def read_plan(dataset: Where, version: int | None = None) -> list[dict[str, Any]]:
    """Rows of the plan, in order; of a version's plan if one is named.

    Raises:
        ShardDamaged: plan.parquet is missing or not the one that `dataset.json` names.
    """
    return list(iter_rows(plan_of(open_backend(dataset), load_dataset(dataset, version))))


def plan_of(backend: Backend, manifest: DatasetManifest) -> pa.Table:
    """The plan of a manifest; where the dataset was extended since, the beginning of its present one."""
    try:
        return stored_plan(backend, manifest.plan)
    except ShardDamaged:
        body = newest(backend)
        if body is None or body["plan"]["rows"] <= manifest.plan["rows"]:
            raise
        return stored_plan(backend, manifest.plan, later=body["plan"])


def planned_sets(backend: Backend, manifest: DatasetManifest, index: int) -> set[str]:
    """Sets that the plan gives to a shard.

    Raises:
        ShardDamaged: plan.parquet is missing or not the one that `dataset.json` names.
    """
    table = plan_of(backend, manifest)
    return set(table.filter(pc.equal(table["shard"], index))["set_id"].to_pylist())


def finish_dataset(dataset: Where) -> DatasetManifest:
    """Bring the list of shards, the counts and the root hash up to date; same shards, no new version."""
    backend = open_backend(dataset)

    def settle(stored: dict[str, Any] | None) -> dict[str, Any]:
        if stored is None:
            raise _missing(backend)
        return {**stored, **_listed(backend, stored["dataset_id"])}

    save_version(backend, settle)
    mend_copy(backend)
    fault_point("relisted")
    return load_dataset(dataset)


def _listed(backend: Backend, dataset_id: str) -> dict[str, Any]:
    """The shards that are there, as a header lists them."""
    records = [require_shard(backend, index, dataset_id) for index in shard_indices(backend)]
    entries = [
        {"index": shard.index, "sha256": shard.sha256, "counts": dict(shard.counts)} for shard in records
    ]
    total: Counter[str] = Counter()
    for shard in records:
        total.update(shard.counts)
    return {"shards": entries, "counts": dict(sorted(total.items())), "root_sha256": root_hash(records)}


def root_hash(shards: Sequence[ShardRecord | ShardEntry]) -> str:
    """One hash for all shards: over the hashes of their manifests, one a line, in order."""
    return sha256("".join(f"{shard.sha256}\n" for shard in shards).encode("ascii"))


def list_shards(dataset: Where, version: int | None = None) -> list[ShardRecord]:
    """The finished shards, by their manifests; those of a version if one is named.

    Raises:
        ShardDamaged: a manifest is damaged, of another dataset, or not the one that `dataset.json` lists.
    """
    return shards_of(open_backend(dataset), load_dataset(dataset, version), only_listed=version is not None)


def shards_of(backend: Backend, manifest: DatasetManifest, only_listed: bool = False) -> list[ShardRecord]:
    """`list_shards` of a dataset whose manifest is read; all that are there, or only those that it lists."""
    present, listed = set(shard_indices(backend)), {entry.index for entry in manifest.shards}
    if listed - present:
        where = backend.where(shard_name(min(listed - present)))
        raise ShardDamaged(f"{where} is missing, though {HEADER} lists it: {_RELIST}.")
    wanted = sorted(listed if only_listed else present)
    records = [require_shard(backend, index, manifest.dataset_id) for index in wanted]
    for record in records:
        require_listed(backend, manifest, record)
    return records


def require_listed(backend: Backend, manifest: DatasetManifest, record: ShardRecord) -> None:
    """Refuse a shard manifest other than the one that `dataset.json` lists; one not listed yet is fine.

    Raises:
        ShardDamaged: it is another one.
    """
    listed = {entry.index: entry.sha256 for entry in manifest.shards}
    if listed.get(record.index, record.sha256) != record.sha256:
        where = backend.where(shard_name(record.index))
        raise ShardDamaged(f"{where} is not the manifest that {HEADER} lists: {_RELIST}.")
