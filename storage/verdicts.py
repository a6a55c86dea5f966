"""Verdicts on kept sets, by people or by other thresholds: one file per reviewer, applied by whoever reads.

A set that any file rejects is not handed out; shards are never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from .backend import Backend, open_backend
from .errors import CounterpoiseError, SideFileBad
from .manifest import Where
from .sidefile import read_side, write_side

VERDICTS = "verdicts"
ACCEPT, REJECT = "accept", "reject"
SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=name == "reason") for name in ("set_id", "verdict", "reason")]
)
_REVIEWER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CURE = "write it again, or move it out of the dataset"


def verdict_name(reviewer: str) -> str:
    """Name of a reviewer's file inside the dataset.

    Raises:
        CounterpoiseError: the reviewer's name cannot be a file's.
    """
    if not _REVIEWER.fullmatch(reviewer):
        raise CounterpoiseError(
            f"reviewer {reviewer!r}: a name of letters, digits, '.', '-' and '_' is wanted."
        )
    return f"{VERDICTS}/{reviewer}.parquet"


def write_verdicts(dataset: Where, reviewer: str, rows: Sequence[tuple[str, str, str | None]]) -> str:
    """Write a reviewer's (set_id, verdict, reason) rows, sorted by set, over those of before; returns the path.

    Raises:
        CounterpoiseError: a verdict is neither "accept" nor "reject", or a set is named twice.
    """
    name = verdict_name(reviewer)
    ordered = sorted(rows, key=lambda row: row[0])
    columns = list(zip(*ordered, strict=True)) or [(), (), ()]
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)
    backend = open_backend(dataset)
    _check(table, backend.where(name))
    return backend.where(write_side(backend, name, table))


def rejected_sets(dataset: Where) -> dict[str, str]:
    """Every set that a file of `verdicts/` rejects, with "<reviewer>: <reason>" of the first to do so, sorted.

    Raises:
        CounterpoiseError: a file is no table of verdicts; names the file and the column.
    """
    found: dict[str, str] = {}
    for reviewer, table in verdict_tables(dataset):
        rejected = table.filter(pc.equal(table["verdict"], REJECT))
        for set_id, reason in zip(
            rejected["set_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True
        ):
            found.setdefault(set_id, f"{reviewer}: {reason or 'no reason given'}")
    return dict(sorted(found.items()))


def verdict_tables(
    dataset: Where, on_bad: Callable[[str], None] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """(reviewer, table of set_id, verdict, reason) of every file in `verdicts/`, by name.

    Args:
        dataset: a folder or URI.
        on_bad: hears what is wrong with a file, which is then left out; without, it is an error.

    Raises:
        SideFileBad: a file is no table of verdicts; names the file and the column.
    """
    backend = open_backend(dataset)
    for name in backend.names(VERDICTS):
        reviewer, _, suffix = name.rpartition(".")
        if suffix == "parquet":
            try:
                table = _read(backend, f"{VERDICTS}/{name}")
            except SideFileBad as error:
                if on_bad is None:
                    raise
                on_bad(str(error))
            else:
                yield reviewer, table


def _read(backend: Backend, path: str) -> pa.Table:
    table, *_ = read_side(backend, path, SCHEMA, {"reason": pa.scalar(None, pa.string())}, _CURE)
    _check(table, backend.where(path))
    return table


def _check(table: pa.Table, where: str) -> None:
    known = pc.is_in(table["verdict"], value_set=pa.array([ACCEPT, REJECT]))
    strange = table["verdict"].filter(pc.invert(known))
    if len(strange):
        raise SideFileBad(
            f"{where}: column 'verdict' holds {strange[0].as_py()!r}, 'accept' or 'reject' is wanted; {_CURE}."
        )
    twice = table.num_rows - len(pc.unique(table["set_id"]))
    if twice:
        raise SideFileBad(f"{where}: {twice} sets are named twice, one verdict each is wanted; {_CURE}.")
