"""Skew sidecars: what a model's bias makes of every image, by key, beside shards that are never rewritten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .backend import Backend, open_backend
from .errors import CounterpoiseError, SideFileBad
from .manifest import Where, load_dataset
from .sidefile import read_side, side_batches, write_side

SKEW = "skew"
MAX_MULTIPLICITY = 1000
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("skew", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("multiplicity", pa.int32(), nullable=False),
    ]
)
_OPTIONAL = {"weight": pa.scalar(1.0), "multiplicity": pa.scalar(1, pa.int32())}
_NAME = re.compile(r"skew/[a-z0-9][a-z0-9_.-]{0,99}-[0-9a-f]{12}-[0-9]+\.parquet")
_CURE = "write the sidecar again"
Numbers = Sequence[float] | npt.NDArray[np.float64]
Counts = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A skew sidecar as read.

    Attributes:
        name: of the file inside the dataset.
        sha256: of the file.
        table: key, skew, weight (1 where the file has none), multiplicity (1 where the file has none).
        resamples: the file has multiplicities.
    """

    name: str
    sha256: str
    table: pa.Table
    resamples: bool


def sidecars(dataset: Where) -> list[str]:
    """Names of the Parquet files in `skew/` inside a dataset, sorted; none is opened."""
    return [f"{SKEW}/{name}" for name in open_backend(dataset).names(SKEW) if name.endswith(".parquet")]


def sidecar_name(slug: str, weights_sha256: str, epoch: int) -> str:
    """`skew/<slug>-<weights sha12>-<epoch>.parquet`.

    Raises:
        CounterpoiseError: a part cannot be in a file's name.
    """
    name = f"{SKEW}/{slug}-{weights_sha256[:12]}-{epoch}.parquet"
    if not _NAME.fullmatch(name):
        raise CounterpoiseError(
            f"{name!r} cannot be a sidecar's name: a slug of small letters, digits, '.', '-' and '_', the sha256 "
            "of the weights and an epoch from 0 are wanted."
        )
    return name


def write_sidecar(
    dataset: Where,
    name: str,
    keys: Sequence[str],
    skew: Numbers,
    weight: Numbers | None = None,
    multiplicity: Counts | None = None,
) -> str:
    """Write a sidecar, sorted by key, over one of the same name; returns the name.

    Args:
        dataset: a folder or URI.
        name: as `sidecar_name` makes it.
        keys: of the images, each once.
        skew: instance skew, (n,), natural logarithm, finite.
        weight: of the loss, (n,), not negative; absent, readers take 1.
        multiplicity: how often an image is handed out in the epoch, (n,); absent, readers take 1.

    Raises:
        CounterpoiseError: lengths differ, a key is there twice, or a value is out of its range.
    """
    given = {"skew": skew, "weight": weight, "multiplicity": multiplicity}
    columns = {name: values for name, values in given.items() if values is not None}
    wrong = [f"{name} has {len(values)}" for name, values in columns.items() if len(values) != len(keys)]
    if wrong:
        raise CounterpoiseError(f"{name}: {len(keys)} keys were given, but {', '.join(wrong)} values.")
    fields = [SCHEMA.field(column) for column in ("key", *columns)]
    try:
        arrays = [
            pa.array(keys, pa.string()),
            *(pa.array(np.asarray(v), SCHEMA.field(n).type) for n, v in columns.items()),
        ]
    except pa.ArrowException as error:
        raise CounterpoiseError(f"{name}: keys have to be text and values numbers ({error}).") from error
    table = pa.table(arrays, schema=pa.schema(fields)).sort_by("key")
    backend = open_backend(dataset)
    _check_name(name)
    _check(table, backend.where(name))
    return write_side(backend, name, table, load_dataset(dataset).dataset_id)


def read_sidecar(dataset: Where, name: str) -> Sidecar:
    """A sidecar whose columns and values are what they have to be.

    Raises:
        CounterpoiseError: there is no such file.
        SideFileBad: it is not a skew sidecar; names file and column.
    """
    backend = open_backend(dataset)
    _check_name(name)
    if not backend.exists(name):
        there = [f"{SKEW}/{one}" for one in backend.names(SKEW) if one.endswith(".parquet")]
        raise CounterpoiseError(
            f"{backend.where(name)} is missing; sidecars there: {', '.join(there) or 'none'}."
        )
    owner = load_dataset(dataset).dataset_id
    table, digest, columns = read_side(backend, name, SCHEMA, _OPTIONAL, _CURE, owner)
    _check(table, backend.where(name))
    return Sidecar(name, digest, table, "multiplicity" in columns)


def check_rows(backend: Backend, name: str, owner: str | None = None) -> Iterator[pa.Table]:
    """The rows of a sidecar, some at a time, as `read_sidecar` checks them; only `twice` is left to whoever asks.

    Args:
        backend: of the dataset.
        name: of the sidecar inside it.
        owner: the dataset's id.

    Raises:
        SideFileBad: it is not a skew sidecar; names file and column.
    """
    _check_name(name)
    for table in side_batches(backend, name, SCHEMA, _OPTIONAL, _CURE, owner):
        _check_values(table, backend.where(name))
        yield table


def twice(where: str, count: int) -> SideFileBad:
    """What is said of a sidecar with that many keys too many."""
    return SideFileBad(f"{where}: {count} keys are there twice, each once is wanted; {_CURE}.")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SideFileBad(
            f"skew {name!r}: a name inside the dataset is wanted, skew/<slug>-<weights sha12>-<epoch>.parquet."
        )


def _check(table: pa.Table, where: str) -> None:
    _check_values(table, where)
    if count := table.num_rows - len(pc.unique(table["key"])):
        raise twice(where, count)


def _check_values(table: pa.Table, where: str) -> None:
    for name in table.column_names:
        if table[name].null_count:
            raise SideFileBad(f"{where}: column {name!r} has nulls, none are allowed; {_CURE}.")
    _check_range(table, where, "skew", "a finite number", -np.inf, np.inf)
    _check_range(table, where, "weight", "a finite number from 0", np.nextafter(0.0, -1.0), np.inf)
    _check_range(table, where, "multiplicity", f"0 to {MAX_MULTIPLICITY}", -1, MAX_MULTIPLICITY + 1)


def _check_range(table: pa.Table, where: str, name: str, wanted: str, low: float, high: float) -> None:
    """Refuse a column with a value that is not between, and not at, the bounds."""
    if name not in table.column_names:
        return
    values = table[name].to_numpy()
    bad = np.flatnonzero(~((values > low) & (values < high)))
    if bad.size:
        key = table["key"][int(bad[0])].as_py()
        raise SideFileBad(f"{where}: {name} of {key!r} is {values[bad[0]]}, {wanted} is wanted; {_CURE}.")
