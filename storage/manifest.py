"""`dataset.json`: what a dataset is made from, and which shards it has.

The shard manifests are the truth: a shard exists when, and only when, its manifest does. `dataset.json` is
created once, with the header that says what the dataset is made from; finishing only rewrites the list of
shards in it, which anybody can derive again from the shard manifests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .backend import LocalBackend, fault_point, open_backend
from .canonical import first_difference, plain, recipe_hash, seal, sha256, unseal
from .checks import check_axes
from .errors import CounterpoiseError, DatasetMismatch, ShardDamaged
from .plan import plan_facts, plan_is_sound, plan_rows, plan_table, publish_plan
from .records import iter_rows, schema, to_parquet
from .shardfile import MAX_MANIFEST, FileRecord, ShardRecord, read_shard, shard_indices, shard_name

__all__ = [
    "DatasetManifest",
    "FileRecord",
    "ShardEntry",
    "ShardRecord",
    "create_dataset",
    "finish_dataset",
    "list_shards",
    "load_dataset",
    "read_plan",
    "recipe_hash",
    "root_hash",
]

Where = str | os.PathLike[str]
SCHEMA_VERSION = 1
HEADER = "dataset.json"
_FORMAT = "counterpoise-dataset"
_RESERVED = ("format", "schema_version", "dataset_id", "plan", "shards", "counts", "root_sha256")
_RELIST = "run `counterpoise generate` again to make what is missing and to bring the list up to date"
_KEEP_IT = "Give the stored value again to continue, or write to another folder."


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard as `dataset.json` lists it."""

    index: int
    sha256: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """`dataset.json` as read.

    Attributes:
        dataset_id: hash of the header and the plan; every shard manifest carries it.
        axes: values of every axis, in the order that numbers the cells.
        header: what `create_dataset` was given (spec, recipe, split rule).
        plan: rows, shards, bytes and sha256 of plan.parquet, rows_sha256 of what it says.
        shards, counts, root_sha256: as of the last `finish_dataset`; empty and None before.
    """

    dataset_id: str
    axes: Mapping[str, tuple[str, ...]]
    header: Mapping[str, Any]
    plan: Mapping[str, Any]
    shards: tuple[ShardEntry, ...]
    counts: Mapping[str, int]
    root_sha256: str | None
    sha256: str

    @property
    def missing(self) -> list[int]:
        """Planned shards that the list does not hold."""
        listed = {entry.index for entry in self.shards}
        return [index for index in range(self.plan["shards"]) if index not in listed]


def create_dataset(
    dataset: Where, header: Mapping[str, Any], plan: Sequence[Mapping[str, Any]]
) -> DatasetManifest:
    """Make a dataset's header and plan, or make sure that the ones there are the same.

    Args:
        dataset: a folder.
        header: "axes" (mapping of axis to values, whose order numbers the cells) and what else the dataset is
            made from: "spec", "recipe", "split".
        plan: one flat row per planned set, with at least "set_id", "shard", "concept" and "concept_group".

    Raises:
        DatasetMismatch: the folder holds another dataset; names the first field that differs.
    """
    backend = open_backend(dataset)
    table = plan_table(plan)
    content = to_parquet(table)
    body = _new_header(header, plan_facts(table, content))
    if not backend.exists(HEADER) and _create_header(backend, body):
        publish_plan(backend, content)
        return load_dataset(dataset)
    stored = _read_header(backend)
    _require_same_header(backend, stored, body, table)
    if not plan_is_sound(backend, stored["plan"]):
        publish_plan(backend, content)
        _rewrite(backend, {**stored, "plan": body["plan"]})
    return load_dataset(dataset)


