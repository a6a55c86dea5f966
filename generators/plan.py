"""Every set that a spec asks for, with its id and seeds: a pure function of the spec and of its earlier sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TypeVar

from .prompts import edited_words, fill, neutral_prompt
from .spec import Axis, Concept, Spec, Split, SplitName

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """How much a spec asks for: its first so many concepts, with so many sets each."""

    concepts: int
    sets_per_concept: int


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """One counterfactual set to make; ``rotation`` picks the bases' cell of the edit axes.

    ``seed`` is that of its first candidate; `candidate_seed` gives the others.
    """

    set_id: str
    index: int
    shard: int
    concept: str
    concept_group: str
    template: str
    phrase: str
    split: SplitName
    rotation: int
    seed: int


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a set; ``index`` is its cell's position, and a base names itself in ``base``."""

    index: int
    values: dict[str, str]
    prompt: str
    neutral_prompt: str
    base: int
    edited_words: str


def cells(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination of one value per axis; the last axis runs fastest."""
    names = [axis.name for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in product(*(axis.values for axis in axes))]


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits that depends on the parts alone, never on a clock, a process or an order."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_plan(spec: Spec, extended_from: Sequence[Size] = ()) -> list[PlannedSet]:
    """All sets, round by round over the concepts.

    Args:
        spec: what is asked for now.
        extended_from: what was asked for before, the first first. Sets of then keep their place; what each extension
            added begins with a shard of its own, so that a finished shard never gets company.
    """
    plan: dict[str, PlannedSet] = {}
    for size in (*extended_from, size_of(spec)):
        first, asked = len(plan), product(range(size.sets_per_concept), spec.concepts[: size.concepts])
        shard = 1 + next(reversed(plan.values())).shard if plan else 0
        for number, concept in asked:
            if _set_id(number, concept) not in plan:
                place = len(plan)
                one = _planned(spec, place, shard + (place - first) // spec.sets_per_shard, number, concept)
                plan[one.set_id] = one
    return list(plan.values())


def size_of(spec: Spec) -> Size:
    """How much the spec asks for."""
    return Size(len(spec.concepts), spec.sets_per_concept)


def members(spec: Spec, planned: PlannedSet) -> list[Member]:
    """The images of a set in the order of their cells, each with the base it is edited from."""
    values = cells(spec.axes)
    bases = _bases(spec, planned.rotation)
    own = [bases[_pick(cell, spec.base_axes)] for cell in values]
    neutral = neutral_prompt(planned.template, spec.axes, planned.phrase)
    return [
        Member(
            index=index,
            values=cell,
            prompt=fill(planned.template, spec.axes, cell, planned.phrase),
            neutral_prompt=neutral,
            base=base,
            edited_words=edited_words(values[base], cell),
        )
        for index, (cell, base) in enumerate(zip(values, own, strict=True))
    ]


def candidate_seed(spec: Spec, planned: PlannedSet, candidate: int) -> int:
    """The seed of the noise that all members of one candidate share."""
    return _noise_seed(spec, planned.set_id, candidate)


def shards(plan: Iterable[PlannedSet]) -> dict[int, list[PlannedSet]]:
    """The plan by shard, in order."""
    found: dict[int, list[PlannedSet]] = {}
    for planned in plan:
        found.setdefault(planned.shard, []).append(planned)
    return found


def to_rows(plan: Iterable[PlannedSet]) -> list[dict[str, str | int]]:
    """The plan as rows of plan.parquet, one per set."""
    return [asdict(planned) for planned in plan]


def _noise_seed(spec: Spec, set_id: str, candidate: int) -> int:
    return derive_seed(spec.seed, set_id, candidate, "noise")


def _set_id(number: int, concept: Concept) -> str:
    return f"{concept.name}_{number:04d}"


def _planned(spec: Spec, index: int, shard: int, number: int, concept: Concept) -> PlannedSet:
    set_id = _set_id(number, concept)
    return PlannedSet(
        set_id=set_id,
        index=index,
        shard=shard,
        concept=concept.name,
        concept_group=concept.group,
        template=_deal(spec.templates, number, spec.seed, concept.name, "template"),
        phrase=_deal(concept.phrases, number, spec.seed, concept.name, "phrase"),
        split=_split(spec.split, concept.name, derive_seed(spec.seed, set_id, "split")),
        rotation=_rotation(spec, number, concept.name),
        seed=_noise_seed(spec, set_id, 0),
    )


def _rotation(spec: Spec, number: int, concept: str) -> int:
    """The round plus an offset of the concept: over its rounds every edit cell serves as base."""
    offset = derive_seed(spec.seed, concept, "rotation")
    return (number + offset) % len(cells([spec.axis(name) for name in spec.edit_axes]))


def _deal(items: Sequence[T], number: int, *parts: str | int) -> T:
    """Deal like shuffled packs: each pack of rounds has every item once, in an order of its own.

    A plain remainder would tie an item to the rotation (4 phrases and 6 races share a factor).
    """
    pack, place = divmod(number, len(items))
    return sorted(enumerate(items), key=lambda pair: derive_seed(*parts, pack, pair[0]))[place][1]


def _split(split: Split, concept: str, seed: int) -> SplitName:
    if concept in split.held_out_concepts:
        return "test"
    drawn = seed / 2**63
    if drawn < split.train:
        return "train"
    return "validation" if drawn < split.train + split.validation else "test"


def _bases(spec: Spec, rotation: int) -> dict[tuple[str, ...], int]:
    """Member index of the base of each cell of the base axes."""
    edit_cells = cells([spec.axis(name) for name in spec.edit_axes])
    chosen = _pick(edit_cells[rotation % len(edit_cells)], spec.edit_axes)
    return {
        _pick(cell, spec.base_axes): index
        for index, cell in enumerate(cells(spec.axes))
        if _pick(cell, spec.edit_axes) == chosen
    }


def _pick(cell: dict[str, str], axes: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell[name] for name in axes)
