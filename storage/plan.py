"""plan.parquet: every planned set, one row each, as the generator planned them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .backend import Backend
from .canonical import canonical, plain, sha256
from .errors import CounterpoiseError, ShardDamaged
from .records import iter_rows
from .shardfile import MAX_SHARDS

PLAN = "plan.parquet"
MAX_PLAN = 2**31
MAX_ROWS = 2**27
MAX_TABLE = 2**32
NEEDED = {"set_id", "shard", "concept", "concept_group"}


def plan_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the plan as a table.

    Raises:
        CounterpoiseError: rows differ in their columns, repeat a set, or leave a shard without sets.
    """
    if not rows:
        raise CounterpoiseError("The plan has no rows: a spec has to ask for at least one set.")
    names = list(rows[0])
    if not set(names) >= NEEDED or any(list(row) != names for row in rows):
        needed = ", ".join(sorted(NEEDED))
        raise CounterpoiseError(f"The plan's rows have to have the same columns, {needed} among them.")
    if not all(isinstance(row["set_id"], str) and type(row["shard"]) is int for row in rows):
        raise CounterpoiseError("The plan's set_id has to be text and its shard a whole number.")
    if len({row["set_id"] for row in rows}) < len(rows):
        raise CounterpoiseError("The plan names a set twice: every set_id has to be its own.")
    shards = {row["shard"] for row in rows}
    if shards != set(range(len(shards))):
        raise CounterpoiseError("The plan's shards have to be numbered from 0 without gaps.")
    if len(shards) > MAX_SHARDS:
        raise CounterpoiseError(
            f"The plan has {len(shards)} shards: at most {MAX_SHARDS} are listed; put more sets in each."
        )
    try:
        return pa.Table.from_pylist([plain(row, "plan") for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CounterpoiseError(
            f"The plan's columns have to hold one kind of value each: {error}."
        ) from error


def plan_facts(table: pa.Table, content: bytes) -> dict[str, Any]:
    """What `dataset.json` says about the plan; `rows_sha256` is of what it says, `sha256` of the file."""
    shards = max(row["shard"] for row in iter_rows(table)) + 1
    file = {"bytes": len(content), "sha256": sha256(content)}
    return {"rows": table.num_rows, "shards": shards, "rows_sha256": rows_hash(iter_rows(table)), **file}


def rows_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hash of what a plan says, however it is stored."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical(row) + b"\n")
    return digest.hexdigest()


def publish_plan(backend: Backend, content: bytes) -> None:
    """Write the plan; it follows from the header, so writing it again is harmless."""
    with backend.staging() as staging:
        staging.put(staging.stage(PLAN, [content]), PLAN)


def plan_bytes(backend: Backend, facts: Mapping[str, Any]) -> bytes:
    """The plan file, if it is the one that `dataset.json` names.

    Raises:
        ShardDamaged: it is not, or it is missing.
    """
    try:
        content = backend.read(PLAN, MAX_PLAN)
    except ShardDamaged as error:
        cure = "`counterpoise generate` with the same spec restores it"
        raise type(error)(f"{str(error).removesuffix('.')}: {cure}.") from error
    if (len(content), sha256(content)) != (facts["bytes"], facts["sha256"]):
        where = backend.where(PLAN)
        raise ShardDamaged(
            f"{where} is damaged or foreign: `counterpoise generate` with the same spec restores it."
        )
    return content


def plan_is_sound(backend: Backend, facts: Mapping[str, Any]) -> bool:
    """Is the plan there, and the one that is meant?"""
    try:
        plan_bytes(backend, facts)
    except ShardDamaged:
        return False
    return True


def stored_plan(
    backend: Backend, facts: Mapping[str, Any], later: Mapping[str, Any] | None = None
) -> pa.Table:
    """The plan that a version names, from its file or from the file of a `later` version that goes on from it.

    Raises:
        ShardDamaged: the file is missing or not the one that is named.
    """
    table = read_table(plan_bytes(backend, later or facts), backend.where(PLAN)).slice(0, facts["rows"])
    if later and rows_hash(iter_rows(table)) != facts["rows_sha256"]:
        raise ShardDamaged(
            f"{backend.where(PLAN)} is not the plan of this version, nor does it go on from it."
        )
    return table


def plan_rows(backend: Backend, facts: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Rows of a sound plan, in order."""
    return iter_rows(stored_plan(backend, facts))


def read_table(
    content: bytes, where: str, columns: list[str] | None = None, wanted: pa.Schema | None = None
) -> pa.Table:
    """Parquet from memory, on one thread; all columns, or those that are named.

    Raises:
        ShardDamaged: it is no whole Parquet, more than `MAX_ROWS` or `MAX_TABLE` when decoded, or not as `wanted`.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        if wanted is not None and not file.schema_arrow.equals(wanted):
            raise ShardDamaged(f"{where}: the Parquet's columns are not those of the dataset.")
        check_footer(file.metadata, where)
        _check_decoded(file.metadata, content, where, columns)
        table = _read_groups(file, where, columns)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardDamaged(f"{where} is damaged: not a whole Parquet file ({error}).") from error
    return table


def check_footer(footer: pq.FileMetaData, where: str) -> None:
    """Refuse a Parquet of more rows or bytes than any that was written here.

    Raises:
        ShardDamaged: says how many it claims.
    """
    size = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
    if footer.num_rows > MAX_ROWS or size > MAX_TABLE:
        raise ShardDamaged(
            f"{where} is refused: {footer.num_rows} rows of {size} bytes, at most {MAX_ROWS} of {MAX_TABLE} are read."
        )


def _check_decoded(footer: pq.FileMetaData, content: bytes, where: str, wanted: list[str] | None) -> None:
    """Refuse columns that dictionaries make large: few bytes stored, many when decoded."""
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    chunks = [list(map(group.column, range(group.num_columns))) for group in groups]
    if wanted is not None:
        chunks = [
            [one for one in group if one.path_in_schema.partition(".")[0] in wanted] for group in chunks
        ]
    # no value is longer than all of its chunk; the dictionaries are looked at only where that does not tell enough
    if sum(_decoded(one, one.total_uncompressed_size) for group in chunks for one in group) <= MAX_TABLE:
        return
    size = 0
    for group, columns in enumerate(chunks):
        longest = _longest(content, group, [one.path_in_schema for one in columns if _is_text(one)])
        size += sum(
            _decoded(one, longest.get(one.path_in_schema, one.total_uncompressed_size)) for one in columns
        )
    if size > MAX_TABLE:
        raise ShardDamaged(
            f"{where} is refused: up to {size} bytes when decoded, at most {MAX_TABLE} are read."
        )


def _is_text(chunk: pq.ColumnChunkMetaData) -> bool:
    return str(chunk.physical_type) == "BYTE_ARRAY"


def _decoded(chunk: pq.ColumnChunkMetaData, longest: int) -> int:
    """Bytes that a column of a row group has at most, if it is text by its longest value."""
    fixed = str(chunk.physical_type) != "FIXED_LEN_BYTE_ARRAY" and not _is_text(chunk)
    return int(chunk.num_values * (8 if fixed else longest + 4))


def _longest(content: bytes, group: int, names: list[str]) -> dict[str, int]:
    """Bytes of the longest value in the dictionary of each text column that has one."""
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=names)
    flat = [name for name in names if name in file.schema_arrow.names]
    found: dict[str, int] = {}
    for batch in itertools.islice(
        file.iter_batches(1, row_groups=[group], columns=flat, use_threads=False), 1
    ):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_dictionary(column.type):
                found[name] = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
    return found


def _read_groups(file: pq.ParquetFile, where: str, columns: list[str] | None) -> pa.Table:
    """All row groups, one at a time, as long as they fit."""
    if file.num_row_groups < 2:
        return file.read(columns=columns, use_threads=False)
    tables, size = [], 0
    for group in range(file.num_row_groups):
        tables.append(file.read_row_group(group, columns=columns, use_threads=False))
        size += tables[-1].nbytes
        if size > MAX_TABLE:
            raise ShardDamaged(f"{where} is refused: more than {MAX_TABLE} bytes when decoded.")
    return pa.concat_tables(tables)
