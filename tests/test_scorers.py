"""Scores by hand-made features: what each is the cosine or the mean of, and whom it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_spec import a_member, a_spec

from generators.engine import PreparedEngine, SetRequest
from generators.plan import Member, candidate_seed, make_plan, members
from generators.scorers import (
    REAL_CLIP,
    REAL_FACES,
    REAL_NSFW,
    REAL_SEGMENTER,
    REAL_THRESHOLDS,
    ModelScorers,
    PreparedScorers,
    background_change,
    clip_scores,
    failed_axes,
    resolve,
)
from generators.spec import ScorerChoice, Thresholds

GENDERS, RACES = ("woman", "man"), ("White", "Black", "Asian")
TWINS = [
    a_member(3 * g + r, 3 * g, gender=gender, race=race)
    for g, gender in enumerate(GENDERS)
    for r, race in enumerate(RACES)
]


def unit(*values: float) -> np.ndarray:
    row = np.array(values, np.float32)
    return row / np.linalg.norm(row)


def meaning(member: Member) -> np.ndarray:
    """A feature that says gender and race, one hot each."""
    given = [member.values["gender"] == g for g in GENDERS] + [member.values["race"] == r for r in RACES]
    return unit(*map(float, given))


PERFECT = np.stack([meaning(member) for member in TWINS])


def test_clip_scores_are_the_cosines_of_their_names() -> None:
    pair = [a_member(0, 0, race="White"), a_member(1, 0, race="Black")]
    image, text = np.stack([unit(1, 0, 0), unit(3, 4, 0)]), np.stack([unit(1, 0, 1), unit(0, 1, 0)])
    base, edit = clip_scores(pair, image, text)
    assert base["clip_text"] == pytest.approx(1 / np.sqrt(2))
    assert base["clip_base"] is None and base["clip_direction"] is None
    assert edit["clip_text"] == pytest.approx(0.8)
    assert edit["clip_base"] == pytest.approx(0.6)
    change, words = np.array([-0.4, 0.8, 0]), np.array([-np.sqrt(0.5), 1, -np.sqrt(0.5)])
    expected = change @ words / np.linalg.norm(change) / np.linalg.norm(words)
    assert edit["clip_direction"] == pytest.approx(expected, rel=1e-5)


def test_direction_is_signed_and_zero_where_the_picture_did_not_change() -> None:
    pair = [a_member(0, 0, race="White"), a_member(1, 0, race="Black")]
    text = np.stack([unit(1, 0), unit(0, 1)])
    for image, expected in ((text, 1.0), (text[::-1], -1.0), (text[[0, 0]], 0.0)):
        assert clip_scores(pair, image, text)[1]["clip_direction"] == pytest.approx(expected, abs=1e-6)


def test_each_edit_is_compared_with_its_own_base() -> None:
    rows = clip_scores(TWINS, PERFECT, PERFECT)
    assert [row["clip_base"] is None for row in rows] == [True, False, False] * 2
    assert [row["clip_base"] for row in rows[4:]] == pytest.approx([0.5, 0.5])
    moved = PERFECT.copy()
    moved[0] = unit(0, 0, 0, 0, 1)
    after = clip_scores(TWINS, moved, PERFECT)
    assert after[1]["clip_base"] != rows[1]["clip_base"]
    assert [row["clip_base"] for row in after[4:]] == [row["clip_base"] for row in rows[4:]]


def test_pictures_that_show_what_was_asked_pass_on_every_axis() -> None:
    rows = clip_scores(TWINS, PERFECT, PERFECT)
    assert [(row["attribute_ok"], row["attribute_failed"]) for row in rows] == [(True, "")] * 6


@pytest.mark.parametrize(
    ("shown", "failed"), [(4, "gender"), (0, "race"), (2, "race"), (3, "gender,race"), (1, "")]
)
def test_a_picture_of_another_cell_fails_on_the_axes_that_differ(shown: int, failed: str) -> None:
    """Member 1 is the Black woman; its picture is that of another member."""
    image = PERFECT.copy()
    image[1] = PERFECT[shown]
    rows = clip_scores(TWINS, image, PERFECT)
    assert (rows[1]["attribute_ok"], rows[1]["attribute_failed"]) == (failed == "", failed)
    assert all(row["attribute_ok"] for k, row in enumerate(rows) if k != 1)


def test_only_twins_that_differ_on_one_axis_are_asked() -> None:
    """A member that differs on both axes may be closer: it says nothing about either."""
    likeness = np.array([0.1, 0.5, 0.1, 0.9, 0.1, 0.9], np.float32)
    assert failed_axes(TWINS, 1, likeness) == []
    likeness[4] = 0.6
    assert failed_axes(TWINS, 1, likeness) == ["gender"]


def test_background_change_is_the_mean_outside_the_person() -> None:
    first, second = np.full((4, 4), 100, np.float32), np.full((4, 4), 100, np.float32)
    person = np.zeros((4, 4), bool)
    person[:, :2] = True
    second[:, :2] = 255
    assert background_change(first, second, person) == 0
    second[0, 2] = 116
    assert background_change(first, second, person) == background_change(second, first, person) == 2.0


def test_a_picture_all_person_has_no_background() -> None:
    grey = np.zeros((2, 2), np.float32)
    assert background_change(grey, grey, np.ones((2, 2), bool)) is None


class FakeClip:
    """Features by position, whatever the picture."""

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return PERFECT[: len(images)]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        assert list(texts) == [member.prompt for member in TWINS]
        return PERFECT


class LeftOrRight:
    """The person is the left column in bases and the right column in edits."""

    def masks(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [np.arange(4)[None].repeat(4, 0) == (0 if k % 3 == 0 else 3) for k in range(len(images))]


class Fixed:
    """Scores by position."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        return list(self.values[: len(images)])


