"""Scores to verdict: a set is kept or rejected whole, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .spec import Thresholds

Score = float | bool | int | str | None
_LEAST = ("clip_text", "clip_base", "clip_direction")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep the set, or the name of the first score that speaks against it."""

    keep: bool
    reason: str | None = None


def judge(scores: Sequence[Mapping[str, Score]], thresholds: Thresholds) -> Verdict:
    """Judge the members' scores together; safety comes first, a score that was not computed is not judged.

    Args:
        scores: one mapping per member, by the names of the score columns.
        thresholds: limits; None is no limit.
    """
    for reason, fails in (
        ("nsfw", _any_above(scores, "nsfw", thresholds.nsfw)),
        ("face_count", _faces_differ(scores, thresholds.faces)),
        *((name, _any_below(scores, name, getattr(thresholds, name))) for name in _LEAST),
        ("background_change", _any_above(scores, "background_change", thresholds.background_change)),
        ("attribute_ok", _too_few_read(scores, thresholds.attribute_share)),
    ):
        if fails:
            return Verdict(False, reason)
    return Verdict(True)


def verdict_sql(thresholds: Thresholds) -> str:
    """`judge` as an SQL aggregate over the members of a candidate: the reason against it, or null to keep it.

    For DuckDB and the columns of a shard's Parquet; the same rules in the same order.
    """
    rules = [
        ("nsfw", _sql_above("nsfw", thresholds.nsfw)),
        ("face_count", _sql("bool_or(face_count <> {})", thresholds.faces)),
        *((name, _sql_below(name, getattr(thresholds, name))) for name in _LEAST),
        ("background_change", _sql_above("background_change", thresholds.background_change)),
        ("attribute_ok", _sql(_TOO_FEW_READ, thresholds.attribute_share)),
    ]
    cases = [f"WHEN {fails} THEN '{reason}'" for reason, fails in rules if fails]
    return f"CASE {' '.join(cases)} END" if cases else "NULL::VARCHAR"


_TOO_FEW_READ = (
    "count(attribute_ok) > 0 AND sum(attribute_ok::INTEGER)::DOUBLE"
    " < {} * count(attribute_ok)::DOUBLE - '1e-9'::DOUBLE"
)


def _sql_above(name: str, limit: float | None) -> str | None:
    return _sql(f"bool_or(NOT {name} <= {{}})", limit)  # NaN is the largest number to DuckDB


def _sql_below(name: str, limit: float | None) -> str | None:
    return _sql(f"bool_or(isnan({name}) OR NOT {name} >= {{}})", limit)


def _sql(rule: str, limit: float | None) -> str | None:
    """A rule with its limit to the last bit; None without a limit."""
    return None if limit is None else rule.format(f"'{float(limit)!r}'::DOUBLE")


def _known(scores: Sequence[Mapping[str, Score]], name: str) -> list[float]:
    return [float(value) for row in scores if (value := row.get(name)) is not None]


def _any_above(scores: Sequence[Mapping[str, Score]], name: str, limit: float | None) -> bool:
    return limit is not None and any(
        not value <= limit for value in _known(scores, name)
    )  # NaN is never good


def _any_below(scores: Sequence[Mapping[str, Score]], name: str, limit: float | None) -> bool:
    return limit is not None and any(not value >= limit for value in _known(scores, name))


def _faces_differ(scores: Sequence[Mapping[str, Score]], wanted: int | None) -> bool:
    return wanted is not None and any(value != wanted for value in _known(scores, "face_count"))


def _too_few_read(scores: Sequence[Mapping[str, Score]], share: float | None) -> bool:
    read = _known(scores, "attribute_ok")
    return share is not None and bool(read) and sum(read) < share * len(read) - 1e-9
