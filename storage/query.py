"""A dataset's records as tables that DuckDB asks in bounded memory: the Parquet files of the manifests, and the plan."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .backend import Backend, explain, open_backend
from .errors import CounterpoiseError, ShardDamaged
from .manifest import DatasetManifest, Where, load_dataset, plan_of, shards_of
from .plan import check_footer
from .quarantine import check_bytes, quarantining
from .reading import MAX_PARQUET, read_checked
from .records import schema
from .shardfile import ShardRecord
from .sidecar import SKEW

Row = dict[str, Any]
MEMORY = "400MB"
MOST_THREADS = 4
_NO_ANSWER = (
    duckdb.OutOfMemoryException,
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.SerializationException,
)
PLAN_ROW = "plan_row"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of the finished shards and the plan, opened and checked once for many questions.

    Attributes:
        dataset: the folder.
        manifest: `dataset.json` as read then.
        shards: the finished shards, whose Parquet files are the view `records`.
        connection: knows `records` and `planned`, whose column `plan_row` is the place in the plan.
    """

    dataset: Where
    manifest: DatasetManifest
    shards: tuple[ShardRecord, ...]
    connection: duckdb.DuckDBPyConnection

    def ask(self, sql: str, values: Sequence[object] | None = None) -> list[Row]:
        """The answer to a question as rows; only what is small should be asked for.

        Raises:
            CounterpoiseError: it does not fit the memory and the room for spilling.
            ShardDamaged: a Parquet cannot be read.
        """
        with self._explained():
            answer = self.connection.execute(sql, values)
            names = [column[0] for column in answer.description]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _NO_ANSWER as error:
            text = " ".join(str(error).split())
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in text:
                raise CounterpoiseError(
                    f"{self.dataset}: the question does not fit {MEMORY} of memory and the room in "
                    f"{tempfile.gettempdir()}: make room there, or set TMPDIR to a folder with more."
                ) from error
            raise ShardDamaged(f"{self.dataset}: its records cannot be read: {text}.") from error


def connect(threads: int | None = None, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    """A connection of bounded memory; what does not fit is spilled to a folder that goes with it.

    Answers depend on no number of threads as long as they are ordered and sum whole numbers alone.
    """
    spill = Path(tempfile.gettempdir()) / f"counterpoise-{secrets.token_hex(8)}"  # made when first needed
    return duckdb.connect(
        config={
            "threads": threads or min(_cores(), MOST_THREADS),
            "memory_limit": memory,
            "temp_directory": str(spill),
            "autoinstall_known_extensions": False,
        }
    )


@contextlib.contextmanager
def open_records(
    dataset: Where, threads: int | None = None, memory: str = MEMORY, check: bool = True
) -> Iterator[Records]:
    """Open a dataset for questions; its files are compared with their manifests once, before the first.

    Args:
        dataset: a folder or URI; the Parquet files of one that is not on this machine are copied to `TMPDIR`.
        threads: how many DuckDB may use; as many as there are cores, at most `MOST_THREADS`, if None.
        memory: what DuckDB may use before it spills to a temporary folder.
        check: read every Parquet once before, to compare its sha256 with its manifest's; copies always are.

    Raises:
        ShardDamaged: a manifest, a Parquet or the plan is damaged.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    shards, planned = tuple(shards_of(backend, manifest)), plan_of(backend, manifest)
    with contextlib.ExitStack() as stack:
        if shards and backend.path(shards[0].parquet.path) is None:
            paths = stack.enter_context(_copies(backend, shards, list(manifest.axes)))
        else:
            paths = local_paths(backend, shards, check, list(manifest.axes))
        connection = stack.enter_context(connect(threads, memory))
        shard_records(connection, manifest, paths).create_view("records")
        places = pa.array(range(len(planned)), pa.int64())
        connection.register("planned", planned.append_column(PLAN_ROW, places))
        _shut(connection, paths, backend.path(SKEW))
        yield Records(dataset, manifest, shards, connection)


def quoted(name: str) -> str:
    """A column's name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def _shut(connection: duckdb.DuckDBPyConnection, paths: Sequence[str], folder: Path | None) -> None:
    """From here on a question reaches these files and those of the folder, and no others, whatever it says."""
    folders = [] if folder is None else [str(folder)]
    for setting, allowed in (("allowed_paths", paths), ("allowed_directories", folders)):
        both = {*allowed, *map(glob.escape, allowed)}  # it looks at a path both as it was given and as it is
        connection.execute(f"SET {setting} = ?", [sorted(both)])
    connection.execute("SET enable_external_access = false")


def local_paths(backend: Backend, shards: Sequence[ShardRecord], check: bool, axes: list[str]) -> list[str]:
    """Where the Parquet files of these shards are, each compared with its manifest and the axes if `check`.

    Raises:
        ShardDamaged: one is missing, or is another and thus quarantined.
    """
    for shard in shards:
        with quarantining(backend, shard), backend.open(shard.parquet.path) as file:
            if check:
                where = backend.where(shard.parquet.path)
                check_bytes(file, shard.parquet.bytes, shard.parquet.sha256, where)
                _check_form(file, axes, where)
    return [str(backend.path(shard.parquet.path)) for shard in shards]


def _check_form(file: BufferedIOBase | io.BytesIO, axes: list[str], where: str) -> None:
    """Refuse a Parquet of other columns than the dataset's, or of a size that no shard has."""
    try:
        parquet = pq.ParquetFile(file)
        columns = parquet.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardDamaged(f"{where} is damaged: not a whole Parquet file ({error}).") from error
    check_footer(parquet.metadata, where)
    if not columns.equals(schema(axes)):
        raise ShardDamaged(f"{where}: the Parquet's columns are not those of the dataset.")


def fetched(backend: Backend, shard: ShardRecord) -> bytes:
    """The Parquet of a shard that is not on this machine.

    Raises:
        ShardDamaged: it is missing, or is another and thus quarantined.
    """
    with quarantining(backend, shard):
        return read_checked(backend, shard.parquet, MAX_PARQUET)


@contextlib.contextmanager
def _copies(backend: Backend, shards: Sequence[ShardRecord], axes: list[str]) -> Iterator[list[str]]:
    """Paths of temporary copies of these shards' Parquet files."""
    with tempfile.TemporaryDirectory(prefix="counterpoise-") as folder:
        paths = [Path(folder) / shard.parquet.name for shard in shards]
        for path, shard in zip(paths, shards, strict=True):
            content = fetched(backend, shard)
            _check_form(io.BytesIO(content), axes, backend.where(shard.parquet.path))
            try:
                path.write_bytes(content)
            except OSError as error:
                raise explain(error, str(path)) from error
        yield [str(path) for path in paths]


def shard_records(
    connection: duckdb.DuckDBPyConnection, manifest: DatasetManifest, paths: Sequence[str]
) -> duckdb.DuckDBPyRelation:
    """Parquet files of shards as one relation."""
    if paths:
        return connection.read_parquet([glob.escape(path) for path in paths])
    return connection.from_arrow(schema(list(manifest.axes)).empty_table())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
