"""Limits of early rejection: set on kept candidates, measured on others."""

from __future__ import annotations

import pytest

from generators.paperdolls import early
from generators.paperdolls.early import Candidate, Saving, limits_for, saving
from generators.scorers import embedded_thresholds


def a_candidate(text: float, kept: bool, right: int = 4) -> Candidate:
    rows = [
        {"clip_text": text + 0.1 * k, "clip_base": 0.8, "clip_direction": 0.5, "attribute_ok": k < right}
        for k in range(4)
    ]
    return Candidate(tuple(rows), kept)


def test_every_kept_candidate_that_set_the_limits_passes_them() -> None:
    known = [a_candidate(0.5, True), a_candidate(0.7, True, right=3), a_candidate(0.1, False)]
    limits = limits_for(known, slack=0.0)
    assert (limits.clip_text, limits.clip_base, limits.attribute_share) == (0.5, 0.8, 0.75)
    assert saving(known, limits, 0.4) == Saving(pytest.approx(0.6), 0.0, 1, 2)
    assert limits_for(known, slack=1.0).clip_text == pytest.approx(0.4)


def test_lost_sets_and_unsaved_steps_are_counted() -> None:
    limits = limits_for([a_candidate(0.5, True)], slack=0.0)
    tried = [a_candidate(0.4, True), a_candidate(0.6, True), a_candidate(0.9, False), a_candidate(0.2, False)]
    found = saving(tried, limits, 0.25)
    assert (found.saved, found.lost) == (pytest.approx(0.375), 0.5)
    assert not found.passed()


def test_both_bars_must_be_met() -> None:
    assert Saving(early.SAVED_BAR, early.LOST_BAR, 9, 9).passed()
    assert not Saving(early.SAVED_BAR - 0.01, 0.0, 9, 9).passed()
    assert not Saving(1.0, early.LOST_BAR + 0.01, 9, 9).passed()


def test_shipped_limits_are_looser_than_the_verdicts() -> None:
    preview, final = embedded_thresholds("preview"), embedded_thresholds()
    for name in ("clip_text", "clip_direction", "attribute_share"):
        assert getattr(preview, name) <= getattr(final, name)
