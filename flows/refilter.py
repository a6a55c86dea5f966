"""Thresholds again from the stored scores: what is kept now, what was then, what would have to be made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from generators.filters import verdict_sql
from generators.spec import Thresholds
from storage import CounterpoiseError, load_dataset
from storage import verdicts as verdict_files
from storage.query import PLAN_ROW, Records, open_records

_REVIEWER = "refilter"
VERDICTS = verdict_files.verdict_name(_REVIEWER)
NAMES = tuple(one.name for one in fields(Thresholds))
#: Columns of limits that are not called as their score.
_COLUMNS = {"faces": "face_count", "attribute_share": "attribute_ok"}
# Sets by what the limits say of their finished candidates; a preview's scores are no final ones. `verdict` is the reason
# against the candidate that was kept, `other` whether one that was rejected would be kept now.
_JUDGED = """
    CREATE OR REPLACE TEMP TABLE judged AS
    SELECT set_id, concept, bool_or(kept) AS then, coalesce(bool_or(kept AND verdict IS NULL), false) AS now,
           max(verdict) FILTER (kept) AS verdict, bool_or(NOT kept AND verdict IS NULL) AS other
    FROM (
        SELECT set_id, candidate, concept, kept, {verdict} AS verdict FROM records
        WHERE reason IS NULL OR NOT starts_with(reason, 'preview_') GROUP BY set_id, candidate, concept, kept
    ) GROUP BY set_id, concept
"""
_TALLIES = f"""
    SELECT planned.concept, count(*) AS planned, (count(*) FILTER (judged.then)) AS then,
           (count(*) FILTER (judged.now)) AS now, (count(*) FILTER (judged.other AND NOT judged.now)) AS again
    FROM planned LEFT JOIN judged USING (set_id) GROUP BY planned.concept ORDER BY min({PLAN_ROW})
"""


@dataclass(slots=True)
class Tally:
    """Sets of one concept: planned, kept then, kept now, and those that only a new generation could give."""

    concept: str
    planned: int = 0
    then: int = 0
    now: int = 0
    again: int = 0


@dataclass(slots=True)
class Refiltered:
    """What other thresholds make of a dataset.

    Attributes:
        thresholds: those that were tried.
        changed: name to (then, now) of every one that differs.
        tallies: one per concept, in the order of the plan.
        verdicts: (set_id, "accept" or "reject", reason) of every set that was kept.
        again: sets of which a rejected candidate would be kept now; its images were never stored.
        unscored: changed limits of scores that no candidate has, which therefore limit nothing.
    """

    thresholds: Thresholds
    changed: Mapping[str, tuple[Any, Any]]
    tallies: Mapping[str, Tally]
    verdicts: list[tuple[str, str, str | None]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)


def parse_limit(name: str, text: str) -> float | int | None:
    """A limit as given on the command line; "off" is None, no limit.

    Raises:
        CounterpoiseError: it is neither a number nor "off".
    """
    if text.lower() == "off":
        return None
    try:
        value = int(text) if name == "faces" else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        flag = "--" + name.replace("_", "-")
        wanted = "a whole number" if name == "faces" else "a number"
        raise CounterpoiseError(f"{flag}: given {text!r}, wanted {wanted}, or off for no limit")
    return value


def refilter(dataset: str, changes: Mapping[str, float | int | None]) -> Refiltered:
    """Judge every candidate again by its stored scores.

    Args:
        dataset: a folder or URI.
        changes: new limits by the names of `Thresholds`; those not named stay as they were.
    """
    then = _stored(dataset)
    now = replace(then, **changes)  # type: ignore[arg-type]
    before, after = asdict(then), asdict(now)
    changed = {name: (before[name], after[name]) for name in NAMES if before[name] != after[name]}
    with open_records(dataset) as records:
        return _judge(records, now, changed)


def write_verdicts(dataset: str, found: Refiltered) -> str:
    """Write verdicts/refilter.parquet, which streams and exports apply. Returns its path."""
    return verdict_files.write_verdicts(dataset, _REVIEWER, found.verdicts)


def _judge(records: Records, now: Thresholds, changed: Mapping[str, tuple[Any, Any]]) -> Refiltered:
    records.ask(_JUDGED.format(verdict=verdict_sql(now)))
    tallies = {row["concept"]: Tally(**row) for row in records.ask(_TALLIES)}
    kept = records.ask("SELECT set_id, verdict FROM judged WHERE judged.then ORDER BY set_id")
    again = records.ask("SELECT set_id FROM judged WHERE other AND NOT now ORDER BY set_id")
    verdicts = [(row["set_id"], "reject" if row["verdict"] else "accept", row["verdict"]) for row in kept]
    unscored = [
        name for name, (_, limit) in changed.items() if limit is not None and not _scored(records, name)
    ]
    return Refiltered(now, changed, tallies, verdicts, [row["set_id"] for row in again], unscored)


def _scored(records: Records, limit: str) -> bool:
    column = _COLUMNS.get(limit, limit)
    return bool(records.ask(f"SELECT count({column}) > 0 AS scored FROM records")[0]["scored"])


def _stored(dataset: str) -> Thresholds:
    recipe = load_dataset(dataset).header.get("recipe")
    try:
        return Thresholds(**recipe["thresholds"])  # type: ignore[index]
    except (TypeError, KeyError) as error:
        raise CounterpoiseError(f"{dataset}: dataset.json names no thresholds that can be changed") from error
