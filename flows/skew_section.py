"""The report's part on instance skew: what every sidecar of the dataset says about the kept images."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from storage.errors import SideFileBad
from storage.query import Records
from storage.sidecar import sidecars
from storage.skewed import SkewJoin, join_skew

from .page import paragraph, share, table

_MEANING = (
    "Skew(P_i) of an image is what one model, at one state of its weights, makes of its concept and values: above 0 the "
    "model sees the concept too often in such pictures, below 0 too seldom. Shares are of the images that have a skew; the "
    "multiplicity is how often they are drawn in all."
)
_COLUMNS = (
    "concept",
    "axis",
    "value",
    "images",
    "with skew",
    "mean skew",
    "below 0",
    "at 0",
    "above 0",
    "multiplicity",
)


def skew_parts(records: Records) -> Iterator[str]:
    """One table per sidecar; nothing where there is none."""
    names = sidecars(records.dataset)
    if names:
        yield paragraph(_MEANING)
    for name in names:
        try:
            found = join_skew(records, name)
        except SideFileBad as error:
            yield paragraph(f"Left out: {error}")
        else:
            yield from _sidecar(found)


def _sidecar(found: SkewJoin) -> Iterator[str]:
    yield f"<h3>{escape(found.name)}</h3>"
    if found.unknown:
        yield paragraph(f"{found.unknown} rows of the sidecar are of no kept image.")
    rows = [{"concept": "all", "axis": "", "value": "", **found.total}, *found.values]
    labels, shares = ("concept", "axis", "value"), ("negative", "zero", "positive")
    numbers = ("images", "with_skew", "mean_skew")
    yield table(
        _COLUMNS,
        [
            [
                *(row[name] for name in (*labels, *numbers)),
                *(share(row[name]) for name in shares),
                row["multiplicity"],
            ]
            for row in rows
        ],
    )