def _new_header(header: Mapping[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    taken = [name for name in _RESERVED if name in header]
    if taken or not isinstance(header.get("axes"), Mapping):
        raise CounterpoiseError(
            f"header: a mapping 'axes' is wanted and none of {', '.join(_RESERVED)}; got {taken}."
        )
    facts = plain(header, "header")
    check_axes(facts["axes"])
    schema(list(facts["axes"]))
    axes = [{"name": name, "values": values} for name, values in facts.pop("axes").items()]
    identity = {"header": facts, "axes": axes, "plan": plan["rows_sha256"]}
    start = {"format": _FORMAT, "schema_version": SCHEMA_VERSION, "dataset_id": recipe_hash(identity)}
    return {**start, "axes": axes, **facts, "plan": plan, "shards": [], "counts": {}, "root_sha256": None}


def _create_header(backend: LocalBackend, body: dict[str, Any]) -> bool:
    """True if this call made it. Shards that lost their header may only get back their own."""
    for index in shard_indices(backend):
        other = read_shard(backend, index).dataset_id
        if other != body["dataset_id"]:
            where = backend.where(shard_name(index))
            raise DatasetMismatch(where, "dataset_id", other, body["dataset_id"], _KEEP_IT)
    with backend.staging() as staging:
        return staging.create(staging.stage(HEADER, [seal(body)]), HEADER)


def _rewrite(backend: LocalBackend, body: dict[str, Any]) -> bool:
    """False, and nothing done, where the header is so already."""
    content = seal(body)
    if content == backend.read(HEADER, MAX_MANIFEST):
        return False
    with backend.staging() as staging:
        staging.put(staging.stage(HEADER, [content]), HEADER)
    return True


def _require_same_header(
    backend: LocalBackend, stored: dict[str, Any], given: dict[str, Any], plan: Any
) -> None:
    if stored["dataset_id"] == given["dataset_id"]:
        return
    skipped = ("dataset_id", "plan", "shards", "counts", "root_sha256")
    old = {name: value for name, value in stored.items() if name not in skipped}
    new = {name: given[name] for name in ("spec", *given) if name in given and name not in skipped}
    difference = first_difference(old, new)
    if difference is None:
        difference = _plan_difference(backend, stored, given, plan)
    raise DatasetMismatch(backend.where(HEADER), *difference, _KEEP_IT)


def _plan_difference(
    backend: LocalBackend, stored: dict[str, Any], given: dict[str, Any], plan: Any
) -> tuple[str, object, object]:
    """Where two plans of equal headers differ; only their hashes can be told if the stored one is lost."""
    hashes = ("plan", stored["plan"]["rows_sha256"], given["plan"]["rows_sha256"])
    if not plan_is_sound(backend, stored["plan"]):
        return hashes
    rows = list(plan_rows(backend, stored["plan"]))
    return first_difference(rows, list(iter_rows(plan)), "plan") or hashes


def _read_header(backend: LocalBackend) -> dict[str, Any]:
    where = backend.where(HEADER)
    if not backend.exists(HEADER):
        raise CounterpoiseError(
            f"{backend} holds no {HEADER}: give a dataset's folder, or make one with `counterpoise generate`."
        )
    body = unseal(backend.read(HEADER, MAX_MANIFEST), where)
    version = body.get("schema_version")
    if body.get("format") != _FORMAT or version != SCHEMA_VERSION:
        raise CounterpoiseError(
            f"{where}: format {body.get('format')!r} version {version!r}; this program reads {_FORMAT!r} "
            f"version {SCHEMA_VERSION}. Use the program that wrote it."
        )
    _parse(body, where)
    return body


def load_dataset(dataset: Where) -> DatasetManifest:
    """Read `dataset.json`.

    Raises:
        CounterpoiseError: there is none, or one of another version.
        ShardDamaged: it was changed or cut short.
    """
    backend = open_backend(dataset)
    body = _read_header(backend)
    return _parse(body, backend.where(HEADER))


def _parse(body: Mapping[str, Any], where: str) -> DatasetManifest:
    try:
        return DatasetManifest(
            dataset_id=body["dataset_id"],
            axes={axis["name"]: tuple(axis["values"]) for axis in body["axes"]},
            header={name: value for name, value in body.items() if name not in (*_RESERVED, "axes")},
            plan={**body["plan"], "shards": int(body["plan"]["shards"])},
            shards=tuple(ShardEntry(**entry) for entry in body["shards"]),
            counts=body["counts"],
            root_sha256=body["root_sha256"],
            sha256=sha256(seal(body)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardDamaged(f"{where} is damaged: {error} is missing or of another kind.") from error


def read_plan(dataset: Where) -> list[dict[str, Any]]:
    """Rows of the plan, in order.

    Raises:
        ShardDamaged: plan.parquet is missing or not the one that `dataset.json` names.
    """
    backend = open_backend(dataset)
    return list(plan_rows(backend, load_dataset(dataset).plan))


def finish_dataset(dataset: Where) -> DatasetManifest:
    """Bring the list of shards, the counts and the root hash up to date; same shards, same bytes.

    Several may finish at the same time: whoever writes looks again afterwards, so that the last list is whole.
    """
    backend = open_backend(dataset)
    while _relist(backend):
        fault_point("relisted")
    return load_dataset(dataset)


def _relist(backend: LocalBackend) -> bool:
    """Write the list of the shards that are there; False if it was written so already."""
    body = _read_header(backend)
    records = [read_shard(backend, index, body["dataset_id"]) for index in shard_indices(backend)]
    entries = [
        {"index": shard.index, "sha256": shard.sha256, "counts": dict(shard.counts)} for shard in records
    ]
    total: Counter[str] = Counter()
    for shard in records:
        total.update(shard.counts)
    changes = {"shards": entries, "counts": dict(sorted(total.items())), "root_sha256": root_hash(records)}
    return _rewrite(backend, {**body, **changes})


def root_hash(shards: Sequence[ShardRecord | ShardEntry]) -> str:
    """One hash for all shards: over the hashes of their manifests, one a line, in order."""
    return sha256("".join(f"{shard.sha256}\n" for shard in shards).encode("ascii"))


def list_shards(dataset: Where) -> list[ShardRecord]:
    """The finished shards, by their manifests.

    Raises:
        ShardDamaged: a manifest is damaged, of another dataset, or not the one that `dataset.json` lists.
    """
    backend = open_backend(dataset)
    manifest = load_dataset(dataset)
    records = [read_shard(backend, index, manifest.dataset_id) for index in shard_indices(backend)]
    lost = {entry.index for entry in manifest.shards} - {record.index for record in records}
    if lost:
        where = backend.where(shard_name(min(lost)))
        raise ShardDamaged(f"{where} is missing, though {HEADER} lists it: {_RELIST}.")
    for record in records:
        require_listed(backend, manifest, record)
    return records


def require_listed(backend: LocalBackend, manifest: DatasetManifest, record: ShardRecord) -> None:
    """Refuse a shard manifest other than the one that `dataset.json` lists; one not listed yet is fine.

    Raises:
        ShardDamaged: it is another one.
    """
    listed = {entry.index: entry.sha256 for entry in manifest.shards}
    if listed.get(record.index, record.sha256) != record.sha256:
        where = backend.where(shard_name(record.index))
        raise ShardDamaged(f"{where} is not the manifest that {HEADER} lists: {_RELIST}.")
