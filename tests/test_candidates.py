"""Over-generation within a shard: whole sets, every try on record, bytes that the recipe alone decides."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from PIL import Image
from small_spec import AXES, CELLS, a_spec

from generators.candidates import CandidateReport, Factory
from generators.engine import PreparedEngine, SetRequest
from generators.filters import Score
from generators.plan import candidate_seed, cells, make_plan, members
from generators.scorers import PreparedScorers
from generators.spec import Edit, Preview, Spec, Thresholds
from storage.records import Sample, rows_to_parquet, to_row


def bad_tries(spec: Spec, tries: Mapping[str, int], **scores: Score) -> PreparedScorers:
    """Scorers that dislike member 1 of the first n candidates of some sets."""
    found = {
        (candidate_seed(spec, planned, candidate), 1): scores or {"clip_text": 0.0}
        for planned in make_plan(spec)
        for candidate in range(tries.get(planned.set_id, 0))
    }
    return PreparedScorers(found)  # type: ignore[arg-type]


def a_factory(spec: Spec | None = None, scorers: PreparedScorers | None = None) -> Factory:
    return Factory(spec or a_spec(), PreparedEngine(24), scorers or PreparedScorers())


def make_all(factory: Factory) -> tuple[list[Sample], list[CandidateReport]]:
    reports: list[CandidateReport] = []
    return factory.make_shard(make_plan(factory.spec), reports.append), reports


def test_a_good_first_candidate_is_the_only_one() -> None:
    samples, reports = make_all(a_factory())
    assert len(samples) == 4 * CELLS
    assert {(s.candidate, s.kept, s.reason) for s in samples} == {(0, True, None)}
    assert [(r.candidate, r.kept, r.tries) for r in reports] == [(0, True, 3)] * 4


def test_a_rejected_set_is_tried_again_until_one_is_kept() -> None:
    spec = a_spec()
    samples, reports = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 2, "science_0001": 1})))
    tried = Counter(r.set_id for r in reports)
    assert tried == {"chef_0000": 3, "science_0000": 1, "chef_0001": 1, "science_0001": 2}
    kept = Counter(s.set_id for s in samples if s.kept)
    assert kept == dict.fromkeys(tried, CELLS)
    assert {s.candidate for s in samples if s.kept and s.set_id == "chef_0000"} == {2}
    assert {s.reason for s in samples if not s.kept} == {"clip_text"}


def test_a_set_that_uses_up_its_tries_is_missing_and_the_next_goes_on() -> None:
    spec = a_spec()
    samples, reports = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 99})))
    assert [r.candidate for r in reports if r.set_id == "chef_0000"] == [0, 1, 2]
    assert not any(s.kept for s in samples if s.set_id == "chef_0000")
    assert {s.set_id for s in samples if s.kept} == {"science_0000", "chef_0001", "science_0001"}


def test_tries_may_differ_by_concept() -> None:
    spec = a_spec(candidates={"default": 1, "science": 4})
    every = {planned.set_id: 99 for planned in make_plan(spec)}
    _, reports = make_all(a_factory(spec, bad_tries(spec, every)))
    assert Counter(r.concept for r in reports) == {"chef": 2, "science": 8}
    assert {r.tries for r in reports if r.concept == "science"} == {4}


def test_a_set_is_kept_or_rejected_whole() -> None:
    """One bad member of 6 takes the other five along."""
    spec = a_spec()
    samples, _ = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 2})))
    verdicts: dict[tuple[str, int], set[bool]] = {}
    for sample in samples:
        verdicts.setdefault((sample.set_id, sample.candidate), set()).add(sample.kept)
    assert all(len(found) == 1 for found in verdicts.values())
    kept = Counter(tuple(s.attributes.values()) for s in samples if s.kept)
    assert kept == {tuple(cell.values()): 4 for cell in cells(AXES)}, "balance: every cell as often"


def test_rejected_candidates_keep_scores_and_lose_the_picture() -> None:
    spec = a_spec()
    samples, _ = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 1}, nsfw=0.97)))
    rejected = [s for s in samples if not s.kept]
    assert [s.member for s in rejected] == list(range(CELLS))
    assert all(s.image is None and s.reason == "nsfw" for s in rejected)
    assert rejected[1].scores["nsfw"] == 0.97
    assert rejected[0].scores["clip_text"] == 0.3
    assert all(s.image for s in samples if s.kept)


def test_a_rejected_picture_is_not_shown_either() -> None:
    spec = a_spec()
    _, reports = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 1}, nsfw=0.97)))
    assert [(r.kept, r.reason, len(r.images)) for r in reports[:2]] == [
        (False, "nsfw", 0),
        (True, None, CELLS),
    ]


def test_a_sample_says_what_was_made_and_how() -> None:
    spec = a_spec()
    planned = make_plan(spec)[0]
    samples = a_factory(spec).make_shard([planned])
    for member, sample in zip(members(spec, planned), samples, strict=True):
        assert sample.key == f"chef_0000-{member.index:02d}"
        assert (sample.prompt, sample.neutral_prompt) == (member.prompt, member.neutral_prompt)
        assert (sample.base, sample.edited_words) == (member.base, member.edited_words)
        assert sample.attributes == member.values
        assert (sample.split, sample.concept, sample.concept_group) == (
            planned.split,
            "chef",
            "responsibility",
        )
        assert (sample.steps, sample.guidance, sample.scheduler) == (5, 4.0, "ddim")
        assert (sample.cross_replace, sample.self_replace) == (0.4, 0.4)
        assert (sample.width, sample.height) == (24, 24)


def test_the_picture_of_a_sample_is_that_of_its_member_and_seed() -> None:
    spec = a_spec()
    scorers = bad_tries(spec, {"chef_0000": 1})
    planned = make_plan(spec)[0]
    kept = [s for s in a_factory(spec, scorers).make_shard([planned]) if s.kept]
    seed = candidate_seed(spec, planned, 1)
    request = SetRequest(tuple(members(spec, planned)), seed, spec.sampler, spec.edit)
    expected = PreparedEngine(24).generate(request)
    assert {s.seed for s in kept} == {seed}
    for sample, image in zip(kept, expected, strict=True):
        with Image.open(io.BytesIO(sample.image or b"")) as found:
            assert found.format == "PNG" and found.tobytes() == image.tobytes()


def test_every_try_has_its_own_noise() -> None:
    spec = a_spec()
    samples, _ = make_all(a_factory(spec, bad_tries(spec, {p.set_id: 2 for p in make_plan(spec)})))
    assert len({s.seed for s in samples}) == len({(s.set_id, s.candidate) for s in samples}) == 12


def test_plain_sampling_has_no_replace_shares() -> None:
    samples = a_factory(a_spec(edit=Edit(p2p=False))).make_shard(make_plan(a_spec())[:1])
    assert {(s.cross_replace, s.self_replace) for s in samples} == {(None, None)}


def test_a_set_does_not_depend_on_its_neighbours() -> None:
    spec = a_spec()
    plan = make_plan(spec)
    scorers = bad_tries(spec, {"chef_0000": 1})
    together = a_factory(spec, scorers).make_shard(plan)
    alone = [sample for one in plan for sample in a_factory(spec, scorers).make_shard([one])]
    assert together == alone
    backwards = a_factory(spec, scorers).make_shard(plan[::-1])
    assert sorted(backwards, key=lambda s: (s.set_id, s.candidate, s.member)) == sorted(
        together, key=lambda s: (s.set_id, s.candidate, s.member)
    )


def test_samples_fit_the_columns_of_a_shard() -> None:
    spec = a_spec()
    samples, _ = make_all(a_factory(spec, bad_tries(spec, {"chef_0000": 1}, background_change=None)))
    assert rows_to_parquet([to_row(s) for s in samples], [axis.name for axis in AXES])


def test_prepared_pictures_are_twins_in_a_scene_of_their_seed() -> None:
    spec = a_spec()
    request = a_factory(spec).request(make_plan(spec)[0], 0)
    sets = [PreparedEngine(24).generate(replace(request, seed=seed)) for seed in range(8)]
    assert [image.tobytes() for image in sets[3]] == [
        image.tobytes() for image in PreparedEngine(24).generate(replace(request, seed=3))
    ]
    assert len({image.tobytes() for images in sets for image in images}) == 8 * CELLS
    assert len({tuple(image.crop((0, 22, 24, 24)).tobytes() for image in images[:1]) for images in sets}) == 8
    assert all(len({image.crop((0, 22, 24, 24)).tobytes() for image in images}) == 1 for images in sets)


class Watchful(PreparedEngine):
    """Notes what it is asked to check, and makes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[SetRequest] = []

    def check(self, request: SetRequest) -> None:
        self.checked.append(request)

    def generate(self, request: SetRequest) -> list[Image.Image]:
        raise AssertionError("a check makes no pictures")


