"""Small Parquet files beside the shards (verdicts, skew): written through the backend, their columns checked on reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from .backend import Backend
from .canonical import sha256
from .errors import CounterpoiseError, ShardDamaged, SideFileBad
from .plan import read_table
from .records import to_parquet

MAX_SIDE = 2**31
#: In the metadata of a file's schema: which dataset it was written for.
OWNER = b"counterpoise.dataset_id"


def write_side(backend: Backend, name: str, table: pa.Table, owner: str | None = None) -> str:
    """Put a table under a name of the dataset, replacing what was there at once; returns the name.

    Args:
        backend: of the dataset.
        name: of the file inside the dataset.
        table: its rows.
        owner: the dataset's id, so that the file is not taken for another one's; None for none.
    """
    if owner is not None:
        table = table.replace_schema_metadata({OWNER: owner.encode()})
    with backend.staging() as staging:
        staging.put(staging.stage(name, [to_parquet(table)]), name)
    return name


def read_side(
    backend: Backend,
    name: str,
    wanted: pa.Schema,
    optional: Mapping[str, pa.Scalar],
    cure: str,
    owner: str | None = None,
) -> tuple[pa.Table, str, list[str]]:
    """The wanted columns of a file, the sha256 of the file, and the columns that are in it.

    Text may be stored in any of Arrow's kinds of string, other columns as their type only; further columns are
    left alone.

    Args:
        backend: of the dataset.
        name: of the file inside the dataset.
        wanted: name, type and nullability of every column.
        optional: value of those columns that may be absent.
        cure: what the user can do about a bad file.
        owner: the dataset's id, which a file that names one has to name; None for any.

    Raises:
        SideFileBad: one line that names the file and the column.
    """
    where = backend.where(name)
    with _one_file(cure):
        content = backend.read(name, MAX_SIDE)
        table = read_table(content, where)
    _check_owner(table.schema, owner, where, cure)
    return _columns(table, wanted, optional, where, cure), sha256(content), table.column_names


def side_batches(
    backend: Backend,
    name: str,
    wanted: pa.Schema,
    optional: Mapping[str, pa.Scalar],
    cure: str,
    owner: str | None = None,
) -> Iterator[pa.Table]:
    """`read_side` some rows at a time, for what need not be held; an empty table first.

    Raises:
        SideFileBad: one line that names the file and the column.
    """
    where = backend.where(name)
    with _one_file(cure):
        if backend.size(name) > MAX_SIDE:
            raise ShardDamaged(f"{where} is damaged: larger than the {MAX_SIDE} bytes that are allowed.")
        opened = backend.open(name)
    try:
        with opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            _check_owner(file.schema_arrow, owner, where, cure)
            yield _columns(file.schema_arrow.empty_table(), wanted, optional, where, cure)
            for batch in file.iter_batches(
                columns=[one for one in wanted.names if one in file.schema_arrow.names]
            ):
                yield _columns(pa.Table.from_batches([batch]), wanted, optional, where, cure)
    except CounterpoiseError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SideFileBad(f"{where} is damaged: not a whole Parquet file ({error}); {cure}.") from error


@contextlib.contextmanager
def _one_file(cure: str) -> Iterator[None]:
    """What no second try would mend is told as an error of this file alone."""
    try:
        yield
    except CounterpoiseError as error:
        if isinstance(error, ShardDamaged) or isinstance(error.__cause__, PermissionError):
            raise SideFileBad(f"{str(error).rstrip('.')}; {cure}.") from error
        raise


def _check_owner(found: pa.Schema, owner: str | None, where: str, cure: str) -> None:
    """Refuse a file of another dataset: keys alone do not tell, since set ids repeat from one dataset to the next."""
    named = (found.metadata or {}).get(OWNER)
    if owner is not None and named is not None and named != owner.encode():
        raise SideFileBad(
            f"{where}: it was written for dataset {named[:12].decode(errors='replace')}, this is {owner[:12]}; {cure}."
        )


def _columns(
    table: pa.Table, wanted: pa.Schema, optional: Mapping[str, pa.Scalar], where: str, cure: str
) -> pa.Table:
    columns = [_column(table, one, optional.get(one.name), where, cure) for one in wanted]
    return pa.table(columns, schema=wanted)


def _column(
    table: pa.Table, wanted: pa.Field, default: pa.Scalar | None, where: str, cure: str
) -> pa.ChunkedArray:
    names = table.column_names.count(wanted.name)
    if names == 0 and default is not None:
        return pa.chunked_array([pa.repeat(default, table.num_rows)], wanted.type)
    if names != 1:
        found = ", ".join(table.column_names) or "none"
        raise SideFileBad(f"{where}: one column {wanted.name!r} is wanted, its columns are {found}; {cure}.")
    column = table.column(wanted.name)
    alike = column.type == wanted.type or (_is_text(column.type) and _is_text(wanted.type))
    empty = pa.types.is_null(column.type) and wanted.nullable
    if not (alike or empty):
        raise SideFileBad(
            f"{where}: column {wanted.name!r} is {column.type}, {wanted.type} is wanted; {cure}."
        )
    if column.null_count and not wanted.nullable:
        raise SideFileBad(
            f"{where}: column {wanted.name!r} has {column.null_count} nulls, none are allowed; {cure}."
        )
    return column.cast(wanted.type)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
