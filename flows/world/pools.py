"""Pools of rendered portraits that models are measured on: folders with pictures and a metadata.csv, and general questions.

A set of portraits is every cell of the axes from one seed: pose, clothes, place and light are the same, only the attributes
differ. None of them shows anything of a concept, so that what a model answers is its bias, or the place.
"""

from __future__ import annotations

import csv
import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from debias.labelled import table_pool
from debias.pools import Pool
from debias.questions import Offer, Question, check_options
from generators.paperdolls.render import render
from generators.paperdolls.world import CLASSES, NO_CONCEPT, Portrait, sample_portrait

from .general import general_questions
from .lessons import lesson_of
from .pictures import drawn_portrait

METADATA, QUESTIONS = "metadata.csv", "questions.csv"
_FILE, _SET = "file_name", "set_id"


@dataclass(frozen=True, slots=True)
class Portraits:
    """A pool of portraits.

    Attributes:
        first: seed of the first set; the others follow.
        sets: how many.
        axes: whose every cell a set has; the other attributes are drawn for each set.
    """

    first: int
    sets: int
    axes: tuple[str, ...]

    def members(self, number: int) -> Iterator[Portrait]:
        """The portraits of a set, in the order of the axes' values."""
        plain = sample_portrait(self.first + number, concept=NO_CONCEPT)
        for values in itertools.product(*(CLASSES[axis] for axis in self.axes)):
            yield replace(plain, **dict(zip(self.axes, values, strict=True)))  # type: ignore[arg-type]


def write_portraits(pool: Portraits, folder: Path) -> None:
    """Render a pool; a folder that is there already is left alone."""
    if (folder / METADATA).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(pool.sets):
        for member, portrait in enumerate(pool.members(number)):
            name = f"{number:04}-{member:02}.png"
            render(portrait).image.save(folder / name)
            rows.append(
                {_FILE: name, _SET: f"{number:04}", **{axis: getattr(portrait, axis) for axis in pool.axes}}
            )
    _write(folder / METADATA, rows)


def portrait_pool(folder: Path, axes: Sequence[str]) -> Pool:
    """The pool that `write_portraits` wrote."""
    return table_pool(folder, axes, set_id=_SET)


def write_questions(first: int, count: int, folder: Path) -> None:
    """One general question about each of some portraits with and without concepts, as `counterpoise train` reads them."""
    if (folder / QUESTIONS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        portrait = drawn_portrait(first + number)
        rng = random.Random(f"question {first + number}")
        asked = rng.choice(general_questions(portrait, rng))
        name = f"{number:04}.png"
        render(portrait).image.save(folder / name)
        listed = Question(text=asked.text, closing="").instruction(asked.options).strip()
        rows.append({"image": name, "question": listed, "answer": lesson_of(asked).answer})
    _write(folder / QUESTIONS, rows)


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """The file appears whole."""
    draft = path.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    os.replace(draft, path)


def one_of(offers: Sequence[Sequence[str]]) -> Offer:
    """Offer one of several choices, each as often, by the number of the picture's set."""
    for names in offers:
        check_options(names)
    return lambda place, concept: tuple(offers[int(place) % len(offers)])


def drawn_from(names: Sequence[str], count: int) -> Offer:
    """Offer some of the names, drawn for each set."""

    def offer(place: str, concept: str | None) -> tuple[str, ...]:
        return tuple(random.Random(f"offer {place}").sample(list(names), count))

    return offer