def test_check_sees_every_prompt_of_the_plan_before_any_work() -> None:
    spec = a_spec(sets_per_concept=60)
    engine = Watchful()
    factory = Factory(spec, engine, PreparedScorers())
    plan = make_plan(spec)
    factory.check(plan)
    checked = {prompt for request in engine.checked for prompt in request.prompts}
    assert checked == {member.prompt for planned in plan for member in members(spec, planned)}
    edits = {(r.prompts[m.base], m.prompt) for r in engine.checked for m in r.members}
    wanted = {
        (found[m.base].prompt, m.prompt) for one in plan for found in [members(spec, one)] for m in found
    }
    assert edits == wanted, "every pair of base and edit"
    assert len(engine.checked) < len(plan), "each pair of words and bases once"


def test_check_lets_the_engine_refuse() -> None:
    class Refusing(PreparedEngine):
        def check(self, request: SetRequest) -> None:
            raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        Factory(a_spec(), Refusing(), PreparedScorers()).check(make_plan(a_spec()))


def early(
    spec: Spec, bad: Mapping[tuple[int, int], Mapping[str, Score]] | None = None
) -> tuple[Factory, list[int]]:
    """A factory that notes the steps of every set that its engine makes, with a preview in 2 steps."""
    done: list[int] = []

    class Noting(PreparedEngine):
        def generate(self, request: SetRequest) -> list[Image.Image]:
            done.append(request.sampler.steps)
            return super().generate(request)

    limits = Thresholds(clip_text=0.2, faces=None)
    chosen = replace(spec, preview=Preview(2, filters=limits))
    return Factory(chosen, Noting(24), PreparedScorers(bad)), done


