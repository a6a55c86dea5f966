"""Who may generate without safety scorers: the embedded drawings; other models never for school concepts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from small_spec import a_spec

from generators.concepts import CONCEPTS, SCHOOL_CONCEPTS
from generators.safety import check_safety
from generators.spec import ScorerChoice, Spec, SpecError, Thresholds

REAL = "stabilityai/stable-diffusion-xl-base-1.0"
SCHOOL = (CONCEPTS["chef"], CONCEPTS["high_school"])


def foreign(nsfw: str | None = "auto", faces: str | None = "auto", **changes: Any) -> Spec:
    return a_spec(**{"model": REAL, "scorers": ScorerChoice(nsfw=nsfw, faces=faces), **changes})


def test_the_embedded_model_needs_no_scorers() -> None:
    none = ScorerChoice(None, None, None, None)
    check_safety(a_spec(scorers=none, concepts=SCHOOL, filters=Thresholds(nsfw=None)))


def test_a_copy_of_the_embedded_model_is_a_foreign_model() -> None:
    with pytest.raises(SpecError, match=r"scorers\.nsfw"):
        check_safety(foreign(nsfw=None, model="./weights/embedded"))


def test_a_foreign_model_with_both_scorers_may_start() -> None:
    check_safety(foreign())
    check_safety(foreign(nsfw="some/classifier", faces="facenet-mtcnn", concepts=SCHOOL))


@pytest.mark.parametrize(
    ("nsfw", "faces", "field"),
    [(None, "auto", "scorers.nsfw"), ("auto", None, "scorers.faces"), (None, None, "scorers.nsfw")],
)
def test_a_missing_scorer_is_refused_by_name(nsfw: str | None, faces: str | None, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_safety(foreign(nsfw, faces))
    assert caught.value.field == field
    text = str(caught.value)
    assert field in text and REAL in text and "auto" in text
    assert ("nsfw and faces" in text) == (nsfw is None and faces is None)
    assert "\n" not in text


@pytest.mark.parametrize(("nsfw", "faces"), [(None, "auto"), ("auto", None), (None, None)])
def test_unsafe_overrides(nsfw: str | None, faces: str | None) -> None:
    check_safety(foreign(nsfw, faces), unsafe=True)


@pytest.mark.parametrize("concept", sorted(SCHOOL_CONCEPTS))
@pytest.mark.parametrize(("nsfw", "faces"), [(None, "auto"), ("auto", None)])
def test_unsafe_never_overrides_for_school_concepts(
    concept: str, nsfw: str | None, faces: str | None
) -> None:
    spec = foreign(nsfw, faces, concepts=(CONCEPTS["chef"], CONCEPTS[concept]))
    with pytest.raises(SpecError, match=f"never taken for the school concepts {concept}"):
        check_safety(spec, unsafe=True)


def test_school_concepts_are_those_that_may_show_minors() -> None:
    assert {"middle_school", "high_school", "good_student", "bad_student"} <= SCHOOL_CONCEPTS <= set(CONCEPTS)


def test_an_nsfw_score_that_nothing_judges_is_no_filter() -> None:
    spec = foreign(filters=Thresholds(nsfw=None))
    with pytest.raises(SpecError) as caught:
        check_safety(spec)
    assert caught.value.field == "filters.nsfw"
    check_safety(spec, unsafe=True)
    with pytest.raises(SpecError, match=r"filters\.nsfw"):
        check_safety(foreign(filters=Thresholds(nsfw=None), concepts=SCHOOL), unsafe=True)


def test_faces_that_nothing_judges_are_no_filter() -> None:
    with pytest.raises(SpecError, match=r"filters\.faces.*number of faces"):
        check_safety(foreign(filters=Thresholds(faces=None)))
    with pytest.raises(SpecError, match=r"filters\.faces"):
        check_safety(foreign(filters=Thresholds(faces=None), concepts=SCHOOL), unsafe=True)


def test_school_concepts_have_a_highest_nsfw_limit() -> None:
    check_safety(foreign(filters=Thresholds(nsfw=0.9), concepts=(CONCEPTS["chef"],)))
    with pytest.raises(SpecError, match=r"filters\.nsfw.*at most 0\.5"):
        check_safety(foreign(filters=Thresholds(nsfw=0.9999), concepts=SCHOOL), unsafe=True)


def test_limits_by_hand_are_fine_as_long_as_both_are_judged() -> None:
    check_safety(foreign(filters=Thresholds(nsfw=0.3)))


def test_unsafe_adds_nothing_where_nothing_is_missing() -> None:
    check_safety(foreign(concepts=SCHOOL), unsafe=True)


def test_every_scorer_that_is_a_safety_scorer_is_checked() -> None:
    """A scorer added to the choice must be sorted into one of the two kinds here."""
    assert {field.name for field in fields(ScorerChoice)} == {"clip", "segmenter", "nsfw", "faces"}
