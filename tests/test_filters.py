"""The verdict: whole sets, one reason, safety first, and nothing judged that was not computed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.filters import Score, Verdict, judge
from generators.spec import Thresholds

LIMITS = Thresholds(
    clip_text=0.2,
    clip_base=0.7,
    clip_direction=0.1,
    background_change=5.0,
    attribute_share=1.0,
    nsfw=0.5,
    faces=1,
)
GOOD: dict[str, Score] = {
    "clip_text": 0.3, "clip_base": 0.9, "clip_direction": 0.4, "background_change": 2.0,
    "attribute_ok": True, "attribute_failed": "", "nsfw": 0.01, "face_count": 1,
}  # fmt: skip
BAD: dict[str, Score] = {
    "nsfw": 0.9, "face_count": 2, "clip_text": 0.1, "clip_base": 0.5, "clip_direction": 0.0,
    "background_change": 6.0, "attribute_ok": False,
}  # fmt: skip
FIELDS = {"face_count": "faces", "attribute_ok": "attribute_share"}


def a_set(*bad: dict[str, Score], size: int = 4) -> list[dict[str, Score]]:
    """Good members, the last of them with some scores changed."""
    return [*(dict(GOOD) for _ in range(size - len(bad))), *({**GOOD, **scores} for scores in bad)]


def limits(**changes: Any) -> Thresholds:
    return Thresholds(**dict.fromkeys(Thresholds.__slots__) | changes)  # type: ignore[arg-type]


def test_a_good_set_is_kept_without_a_reason() -> None:
    assert judge(a_set(), LIMITS) == Verdict(True, None)


@pytest.mark.parametrize("name", BAD)
def test_one_bad_member_rejects_the_set_and_is_the_reason(name: str) -> None:
    assert judge(a_set({name: BAD[name]}), LIMITS) == Verdict(False, name)


@pytest.mark.parametrize("name", BAD)
def test_a_limit_of_none_is_no_limit(name: str) -> None:
    field = FIELDS.get(name, name)
    loose = Thresholds(**{slot: getattr(LIMITS, slot) for slot in Thresholds.__slots__} | {field: None})
    assert judge(a_set({name: BAD[name]}), loose).keep


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("how", ["missing", "null"])
def test_what_was_not_computed_is_not_judged(name: str, how: str) -> None:
    scores = a_set()
    for row in scores:
        row.pop(name)
        if how == "null":
            row[name] = None
    assert judge(scores, LIMITS).keep


def test_a_score_that_only_some_members_have_is_judged_on_those() -> None:
    scores = a_set({"clip_base": 0.2})
    scores[0]["clip_base"] = None
    assert judge(scores, LIMITS).reason == "clip_base"
    scores[-1]["clip_base"] = None
    assert judge(scores, LIMITS).keep


@pytest.mark.parametrize("name", [name for name in BAD if name != "attribute_ok"])
def test_not_a_number_is_never_good_enough(name: str) -> None:
    assert judge(a_set({name: float("nan")}), LIMITS) == Verdict(False, name)


@pytest.mark.parametrize(
    ("name", "limit", "worse"),
    [("clip_text", 0.2, 0.1999), ("clip_base", 0.7, 0.6999), ("clip_direction", 0.1, 0.0999),
     ("background_change", 5.0, 5.001), ("nsfw", 0.5, 0.5001)],
)  # fmt: skip
def test_the_limit_itself_is_still_good(name: str, limit: float, worse: float) -> None:
    assert judge(a_set({name: limit}), LIMITS).keep
    assert judge(a_set({name: worse}), LIMITS).reason == name


@pytest.mark.parametrize(("faces", "keep"), [(0, False), (1, True), (2, False)])
def test_faces_must_be_exactly_as_many(faces: int, keep: bool) -> None:
    assert judge(a_set({"face_count": faces}), LIMITS).keep is keep
    assert judge([{"face_count": faces}], limits(faces=faces)).keep


def test_a_limit_of_zero_is_a_limit() -> None:
    assert judge([{"nsfw": 0.001}], limits(nsfw=0.0)).reason == "nsfw"
    assert judge([{"face_count": 1}], limits(faces=0)).reason == "face_count"
    assert judge([{"clip_direction": -0.01}], limits(clip_direction=0.0)).reason == "clip_direction"


@pytest.mark.parametrize(
    ("share", "read", "keep"),
    [
        (1.0, 24, True),
        (1.0, 23, False),
        (0.75, 18, True),
        (0.75, 17, False),
        (0.0, 0, True),
        (0.9, 21, False),
    ],
)
def test_attribute_share_counts_members(share: float, read: int, keep: bool) -> None:
    scores = [{"attribute_ok": k < read} for k in range(24)]
    assert judge(scores, limits(attribute_share=share)).keep is keep


def test_a_share_is_met_despite_rounding() -> None:
    """0.28 * 25 is more than 7 in floating point."""
    assert judge([{"attribute_ok": k < 7} for k in range(25)], limits(attribute_share=0.28)).keep


def test_safety_is_the_reason_whatever_else_is_wrong() -> None:
    assert judge(a_set(BAD), LIMITS).reason == "nsfw"
    assert judge(a_set({**BAD, "nsfw": 0.0}), LIMITS).reason == "face_count"
    assert judge(a_set({**BAD, "nsfw": 0.0, "face_count": 1}), LIMITS).reason == "clip_text"


def test_only_the_attribute_verdict_allows_for_some_failures() -> None:
    """Everything but `attribute_ok` is judged by the worst member, not by the mean."""
    for name, value in BAD.items():
        verdict = judge(a_set({name: value}, size=100), Thresholds(**{**_all(), "attribute_share": 0.9}))
        assert verdict.keep is (name == "attribute_ok")


def _all() -> dict[str, Any]:
    return {slot: getattr(LIMITS, slot) for slot in Thresholds.__slots__}


scores_of = st.fixed_dictionaries(
    {
        "clip_text": st.sampled_from([0.3, 0.25, 0.2, 0.9, 0.1]),
        "clip_base": st.sampled_from([None, 0.9, 0.8, 0.7, 0.6]),
        "nsfw": st.sampled_from([0.0, 0.1, 0.5, 0.6]),
        "background_change": st.sampled_from([None, 1.0, 5.0, 5.5]),
        "attribute_ok": st.sampled_from([True, True, True, False]),
        "face_count": st.sampled_from([1, 1, 1, 0, 2]),
    }
)


@given(st.lists(scores_of, min_size=1, max_size=6), st.permutations(range(6)))
def test_the_order_of_members_does_not_matter(scores: list[dict[str, Score]], order: list[int]) -> None:
    shuffled = [scores[k] for k in order if k < len(scores)]
    assert judge(shuffled, LIMITS) == judge(scores, LIMITS)


@given(st.lists(scores_of, min_size=1, max_size=6), scores_of)
def test_a_further_member_never_saves_a_set(scores: list[dict[str, Score]], other: dict[str, Score]) -> None:
    if judge([*scores, other], LIMITS).keep:
        assert judge(scores, LIMITS).keep
        assert judge([other], LIMITS).keep


@given(st.lists(scores_of, min_size=1, max_size=6))
def test_a_reason_names_a_score_that_speaks_against_the_set(scores: list[dict[str, Score]]) -> None:
    verdict = judge(scores, LIMITS)
    assert verdict.keep == (verdict.reason is None)
    if verdict.reason:
        rest = [{name: value for name, value in row.items() if name != verdict.reason} for row in scores]
        assert judge(rest, LIMITS).reason != verdict.reason
