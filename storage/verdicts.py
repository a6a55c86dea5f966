"""Verdicts on kept sets, by people or by other thresholds: one file per reviewer, applied by whoever reads.

A set that any file rejects is not handed out; shards are never rewritten.
"""

from __future__ import annotations

import pyarrow as pa

from .backend import open_backend
from .errors import CounterpoiseError, ShardDamaged
from .manifest import Where
from .plan import read_table

VERDICTS = "verdicts"
ACCEPT, REJECT = "accept", "reject"
_MAX = 2**31
_COLUMNS = ("set_id", "verdict", "reason")
_CURE = "write it again, or move it out of the dataset"


def rejected_sets(dataset: Where) -> dict[str, str]:
    """Every set that a file of `verdicts/` rejects, with "<reviewer>: <reason>" of the first to do so, sorted.

    Raises:
        CounterpoiseError: a file is no table of verdicts; names the file and the column.
    """
    found: dict[str, str] = {}
    for reviewer, table in verdict_tables(dataset):
        for row in table.to_pylist():
            if row["verdict"] == REJECT:
                found.setdefault(row["set_id"], f"{reviewer}: {row['reason'] or 'no reason given'}")
    return dict(sorted(found.items()))


def verdict_tables(dataset: Where) -> list[tuple[str, pa.Table]]:
    """(reviewer, table of set_id, verdict, reason) of every file in `verdicts/`, by name.

    Raises:
        CounterpoiseError: a file is no table of verdicts; names the file and the column.
    """
    backend = open_backend(dataset)
    found = []
    for name in backend.names(VERDICTS):
        reviewer, _, suffix = name.rpartition(".")
        if suffix == "parquet":
            where = backend.where(f"{VERDICTS}/{name}")
            found.append((reviewer, _checked(backend.read(f"{VERDICTS}/{name}", _MAX), where)))
    return found


def _checked(content: bytes, where: str) -> pa.Table:
    try:
        table = read_table(content, where)
    except ShardDamaged as error:
        raise CounterpoiseError(f"{str(error).rstrip('.')}; {_CURE}.") from error
    for name in _COLUMNS:
        kinds = [field.type for field in table.schema if field.name == name]
        empty = name == "reason" and kinds == [pa.null()]
        if kinds not in ([pa.string()], [pa.large_string()]) and not empty:
            raise CounterpoiseError(f"{where}: one column {name!r} of text is wanted; {_CURE}.")
        if name != "reason" and table[name].null_count:
            raise CounterpoiseError(f"{where}: column {name!r} has nulls, none are allowed; {_CURE}.")
    strange = set(table["verdict"].to_pylist()) - {ACCEPT, REJECT}
    if strange:
        raise CounterpoiseError(
            f"{where}: column 'verdict' holds {min(strange)!r}, 'accept' or 'reject' is wanted; {_CURE}."
        )
    return table.select(list(_COLUMNS))
