"""The plan is a pure function of the spec, grows at its end only, and treats every cell alike."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.concepts import CONCEPTS
from generators.plan import (
    Size,
    candidate_seed,
    cells,
    derive_seed,
    make_plan,
    members,
    shards,
    size_of,
    to_rows,
)
from generators.prompts import TEMPLATES
from generators.spec import Axis, Spec, Split

GENDER = Axis("gender", ("woman", "man"), "person")
AGE = Axis("age", ("young", "old"))
RACE = Axis("race", ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino"))


def a_spec(sets: int = 3, seed: int = 1, concepts: Sequence[str] = ("chef", "arts"), shard: int = 4) -> Spec:
    return Spec(
        name="test",
        seed=seed,
        model="embedded",
        concepts=tuple(CONCEPTS[name] for name in concepts),
        axes=(GENDER, AGE, RACE),
        base_axes=("gender", "age"),
        edit_axes=("race",),
        templates=TEMPLATES,
        sets_per_concept=sets,
        candidates={"default": 1},
        sets_per_shard=shard,
    )


seeds = st.integers(0, 2**63 - 1)


@given(seed=seeds, sets=st.integers(1, 9))
def test_the_same_spec_gives_the_same_plan(seed: int, sets: int) -> None:
    assert make_plan(a_spec(sets, seed)) == make_plan(a_spec(sets, seed))


def test_the_plan_is_the_same_on_every_machine() -> None:
    chef, arts, *_ = make_plan(a_spec())
    assert derive_seed(1, "chef_0000", 0, "noise") == chef.seed == 4666917598929536873
    assert (chef.set_id, arts.set_id, chef.concept_group) == ("chef_0000", "arts_0000", "responsibility")


@given(seed=seeds, sets=st.integers(1, 8), more=st.integers(1, 8))
def test_growing_only_appends(seed: int, sets: int, more: int) -> None:
    few, many = make_plan(a_spec(sets, seed)), make_plan(a_spec(sets + more, seed))
    assert many[: len(few)] == few
    assert len(many) == 2 * (sets + more)


GROUPS = ("chef", "arts", "science", "weapon")
growth = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4)


@given(seed=seeds, steps=growth, shard=st.integers(1, 5))
def test_an_extension_leaves_every_planned_row_and_every_shard_alone(
    seed: int, steps: list[tuple[int, int]], shard: int
) -> None:
    """Whatever the steps, the plan of one is the beginning of the next, and shards get no company."""
    concepts, sets, before, plan = 1, 1, [], []
    for more_concepts, more_sets in steps:
        concepts, sets = min(4, concepts + more_concepts), sets + more_sets
        spec = a_spec(sets, seed, GROUPS[:concepts], shard)
        plan, old = make_plan(spec, before), plan
        assert plan[: len(old)] == old
        assert {one.set_id for one in plan} == {one.set_id for one in make_plan(spec)}
        assert not {one.shard for one in plan[len(old) :]} & {one.shard for one in old}
        before.append(size_of(spec))
    assert [one.index for one in plan] == list(range(len(plan)))
    assert set(shards(plan)) == set(range(len(shards(plan))))
    assert all(len(planned) <= shard for planned in shards(plan).values())


def test_an_added_set_is_what_it_would_have_been_at_once() -> None:
    def content(plan: Sequence[object]) -> dict[str, object]:
        return {one.set_id: replace(one, index=0, shard=0) for one in plan}  # type: ignore[attr-defined, type-var]

    spec = a_spec(5, concepts=GROUPS)
    assert content(make_plan(spec, [Size(2, 3), Size(3, 3)])) == content(make_plan(spec))


@given(seed=seeds)
def test_another_concept_leaves_the_sets_of_the_first_alone(seed: int) -> None:
    def content(spec: Spec) -> list[dict[str, object]]:
        rows = [row for row in to_rows(make_plan(spec)) if row["concept"] == "arts"]
        return [{k: v for k, v in row.items() if k not in ("index", "shard")} for row in rows]

    assert content(a_spec(5, seed)) == content(a_spec(5, seed, ("arts",)))


def test_another_seed_gives_other_noise_and_words() -> None:
    one, two = make_plan(a_spec(8, seed=1)), make_plan(a_spec(8, seed=2))
    assert [p.set_id for p in one] == [p.set_id for p in two]
    assert not {p.seed for p in one} & {p.seed for p in two}
    assert [p.phrase for p in one] != [p.phrase for p in two]


def test_ids_are_unique_ordered_and_fit_the_key() -> None:
    plan = make_plan(a_spec(11))
    assert [p.index for p in plan] == list(range(22))
    assert len({p.set_id for p in plan}) == 22
    assert all(re.fullmatch(r"[a-z0-9_]+", p.set_id) for p in plan)


def test_shards_hold_whole_runs_of_the_plan() -> None:
    plan = make_plan(a_spec(5, shard=4))
    assert {index: len(sets) for index, sets in shards(plan).items()} == {0: 4, 1: 4, 2: 2}
    assert [p for sets in shards(plan).values() for p in sets] == plan


@given(seed=seeds, offset=st.integers(0, 5))
def test_every_edit_cell_serves_as_base_equally(seed: int, offset: int) -> None:
    """Over any six rounds in a row, each race is the bases' race exactly once."""
    spec = a_spec(offset + 6, seed)
    for concept in ("chef", "arts"):
        rounds = [p for p in make_plan(spec) if p.concept == concept][offset:]
        found = [member for planned in rounds for member in members(spec, planned)]
        races = [member.values["race"] for member in found if member.base == member.index]
        assert Counter(races) == dict.fromkeys(RACE.values, 4)


