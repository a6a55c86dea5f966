"""Reading a shard: only what its manifest names, and nothing before length and sha256 are right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any

from .backend import LocalBackend, open_backend
from .canonical import sha256
from .errors import CounterpoiseError, ShardDamaged
from .images import check_image
from .manifest import Where, load_dataset, require_listed
from .plan import read_table
from .records import Sample, from_row, iter_rows, row_json, schema
from .shardfile import AGAIN, FileRecord, ShardRecord, read_shard, shard_indices, shard_name
from .tarball import tar_members

MAX_PARQUET = 2**31


def check_present(backend: LocalBackend, record: ShardRecord) -> None:
    """Are a shard's files there, at their full length?"""
    for file in record.files:
        with backend.open(file.path) as opened:
            check_length(opened, file.bytes, backend.where(file.path))


def read_samples(dataset: Where, index: int) -> Iterator[Sample]:
    """Every candidate image of a shard, kept or rejected, in the order of its Parquet.

    Length and sha256 of both files are checked before the first sample is given out.

    Raises:
        ShardDamaged: a file is not what the manifests name, or the shard is not there.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    if index not in shard_indices(backend):
        raise ShardDamaged(
            f"{backend.where(shard_name(index))} is missing: the shard is not finished; generate it."
        )
    record = read_shard(backend, index, manifest.dataset_id)
    require_listed(backend, manifest, record)
    yield from record_samples(backend, record, list(manifest.axes))


def record_samples(backend: LocalBackend, record: ShardRecord, axes: list[str]) -> Iterator[Sample]:
    """`read_samples` for a manifest that is already read."""
    content = read_checked(backend, record.parquet, MAX_PARQUET)
    where = backend.where(shard_name(record.index))
    if record.tar is None:
        yield from pair_up(content, None, axes, where)
        return
    with backend.open(record.tar.path) as tar:
        check_bytes(tar, record.tar.bytes, record.tar.sha256, backend.where(record.tar.path))
        yield from pair_up(content, tar, axes, where)


def read_checked(backend: LocalBackend, file: FileRecord, limit: int) -> bytes:
    """A whole file that is what its manifest names."""
    content = backend.read(file.path, min(limit, max(file.bytes, 0)))
    if len(content) != file.bytes or sha256(content) != file.sha256:
        raise ShardDamaged(
            f"{backend.where(file.path)} is damaged: its length or sha256 is not its manifest's."
        )
    return content


def check_length(file: BufferedReader, size: int, where: str) -> None:
    """Has an open file as many bytes as its manifest says?"""
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise ShardDamaged(f"{where} is damaged: {found} bytes, its manifest says {size}; {AGAIN}.")


def check_bytes(file: BufferedReader, size: int, digest: str, where: str) -> None:
    """Length and hash of an open file, which is then at its start again."""
    check_length(file, size, where)
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        raise ShardDamaged(f"{where} is damaged: its sha256 is not the one in its manifest; {AGAIN}.")
    file.seek(0)


def pair_up(parquet: bytes, tar: BufferedReader | None, axes: list[str], where: str) -> Iterator[Sample]:
    """Rows with their images; every member of the tar has its row and every kept row its members."""
    table = read_table(parquet, where)
    if not table.schema.equals(schema(axes)):
        raise ShardDamaged(f"{where}: the Parquet's columns are not those of the dataset.")
    members = iter(()) if tar is None else tar_members(tar, where)
    for row in iter_rows(table):
        yield from_row(row, axes, _image(row, members, where) if row["kept"] else None)
    if next(members, None) is not None:
        raise ShardDamaged(f"{where}: the tar holds images that the Parquet does not name.")


def _image(row: Mapping[str, Any], members: Iterator[tuple[str, bytes]], where: str) -> bytes:
    key = row["key"]
    content = dict(member for _ in range(2) if (member := next(members, None)))
    record = content.pop(f"{key}.json", None)
    name, image = next(iter(content.items()), ("", b""))
    if record != row_json(row) or name.rpartition(".")[0] != key or sha256(image) != row["sha256"]:
        raise ShardDamaged(f"{where}: the tar's members of {key!r} do not fit the Parquet's row.")
    return image


def decode(sample: Sample) -> None:
    """Decode the image of a kept sample; the error names its key."""
    if sample.image is None:
        return
    try:
        check_image(sample.image, sample.width, sample.height)
    except CounterpoiseError as error:
        raise CounterpoiseError(f"sample {sample.key!r}: {error}") from error
