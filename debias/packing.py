"""All orders and answers of a question in one sequence behind one image: what they share is run once.

A packed row is a tree: the prefix (image and question, up to where the orders part), then branch after branch (the rest
of an order's prompt), then leaf after leaf (an answer's tokens but the last). A token sees what is before it on its own
way from the root and has the position that it would have there; so it is what it would be in a run of that way alone.
One forward does it, without a cache, so that gradients and gradient checkpointing work as in any training step.

Notation: B images, L tokens of a packed row, R tokens that answers are scored at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from storage.errors import CounterpoiseError

from .models.base import EncodedImage, MultimodalModel
from .questions import LETTER, LETTERS, Question, check_options

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One order.

    Attributes:
        rest: tokens of its prompt behind the prefix, one at least.
        answers: tokens of each option's answer, by the option's place in the given order.
    """

    rest: Tokens
    answers: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A question as tokens; the image is one token.

    Attributes:
        prefix: what all orders begin with; holds the image.
        branches: the orders.
    """

    prefix: Tokens
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A packed row, without its prefix's image.

    Attributes:
        tokens: of branches and leaves, behind the prefix.
        depth: how far behind the prefix each is on its own way.
        parent: place of the token before it on its way, -1 for the prefix's last.
        scored: (place, token, branch, option) of every token of every answer: `token` is predicted at `place`.
    """

    tokens: list[int]
    depth: list[int]
    parent: list[int]
    scored: list[tuple[int, int, int, int]]


def plant(model: MultimodalModel, question: Question, options: Sequence[str]) -> Tree:
    """A question about some options as tokens.

    Every order is tokenized as a whole, with each answer behind it, so that tokens are those of a plain run.

    Raises:
        CounterpoiseError: the options are no choice, or the prompt does not show the image before the options.
    """
    check_options(options)
    orders = [_order(model, question, options, order) for order in question.orders(len(options))]
    shared = common([prompt for prompt, _ in orders])
    shared = shared[: min(len(prompt) for prompt, _ in orders) - 1]
    if shared.count(model.image_token_id) != 1:
        raise CounterpoiseError(
            f"model {model.name!r}: its prompt shows the options before the image; a chat template that shows the image "
            "first is wanted."
        )
    branches = tuple(Branch(prompt[len(shared) :], answers) for prompt, answers in orders)
    return Tree(shared, branches)


def _order(
    model: MultimodalModel, question: Question, options: Sequence[str], order: Sequence[int]
) -> tuple[Tokens, tuple[Tokens, ...]]:
    """Tokens of one order's prompt, and of the answers behind it."""
    prompt = model.prompt(question.instruction([options[place] for place in order]))
    shown = list(LETTERS[: len(order)]) if question.score == LETTER else [options[place] for place in order]
    space = "" if prompt[-1:].isspace() else " "
    whole = [tuple(model.tokens(f"{prompt}{space}{answer}")) for answer in shown]
    start = common([tuple(model.tokens(prompt)), *whole])
    if not start or any(len(one) == len(start) for one in whole):
        raise CounterpoiseError(
            f"model {model.name!r}: its tokenizer makes nothing of an answer of {shown}; give other words."
        )
    answers: list[Tokens] = [()] * len(order)
    for place, one in zip(order, whole, strict=True):
        answers[place] = one[len(start) :]
    return start, tuple(answers)


def common(sequences: Sequence[Tokens]) -> Tokens:
    """The tokens that all sequences begin with."""
    first, last = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]


def flatten(tree: Tree) -> Row:
    """Branches and leaves of a tree, one behind the other."""
    row = Row([], [], [], [])

    def grow(tokens: Iterable[int], parent: int, depth: int) -> int:
        for token in tokens:
            row.tokens.append(token)
            row.parent.append(parent)
            row.depth.append(depth)
            parent, depth = len(row.tokens) - 1, depth + 1
        return parent

    for number, branch in enumerate(tree.branches):
        end = grow(branch.rest, -1, 0)
        for option, answer in enumerate(branch.answers):
            first = len(row.tokens)
            grow(answer[:-1], end, len(branch.rest))
            places = [end, *range(first, len(row.tokens))]
            row.scored.extend(
                (place, token, number, option) for place, token in zip(places, answer, strict=True)
            )
    return row


