"""Thresholds again from the stored scores: what is kept now, what was then, what would have to be made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from typing import Any

from generators.filters import judge
from generators.spec import Thresholds
from storage import CounterpoiseError, load_dataset
from storage import verdicts as verdict_files
from storage.manifest import read_plan
from storage.metadata import table
from storage.records import SCORES

_REVIEWER = "refilter"
VERDICTS = verdict_files.verdict_name(_REVIEWER)
NAMES = tuple(one.name for one in fields(Thresholds))
_BATCH = 8192


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
    """

    thresholds: Thresholds
    changed: Mapping[str, tuple[Any, Any]]
    tallies: Mapping[str, Tally]
    verdicts: list[tuple[str, str, str | None]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


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
    found = Refiltered(now, changed, _planned(dataset))
    for set_id, candidates in groupby(_candidates(dataset), key=lambda one: one.set_id):
        _judge_set(found, set_id, list(candidates))
    return found


def write_verdicts(dataset: str, found: Refiltered) -> str:
    """Write verdicts/refilter.parquet, which `storage.stream` applies. Returns its path."""
    return verdict_files.write_verdicts(dataset, _REVIEWER, found.verdicts)


@dataclass(frozen=True, slots=True)
class _Candidate:
    set_id: str
    concept: str
    kept: bool
    scores: list[dict[str, Any]]


def _judge_set(found: Refiltered, set_id: str, candidates: list[_Candidate]) -> None:
    tally = found.tallies[candidates[0].concept]
    verdicts = [(one, judge(one.scores, found.thresholds)) for one in candidates]
    kept = next((verdict for one, verdict in verdicts if one.kept), None)
    if kept is not None:
        tally.then += 1
        tally.now += kept.keep
        found.verdicts.append((set_id, "accept" if kept.keep else "reject", kept.reason))
    if (kept is None or not kept.keep) and any(verdict.keep for one, verdict in verdicts if not one.kept):
        tally.again += 1
        found.again.append(set_id)


def _stored(dataset: str) -> Thresholds:
    recipe = load_dataset(dataset).header.get("recipe")
    try:
        return Thresholds(**recipe["thresholds"])  # type: ignore[index]
    except (TypeError, KeyError) as error:
        raise CounterpoiseError(f"{dataset}: dataset.json names no thresholds that can be changed") from error


def _planned(dataset: str) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for row in read_plan(dataset):
        found.setdefault(row["concept"], Tally(row["concept"])).planned += 1
    return found


def _candidates(dataset: str) -> Iterator[_Candidate]:
    """Every finished candidate with its members' scores, candidates of a set together; previews are no final scores."""
    rows = _rows(dataset)
    for _, members in groupby(rows, key=lambda row: (row["set_id"], row["candidate"])):
        whole = list(members)
        first = whole[0]
        scores = [{name: row[name] for name in SCORES} for row in whole]
        yield _Candidate(first["set_id"], first["concept"], first["kept"], scores)


def _rows(dataset: str) -> Iterator[dict[str, Any]]:
    names = ["set_id", "candidate", "concept", "kept", *SCORES]
    records: Any = table(dataset).filter("reason IS NULL OR NOT starts_with(reason, 'preview_')")
    asked = records.order("set_id, candidate, member").project(", ".join(names))
    for batch in asked.to_arrow_reader(_BATCH):
        yield from batch.to_pylist()
