"""Questions to a dataset's records, answered by DuckDB over the Parquet files that the manifests name.

Each takes a dataset's folder or, where several are asked, the `Records` that `storage.query.open_records` gives.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator

import duckdb
import pyarrow as pa

from .backend import open_backend
from .manifest import Where, load_dataset, shards_of
from .plan import read_table
from .query import PLAN_ROW, Records, Row, connect, fetched, local_paths, open_records, quoted, shard_records
from .records import SCORES
from .verdicts import ACCEPT, REJECT, verdict_tables

Asked = Where | Records
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
        check: read every Parquet once before, to compare its sha256 with its manifest's; a damaged one is quarantined.
            What is not on this machine is always compared.

    Raises:
        ShardDamaged: a manifest or a Parquet is damaged.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset)
    shards = shards_of(backend, manifest)
    if shards and backend.path(shards[0].parquet.path) is None:
        tables = [read_table(fetched(backend, one), backend.where(one.parquet.path)) for one in shards]
        return connect(threads).from_arrow(pa.concat_tables(tables))
    return shard_records(connect(threads), manifest, local_paths(backend, shards, check, list(manifest.axes)))


@contextlib.contextmanager
def opened(asked: Asked) -> Iterator[Records]:
    """Records that are open already, or opened for one question."""
    if isinstance(asked, Records):
        yield asked
        return
    with open_records(asked) as records:
        yield records


def yield_by_concept(asked: Asked) -> list[Row]:
    """One row per planned concept: group, name, planned (sets), candidates, sets (kept), images, share.

    `share` is kept sets per candidate; None where nothing was tried yet.
    """
    return _ask(
        asked,
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


def shortfalls(asked: Asked) -> list[Row]:
    """Concepts with fewer kept sets than planned: concept, planned, sets, missing.

    Sets are kept whole, so each missing set is missing in every cell of its concept.
    """
    rows = yield_by_concept(asked)
    short = [{name: row[name] for name in ("concept", "planned", "sets")} for row in rows]
    return [{**row, "missing": row["planned"] - row["sets"]} for row in short if row["sets"] < row["planned"]]


def verdict_counts(dataset: Where, on_bad: Callable[[str], None] | None = None) -> list[Row]:
    """One row per file in `verdicts/`, by name: reviewer, accepted, rejected (sets); `on_bad` as `verdict_tables` has it.

    Raises:
        SideFileBad: a file is no table of verdicts.
    """
    tables = verdict_tables(dataset, on_bad)
    counted = [(name, Counter(one["verdict"].to_pylist())) for name, one in tables]
    return [
        {"reviewer": name, "accepted": counts[ACCEPT], "rejected": counts[REJECT]} for name, counts in counted
    ]


def yield_by_cell(asked: Asked, by_concept: bool = False) -> list[Row]:
    """One row per cell (and concept): its values, tried and kept images, shares of kept and attribute_ok."""
    with opened(asked) as records:
        axes = [quoted(axis) for axis in records.manifest.axes]
        names = ", ".join([*(["concept"] if by_concept else []), *axes])
        return records.ask(f"""
            SELECT {names}, count(*) AS tried, count(*) FILTER (kept) AS kept,
                   count(*) FILTER (kept) / count(*) AS share, avg(attribute_ok::INTEGER) AS attribute_ok
            FROM records GROUP BY {names}, member ORDER BY {"concept, " if by_concept else ""}member
        """)


def reasons(asked: Asked) -> list[Row]:
    """Why candidates were rejected, the commonest first: reason, candidates."""
    return _ask(
        asked,
        f"""
        SELECT reason, count(*) AS candidates FROM ({_TRIED}) WHERE NOT kept
        GROUP BY reason ORDER BY candidates DESC, reason
        """,
    )


def kept_by_concept(asked: Asked, shards: Collection[int]) -> dict[str, int]:
    """Kept sets of every concept in these shards; concepts without one are not there."""
    sql = """
        SELECT concept, count(*) AS sets FROM planned
        WHERE list_contains(?::BIGINT[], shard) AND set_id IN (SELECT set_id FROM records WHERE kept)
        GROUP BY concept
    """
    with opened(asked) as records:
        return {row["concept"]: row["sets"] for row in records.ask(sql, [list(shards)])}


def kept_among(asked: Asked, names: Collection[str]) -> set[str]:
    """Those of the named sets that are in finished shards and were kept."""
    sql = "SELECT DISTINCT set_id FROM records WHERE kept AND list_contains(?::VARCHAR[], set_id)"
    with opened(asked) as records:
        return {row["set_id"] for row in records.ask(sql, [list(names)])}


def first_kept(asked: Asked, per_concept: int) -> list[Row]:
    """The first kept sets of every concept: concept, set_id, shard.

    Concepts come in the order of the plan, and so do the sets of one.
    """
    return _ask(
        asked,
        f"""
        SELECT concept, set_id, shard FROM (
            SELECT *, row_number() OVER (PARTITION BY concept ORDER BY {PLAN_ROW}) AS place
            FROM (SELECT *, min({PLAN_ROW}) OVER (PARTITION BY concept) AS first FROM planned)
            WHERE set_id IN (SELECT set_id FROM records WHERE kept)
        ) WHERE place <= {int(per_concept)} ORDER BY first, {PLAN_ROW}
        """,
    )


def score_histograms(asked: Asked, bins: int = 20) -> dict[str, list[Row]]:
    """Images by score: for every score that was computed, `bins` rows of low, high, kept, rejected.

    A bin holds low <= score < high, the last one its upper edge too.
    """
    edges = ", ".join(f"[min({name}), max({name})] AS {name}" for name in _NUMBERS)
    with opened(asked) as records:
        (found,) = records.ask(f"SELECT {edges} FROM records")
        return {
            name: _histogram(records, name, bins, *ends)
            for name, ends in found.items()
            if ends[0] is not None
        }


def _histogram(records: Records, score: str, bins: int, low: float, high: float) -> list[Row]:
    width = (high - low) / bins or 1.0
    counted = records.ask(
        f"""
        SELECT least(floor(({score} - ?::DOUBLE) / ?::DOUBLE), {bins - 1})::INTEGER AS place,
               count(*) FILTER (kept) AS kept, count(*) FILTER (NOT kept) AS rejected
        FROM records WHERE {score} IS NOT NULL GROUP BY place
        """,
        [low, width],
    )
    found = {row["place"]: (row["kept"], row["rejected"]) for row in counted}
    counts = [found.get(i, (0, 0)) for i in range(bins if high > low else 1)]
    return [
        {"low": low + i * width, "high": low + (i + 1) * width, "kept": kept, "rejected": rejected}
        for i, (kept, rejected) in enumerate(counts)
    ]


def _ask(asked: Asked, sql: str) -> list[Row]:
    with opened(asked) as records:
        return records.ask(sql)
