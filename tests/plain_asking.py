"""Asking the plain way: every option in every order as a run of its own, by processor and model alone."""

from __future__ import annotations

import torch
from PIL import Image

from debias.models.base import MultimodalModel
from debias.questions import LETTER, LETTERS, TEXT_MEAN, Question


def plain_likelihoods(
    model: MultimodalModel, image: Image.Image, question: Question, options: tuple[str, ...]
) -> torch.Tensor:
    """Log-likelihood of every option's answer in every order, (orders, options)."""
    found = []
    for order in question.orders(len(options)):
        prompt = model.prompt(question.instruction([options[place] for place in order]))
        row = torch.zeros(len(options))
        for shown, place in enumerate(order):
            answer = LETTERS[shown] if question.score == LETTER else options[place]
            space = "" if prompt.endswith("\n") else " "
            row[place] = _likelihood(model, image, prompt, space + answer, question.score == TEXT_MEAN)
        found.append(row)
    return torch.stack(found)


def _likelihood(
    model: MultimodalModel, image: Image.Image, prompt: str, answer: str, mean: bool
) -> torch.Tensor:
    start, whole = (
        model.processor(images=image, text=text, return_tensors="pt") for text in (prompt, prompt + answer)
    )
    begin = start["input_ids"].shape[1]
    assert torch.equal(whole["input_ids"][:, :begin], start["input_ids"])
    logits = model.model(**whole).logits[0].float().log_softmax(dim=-1)
    tokens = whole["input_ids"][0, begin:]
    each = logits[range(begin - 1, begin - 1 + len(tokens)), tokens]
    return each.mean() if mean else each.sum()
