"""Multiple choice about a picture: its words, the cyclic orders of its options, and which options are offered.

Question form: LLaVA-1.5's multiple choice (Liu et al. 2024). Which question CSD was measured with is not printed in the
paper (Cheng et al. 2025); the words, the log-likelihood of letters and its mean over cyclic orders are our reading.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from storage.errors import CounterpoiseError

LETTERS = string.ascii_uppercase
LETTER, TEXT_MEAN, TEXT_SUM = "letter", "text_mean", "text_sum"
SCORES = (LETTER, TEXT_MEAN, TEXT_SUM)
#: Names of the concepts that are offered for a picture, by what is known of it: its set or else its key, and its concept.
Offer = Callable[[str, str | None], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how an answer is scored.

    Attributes:
        text: the question.
        closing: what is said after the options; None for LLaVA-1.5's sentence, or for texts one without letters.
        score: "letter" for the log-likelihood of the option's letter, "text_mean" and "text_sum" for that of the tokens of
            its text, without an end, per token or in all. In all, an option that another one begins with always wins.
        cyclic: average over the cyclic orders of the options; else the given order alone is asked.
    """

    text: str = "Which of the following best describes this person?"
    closing: str | None = None
    score: str = LETTER
    cyclic: bool = True

    def __post_init__(self) -> None:
        """Refuse unknown scores."""
        if self.score not in SCORES:
            raise CounterpoiseError(f"score {self.score!r}: one of {', '.join(SCORES)} is wanted.")

    def instruction(self, options: Sequence[str]) -> str:
        """The question with its options in the given order, A first."""
        closing = self.closing
        if closing is None:
            what = "option's letter from" if self.score == LETTER else "text of one of"
            closing = f"Answer with the {what} the given choices directly."
        listed = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        return "\n".join([self.text, *listed, closing])

    def orders(self, count: int) -> list[tuple[int, ...]]:
        """The orders in which so many options are offered, as places in the given order: each option once in each place."""
        return [rotated(count, start) for start in range(count if self.cyclic else 1)]


def rotated(count: int, start: int) -> tuple[int, ...]:
    """start, start + 1, ..., start - 1."""
    return tuple((start + place) % count for place in range(count))


def check_options(options: Sequence[str]) -> None:
    """Refuse texts that are no choice.

    Raises:
        CounterpoiseError: fewer than two, one twice, an empty one, or more than there are letters.
    """
    given = ", ".join(map(repr, options)) or "none"
    if len(options) < 2:
        raise CounterpoiseError(f"options {given}: two or more are wanted; give further concepts.")
    if len(options) > len(LETTERS):
        raise CounterpoiseError(f"{len(options)} options: {len(LETTERS)} at most have a letter; offer fewer.")
    folded = [option.strip().casefold() for option in options]
    for option, text in zip(options, folded, strict=True):
        if not text or "\n" in option:
            raise CounterpoiseError(f"option {option!r}: one line of text is wanted.")
        if folded.count(text) > 1:
            raise CounterpoiseError(f"option {option!r} is offered twice: each is wanted once.")


def words(names: Sequence[str], phrases: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Concepts as options: the caller's phrases by name; without one, the name in words."""
    return tuple((phrases or {}).get(name, in_words(name)) for name in names)


def in_words(concept: str) -> str:
    """A concept's name in words."""
    return concept.replace("_", " ")


def same_for_all(names: Sequence[str]) -> Offer:
    """Offer the same concepts for every picture, as for pools without concepts.

    Raises:
        CounterpoiseError: they are no choice.
    """
    check_options(names)
    offered = tuple(names)
    return lambda place, concept: offered


def of_the_group(groups: Mapping[str, Sequence[str]]) -> Offer:
    """Offer the concepts of the picture's own group, in the order of `groups` (group to concepts).

    Raises:
        CounterpoiseError: a group is no choice; later, where a picture's concept is in none.
    """
    for names in groups.values():
        check_options(names)
    by_concept = {name: tuple(names) for names in groups.values() for name in names}
    return lambda place, concept: by_concept[_known(place, concept, by_concept)]


def choices(groups: Mapping[str, Sequence[str]]) -> Offer:
    """Offer the concepts of a picture's group; all concepts where a group has but one.

    Raises:
        CounterpoiseError: there is a single concept.
    """
    every = sorted({name for names in groups.values() for name in names})
    if len(every) < 2:
        raise CounterpoiseError(
            f"the dataset has the one concept {every[0]!r}: two or more are wanted for a choice; generate more."
        )
    alone = {names[0] for names in groups.values() if len(names) == 1}
    all_of_them = same_for_all(every) if alone else None
    grouped = of_the_group({group: names for group, names in groups.items() if len(names) > 1})

    def offer(place: str, concept: str | None) -> tuple[str, ...]:
        return all_of_them(place, concept) if all_of_them and concept in alone else grouped(place, concept)

    return offer


def with_distractors(concepts: Sequence[str], count: int = 9, seed: int = 0) -> Offer:
    """Offer the true concept and some others, all in an order that is drawn too.

    Drawn by seed, set and name, or by key where there is no set: the members of a counterfactual set are asked the same.
    Source: "true + 9 distractors", our reading of how SocialCounterfactuals is asked about; not printed in the paper.

    Raises:
        CounterpoiseError: there are not so many; later, where a picture's concept is none of them.
    """
    names = tuple(dict.fromkeys(concepts))
    if not 1 <= count < min(len(names), len(LETTERS)):
        raise CounterpoiseError(
            f"{count} distractors beside the true one of {len(names)} concepts: 1 to "
            f"{min(len(names), len(LETTERS)) - 1} are wanted."
        )

    def offer(place: str, concept: str | None) -> tuple[str, ...]:
        right = _known(place, concept, names)
        others = sorted((name for name in names if name != right), key=lambda name: _drawn(seed, place, name))
        return tuple(sorted([right, *others[:count]], key=lambda name: _drawn(seed, place, "order", name)))

    return offer


def _known(place: str, concept: str | None, known: Sequence[str] | Mapping[str, object]) -> str:
    if concept is None:
        raise CounterpoiseError(
            f"{place}: it has no concept, so what to offer is unknown; offer the same for all."
        )
    if concept not in known:
        raise CounterpoiseError(
            f"{place}: concept {concept!r} is none of {', '.join(known)}; offer it as well."
        )
    return concept


def _drawn(*parts: str | int) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def turned(options: Sequence[str], seed: int, place: str) -> tuple[int, ...]:
    """One cyclic order, drawn by seed and place, for models that are asked once."""
    start = int.from_bytes(_drawn(seed, place, "turn")[:8], "big") % len(options)
    return rotated(len(options), start)
