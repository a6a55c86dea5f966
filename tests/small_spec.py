"""A small spec for the tests of generators: 2 concepts, 2 genders x 3 races, bases over gender."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generators.concepts import CONCEPTS
from generators.plan import Member
from generators.spec import Axis, Edit, Sampler, ScorerChoice, Spec

AXES = (Axis("gender", ("woman", "man"), "person"), Axis("race", ("White", "Black", "Middle Eastern")))
CELLS = 6


def a_spec(**changes: Any) -> Spec:
    """The spec with some fields changed."""
    spec = Spec(
        name="small",
        seed=3,
        model="embedded",
        concepts=(CONCEPTS["chef"], CONCEPTS["science"]),
        axes=AXES,
        base_axes=("gender",),
        edit_axes=("race",),
        templates=("A photo of {a} {race} {gender} {concept}",),
        sets_per_concept=2,
        candidates={"default": 3},
        sets_per_shard=2,
        sampler=Sampler(steps=5, guidance=4.0),
        edit=Edit(),
        scorers=ScorerChoice(nsfw=None, faces=None),
    )
    return replace(spec, **changes)


def a_member(index: int, base: int, **values: str) -> Member:
    """A member whose prompt is its values."""
    return Member(index, dict(values), " ".join(values.values()), "neutral", base, "")
