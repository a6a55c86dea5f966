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
