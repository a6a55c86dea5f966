"""Reading a shard: only what its manifest names, and nothing before length and sha256 are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .backend import Backend, open_backend
from .canonical import sha256
from .errors import CounterpoiseError, ShardDamaged
from .images import check_image
from .manifest import Where, load_dataset, require_listed
from .plan import read_table
from .quarantine import check_bytes, check_length, quarantining, require_shard
from .records import NAME, SET_ID, Sample, from_row, iter_rows, row_json, sample_key, schema
from .shardfile import FileRecord, ShardRecord, shard_indices, shard_name
from .tarball import tar_members

__all__ = [
    "check_bytes",
    "check_names",
    "check_present",
    "decode",
    "pair_up",
    "read_checked",
    "read_samples",
    "record_samples",
    "row_image",
]

MAX_PARQUET = 2**31


def check_present(backend: Backend, record: ShardRecord) -> None:
    """Are a shard's files there, at their full length?"""
    for file in record.files:
        check_length(backend.size(file.path), file.bytes, backend.where(file.path))


def read_samples(dataset: Where, index: int) -> Iterator[Sample]:
    """Every candidate image of a shard, kept or rejected, in the order of its Parquet.

    Length and sha256 of both files are checked before the first sample is given out; a damaged file is quarantined.

    Raises:
        ShardDamaged: a file is not what the manifests name, or the shard is not there.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    if index not in shard_indices(backend):
        raise ShardDamaged(
            f"{backend.where(shard_name(index))} is missing: the shard is not finished; generate it."
        )
    record = require_shard(backend, index, manifest.dataset_id)
    require_listed(backend, manifest, record)
    with quarantining(backend, record):
        yield from record_samples(backend, record, list(manifest.axes))


def record_samples(backend: Backend, record: ShardRecord, axes: list[str]) -> Iterator[Sample]:
    """Every candidate image of a shard whose manifest is already read; length and sha256 of both files come first."""
    content = read_checked(backend, record.parquet, MAX_PARQUET)
    where = backend.where(shard_name(record.index))
    if record.tar is None:
        yield from pair_up(content, None, axes, where)
        return
    with backend.open(record.tar.path) as tar:
        check_bytes(tar, record.tar.bytes, record.tar.sha256, backend.where(record.tar.path))
        yield from pair_up(content, tar, axes, where)


def read_checked(backend: Backend, file: FileRecord, limit: int) -> bytes:
    """A whole file that is what its manifest names."""
    content = backend.read(file.path, min(limit, max(file.bytes, 0)))
    if len(content) != file.bytes or sha256(content) != file.sha256:
        raise ShardDamaged(
            f"{backend.where(file.path)} is damaged: its length or sha256 is not its manifest's."
        )
    return content


def pair_up(parquet: bytes, tar: BufferedIOBase | None, axes: list[str], where: str) -> Iterator[Sample]:
    """Rows with their images; every member of the tar has its row and every kept row its members."""
    table = read_table(parquet, where, wanted=schema(axes))
    check_names(table, where)
    members = iter(()) if tar is None else tar_members(tar, where)
    for row in iter_rows(table):
        yield from_row(row, axes, row_image(row, members, where) if row["kept"] else None)
    if next(members, None) is not None:
        raise ShardDamaged(f"{where}: the tar holds images that the Parquet does not name.")


def check_names(table: pa.Table, where: str) -> None:
    """Refuse rows whose set, split or concept is more than a name, or whose key is not their set's and member's.

    Raises:
        ShardDamaged: names the first such row.
    """
    sets = table["set_id"]
    members = pc.utf8_lpad(pc.cast(table["member"], pa.string()), 2, "0")
    odd = pc.not_equal(table["key"], pc.binary_join_element_wise(sets, members, "-"))
    for column, form in (("set_id", SET_ID), ("split", NAME), ("concept", NAME)):
        names = pc.unique(table[column]).to_pylist()
        if strange := [name for name in names if not form.fullmatch(name or "")]:
            odd = pc.or_(odd, pc.is_in(table[column], value_set=pa.array(strange, pa.string())))
    first = pc.index(pc.fill_null(odd, True), True).as_py()
    if first >= 0:
        row = table.select(["key", "set_id", "member", "split", "concept"]).slice(first, 1).to_pylist()[0]
        raise ShardDamaged(f"{where} is refused: {_odd(row)}.")


def _odd(row: Mapping[str, Any]) -> str:
    """What is odd about a row that `check_names` refuses."""
    for column, form in (("set_id", SET_ID), ("split", NAME), ("concept", NAME)):
        if not form.fullmatch(row[column] or ""):
            return f"{column} {row[column]!r} in the Parquet has to match {form.pattern}"
    return f"key {row['key']!r} in the Parquet has to be {sample_key(row['set_id'], row['member'] or 0)!r}"


def row_image(row: Mapping[str, Any], members: Iterator[tuple[str, bytes]], where: str) -> bytes:
    """The image of a kept row, whose record and hash are the row's, from a tar's members in turn."""
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
