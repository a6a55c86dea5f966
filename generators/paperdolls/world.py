"""What a portrait says: its labels, how they are drawn at random, and the words for them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from generators.concepts import CONCEPTS

from .palettes import COLOURS

GENDERS = ("woman", "man")
AGES = ("young", "old")
RACES = ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino")
ATTRIBUTES = ("gender", "age", "race")
ACCESSORIES = ("none", "glasses", "headscarf")
SCENES = ("park", "street", "beach", "library", "living room", "studio")
TIMES = ("day", "evening", "night")
OBJECTS = ("balloon", "lantern", "star")
NO_CONCEPT = "none"
CONCEPT_NAMES = tuple(CONCEPTS)

#: Values of every label; the order of `CLASSES[label]` is the order of classifier outputs.
CLASSES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "age": AGES,
    "race": RACES,
    "accessory": ACCESSORIES,
    "concept": (NO_CONCEPT, *CONCEPT_NAMES),
    "time": TIMES,
}

#: label -> concept -> value -> probability; what is not named is uniform.
BiasTable = Mapping[str, Mapping[str, Mapping[str, float]]]

_BIASED = ("gender", "age", "race", "accessory", "time")
_TIME_WORDS = {"day": "by day", "evening": "in the evening", "night": "at night"}
_SCENE_WORDS = {
    "park": "in a park",
    "street": "in a street",
    "beach": "on a beach",
    "library": "in a library",
    "living room": "in a living room",
    "studio": "in a studio",
}
_COUNT_WORDS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Portrait:
    """Everything that is asked of one picture; `seed` decides the rest (pose, hair style, scenery, light).

    `cue` in [0, 1] says how much of the concept is shown: prop, clothes, expression and place come one by one.
    """

    gender: str
    age: str
    race: str
    concept: str = NO_CONCEPT
    cue: float = 1.0
    accessory: str = "none"
    scene: str = "studio"
    time: str = "day"
    object_kind: str = "balloon"
    object_count: int = 0
    object_colour: str = "red"
    seed: int = 0

    def labels(self) -> dict[str, str | float | int]:
        """Return every label by name."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "seed"}


@dataclass(frozen=True, slots=True)
class CaptionParts:
    """The words for a portrait; a part that the picture does not have is the empty string."""

    gender: str
    age: str
    race: str
    concept: str
    accessory: str
    scene: str
    time: str
    objects: str
    phrases: tuple[str, ...] = field(default=())


def caption_parts(portrait: Portrait) -> CaptionParts:
    """Return the words for `portrait`; `phrases` are the concept's paraphrases."""
    concept = CONCEPTS.get(portrait.concept)
    shows_concept = concept is not None and portrait.cue > 0
    count = _COUNT_WORDS[portrait.object_count]
    plural = "s" if portrait.object_count > 1 else ""
    return CaptionParts(
        gender=portrait.gender,
        age=portrait.age,
        race=portrait.race,
        concept=portrait.concept if shows_concept else "",
        accessory="" if portrait.accessory == "none" else _accessory_words(portrait.accessory),
        scene="" if shows_concept else _SCENE_WORDS[portrait.scene],
        time=_TIME_WORDS[portrait.time],
        objects=f"{count} {portrait.object_colour} {portrait.object_kind}{plural}"
        if portrait.object_count
        else "",
        phrases=concept.phrases if concept is not None and shows_concept else (),
    )


def _accessory_words(accessory: str) -> str:
    return "wearing glasses" if accessory == "glasses" else f"wearing a {accessory}"


def sample_portrait(
    seed: int, *, concept: str | None = None, cue: float = 1.0, bias: BiasTable | None = None
) -> Portrait:
    """Draw a portrait at random, every attribute independent of the others unless `bias` says otherwise.

    Args:
        seed: same seed, same portrait.
        concept: the concept to show; None draws one of the 18 or, one time in ten, none.
        cue: how much of the concept is shown, in [0, 1].
        bias: probability of each value of a label given the concept, e.g. {"gender": {"chef": {"man": 0.9}}}.
    """
    _check_names(bias or {})
    rng = random.Random(f"portrait {seed}")
    if concept is None:
        concept = NO_CONCEPT if rng.random() < 0.1 else rng.choice(CONCEPT_NAMES)
    return Portrait(
        gender=_draw(rng, "gender", concept, bias),
        age=_draw(rng, "age", concept, bias),
        race=_draw(rng, "race", concept, bias),
        concept=concept,
        cue=cue,
        accessory=_draw(rng, "accessory", concept, bias, weights=(0.8, 0.12, 0.08)),
        scene=rng.choice(SCENES),
        time=_draw(rng, "time", concept, bias, weights=(0.5, 0.25, 0.25)),
        object_kind=rng.choice(OBJECTS),
        object_count=rng.choice((0, 0, 0, 1, 2, 3, 4)),
        object_colour=rng.choice(tuple(COLOURS)),
        seed=seed,
    )


def _check_names(bias: BiasTable) -> None:
    for label, table in bias.items():
        if label not in _BIASED:
            raise ValueError(f"bias table: got the label {label!r}, wanted one of {list(_BIASED)}")
        if unknown := sorted(set(table) - set(CLASSES["concept"])):
            raise ValueError(
                f"bias table, {label}: got the concept {unknown[0]!r}, wanted some of {list(CLASSES['concept'])}"
            )


def _draw(
    rng: random.Random,
    label: str,
    concept: str,
    bias: BiasTable | None,
    weights: tuple[float, ...] | None = None,
) -> str:
    values = CLASSES[label]
    given = (bias or {}).get(label, {}).get(concept)
    uniform = weights or (1.0,) * len(values)
    return rng.choices(values, _completed(given, values, f"{label} of {concept}") if given else uniform)[0]


def _completed(given: Mapping[str, float], values: tuple[str, ...], what: str) -> list[float]:
    """Spread the probability that `given` leaves over evenly on the values it does not name."""
    unknown = sorted(set(given) - set(values))
    rest = 1.0 - sum(given.values())
    open_values = [value for value in values if value not in given]
    if unknown or rest < -1e-9 or min(given.values()) < 0 or (not open_values and abs(rest) > 1e-9):
        raise ValueError(
            f"bias table, {what}: got {dict(given)}; wanted probabilities of some of {list(values)} that sum to at most 1"
            " (to exactly 1 if all are named)"
        )
    return [given[value] if value in given else rest / len(open_values) for value in values]