def seen(parents: Sequence[int]) -> Tensor:
    """(n, n), true where token i (row) sees token j (column) of branches and leaves: j is i or before it on its way."""
    mask = torch.eye(len(parents), dtype=torch.bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            mask[place] |= mask[parent]
    return mask


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of packed rows, padded in front.

    Attributes:
        inputs: keyword arguments of the model.
        places: (R,), where some row is scored, counted from the end (-1 is the last), in order.
        trees: of each row.
        rows: what is scored in each row.
        length: tokens of the longest row.
    """

    inputs: dict[str, Any]
    places: Tensor
    trees: tuple[Tree, ...]
    rows: tuple[Row, ...]
    length: int


def pack(model: MultimodalModel, images: Sequence[EncodedImage], trees: Sequence[Tree]) -> Packed:
    """One forward's inputs for B images, each with its own question.

    Raises:
        CounterpoiseError: a row is longer than the model's sliding window.
    """
    flat = {tree: flatten(tree) for tree in trees}
    masks = {tree: seen(row.parent) for tree, row in flat.items()}
    made = [
        _row(model, image, tree, flat[tree], masks[tree]) for image, tree in zip(images, trees, strict=True)
    ]
    length = max(len(tokens) for tokens, _, _ in made)
    _check_window(model, length)
    device, dtype = model.device, model.network.dtype
    ids = torch.stack([functional.pad(tokens, (length - len(tokens), 0)) for tokens, _, _ in made])
    positions = torch.stack([functional.pad(at, (length - at.shape[-1], 0)) for _, at, _ in made], dim=-2)
    mask = torch.eye(length, dtype=torch.bool, device=device).repeat(len(made), 1, 1)  # padding sees itself
    for one, (_, _, sees) in zip(mask, made, strict=True):
        one[length - len(sees) :, length - len(sees) :] = sees
    bias = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, torch.finfo(dtype).min)
    moved = [model.move(image) for image in images]
    pictures = {name: torch.cat([one[name] for one in moved]) for name in moved[0]}
    rows = tuple(flat[tree] for tree in trees)
    places = sorted({place - len(row.tokens) for row in rows for place, *_ in row.scored})
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": bias[:, None], **pictures}
    return Packed(inputs, torch.tensor(places, device=device), tuple(trees), rows, length)


def _row(
    model: MultimodalModel, image: EncodedImage, tree: Tree, row: Row, sees: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (l,), positions (l,) or (3, l), and who sees whom (l, l), of one image's row."""
    at = tree.prefix.index(model.image_token_id)
    prefix = [*tree.prefix[:at], *[model.image_token_id] * image.tokens, *tree.prefix[at + 1 :]]
    before = torch.tensor(prefix)
    begun = model.positions(before, image.inputs)
    behind = begun.max() + 1 + torch.tensor(row.depth).expand(*begun.shape[:-1], -1)
    size = len(prefix) + len(row.tokens)
    mask = torch.ones(size, size, dtype=torch.bool).tril_()
    mask[len(prefix) :, len(prefix) :] = sees
    device = model.device
    tokens = torch.cat([before, torch.tensor(row.tokens)])
    return tokens.to(device), torch.cat([begun, behind], dim=-1).to(device), mask.to(device)


def _check_window(model: MultimodalModel, length: int) -> None:
    """A mask of our own leaves no room for one of the model's."""
    window = getattr(model.network.config.get_text_config(), "sliding_window", None)
    if window and length > window:
        raise CounterpoiseError(
            f"model {model.name!r}: {length} tokens of image, question and options are more than its sliding window of "
            f"{window}; offer fewer options or show smaller pictures."
        )


def token_log_likelihoods(model: MultimodalModel, packed: Packed) -> list[Tensor]:
    """Log-likelihood of every scored token of every row, natural logarithm, float32, in the order of `Row.scored`."""
    logits = model.model(
        **packed.inputs, use_cache=False, logits_to_keep=packed.length + packed.places
    ).logits
    column = {place: number for number, place in enumerate(packed.places.tolist())}
    found = []
    for row, own in zip(packed.rows, logits, strict=True):
        at = [column[place - len(row.tokens)] for place, *_ in row.scored]
        tokens = torch.tensor([token for _, token, *_ in row.scored], device=own.device)
        found.append(_chosen(own.float(), torch.tensor(at, device=own.device), tokens))
    return found


def _chosen(logits: Tensor, at: Tensor, tokens: Tensor) -> Tensor:
    """The log softmax of `logits` (R, V) at row `at` and column `tokens`, both (n,)."""
    return logits[at, tokens] - logits.logsumexp(dim=-1)[at]


def by_answer(tree: Tree, row: Row, likelihoods: Tensor, mean: bool = False) -> Tensor:
    """Log-likelihood of every answer in every order, the sum or mean over its tokens, (orders, options).

    Args:
        tree: of the row.
        row: what was scored.
        likelihoods: as `token_log_likelihoods` gave them for the row.
        mean: over the tokens, else their sum.
    """
    shape = (len(tree.branches), len(tree.branches[0].answers))
    cells = [branch * shape[1] + option for _, _, branch, option in row.scored]
    cell = torch.tensor(cells, device=likelihoods.device)
    total = likelihoods.new_zeros(shape[0] * shape[1]).index_add(0, cell, likelihoods)
    return (total / cell.bincount() if mean else total).view(shape)
