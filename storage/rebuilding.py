"""A shard's manifest that was lost, made again from the shard's data files: to the byte that was listed, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from .backend import Backend
from .canonical import plain, sha256
from .document import DatasetManifest
from .errors import CounterpoiseError
from .plan import read_table
from .reading import MAX_PARQUET
from .records import iter_rows, schema
from .shardfile import (
    DATA_FILE,
    SHARDS,
    FileRecord,
    ShardRecord,
    read_shard,
    shard_counts,
    shard_indices,
    shard_manifest,
    shard_name,
)
from .versions import ever_listed


def rebuilt(
    backend: Backend,
    manifest: DatasetManifest,
    index: int,
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> ShardRecord | None:
    """Commit a shard's lost manifest anew, if its data files give the bytes that `dataset.json` or a version listed.

    Nothing is guessed: the recipe, this environment and those of the other shards are tried, and the sha256 decides.

    Returns:
        The shard; None if no such bytes come of what is there.
    """
    names = [name for name in backend.names(SHARDS) if name.startswith(f"{index:05d}-")]
    if not names:
        return None
    wanted = {entry.sha256 for entry in manifest.shards if entry.index == index}
    wanted = wanted or ever_listed(backend).get(index, set())
    facts = {"index": index, "dataset_id": manifest.dataset_id, "recipe": plain(recipe, "recipe")}
    axes = list(manifest.axes)
    for body in _bodies(backend, names, facts, axes, environment) if wanted else ():
        if sha256(body) in wanted:
            with backend.staging() as staging:
                staging.create(staging.stage(shard_name(index), [body]), shard_name(index))
            return read_shard(backend, index, manifest.dataset_id)
    return None


def _bodies(
    backend: Backend,
    names: list[str],
    facts: Mapping[str, Any],
    axes: list[str],
    environment: Mapping[str, Any],
) -> Iterator[bytes]:
    """Every manifest that the data files may have had."""
    files = [file for name in names if (file := _file(backend, name))]
    tars = [asdict(file) for file in files if file.name.endswith(".tar")]
    for parquet in (file for file in files if file.name.endswith(".parquet")):
        with suppress(CounterpoiseError):
            counts = _counts(backend, parquet, axes)
            for tar in tars if counts["images"] else [None]:
                found = {**facts, "counts": counts, "parquet": asdict(parquet), "tar": tar}
                for one in _environments(backend, environment):
                    yield shard_manifest({**found, "environment": one})


def _file(backend: Backend, name: str) -> FileRecord | None:
    """A data file as a manifest names it; None if its name does not carry its hash."""
    match = DATA_FILE.fullmatch(name)
    if match is None:
        return None
    try:
        with backend.open(f"{SHARDS}/{name}") as file:
            size, digest = file.seek(0, os.SEEK_END), _digest(file)
    except CounterpoiseError:
        return None
    return FileRecord(name, size, digest) if digest.startswith(match[2]) else None


def _digest(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _counts(backend: Backend, parquet: FileRecord, axes: list[str]) -> dict[str, int]:
    columns, content = ["set_id", "candidate", "kept"], backend.read(parquet.path, MAX_PARQUET)
    table = read_table(content, backend.where(parquet.path), columns, schema(axes))
    return shard_counts([tuple(row[name] for name in columns) for row in iter_rows(table)])


def _environments(backend: Backend, environment: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """This one, then those of the other shards."""
    seen: list[Mapping[str, Any]] = [environment]
    yield environment
    for index in shard_indices(backend):
        with suppress(CounterpoiseError):
            other = read_shard(backend, index).environment
            if other not in seen:
                seen.append(other)
                yield other
