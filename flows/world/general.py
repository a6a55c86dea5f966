"""General questions about a portrait, which have nothing to do with who is drawn: colours, counts, place, time of day."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from generators.paperdolls.palettes import COLOURS
from generators.paperdolls.render import shown_cues
from generators.paperdolls.world import OBJECTS, SCENES, TIMES, Portrait

COUNTS = ("no", "one", "two", "three", "four")
_COLOUR, _PLACE, _TIME = "Which colour have the {}s?", "Which place is it?", "Which time of day is it?"
_COUNT, _KIND = "How many {}s are there?", "Which things are in the air?"
TEXTS = tuple(text.format(kind) for text in (_COLOUR, _COUNT, _PLACE, _TIME, _KIND) for kind in OBJECTS)
_OFFERED = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A multiple choice and its answer.

    Attributes:
        text: the question.
        options: in the order in which they are offered.
        answer: the right one.
    """

    text: str
    options: tuple[str, ...]
    answer: str


def general_questions(portrait: Portrait, rng: random.Random) -> list[Asked]:
    """Every kind of question that the picture answers, options and their order drawn."""
    count, kind = portrait.object_count, portrait.object_kind
    found = [
        _asked(_TIME, portrait.time, TIMES, rng),
        _asked(_COUNT.format(kind), COUNTS[count], COUNTS, rng),
    ]
    if "place" not in shown_cues(portrait):
        found.append(_asked(_PLACE, portrait.scene, SCENES, rng))
    if count:
        found.append(_asked(_COLOUR.format(kind), portrait.object_colour, tuple(COLOURS), rng))
        found.append(_asked(_KIND, kind, OBJECTS, rng))
    return found


def _asked(text: str, answer: str, values: Sequence[str], rng: random.Random) -> Asked:
    others = rng.sample([value for value in values if value != answer], min(_OFFERED, len(values)) - 1)
    options = [answer, *others]
    rng.shuffle(options)
    return Asked(text, tuple(options), answer)