def scorers(**models: Any) -> ModelScorers:
    parts: dict[str, Any] = {"clip": None, "segmenter": None, "nsfw": None, "faces": None, **models}
    return ModelScorers(**parts, names={"clip": "fake"}, auto=Thresholds(clip_text=0.1))


def request() -> SetRequest:
    spec = a_spec()
    return SetRequest(tuple(TWINS), 1, spec.sampler, spec.edit)


def pictures(*columns: tuple[int, ...]) -> list[Image.Image]:
    """4 x 4 pictures of four columns of grey; one for every member if one is given."""
    given = columns if len(columns) > 1 else columns * 6
    return [Image.fromarray(np.tile(np.uint8(row), (4, 1))).convert("RGB") for row in given]


def test_the_union_of_both_masks_is_left_out() -> None:
    """Only the two middle columns count: one person stands left, the other right."""
    base, edit = (0, 50, 50, 50), (255, 50, 62, 255)
    rows = scorers(segmenter=LeftOrRight()).score(request(), pictures(base, edit, edit, base, base, edit))
    found = [row["background_change"] for row in rows]
    assert found == [None, pytest.approx(6), pytest.approx(6), None, pytest.approx(0), pytest.approx(6)]


def test_colour_counts_as_grey() -> None:
    """Rec. 601 luma: pure green is 150 of 255."""
    images = pictures((0, 0, 0, 0))
    images[1] = Image.new("RGB", (4, 4), (0, 255, 0))
    assert scorers(segmenter=LeftOrRight()).score(request(), images)[1]["background_change"] == 150


def test_without_a_model_there_is_no_score() -> None:
    assert scorers().score(request(), pictures((1, 2, 3, 4))) == [{}] * 6
    rows = scorers(clip=FakeClip()).score(request(), pictures((1, 2, 3, 4)))
    assert "background_change" not in rows[1] and "nsfw" not in rows[1]
    assert rows[1]["clip_base"] == pytest.approx(0.5)


def test_every_model_adds_its_scores_to_its_member() -> None:
    every = scorers(
        clip=FakeClip(),
        segmenter=LeftOrRight(),
        nsfw=Fixed(0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        faces=Fixed(1.0, 2.0, 0.0, 1.0, 1.0, 3.0),
    )
    rows = every.score(request(), pictures((1, 2, 3, 4)))
    assert [row["nsfw"] for row in rows] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [row["face_count"] for row in rows] == [1, 2, 0, 1, 1, 3]
    assert all(isinstance(row["face_count"], int) for row in rows)
    columns = (
        "clip_text clip_base clip_direction attribute_ok attribute_failed background_change nsfw face_count"
    )
    assert all(set(row) == set(columns.split()) for row in rows)


def test_auto_thresholds_are_the_scorers_own_and_others_are_the_specs() -> None:
    own = Thresholds(clip_text=0.9)
    for given in (scorers(), PreparedScorers()):
        assert given.thresholds(a_spec(filters=own)) == own
    assert scorers().thresholds(a_spec()) == Thresholds(clip_text=0.1)
    assert PreparedScorers().thresholds(a_spec()) == REAL_THRESHOLDS


def test_real_thresholds_are_those_of_instructpix2pix() -> None:
    least = (REAL_THRESHOLDS.clip_text, REAL_THRESHOLDS.clip_base, REAL_THRESHOLDS.clip_direction)
    assert least == (0.2, 0.7, 0.2)
    assert (REAL_THRESHOLDS.nsfw, REAL_THRESHOLDS.faces) == (0.5, 1)


def test_auto_means_what_belongs_to_the_model() -> None:
    assert resolve(ScorerChoice(), embedded=True) == ScorerChoice("embedded", "embedded", None, None)
    real = ScorerChoice(REAL_CLIP, REAL_SEGMENTER, REAL_NSFW, REAL_FACES)
    assert resolve(ScorerChoice(), embedded=False) == real
    given = ScorerChoice("a/b", None, "c/d", None)
    assert resolve(given, embedded=True) == resolve(given, embedded=False) == given


def test_prepared_scorers_are_good_but_where_told_otherwise() -> None:
    spec = a_spec()
    planned = make_plan(spec)[0]
    made = SetRequest(
        tuple(members(spec, planned)), candidate_seed(spec, planned, 0), spec.sampler, spec.edit
    )
    images = PreparedEngine(16).generate(made)
    good = PreparedScorers().score(made, images)
    assert [("clip_base" in row) for row in good] == [m.base != m.index for m in made.members]
    bad = PreparedScorers({(made.seed, 2): {"clip_text": 0.0}, (made.seed + 1, 3): {"nsfw": 1.0}})
    changed = bad.score(made, images)
    assert changed[2] == {**good[2], "clip_text": 0.0}
    assert [row for k, row in enumerate(changed) if k != 2] == [row for k, row in enumerate(good) if k != 2]
