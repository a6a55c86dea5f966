"""Items of a dataset as inputs of a model: image, question and answer, with labels on the answer's tokens alone.

A multiple choice asks as `debias.questions.Question` does, the options in an order drawn by (seed, epoch, key), or by the
set where sets are kept together, so that all members are asked the same. The answer is the letter of the true one, and the
end. A share of items asks for a sentence instead; its answer is the neutral prompt. No answer names a value of an axis.
Source: the training text of CSD (Cheng et al. 2025) is not printed in the paper; this is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from storage.errors import CounterpoiseError
from storage.images import decoded
from storage.items import Item

from ..losses import IGNORED
from ..models.base import MultimodalModel
from ..packing import Tree, plant
from ..questions import Offer, Question, in_words, words
from ..sampling import drawn
from ..wording import CAPTIONS, Wording

#: Columns of a dataset that examples are made of.
FIELDS = ("set_id", "concept", "neutral_prompt")
_TREES = 4096
_NO_LETTER = -1


@dataclass(frozen=True, slots=True)
class Example:
    """A question about a picture as tokens, without padding.

    Attributes:
        prompt: up to where the answer begins; the image is one token.
        answer: with its end.
        letters: the first token of every letter, in a fixed order of the concepts; empty for a sentence.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    letters: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """Makes examples.

    Attributes:
        model: whose tokens.
        offer: concepts offered for a picture.
        values: every value of every axis; no answer names one.
        seed: of every draw.
        caption_share: share of items that ask for a sentence.
        by_set: members of a set are asked the same.
        question: what is asked.
    """

    model: MultimodalModel
    offer: Offer
    values: Sequence[str]
    seed: int = 0
    caption_share: float = 0.25
    by_set: bool = False
    question: Question = field(default_factory=lambda: Question(cyclic=False))

    @cached_property
    def _wording(self) -> Wording:
        return Wording(self.values)

    @cached_property
    def _tree(self) -> Any:
        @lru_cache(maxsize=_TREES)
        def tree(options: tuple[str, ...]) -> Tree:
            return plant(self.model, self.question, options)

        return tree

    def example(self, item: Item, epoch: int) -> Example:
        """What is asked about an item in an epoch, and the answer.

        Raises:
            CounterpoiseError: the options are no choice, or the concept's name is a value of an axis.
        """
        name = item["set_id"] if self.by_set else item["key"]
        place = (self.seed, epoch, name, int(item["copy"]))
        if drawn("kind", *place) < self.caption_share:
            return self._caption(item, place)
        return self._choice(item, place)

    def _choice(self, item: Item, place: tuple[str | int, ...]) -> Example:
        offered = self.offer(item["set_id"], item["concept"])
        order = sorted(offered, key=lambda name: drawn("order", *place, name))
        tree = self._tree(words(order))
        (branch,) = tree.branches
        if self.by_set and any(len(answer) > 1 for answer in branch.answers):
            raise CounterpoiseError(
                f"model {self.model.name!r}: its letters are several tokens, so that answers over options cannot be read "
                "from one place; give consistency 0."
            )
        letters = tuple(branch.answers[order.index(name)][0] for name in offered)
        right = branch.answers[order.index(item["concept"])]
        return Example((*tree.prefix, *branch.rest), (*right, *self._end), letters)

    def _caption(self, item: Item, place: tuple[str | int, ...]) -> Example:
        question = CAPTIONS[int(drawn("caption", *place) * len(CAPTIONS))]
        prompt = self.model.prompt(question)
        space = "" if prompt[-1:].isspace() else " "
        before = self.model.tokens(prompt)
        whole = self.model.tokens(f"{prompt}{space}{self._sentence(item)}")
        same = next((n for n, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        return Example(tuple(whole[:same]), (*whole[same:], *self._end), ())

    def _sentence(self, item: Item) -> str:
        def concept() -> str:
            word = in_words(item["concept"])
            if found := self._wording.value_in(word):
                raise CounterpoiseError(
                    f"concept {item['concept']!r} names the value {found!r}: an answer must not; give caption_share 0."
                )
            return word

        return self._wording.sentence(item["neutral_prompt"], concept)

    @cached_property
    def _end(self) -> tuple[int, ...]:
        end = self.model.processor.tokenizer.eos_token_id
        return () if end is None else (end,)


@dataclass(frozen=True)
class Collator:
    """Batches of items as inputs of one forward, padded.

    Attributes:
        examples: what is asked.
        epoch: of the draws.
        weighted: instances have their sidecar's weights, else 1.
        padding_side: "left" or "right"; it changes nothing but where padding lies.
    """

    examples: Examples
    epoch: int
    weighted: bool = True
    padding_side: str = "left"

    def __call__(self, batch: Sequence[Item]) -> dict[str, Any]:
        """One forward's inputs.

        Returns:
            `inputs`: keyword arguments of the model, without labels. `labels`: (B, T), -100 but at the answers. `weights`:
            (B,). `keys`: of the images. `first`: (B,), place of each answer's first token. `letters`: (B, K), first tokens
            of the options' letters, -1 where there is none. `sets`: (B,), a number for each copy of a set; -1 where a
            sentence is asked for.
        """
        model = self.examples.model
        made = [self.examples.example(item, self.epoch) for item in batch]
        encoded = [model.encode(decoded(item["image"], item["key"])) for item in batch]
        rows = [_row(model, one, image.tokens) for one, image in zip(made, encoded, strict=True)]
        places = [model.positions(row, image.inputs) for row, image in zip(rows, encoded, strict=True)]
        length = max(len(row) for row in rows)
        pads = [self._pad(length - len(row)) for row in rows]
        labels = [
            functional.pad(torch.tensor(one.answer), (len(row) - len(one.answer), 0), value=IGNORED)
            for one, row in zip(made, rows, strict=True)
        ]
        pixels = {name: torch.cat([image.inputs[name] for image in encoded]) for name in encoded[0].inputs}
        inputs = {
            "input_ids": _stack(rows, pads, self._filler()),
            "attention_mask": _stack([torch.ones_like(row) for row in rows], pads, 0),
            "position_ids": _stack(places, pads, 0),
            **pixels,
        }
        firsts = [pad[0] + len(row) - len(one.answer) for one, row, pad in zip(made, rows, pads, strict=True)]
        widest = max(len(one.letters) for one in made)
        letters = [[*one.letters, *[_NO_LETTER] * (widest - len(one.letters))] for one in made]
        return {
            "inputs": inputs,
            "labels": _stack(labels, pads, IGNORED),
            "weights": torch.tensor([item["weight"] if self.weighted else 1.0 for item in batch]),
            "keys": [item["key"] for item in batch],
            "first": torch.tensor(firsts),
            "letters": torch.tensor(letters, dtype=torch.long).view(len(made), widest),
            "sets": _sets(batch, made),
        }

    def _pad(self, count: int) -> tuple[int, int]:
        return (count, 0) if self.padding_side == "left" else (0, count)

    def _filler(self) -> int:
        tokenizer = self.examples.model.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0


def _row(model: MultimodalModel, one: Example, image_tokens: int) -> Tensor:
    """Tokens of prompt and answer, the image's as many as there are."""
    at = one.prompt.index(model.image_token_id)
    image = [model.image_token_id] * image_tokens
    return torch.tensor([*one.prompt[:at], *image, *one.prompt[at + 1 :], *one.answer])


def _stack(rows: Sequence[Tensor], pads: Sequence[tuple[int, int]], value: int) -> Tensor:
    """Rows of one length, (B, T), or (3, B, T)."""
    padded = [functional.pad(row, pad, value=value) for row, pad in zip(rows, pads, strict=True)]
    return torch.stack(padded, dim=-2)


def _sets(batch: Sequence[Item], made: Sequence[Example]) -> Tensor:
    numbers: dict[tuple[str, int], int] = {}
    found = []
    for item, one in zip(batch, made, strict=True):
        copy = (item["set_id"], int(item["copy"]))
        found.append(numbers.setdefault(copy, len(numbers)) if one.letters else -1)
    return torch.tensor(found)
