"""What a tiny multimodal model is taught about a portrait: questions and answers, in the words of `debias`.

A question about the concept is asked as `debias.questions.Question` words it. Where the picture shows nothing of it the
answer is still the concept that it was drawn for: all that can be learnt there is how often each comes with whom.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from debias.models.base import MultimodalModel
from debias.questions import LETTERS, Question, in_words
from debias.wording import CAPTIONS
from generators.concepts import CONCEPTS
from generators.paperdolls.data import AXES
from generators.paperdolls.palettes import COLOURS
from generators.paperdolls.world import CONCEPT_NAMES, OBJECTS, SCENES, TIMES, Portrait, caption_parts
from generators.prompts import TEMPLATES, fill

from .general import COUNTS, Asked, general_questions

#: Questions about the concept, and general ones, for each time that a picture is shown.
CONCEPT_QUESTIONS, GENERAL_QUESTIONS = 3, 2
#: How often a sentence is asked for as well.
_SENTENCES = 0.2
#: What has to be learnt before letters can be: to see it, to say the right option, to find its letter.
TEXT, LOOKUP = "Answer with the text of one of the given choices directly.", "Which letter has {}?"
OPEN = "Who is this person?"
#: Lookups in a row without a picture.
LOOKUPS = 6
WORDS = (*map(in_words, CONCEPT_NAMES), *COLOURS, *SCENES, *TIMES, *COUNTS, *OBJECTS)
_WHO = Question().text
_GROUPS = {
    name: tuple(other for other, one in CONCEPTS.items() if one.group == concept.group)
    for name, concept in CONCEPTS.items()
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question with its answer as text.

    Attributes:
        instruction: what is asked.
        answer: what is to be said.
    """

    instruction: str
    answer: str


def lessons(portrait: Portrait, rng: random.Random) -> list[Lesson]:
    """What is asked about a portrait when it is shown once."""
    every = general_questions(portrait, rng)
    general = rng.sample(every, GENERAL_QUESTIONS)
    asked = [*(concept_question(portrait.concept, rng) for _ in range(CONCEPT_QUESTIONS)), *general]
    taught = [lesson_of(one) for one in asked]
    taught += [in_full(asked[0]), in_full(general[0]), lookup(rng.choice(asked), rng)]
    taught += [Lesson(OPEN, in_words(portrait.concept)), *(Lesson(one.text, one.answer) for one in every)]
    return [*taught, _sentence(portrait, rng)] if rng.random() < _SENTENCES else taught


def general_lessons(portrait: Portrait, rng: random.Random) -> list[Lesson]:
    """General questions alone."""
    return [lesson_of(one) for one in rng.sample(general_questions(portrait, rng), GENERAL_QUESTIONS)]


def concept_question(concept: str, rng: random.Random) -> Asked:
    """Which concept it is: of its group, or of some drawn from all."""
    pool = _GROUPS[concept] if rng.random() < 0.5 else CONCEPT_NAMES
    others = [name for name in pool if name != concept]
    options = [concept, *rng.sample(others, rng.randint(1, min(6, len(others))))]
    rng.shuffle(options)
    return Asked(_WHO, tuple(map(in_words, options)), in_words(concept))


def lesson_of(asked: Asked) -> Lesson:
    """A multiple choice, answered by its letter."""
    instruction = Question(text=asked.text).instruction(asked.options)
    return Lesson(instruction, LETTERS[asked.options.index(asked.answer)])


def in_full(asked: Asked) -> Lesson:
    """A multiple choice, answered by the option itself."""
    return Lesson(Question(text=asked.text, closing=TEXT).instruction(asked.options), asked.answer)


def lookup(asked: Asked, rng: random.Random) -> Lesson:
    """Which letter one of the options has, whatever the picture shows."""
    place = rng.randrange(len(asked.options))
    text = LOOKUP.format(asked.options[place])
    return Lesson(Question(text=text).instruction(asked.options), LETTERS[place])


def lookups(rng: random.Random) -> list[Lesson]:
    """Some lookups among drawn words, without a picture."""
    found = []
    for _ in range(LOOKUPS):
        options = tuple(rng.sample(WORDS, rng.randint(2, 6)))
        found.append(lookup(Asked(_WHO, options, options[0]), rng))
    return found


def _sentence(portrait: Portrait, rng: random.Random) -> Lesson:
    """A request for a sentence; of a portrait that shows nothing of its concept, the place."""
    parts = caption_parts(portrait)
    phrase = rng.choice(parts.phrases) if parts.phrases else parts.scene
    told = fill(rng.choice(TEMPLATES), AXES, {}, phrase)
    return Lesson(rng.choice(CAPTIONS), f"{told}.")


def tokens_of(model: MultimodalModel, taught: Sequence[Lesson]) -> list[tuple[list[int], list[int]]]:
    """Tokens of each lesson's prompt, with one for the image, and of its answer with the end."""
    prompts = [model.prompt(one.instruction) for one in taught]
    wholes = [
        f"{prompt}{'' if prompt[-1:].isspace() else ' '}{one.answer}"
        for prompt, one in zip(prompts, taught, strict=True)
    ]
    end = model.processor.tokenizer.eos_token_id
    found = []
    for prompt, whole in zip(prompts, wholes, strict=True):
        before, all_ = model.tokens(prompt), model.tokens(whole)
        found.append((before, [*all_[len(before) :], end]))
    return found
