"""Small Parquet files beside the shards (verdicts, skew): written through the backend, their columns checked on reading."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from .backend import Backend
from .canonical import sha256
from .errors import CounterpoiseError, ShardDamaged
from .plan import read_table
from .records import to_parquet

MAX_SIDE = 2**31


def write_side(backend: Backend, name: str, table: pa.Table) -> str:
    """Put a table under a name of the dataset, replacing what was there at once; returns the name."""
    with backend.staging() as staging:
        staging.put(staging.stage(name, [to_parquet(table)]), name)
    return name


def read_side(
    backend: Backend, name: str, wanted: pa.Schema, optional: Mapping[str, pa.Scalar], cure: str
) -> tuple[pa.Table, str]:
    """The wanted columns of a file, and the sha256 of the file.

    Text may be stored in any of Arrow's kinds of string, other columns as their type only; further columns are
    left alone.

    Args:
        backend: of the dataset.
        name: of the file inside the dataset.
        wanted: name, type and nullability of every column.
        optional: value of those columns that may be absent.
        cure: what the user can do about a bad file.

    Raises:
        CounterpoiseError: one line that names the file and the column.
    """
    content = backend.read(name, MAX_SIDE)
    where = backend.where(name)
    try:
        table = read_table(content, where)
    except ShardDamaged as error:
        raise CounterpoiseError(f"{str(error).rstrip('.')}; {cure}.") from error
    columns = [_column(table, one, optional.get(one.name), where, cure) for one in wanted]
    return pa.table(columns, schema=wanted), sha256(content)


def _column(
    table: pa.Table, wanted: pa.Field, default: pa.Scalar | None, where: str, cure: str
) -> pa.ChunkedArray:
    names = table.column_names.count(wanted.name)
    if names == 0 and default is not None:
        return pa.chunked_array([pa.repeat(default, table.num_rows)], wanted.type)
    if names != 1:
        found = ", ".join(table.column_names) or "none"
        raise CounterpoiseError(
            f"{where}: one column {wanted.name!r} is wanted, its columns are {found}; {cure}."
        )
    column = table.column(wanted.name)
    alike = column.type == wanted.type or (_is_text(column.type) and _is_text(wanted.type))
    empty = pa.types.is_null(column.type) and wanted.nullable
    if not (alike or empty):
        raise CounterpoiseError(
            f"{where}: column {wanted.name!r} is {column.type}, {wanted.type} is wanted; {cure}."
        )
    if column.null_count and not wanted.nullable:
        raise CounterpoiseError(
            f"{where}: column {wanted.name!r} has {column.null_count} nulls, none are allowed; {cure}."
        )
    return column.cast(wanted.type)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
