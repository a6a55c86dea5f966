"""Instance skew joined to the records by key: what a sidecar in `skew/` says about every value of every axis."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from .backend import open_backend
from .checks import cell_values
from .metadata import Asked, opened
from .query import Records, Row
from .records import sample_key
from .sidecar import check_rows, twice

# Sums of whole numbers do not depend on the order of the rows, so skews are summed in units of 2**-32.
_SUMS = {
    "images": "coalesce(sum(images), 0)::BIGINT",
    "with_skew": "coalesce(sum(with_skew), 0)::BIGINT",
    "mean_skew": "CASE WHEN bool_and(summable) THEN sum(units) / 4294967296.0 / nullif(sum(with_skew), 0) END",
    "negative": "sum(negative) / nullif(sum(with_skew), 0)",
    "zero": "sum(zero) / nullif(sum(with_skew), 0)",
    "positive": "sum(positive) / nullif(sum(with_skew), 0)",
    "multiplicity": "coalesce(sum(multiplicity), 0)::BIGINT",
}
# A key is the id of its set and the number of its member. Sets are kept whole, so the sidecar is joined to the kept sets,
# of which there are fewer than images by the size of a set: little to hold, and nothing to spill.
_KNOWN = """
    CREATE OR REPLACE TEMP VIEW known AS
    SELECT set_id, concept, member, skew, multiplicity
    FROM (SELECT left(key, -3) AS set_id, right(key, 3) AS suffix, skew, multiplicity FROM skews)
    JOIN members USING (suffix) JOIN (SELECT set_id, concept FROM records WHERE kept AND member = 0) USING (set_id)
"""
_CELLS = """
    CREATE OR REPLACE TEMP TABLE cells AS
    SELECT * FROM (SELECT concept, member, count(*) AS images FROM records WHERE kept GROUP BY ALL) LEFT JOIN (
        SELECT concept, member, count(*) AS known, count(skew) AS with_skew, count(*) FILTER (skew < 0) AS negative,
               count(*) FILTER (skew = 0) AS zero, count(*) FILTER (skew > 0) AS positive,
               bool_and(abs(skew) < 1e6) AS summable, sum(multiplicity) AS multiplicity,
               sum(CASE WHEN abs(skew) < 1e6 THEN round(skew * 4294967296.0)::BIGINT END) AS units
        FROM known GROUP BY ALL
    ) USING (concept, member)
"""
_TWICE = """
    SELECT coalesce(sum(rows - members), 0)::BIGINT AS twice FROM (
        SELECT count(*) AS rows, bit_count(bit_or(1::HUGEINT << member::INTEGER)) AS members FROM known GROUP BY set_id
    )
"""
_TWICE_ANYWHERE = "SELECT count(*) - count(DISTINCT key) AS twice FROM skews"
_UNKNOWN = "SELECT (SELECT count(*) FROM skews) - coalesce(sum(known), 0)::BIGINT AS unknown FROM cells"


@dataclass(frozen=True, slots=True)
class SkewJoin:
    """What a sidecar says about the kept images.

    Rows hold images (kept), with_skew (of these, in the sidecar), mean_skew over those (None where one is infinite
    or too large to sum, or none is there), negative, zero and positive (shares of with_skew), and multiplicity (its sum).

    Attributes:
        name: of the sidecar inside the dataset.
        total: one row over all kept images.
        values: one row per concept, axis and value, in this order, axes and values as the dataset has them.
        unknown: rows of the sidecar whose key is no kept image's.
    """

    name: str
    total: Row
    values: Sequence[Row]
    unknown: int


def join_skew(asked: Asked, name: str) -> SkewJoin:
    """Join a sidecar to the kept images by key, once, and sum up by value.

    Args:
        asked: a dataset's folder, or its open records.
        name: of the sidecar inside the dataset, as `sidecars` gives it.

    Raises:
        ShardDamaged: a manifest or a Parquet is damaged.
        SideFileBad: the file is no skew sidecar; names file and column.
    """
    with opened(asked) as records:
        _open_sidecar(records, name)
        records.connection.register("members", _members(records.manifest.axes))
        records.ask(_KNOWN)
        _check_once(records, _TWICE, name)
        records.ask(_CELLS)
        (total,) = records.ask(f"SELECT {_selected()} FROM cells")
        (rest,) = records.ask(_UNKNOWN)
        if rest["unknown"]:
            _check_once(records, _TWICE_ANYWHERE, name)
        values = [
            row for place, axis in enumerate(records.manifest.axes) for row in _by_value(records, axis, place)
        ]
        values.sort(key=lambda row: str(row["concept"]))
        return SkewJoin(name, total, values, rest["unknown"])


def _open_sidecar(records: Records, name: str) -> None:
    """Check a sidecar's rows as every reader does, and let DuckDB read those of a file on this machine by itself."""
    backend = open_backend(records.dataset)
    path, kept = backend.path(name), []
    for rows in check_rows(backend, name, records.manifest.dataset_id):
        if path is None:
            kept.append(rows)
    if path is None:
        found = records.connection.from_arrow(pa.concat_tables(kept))
    else:
        found = records.connection.read_parquet([glob.escape(str(path))])
    times = "multiplicity" if "multiplicity" in found.columns else "1::INTEGER AS multiplicity"
    found.project(f"key, skew, {times}").create_view("skews", replace=True)


def _check_once(records: Records, sql: str, name: str) -> None:
    (found,) = records.ask(sql)
    if found["twice"]:
        raise twice(open_backend(records.dataset).where(name), found["twice"])


def _members(axes: Mapping[str, Sequence[str]]) -> pa.Table:
    """Every member with the end of its keys and its values, as columns v0, v1, ... in the order of the axes."""
    cells = [list(cell.values()) for cell in cell_values(axes)]
    rows = [
        {"member": n, "suffix": sample_key("", n), **{f"v{k}": value for k, value in enumerate(cell)}}
        for n, cell in enumerate(cells)
    ]
    return pa.Table.from_pylist(rows)


def _by_value(records: Records, axis: str, place: int) -> list[Row]:
    """One row per concept and value of an axis, values in the dataset's order."""
    return records.ask(
        f"""
        SELECT concept, ?::VARCHAR AS axis, v{place} AS value, {_selected()}
        FROM cells JOIN members USING (member) GROUP BY concept, v{place}
        ORDER BY concept, list_position(?::VARCHAR[], v{place})
        """,
        [axis, list(records.manifest.axes[axis])],
    )


def _selected() -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in _SUMS.items())
