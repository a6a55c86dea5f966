"""Skew sidecars: what a model's bias makes of every image, by key, beside shards that are never rewritten."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa

from .backend import open_backend
from .canonical import sha256
from .errors import CounterpoiseError, ShardDamaged
from .manifest import Where
from .plan import read_table

SKEW = "skew"
_MAX = 2**31
_CURE = "write the sidecar again"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A skew sidecar as read.

    Attributes:
        name: of the file inside the dataset.
        sha256: of the file.
        table: key (text) and skew (float64, natural logarithm), at least.
    """

    name: str
    sha256: str
    table: pa.Table


def read_sidecar(dataset: Where, name: str) -> Sidecar:
    """A sidecar whose columns and values are what they have to be.

    Raises:
        CounterpoiseError: there is no such file, or it is not a skew sidecar; names file and column.
    """
    backend = open_backend(dataset)
    parts = name.split("/")
    if len(parts) != 2 or parts[0] != SKEW or parts[1].startswith(".") or not name.endswith(".parquet"):
        raise CounterpoiseError(
            f"skew {name!r}: a name inside the dataset is wanted, skew/<slug>-<weights sha12>-<epoch>.parquet."
        )
    if not backend.exists(name):
        there = [f"{SKEW}/{one}" for one in backend.names(SKEW) if one.endswith(".parquet")]
        raise CounterpoiseError(
            f"{backend.where(name)} is missing; sidecars there: {', '.join(there) or 'none'}."
        )
    content = backend.read(name, _MAX)
    try:
        table = read_table(content, backend.where(name))
    except ShardDamaged as error:
        raise CounterpoiseError(f"{str(error).rstrip('.')}; {_CURE}.") from error
    _check(table, backend.where(name))
    return Sidecar(name, sha256(content), table)


def _check(table: pa.Table, where: str) -> None:
    for name, kinds in {"key": [pa.string(), pa.large_string()], "skew": [pa.float64()]}.items():
        found = [field.type for field in table.schema if field.name == name]
        if len(found) != 1 or found[0] not in kinds:
            raise CounterpoiseError(f"{where}: one column {name!r} of type {kinds[0]} is wanted; {_CURE}.")
        if table[name].null_count:
            raise CounterpoiseError(f"{where}: column {name!r} has nulls, none are allowed; {_CURE}.")
    keys = table["key"].to_pylist()
    if len(set(keys)) < len(keys):
        raise CounterpoiseError(
            f"{where}: {len(keys) - len(set(keys))} keys are there twice, each once is wanted; {_CURE}."
        )
    for key, value in zip(keys, table["skew"].to_pylist(), strict=True):
        if not math.isfinite(value):
            raise CounterpoiseError(
                f"{where}: skew of {key!r} is {value}, a finite number is wanted; {_CURE}."
            )
