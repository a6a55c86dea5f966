"""The manifest of one shard: creating it is what makes the shard exist."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .backend import Backend
from .canonical import plain, recipe_hash, seal, sha256, unseal
from .errors import ShardDamaged

SHARDS = "shards"
MAX_MANIFEST = 2**28
MAX_SHARDS = 10**5
SHARD_MANIFEST = re.compile(r"([0-9]{5})\.json")
DATA_FILE = re.compile(r"([0-9]{5})-([0-9a-f]{12})\.(tar|parquet)")
_FORMAT = "counterpoise-shard-1"
_FILE = {"name": str, "bytes": int, "sha256": str}
AGAIN = "delete that manifest and run `counterpoise generate` again to make the shard anew"
ANEW = "delete it with its data files and run `counterpoise generate` again to make the shard anew"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as its manifest names it; `name` is relative to the folder of shards."""

    name: str
    bytes: int
    sha256: str

    @property
    def path(self) -> str:
        """Name inside the dataset."""
        return f"{SHARDS}/{self.name}"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A shard manifest as read.

    Attributes:
        tar: None where no set of the shard was kept.
        counts: rows, candidates, sets (kept), images (kept).
        sha256: of the manifest file.
        already: somebody else had published the shard before; not part of the manifest.
    """

    index: int
    dataset_id: str
    tar: FileRecord | None
    parquet: FileRecord
    counts: Mapping[str, int]
    recipe: Mapping[str, Any]
    recipe_sha256: str
    environment: Mapping[str, Any]
    sha256: str
    already: bool = field(default=False, compare=False)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The data files, Parquet first."""
        return (self.parquet,) if self.tar is None else (self.parquet, self.tar)


def shard_name(index: int) -> str:
    """Name of a shard's manifest inside the dataset."""
    return f"{SHARDS}/{index:05d}.json"


def shard_indices(backend: Backend) -> list[int]:
    """Indices of the shard manifests that are there."""
    matches = (SHARD_MANIFEST.fullmatch(name) for name in backend.names(SHARDS))
    return [int(match[1]) for match in matches if match]


def shard_counts(rows: Sequence[tuple[str, int, bool]]) -> dict[str, int]:
    """Counts of a manifest, from set, candidate and whether it was kept of every candidate image."""
    return {
        "rows": len(rows),
        "candidates": len({(set_id, candidate) for set_id, candidate, _ in rows}),
        "sets": len({set_id for set_id, _, kept in rows if kept}),
        "images": sum(kept for *_, kept in rows),
    }


def shard_manifest(facts: Mapping[str, Any]) -> bytes:
    """A shard manifest as it is stored: sorted, sealed, without time or attempt."""
    body = plain({**facts, "format": _FORMAT, "recipe_sha256": recipe_hash(facts["recipe"])}, "manifest")
    return seal(_sorted(body))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def read_shard(backend: Backend, index: int, dataset_id: str | None = None) -> ShardRecord:
    """A shard manifest whose own hash holds, that names this shard's files, and is the given dataset's.

    Raises:
        ShardDamaged: it is missing, torn, changed, another shard's or another dataset's.
    """
    where = backend.where(shard_name(index))
    data = backend.read(shard_name(index), MAX_MANIFEST)
    body = unseal(data, where)
    try:
        record = _record(body, sha256(data))
        sound = _is_own(record, index, body["format"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ShardDamaged(f"{where} is damaged: {error} is missing or of another kind; {AGAIN}.") from error
    if not sound:
        raise ShardDamaged(f"{where} is damaged: it describes another shard, or files not its own; {AGAIN}.")
    if dataset_id is not None and record.dataset_id != dataset_id:
        raise ShardDamaged(f"{where} is refused: it belongs to another dataset; {AGAIN}.")
    return record


def require_kinds(facts: Any, kinds: Mapping[str, type]) -> None:
    """Refuse facts of a manifest that are missing or of another kind; a mapping is one of text to whole numbers.

    Raises:
        KeyError, TypeError: names the first.
    """
    if type(facts) is not dict:
        raise TypeError(f"{facts!r:.40}")
    for name, kind in kinds.items():
        value = facts[name]
        numbers = value.values() if type(value) is dict else [value] if kind is int else []
        if type(value) is not kind or any(type(one) is not int or one < 0 for one in numbers):
            raise TypeError(f"{name} {value!r:.40}")


def _record(body: Mapping[str, Any], digest: str) -> ShardRecord:
    require_kinds(body, {"index": int, "dataset_id": str, "counts": dict, "recipe_sha256": str})
    for name in ("parquet",) if body["tar"] is None else ("parquet", "tar"):
        require_kinds(body[name], _FILE)
    for name in ("recipe", "environment"):
        if type(body[name]) is not dict:
            raise TypeError(f"{name} {body[name]!r:.40}")
    rest = {name: value for name, value in body.items() if name not in ("tar", "parquet", "format")}
    tar = None if body["tar"] is None else FileRecord(**body["tar"])
    return ShardRecord(**rest, tar=tar, parquet=FileRecord(**body["parquet"]), sha256=digest)


def _is_own(record: ShardRecord, index: int, kind: str) -> bool:
    files = [(record.parquet, "parquet"), *([(record.tar, "tar")] if record.tar else [])]
    for file, suffix in files:
        match = DATA_FILE.fullmatch(file.name)
        if match is None or match.groups() != (f"{index:05d}", file.sha256[:12], suffix) or file.bytes < 0:
            return False
    recipe_is_own = record.recipe_sha256 == recipe_hash(record.recipe)
    return kind == _FORMAT and record.index == index and recipe_is_own
