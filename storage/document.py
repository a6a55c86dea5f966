"""The document that says what a dataset is: read, checked, as an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .backend import Backend
from .canonical import seal, sha256, unseal
from .checks import check_axes
from .errors import CounterpoiseError, ShardDamaged
from .records import schema
from .shardfile import MAX_MANIFEST, MAX_SHARDS, require_kinds

SCHEMA_VERSION = 1
HEADER = "dataset.json"
FORMAT = "counterpoise-dataset"
_PLAN = {"rows": int, "shards": int, "bytes": int, "rows_sha256": str, "sha256": str}
_ENTRY = {"index": int, "sha256": str, "counts": dict}
RESERVED = ("format", "schema_version", "dataset_id", "plan", "shards", "counts", "root_sha256")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard as `dataset.json` lists it."""

    index: int
    sha256: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """`dataset.json`, or a version of it, as read.

    Attributes:
        dataset_id: hash of the first version's header and plan; every shard manifest carries it.
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


def read_document(backend: Backend, name: str) -> dict[str, Any]:
    """The body of `dataset.json` or of a version, whole and of a form that this program knows.

    Raises:
        ShardDamaged: it is missing, was changed or cut short.
        CounterpoiseError: another version of the program wrote it.
    """
    where = backend.where(name)
    body = unseal(backend.read(name, MAX_MANIFEST), where)
    version = body.get("schema_version")
    if body.get("format") != FORMAT or version != SCHEMA_VERSION:
        raise CounterpoiseError(
            f"{where}: format {body.get('format')!r} version {version!r}; this program reads {FORMAT!r} "
            f"version {SCHEMA_VERSION}. Use the program that wrote it."
        )
    parse(body, where)
    return body


def parse(body: Mapping[str, Any], where: str) -> DatasetManifest:
    """A body as an object.

    Raises:
        ShardDamaged: something in it is missing or of another kind.
    """
    try:
        _require_facts(body)
        return DatasetManifest(
            dataset_id=body["dataset_id"],
            axes=_axes(body["axes"]),
            header={name: value for name, value in body.items() if name not in (*RESERVED, "axes")},
            plan=body["plan"],
            shards=tuple(ShardEntry(**entry) for entry in body["shards"]),
            counts=body["counts"],
            root_sha256=body["root_sha256"],
            sha256=sha256(seal(body)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardDamaged(f"{where} is damaged: {error} is missing or of another kind.") from error
    except CounterpoiseError as error:
        raise ShardDamaged(f"{where} is damaged: {error}") from error


def _require_facts(body: Mapping[str, Any]) -> None:
    """Refuse facts of another kind, and more shards than can be listed."""
    require_kinds(body, {"dataset_id": str, "counts": dict})
    require_kinds(body["plan"], _PLAN)
    for entry in body["shards"]:
        require_kinds(entry, _ENTRY)
    if type(body["root_sha256"]) not in (str, type(None)):
        raise TypeError(f"root_sha256 {body['root_sha256']!r:.40}")
    if body["plan"]["shards"] > MAX_SHARDS:
        raise CounterpoiseError(f"{body['plan']['shards']} shards are planned: at most {MAX_SHARDS} can be.")


def _axes(listed: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Axes as a document lists them, of names that can be columns and values that can be cells."""
    schema([axis["name"] for axis in listed])
    axes = {axis["name"]: axis["values"] for axis in listed}
    check_axes(axes)
    return {name: tuple(values) for name, values in axes.items()}
