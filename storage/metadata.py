"""Questions to a dataset's records, answered by DuckDB over the Parquet files that the manifests name."""

from __future__ import annotations

import glob
from collections import Counter
from typing import Any

import duckdb
import pyarrow as pa

from .backend import open_backend
from .manifest import Where, load_dataset, plan_of, shards_of
from .plan import read_table
from .quarantine import quarantining
from .reading import MAX_PARQUET, check_bytes, read_checked
from .records import SCORES, schema
from .verdicts import ACCEPT, REJECT, verdict_tables

Row = dict[str, Any]
_NUMBERS = [name for name, kind in SCORES.items() if str(kind) == "double"]
_TRIED = """
    SELECT concept, set_id, candidate, bool_and(kept) AS kept, any_value(reason) AS reason, count(*) AS images
    FROM records GROUP BY ALL
"""


def table(dataset: Where, threads: int = 1, check: bool = True) -> duckdb.DuckDBPyRelation:
    """Every candidate image of the finished shards as one relation, with the columns of a shard's Parquet.

    Args:
        dataset: a folder or URI; what is not on this machine is read into memory.
        threads: how many DuckDB may use.
        check: read every Parquet once before, to compare its sha256 with its manifest's; a damaged one is quarantined. What
            is not on this machine is always compared.

    Raises:
        ShardDamaged: a manifest or a Parquet is damaged.
    """
    return _records(_connect(threads), dataset, check)


def _connect(threads: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": threads, "autoinstall_known_extensions": False})


def _records(connection: duckdb.DuckDBPyConnection, dataset: Where, check: bool) -> duckdb.DuckDBPyRelation:
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    paths: list[str] = []
    tables = [schema(list(manifest.axes)).empty_table()]
    for shard in shards_of(backend, manifest):
        path, where = backend.path(shard.parquet.path), backend.where(shard.parquet.path)
        with quarantining(backend, shard):
            if path is None:
                tables.append(read_table(read_checked(backend, shard.parquet, MAX_PARQUET), where))
                continue
            with backend.open(shard.parquet.path) as file:
                if check:
                    check_bytes(file, shard.parquet.bytes, shard.parquet.sha256, where)
        paths.append(glob.escape(str(path)))
    return connection.read_parquet(paths) if paths else connection.from_arrow(pa.concat_tables(tables))


def yield_by_concept(dataset: Where) -> list[Row]:
    """One row per planned concept: group, name, planned (sets), candidates, sets (kept), images, share.

    `share` is kept sets per candidate; None where nothing was tried yet.
    """
    return _ask(
        dataset,
        f"""
        SELECT plan.concept_group, plan.concept, plan.sets AS planned, count(tried.set_id) AS candidates,
               count(*) FILTER (tried.kept) AS sets,
               coalesce(sum(tried.images) FILTER (tried.kept), 0)::BIGINT AS images,
               count(*) FILTER (tried.kept) / nullif(count(tried.set_id), 0) AS share
        FROM (SELECT concept_group, concept, count(*) AS sets FROM planned GROUP BY ALL) plan
        LEFT JOIN ({_TRIED}) tried ON tried.concept = plan.concept
        GROUP BY ALL ORDER BY ALL
        """,
    )


def shortfalls(dataset: Where) -> list[Row]:
    """Concepts with fewer kept sets than planned: concept, planned, sets, missing.

    Sets are kept whole, so each missing set is missing in every cell of its concept.
    """
    rows = yield_by_concept(dataset)
    short = [{name: row[name] for name in ("concept", "planned", "sets")} for row in rows]
    return [{**row, "missing": row["planned"] - row["sets"]} for row in short if row["sets"] < row["planned"]]


def verdict_counts(dataset: Where) -> list[Row]:
    """One row per file in `verdicts/`, by name: reviewer, accepted, rejected (sets).

    Raises:
        CounterpoiseError: a file is no table of verdicts.
    """
    counted = [(name, Counter(one["verdict"].to_pylist())) for name, one in verdict_tables(dataset)]
    return [
        {"reviewer": name, "accepted": counts[ACCEPT], "rejected": counts[REJECT]} for name, counts in counted
    ]


def yield_by_cell(dataset: Where, by_concept: bool = False) -> list[Row]:
    """One row per cell (and concept): its values, tried and kept images, shares of kept and attribute_ok."""
    axes = list(load_dataset(dataset).axes)
    names = ", ".join([*(["concept"] if by_concept else []), *(f'"{axis}"' for axis in axes)])
    return _ask(
        dataset,
        f"""
        SELECT {names}, count(*) AS tried, count(*) FILTER (kept) AS kept,
               count(*) FILTER (kept) / count(*) AS share, avg(attribute_ok::INTEGER) AS attribute_ok
        FROM records GROUP BY {names}, member ORDER BY {"concept, " if by_concept else ""}member
        """,
    )


def reasons(dataset: Where) -> list[Row]:
    """Why candidates were rejected, the commonest first: reason, candidates."""
    return _ask(
        dataset,
        f"""
        SELECT reason, count(*) AS candidates FROM ({_TRIED}) WHERE NOT kept
        GROUP BY reason ORDER BY candidates DESC, reason
        """,
    )


def score_histograms(dataset: Where, bins: int = 20) -> dict[str, list[Row]]:
    """Images by score: for every score that was computed, `bins` rows of low, high, kept, rejected.

    A bin holds low <= score < high, the last one its upper edge too.
    """
    with _views(dataset) as connection:
        return {name: found for name in _NUMBERS if (found := _histogram(connection, name, bins))}


def _histogram(connection: duckdb.DuckDBPyConnection, score: str, bins: int) -> list[Row]:
    low, high = connection.sql(f"SELECT min({score}), max({score}) FROM records").fetchall()[0]
    if low is None:
        return []
    width = (high - low) / bins or 1.0
    counted = connection.sql(f"""
        SELECT least(floor(({score} - {low!r}) / {width!r}), {bins - 1})::INTEGER AS place,
               count(*) FILTER (kept) AS kept, count(*) FILTER (NOT kept) AS rejected
        FROM records WHERE {score} IS NOT NULL GROUP BY place
    """)
    found = {row[0]: row[1:] for row in counted.fetchall()}
    counts = [found.get(i, (0, 0)) for i in range(bins if high > low else 1)]
    return [
        {"low": low + i * width, "high": low + (i + 1) * width, "kept": kept, "rejected": rejected}
        for i, (kept, rejected) in enumerate(counts)
    ]


def _ask(dataset: Where, sql: str) -> list[Row]:
    with _views(dataset) as connection:
        answer = connection.sql(sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]


def _views(dataset: Where) -> duckdb.DuckDBPyConnection:
    """A connection that knows `records` (the finished shards) and `planned` (the plan)."""
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    planned = plan_of(backend, manifest)
    connection = _connect(threads=1)
    _records(connection, dataset, check=True).create_view("records")
    connection.register("planned", planned)
    return connection
