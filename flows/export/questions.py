"""Words of chat items: what is asked about an image, and the answer, which never mentions an attribute."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from debias.questions import in_words
from debias.sampling import drawn
from debias.wording import CAPTIONS, Wording
from storage import CounterpoiseError, DatasetManifest, Sample
from storage.manifest import Where, read_plan

from .options import OPTIONS_PLACE, Chat

CHOICE = (
    "Which of the following best describes this person?\n{options}\nAnswer with the option's letter and word.",
    "What fits the person in the picture best?\n{options}\nGive the letter and the word.",
    "Choose the description that suits this picture.\n{options}\nReply with letter and word.",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one image, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Questions:
    """Asks about images.

    Attributes:
        chat: seed, templates, share of captions.
        groups: concept group to the words of its concepts.
        attributes: every value of every axis.
    """

    chat: Chat
    groups: Mapping[str, Sequence[str]]
    attributes: Iterable[str]
    _wording: Wording = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the search for attributes in answers."""
        object.__setattr__(self, "_wording", Wording(self.attributes))

    def item(self, sample: Sample, copy: int = 0) -> Item:
        """What is asked about the n-th copy of an image; a function of (seed, key, copy).

        Raises:
            CounterpoiseError: there is no answer that names the concept but no attribute.
        """
        place = (self.chat.seed, sample.key, *((copy,) if copy else ()))
        if drawn(*place, "kind") < self.chat.caption_share:
            return Item(_pick(CAPTIONS, *place, "caption"), self._sentence(sample))
        return self._choice(sample, *place)

    def _choice(self, sample: Sample, *place: str | int) -> Item:
        """Multiple choice over the concepts of the same group, in an order drawn by hash."""
        right = self._concept(sample)
        others = sorted((word for word in self.groups[sample.concept_group] if word != right), key=str)
        order = sorted(others, key=lambda word: drawn(*place, "option", word))
        offered = sorted(
            [right, *order[: len(string.ascii_uppercase) - 1]], key=lambda word: drawn(*place, "order", word)
        )
        lines = [f"{letter}. {word}" for letter, word in zip(string.ascii_uppercase, offered, strict=False)]
        template = _pick(self.chat.questions or CHOICE, *place, "question")
        text = template if OPTIONS_PLACE in template else f"{template}\n{OPTIONS_PLACE}"
        return Item(text.replace(OPTIONS_PLACE, "\n".join(lines)), lines[offered.index(right)])

    def _sentence(self, sample: Sample) -> str:
        return self._wording.sentence(sample.neutral_prompt, lambda: self._concept(sample))

    def _concept(self, sample: Sample) -> str:
        word = in_words(sample.concept)
        if found := self._wording.value_in(word):
            raise CounterpoiseError(
                f"concept {sample.concept!r} names the attribute {found!r}: an answer must not, so it cannot be "
                "exported to chat; give the concept another name"
            )
        return word


def open_questions(dataset: Where, manifest: DatasetManifest, chat: Chat) -> Questions:
    """Questions over the concepts of a dataset's plan.

    Raises:
        CounterpoiseError: a group has a single concept, so that there is no choice.
    """
    groups: dict[str, list[str]] = {}
    for row in read_plan(dataset):
        words = groups.setdefault(row["concept_group"], [])
        if in_words(row["concept"]) not in words:
            words.append(in_words(row["concept"]))
    alone = [name for name, words in groups.items() if len(words) < 2]
    if alone and chat.caption_share < 1:
        every = sorted({word for words in groups.values() for word in words})
        if len(every) < 2:
            raise CounterpoiseError(
                f"the dataset has the one concept {every[0]!r}, wanted two or more for a choice: give --caption-share 1"
            )
        groups.update(dict.fromkeys(alone, every))
    values = [value for axis in manifest.axes.values() for value in axis]
    return Questions(chat, groups, values)


def _pick(choices: Sequence[str], *place: str | int) -> str:
    return choices[int(drawn(*place) * len(choices))]
