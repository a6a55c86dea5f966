"""Models that reply in text alone: which option a reply means, and asking any of them through one small protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from PIL import Image

from storage.errors import CounterpoiseError

from .questions import LETTERS, Question, check_options, turned, words

_MARKS = re.compile(r"[*_`\"\u201c\u201d]+|(?<!\w)['\u2018\u2019]+|['\u2018\u2019]+(?!\w)")
_LED = r"(?:the\s+)?(?:correct\s+|best\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*"
_LETTER = r"(?:[(\[](?P<{0}closed>[a-z])[)\]][.:,]?|(?P<{0}pointed>[a-z])(?:[.):,]|$)"
_FIRST = re.compile(
    rf"{_LED}{_LETTER.format('led_')}|(?P<led_said>(?-i:[A-Z]))(?!\w))|{_LETTER.format('')})", re.IGNORECASE
)
_SECOND = re.compile(rf"(?:(?:or|and)\b\s*)?{_LETTER.format('')})", re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:no|not|none|neither|nor|cannot|never)\b|n['\u2019]t\b", re.IGNORECASE)


class Answerer(Protocol):
    """Any model, behind an API or not, that answers questions about pictures in words."""

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], options: Sequence[Sequence[str]]
    ) -> Sequence[str]:
        """One text an image.

        Args:
            images: RGB.
            questions: of each image, in full, with options by letter and the request for a letter.
            options: of each image, their texts, A first.
        """


def option_of(answer: str, options: Sequence[str]) -> int | None:
    """Place of the option that an answer means; None if it means none, or several.

    An answer means an option by its letter ("B", "b.", "(B)", "The answer is B") or by its text, in whatever case. A
    letter that another option's text contradicts, two options, or a text that denies ("not a chef") count as no answer.
    """
    text = _plain(answer)
    found = _FIRST.match(text)
    if found is None:
        named, left = _named(text, options)
        return named.pop() if len(named) == 1 and not _DENIAL.search(left) else None
    place = LETTERS.index(next(filter(None, found.groups())).upper())
    rest = text[found.end() :].strip()
    named, _ = _named(rest, options)
    alone = _SECOND.match(rest) is None
    return place if place < len(options) and alone and (not named or place in named) else None


def _plain(text: str) -> str:
    """Without quotes and Markdown, on one line."""
    return " ".join(_MARKS.sub(" ", text).split())


def _named(text: str, options: Sequence[str]) -> tuple[set[int], str]:
    """Options whose texts stand in a text as whole words, of one inside another the longer; and the text without them."""
    folded = [_plain(option).casefold() for option in options]
    longest = sorted(folded, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")
    text = text.casefold()
    return {folded.index(hit[0]) for hit in pattern.finditer(text)}, pattern.sub("", text)


class TextAsker:
    """Asks an `Answerer` once about each picture, the options in a cyclic order drawn for its set.

    Once, as every call may cost; drawn, so that a liking for a place or letter spreads over all options.
    """

    def __init__(
        self,
        answerer: Answerer,
        question: Question | None = None,
        phrases: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        """Ask nothing yet.

        Args:
            answerer: the model.
            question: None for the default one.
            phrases: concept to the text of its option; without one its name in words.
            seed: of the orders.
        """
        self._answerer, self._question = answerer, question or Question()
        self._phrases, self._seed = phrases, seed

    def choose(
        self, images: Sequence[Image.Image], names: Sequence[tuple[str, ...]], places: Sequence[str]
    ) -> list[str | None]:
        """The concept that each answer means; None for what means none.

        Args:
            images: RGB.
            names: concepts offered for each image.
            places: each image's set, or its key where it has none.

        Raises:
            CounterpoiseError: what is offered is no choice, or the answerer gave not one text an image.
        """
        orders = [
            [offered[at] for at in turned(offered, self._seed, place)]
            for offered, place in zip(names, places, strict=True)
        ]
        options = [words(order, self._phrases) for order in orders]
        for one in options:
            check_options(one)
        given = list(self._answerer(images, [self._question.instruction(one) for one in options], options))
        if len(given) != len(images) or not all(isinstance(text, str) for text in given):
            raise CounterpoiseError(
                f"{len(images)} pictures from {places[0]!r}: the answerer gave {given!r:.100}; one text for each is wanted."
            )
        meant = [option_of(text, one) for text, one in zip(given, options, strict=True)]
        return [None if at is None else order[at] for at, order in zip(meant, orders, strict=True)]