def test_concepts_start_their_rotation_apart() -> None:
    first = make_plan(a_spec(1, concepts=tuple(CONCEPTS)))
    assert len({p.rotation for p in first}) > 2


@pytest.mark.parametrize("what", ["phrase", "template"])
def test_words_are_dealt_evenly_and_not_tied_to_the_bases(what: str) -> None:
    """Four phrases and six races share a factor: plain counting would reach 12 of their 24 pairs."""
    for name in CONCEPTS:
        choices = CONCEPTS[name].phrases if what == "phrase" else TEMPLATES
        plan = make_plan(a_spec(48, concepts=(name,)))
        drawn = [(choices.index(getattr(planned, what)), planned.rotation) for planned in plan]
        assert Counter(choice for choice, _ in drawn) == dict.fromkeys(range(4), 12)
        assert len(set(drawn)) >= 16


@given(seed=seeds, number=st.integers(0, 11))
def test_a_set_has_every_cell_once_and_edits_the_edit_axes_only(seed: int, number: int) -> None:
    spec = a_spec(12, seed)
    planned = make_plan(spec)[number]
    found = members(spec, planned)
    assert [m.values for m in found] == cells(spec.axes)
    assert [m.index for m in found] == list(range(24))
    bases = [m for m in found if m.base == m.index]
    assert {(m.values["gender"], m.values["age"]) for m in bases} == set(product(GENDER.values, AGE.values))
    assert len(bases) == 4
    assert len({m.values["race"] for m in bases}) == 1
    for member in found:
        base = found[member.base]
        assert base in bases
        assert {axis for axis in member.values if member.values[axis] != base.values[axis]} <= {"race"}
        assert (member.edited_words == "") == (member is base)
        assert member.neutral_prompt == found[0].neutral_prompt
        assert planned.phrase in member.prompt


def test_prompts_of_a_set_all_differ() -> None:
    spec = a_spec()
    found = members(spec, make_plan(spec)[0])
    assert len({m.prompt for m in found}) == 24
    assert not any(value in found[0].neutral_prompt for axis in spec.axes for value in axis.values)


@given(sizes=st.lists(st.integers(2, 4), min_size=2, max_size=4), edits=st.data(), seed=seeds)
def test_bases_for_any_axes(sizes: list[int], edits: st.DataObject, seed: int) -> None:
    """Any split of any axes: one base per base cell, each heading one member per edit cell."""
    axes = tuple(Axis(f"x{i}", tuple(f"v{i}{'abcd'[j]}" for j in range(n))) for i, n in enumerate(sizes))
    edited = edits.draw(st.sets(st.sampled_from(range(len(axes))), min_size=1))
    names = [axis.name for axis in axes]
    spec = replace(
        a_spec(1, seed),
        axes=axes,
        base_axes=tuple(n for i, n in enumerate(names) if i not in edited),
        edit_axes=tuple(n for i, n in enumerate(names) if i in edited),
        templates=("a " + " ".join(f"{{{n}}}" for n in names) + " {concept}",),
    )
    family = Counter(m.base for m in members(spec, make_plan(spec)[0]))
    per_base = len(cells([axis for i, axis in enumerate(axes) if i in edited]))
    assert set(family.values()) == {per_base}
    assert len(family) * per_base == len(cells(axes))


def test_cells_run_with_the_last_axis_fastest() -> None:
    assert cells([GENDER, AGE]) == [
        {"gender": "woman", "age": "young"},
        {"gender": "woman", "age": "old"},
        {"gender": "man", "age": "young"},
        {"gender": "man", "age": "old"},
    ]
    assert cells([]) == [{}]


@given(st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_a_derived_seed_fits_63_bits(parts: list[str | int]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


def test_a_derived_seed_tells_its_parts_apart() -> None:
    ways = [("a", "bc"), ("ab", "c"), ("abc",), (1, "1"), ("1", 1), (11,), ("11",)]
    assert len({derive_seed(*parts) for parts in ways}) == len(ways)


def test_every_candidate_has_its_own_noise() -> None:
    spec = a_spec(6)
    drawn = [candidate_seed(spec, p, candidate) for p in make_plan(spec) for candidate in range(5)]
    assert len(set(drawn)) == len(drawn)
    assert [candidate_seed(spec, p, 0) for p in make_plan(spec)] == [p.seed for p in make_plan(spec)]


def test_split_follows_the_shares_by_set() -> None:
    plan = make_plan(replace(a_spec(1000), split=Split(0.7, 0.2, 0.1)))
    counts = Counter(p.split for p in plan)
    assert counts["train"] == pytest.approx(1400, abs=90)
    assert counts["validation"] == pytest.approx(400, abs=75)
    assert counts["test"] == pytest.approx(200, abs=60)


def test_held_out_concepts_are_for_the_test_only() -> None:
    plan = make_plan(replace(a_spec(40), split=Split(1.0, 0.0, 0.0, held_out_concepts=("arts",))))
    assert {p.split for p in plan if p.concept == "arts"} == {"test"}
    assert {p.split for p in plan if p.concept == "chef"} == {"train"}


def test_rows_are_plain_and_complete() -> None:
    rows = to_rows(make_plan(a_spec()))
    assert json.loads(json.dumps(rows)) == rows
    columns = "set_id index shard concept concept_group template phrase split rotation seed"
    assert " ".join(rows[0]) == columns
