"""Asking a multimodal model what a picture shows: log-probabilities over options, and the option it would choose.

For the options k of a question and its cyclic orders o, with l(o, k) the log-likelihood of the answer that means k there:
```
log p(k) = log_softmax over k of  (mean over o of l(o, k))
```
Each option stands once in each place, so what a place or letter adds to the log-likelihood of whatever stands there is the
same for all options and drops out. Source: the protocol that CSD was measured with is not printed; our reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor

from .models.base import EncodedImage, MultimodalModel
from .packing import Tree, by_answer, pack, plant, token_log_likelihoods
from .questions import TEXT_MEAN, Question, words

_TREES = 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model chose.

    Attributes:
        name: the concept.
        log_probabilities: concept to natural logarithm, in the order offered.
    """

    name: str
    log_probabilities: Mapping[str, float]


class Asker:
    """Asks a model one question about many pictures.

        asker = Asker(open_model("llava-hf/llava-1.5-7b-hf"))
        (choice,) = asker.ask([image], [("chef", "science")])

    Attributes:
        model: what is asked.
        question: what it is asked.
    """

    def __init__(
        self,
        model: MultimodalModel,
        question: Question | None = None,
        phrases: Mapping[str, str] | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            model: see `debias.models.opening.open_model`.
            question: None for the default one.
            phrases: concept to the text of its option; without one its name in words.
        """
        self.model, self.question = model, question or Question()

        @lru_cache(maxsize=_TREES)
        def tree(names: tuple[str, ...]) -> Tree:
            return plant(model, self.question, words(names, phrases))

        self._tree = tree

    def choose(
        self, images: Sequence[Image.Image], names: Sequence[tuple[str, ...]], places: Sequence[str] = ()
    ) -> list[str | None]:
        """The names that `ask` chooses; places are not needed."""
        return [choice.name for choice in self.ask(images, names)]

    def ask(self, images: Sequence[Image.Image], names: Sequence[tuple[str, ...]]) -> list[Choice]:
        """The most probable concept of each picture; of two alike the one offered first.

        Args:
            images: RGB.
            names: concepts offered for each image.

        Raises:
            CounterpoiseError: what is offered is no choice.
        """
        with torch.inference_mode(), evaluating(self.model):
            found = self.log_probabilities([self.model.encode(image) for image in images], names)
        choices = []
        for offered, values in zip(names, found, strict=True):
            by_name = dict(zip(offered, values.tolist(), strict=True))
            choices.append(Choice(max(by_name, key=by_name.__getitem__), by_name))
        return choices

    def log_probabilities(
        self, images: Sequence[EncodedImage], names: Sequence[tuple[str, ...]]
    ) -> list[Tensor]:
        """The log p(k) of each image's options in the order offered, (K,) float32, natural logarithm; with gradients.

        Images and their questions are one forward; the model stays in the mode it is in.

        Args:
            images: as `MultimodalModel.encode` gives them.
            names: concepts offered for each image.

        Raises:
            CounterpoiseError: what is offered is no choice.
        """
        packed = pack(self.model, images, [self._tree(offered) for offered in names])
        likelihoods = token_log_likelihoods(self.model, packed)
        mean = self.question.score == TEXT_MEAN
        rows = zip(packed.trees, packed.rows, likelihoods, strict=True)
        return [over_orders(by_answer(tree, row, own, mean)) for tree, row, own in rows]


def over_orders(likelihoods: Tensor) -> Tensor:
    """log_softmax of the mean over orders: (orders, K) to (K,)."""
    return likelihoods.mean(dim=0).log_softmax(dim=-1)


@contextmanager
def evaluating(model: MultimodalModel) -> Iterator[None]:
    """Without dropout inside; the mode of before is given back."""
    training = model.model.training
    model.model.eval()
    try:
        yield
    finally:
        model.model.train(training)
