"""What a dataset is made from, against what it was made from before: the same, more of it, or another."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from .backend import Backend
from .canonical import first_difference, plain, recipe_hash
from .checks import check_axes
from .document import FORMAT, HEADER, RESERVED, SCHEMA_VERSION
from .errors import CounterpoiseError, DatasetMismatch, ManifestMoved
from .plan import plan_is_sound, plan_rows, rows_hash
from .quarantine import require_shard
from .records import iter_rows, schema
from .shardfile import shard_indices, shard_name

KEEP_IT = "Give the stored value again to continue, or write to another folder."
_STATE = ("dataset_id", "plan", "shards", "counts", "root_sha256")
_GROWS = ("spec", "split", "extended_from")
"""What may change in a header where a dataset is extended; all else decides what its shards are."""


def new_header(header: Mapping[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """The body of a dataset without shards.

    Raises:
        CounterpoiseError: the header has no axes, axes that cannot be, or names that are taken.
    """
    taken = [name for name in RESERVED if name in header]
    if taken or not isinstance(header.get("axes"), Mapping):
        raise CounterpoiseError(
            f"header: a mapping 'axes' is wanted and none of {', '.join(RESERVED)}; got {taken}."
        )
    facts = plain(header, "header")
    check_axes(facts["axes"])
    schema(list(facts["axes"]))
    axes = [{"name": name, "values": values} for name, values in facts.pop("axes").items()]
    identity = {"header": facts, "axes": axes, "plan": plan["rows_sha256"]}
    start = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "dataset_id": recipe_hash(identity)}
    return {**start, "axes": axes, **facts, "plan": plan, "shards": [], "counts": {}, "root_sha256": None}


def require_own_shards(backend: Backend, body: Mapping[str, Any]) -> None:
    """Shards that lost their header may only get back their own.

    Raises:
        DatasetMismatch: they are another dataset's.
    """
    for index in shard_indices(backend):
        try:
            other = require_shard(backend, index).dataset_id
        except ManifestMoved:  # it says nothing any more
            continue
        if other != body["dataset_id"]:
            where = backend.where(shard_name(index))
            raise DatasetMismatch(where, "dataset_id", other, body["dataset_id"], KEEP_IT)


def require_same(
    backend: Backend, stored: Mapping[str, Any], given: Mapping[str, Any], table: pa.Table
) -> None:
    """Refuse another header or another plan.

    Raises:
        DatasetMismatch: names the first field that differs.
    """
    difference = first_difference(_settings(stored), _settings(given))
    if difference is None and stored["plan"]["rows_sha256"] != given["plan"]["rows_sha256"]:
        difference = _plan_difference(backend, stored, given, table)
    if difference:
        raise DatasetMismatch(backend.where(HEADER), *difference, KEEP_IT)


def _settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataset is made from; the spec first, since its fields are those that the user knows."""
    return {name: body[name] for name in ("spec", *body) if name in body and name not in _STATE}


def _plan_difference(
    backend: Backend, stored: Mapping[str, Any], given: Mapping[str, Any], table: pa.Table
) -> tuple[str, object, object]:
    """Where two plans of equal headers differ; only their hashes can be told if the stored one is lost."""
    hashes = ("plan", stored["plan"]["rows_sha256"], given["plan"]["rows_sha256"])
    if not plan_is_sound(backend, stored["plan"]):
        return hashes
    rows = list(plan_rows(backend, stored["plan"]))
    return first_difference(rows, list(iter_rows(table)), "plan") or hashes


def extended(
    backend: Backend, stored: Mapping[str, Any], given: Mapping[str, Any], table: pa.Table
) -> dict[str, Any]:
    """The body of a dataset that asks for more: its shards and its id stay, sets in new shards are added.

    Raises:
        DatasetMismatch: more than the spec's size differs, or planned sets would change or get company.
    """
    old, new = ({k: v for k, v in _settings(body).items() if k not in _GROWS} for body in (stored, given))
    difference = first_difference(old, new)
    count, shards = stored["plan"]["rows"], stored["plan"]["shards"]
    kept, added = list(islice(iter_rows(table), count)), islice(iter_rows(table), count, None)
    if difference is None and rows_hash(kept) != stored["plan"]["rows_sha256"]:
        difference = ("plan", stored["plan"]["rows_sha256"], rows_hash(kept))
    if difference is None and any(row["shard"] < shards for row in added):
        difference = ("plan.shards", f"{shards} whole shards", "more sets in them")
    if difference:
        raise DatasetMismatch(backend.where(HEADER), *difference, KEEP_IT)
    return {**given, **{name: stored[name] for name in _STATE if name != "plan"}}