def test_a_candidate_that_fails_the_preview_is_not_sampled_whole() -> None:
    spec = a_spec()
    bad = bad_tries(spec, {"chef_0000": 1}).bad
    factory, done = early(spec, bad)
    samples = factory.make_shard(make_plan(spec)[:1])
    assert done == [2, 2, spec.sampler.steps]
    first, second = ([s for s in samples if s.candidate == k] for k in (0, 1))
    assert {(s.kept, s.reason, s.image) for s in first} == {(False, "preview_clip_text", None)}
    assert {(s.steps, s.scheduler) for s in first} == {(2, "dpmpp")}
    assert {(s.steps, s.scheduler) for s in second} == {(spec.sampler.steps, spec.sampler.scheduler)}
    assert all(s.kept for s in second)


def test_what_the_preview_cannot_do_is_refused_before_any_work() -> None:
    class Refusing(PreparedEngine):
        def check(self, request: SetRequest) -> None:
            if request.sampler.steps < 3:
                raise ValueError("too few steps")

    spec = replace(a_spec(), preview=Preview(2))
    with pytest.raises(ValueError, match="too few steps"):
        Factory(spec, Refusing(), PreparedScorers()).check(make_plan(spec)[:1])


def test_a_preview_that_rejects_nothing_changes_no_byte() -> None:
    spec = a_spec()
    plain = a_factory(spec).make_shard(make_plan(spec)[:2])
    assert early(spec)[0].make_shard(make_plan(spec)[:2]) == plain


def test_the_preview_is_part_of_the_recipe() -> None:
    spec = a_spec()
    plan = make_plan(spec)[:1]
    recipes = [a_factory(spec).recipe(plan), early(spec)[0].recipe(plan)]
    assert recipes[0]["preview"] is None
    assert recipes[1]["preview"]["steps"] == 2 and recipes[1]["preview"]["thresholds"]["clip_text"] == 0.2
