"""Limits of early rejection: set on some candidates, measured on others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_spec import a_spec

from generators.paperdolls import early
from generators.paperdolls.early import Candidate, Saving, limits_for, saving
from generators.scorers import ModelScorers, embedded_preview, embedded_thresholds
from generators.spec import Preview, Thresholds
from storage.errors import CounterpoiseError

FINAL = Thresholds(clip_text=0.5, clip_base=None, clip_direction=0.3, attribute_share=0.75, faces=None)


def rows(text: float, right: int = 4) -> tuple[dict, ...]:
    return tuple(
        {"clip_text": text + 0.1 * k, "clip_base": 0.8, "clip_direction": 0.5, "attribute_ok": k < right}
        for k in range(4)
    )


def a_candidate(before: float, after: float) -> Candidate:
    return Candidate(rows(before), rows(after))


def drawn(count: int, noise: float, seed: int = 0) -> list[Candidate]:
    """Previews score 0.1 less than the end, give or take `noise`."""
    draw = np.random.default_rng(seed)
    after = draw.uniform(0.3, 0.7, count)
    return [
        a_candidate(float(a - 0.1 + e), float(a))
        for a, e in zip(after, draw.normal(0, noise, count), strict=True)
    ]


def test_limits_are_the_verdicts_shifted_by_what_previews_lack() -> None:
    limits = limits_for(drawn(200, noise=0.0), FINAL)
    assert limits.clip_text == pytest.approx(0.4, abs=0.001) and limits.clip_direction == pytest.approx(0.3)
    assert limits.clip_base is None and limits.nsfw == FINAL.nsfw and limits.faces is None
    assert limits.attribute_share == pytest.approx(0.75)


def test_limits_are_as_tight_as_the_good_sets_allow() -> None:
    known, fresh = drawn(300, 0.04), drawn(3000, 0.04, seed=1)
    loose, tight = (limits_for(known, FINAL, lost) for lost in (0.01, 0.1))
    assert (
        loose.clip_text is not None
        and tight.clip_text is not None
        and loose.clip_text < tight.clip_text <= 0.4
    )
    first, second = (saving(fresh, FINAL, limits) for limits in (loose, tight))
    assert first.lost <= 0.015 and second.lost <= 0.12, "also on candidates that did not set them"
    assert 0.2 < first.saved < second.saved


def test_tighter_filters_reject_every_other_candidate() -> None:
    known, base = drawn(200, noise=0.0), replace(FINAL, clip_base=0.1)
    tight = early.tightened(known, base)
    assert tight.clip_text is not None and 0.5 < tight.clip_text < 0.6 and tight.nsfw == base.nsfw
    assert 0.4 < early.kept(known, tight).mean() <= 0.5 < early.kept(known, base).mean() + 0.1


def test_every_preview_costs_its_steps() -> None:
    limits = replace(FINAL, clip_text=0.4)
    tried = [
        a_candidate(0.3, 0.6),  # good and lost
        a_candidate(0.6, 0.6),  # good and kept
        a_candidate(0.9, 0.4),  # bad and not noticed: its preview was for nothing
        a_candidate(0.2, 0.4),  # bad and noticed
    ]
    found = saving(tried, FINAL, limits, steps=3)
    assert (found.rejected, found.kept, found.lost) == (2, 2, 0.5)
    assert found.saved == pytest.approx(1 - (3 + 15 + 3) / 30)
    assert found.spent == pytest.approx((3 + 18 + 18 + 3) / 60)
    assert not found.passed()


def test_both_bars_must_be_met() -> None:
    assert Saving(early.SAVED_BAR, early.LOST_BAR, 9, 9, 0.5).passed()
    assert not Saving(early.SAVED_BAR - 0.01, 0.0, 9, 9, 0.5).passed()
    assert not Saving(1.0, early.LOST_BAR + 0.01, 9, 9, 0.5).passed()


def test_written_limits_are_read_again_with_their_steps(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    assert embedded_preview(tmp_path) is None
    early.write(Preview(6, "euler", FINAL), tmp_path)
    assert embedded_preview(tmp_path) == Preview(6, "euler", FINAL)
    assert json.loads((tmp_path / "clip" / "preview.json").read_text())["steps"] == 6


def test_shipped_limits_are_those_of_the_measured_steps() -> None:
    found, final = embedded_preview(), embedded_thresholds()
    assert (
        found is not None
        and replace(found, filters="auto") == early.PREVIEW
        and isinstance(found.filters, Thresholds)
    )
    assert found.filters.clip_text is not None and final.clip_text is not None
    assert found.filters.clip_text < final.clip_text + 0.05


def test_auto_limits_hold_at_their_own_steps_alone() -> None:
    scorers = ModelScorers(None, None, None, None, {}, FINAL, early=Preview(4, "dpmpp", FINAL))
    assert scorers.preview(replace(a_spec(), preview=Preview(4))) == FINAL
    assert scorers.preview(a_spec()) is None
    with pytest.raises(CounterpoiseError, match=r"preview\.steps: given 5, wanted 4"):
        scorers.preview(replace(a_spec(), preview=Preview(5)))
    with pytest.raises(CounterpoiseError, match=r"preview\.scheduler: given ddim, wanted dpmpp"):
        scorers.preview(replace(a_spec(), preview=Preview(4, "ddim")))
    own = Thresholds(clip_text=0.1)
    assert scorers.preview(replace(a_spec(), preview=Preview(5, filters=own))) == own
    with pytest.raises(CounterpoiseError, match=r"preview\.filters: given auto"):
        replace(scorers, early=None).preview(replace(a_spec(), preview=Preview(4)))
