"""Teaching a tiny multimodal model about rendered portraits, with bias or without.

The tower is frozen, so what it sees of every picture is computed once. All questions about a picture are one packed row
behind it, as `debias.packing` asks them: each sees the picture and itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from debias.models.base import MultimodalModel
from generators.paperdolls.data import from_bytes
from generators.paperdolls.readers import disturb
from generators.paperdolls.training import Schedule, generator_for, train
from generators.paperdolls.world import BiasTable, Portrait

from .building import projected, tower_of
from .lessons import Lesson, lessons, lookups, tokens_of
from .pictures import drawn_portrait, rendered
from .tower import patches_of

SCHEDULE = Schedule(steps=3600, batch=12, rate=2.5e-3, ema=0.99)
#: The first steps are without pictures: what letters are for is learnt from words alone, at a fraction of the cost.
WORDS_ALONE = 800
PICTURES = 8_000
_FIRST = 30 * 10**6
Curriculum = Callable[[Portrait, random.Random], list[Lesson]]
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows of a batch, padded behind.

    Attributes:
        ids: (B, T); image tokens as many as there are.
        depth: (B, T), each token's place on its own way; positions follow from it.
        branch: (B, T), 0 for the picture, then a number for each question; -1 for padding.
        places, targets, weights: (n,), flat places whose next token is learnt, that token, and 1 / tokens of its answer.
    """

    ids: Tensor
    depth: Tensor
    branch: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor

    def mask(self) -> Tensor:
        """(B, 1, T, T), 0 where a token sees another, else the least number."""
        own, length = self.branch, self.ids.shape[1]
        same = (own[:, :, None] == own[:, None, :]) | (own[:, None, :] == 0)
        sees = same & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.zeros(sees.shape).masked_fill_(~sees, torch.finfo(torch.float32).min)[:, None]


def pack(model: MultimodalModel, taught: Sequence[Sequence[tuple[list[int], list[int]]]], image: int) -> Rows:
    """Rows of pictures and their lessons as `tokens_of` gives them, `image` tokens each picture."""
    made = [_row(one, model.image_token_id, image) for one in taught]
    length = max(len(ids) for ids, *_ in made)
    filler = model.processor.tokenizer.pad_token_id

    def padded(place: int, value: int) -> Tensor:
        return torch.tensor([[*row[place], *[value] * (length - len(row[0]))] for row in made])

    scored = [(number * length + at, *rest) for number, row in enumerate(made) for at, *rest in row[3]]
    places, targets, weights = zip(*scored, strict=True)
    return Rows(
        padded(0, filler), padded(1, 0), padded(2, -1), torch.tensor(places), torch.tensor(targets),
        torch.tensor(weights),
    )  # fmt: skip


def _row(one: Sequence[tuple[list[int], list[int]]], mark: int, image: int) -> Any:
    prompt = one[0][0]
    shared = prompt.index(mark) + 1
    prefix = [*prompt[: shared - 1], *[mark] * image]
    ids, depth, branch = list(prefix), list(range(len(prefix))), [0] * len(prefix)
    scored = []
    for number, (before, answer) in enumerate(one, start=1):
        rest = [*before[shared:], *answer]
        start = len(ids) + len(before) - shared - 1
        scored += [(start + k, token, 1 / len(answer)) for k, token in enumerate(answer)]
        depth += range(len(prefix), len(prefix) + len(rest))
        branch += [number] * len(rest)
        ids += rest[:]
    return ids, depth, branch, scored


def answer_loss(model: MultimodalModel, features: Tensor | None, rows: Rows, positions: Tensor) -> Tensor:
    """Mean over answers of the mean cross-entropy of their tokens.

    Args:
        model: its language model and projector are trained.
        features: what the tower saw, (B, ...); None for rows without pictures.
        rows: of the batch.
        positions: of the prefix' tokens, (P,) or (3, P).
    """
    network: Any = model.network
    embedded = network.get_input_embeddings()(rows.ids)
    if features is not None:
        images = (rows.ids == model.image_token_id)[..., None]
        embedded = embedded.masked_scatter(images, projected(model, features).to(embedded.dtype))
    at = positions_of(rows, positions)
    hidden = network.model.language_model(
        inputs_embeds=embedded, attention_mask=rows.mask(), position_ids=at, use_cache=False
    ).last_hidden_state
    logits = network.lm_head(hidden.flatten(0, 1)[rows.places])
    each = functional.cross_entropy(logits.float(), rows.targets, reduction="none")
    return (rows.weights * each).sum() / rows.weights.sum()


def positions_of(rows: Rows, prefix: Tensor) -> Tensor:
    """(B, T), or (3, B, T): the prefix' own, then one further for each token of a question."""
    size = prefix.shape[-1]
    behind = prefix.max() + 1 + torch.arange(int(rows.depth.max()) + 1)
    every = torch.cat([prefix, behind.expand(*prefix.shape[:-1], -1)], dim=-1)
    return every[..., rows.depth.clamp(max=every.shape[-1] - 1)] if size else every


def train_base(
    model: MultimodalModel,
    name: str,
    folder: Path,
    bias: BiasTable | None,
    seed: int = 0,
    schedule: Schedule = SCHEDULE,
    pictures: int = PICTURES,
    curriculum: Curriculum = lessons,
    words_alone: int = WORDS_ALONE,
) -> Path:
    """Teach a model and save it, float16, as `folder`/`name`.

    Args:
        model: untrained but for its tower.
        name: of the checkpoint and of the model's folder.
        folder: where they go; again = continue.
        bias: how often each concept comes with whom; None for independent.
        seed: of the batches.
        schedule: how long.
        pictures: rendered beforehand; each is seen several times.
        curriculum: what is asked about a portrait when it is shown.
        words_alone: of the steps, so many first ones are without pictures.
    """
    portraits = [drawn_portrait(_FIRST + number, bias) for number in range(pictures)]
    features = _features(model, portraits, seed)
    prefix, image = prefix_of(model)
    network: Any = model.network
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    trained = nn.ModuleDict(
        {"projector": _projector(model), "language": network.model.language_model, "head": network.lm_head}
    )
    trained.requires_grad_(True)

    def of_words(step: int) -> Tensor:
        rng = random.Random(f"words {seed} {step}")
        taught = [tokens_of(model, lookups(rng)) for _ in range(schedule.batch)]
        rows = pack(model, taught, 0)
        return answer_loss(model, None, rows, prefix[..., : prefix.shape[-1] - image])

    def of_pictures(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(pictures, (schedule.batch,), generator=generator).tolist()
        rng = random.Random(f"lessons {seed} {step}")
        taught = [tokens_of(model, curriculum(portraits[number], rng)) for number in chosen]
        rows = pack(model, taught, image)
        return answer_loss(model, features[chosen].float(), rows, prefix)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # faster on short sequences
            return of_words(step) if step < words_alone else of_pictures(step, generator)

    train(name, trained, loss_of, schedule, folder, seed)
    network.half().save_pretrained(folder / name)
    model.processor.save_pretrained(folder / name)
    return folder / name


def _projector(model: MultimodalModel) -> nn.Module:
    (name,) = model.adapter.projector
    found: nn.Module = model.network.get_submodule(name)
    return found


def prefix_of(model: MultimodalModel) -> tuple[Tensor, int]:
    """Positions of what stands before a question, and how many image tokens are in it."""
    encoded = model.encode(Image.new("RGB", (128, 128)))
    tokens = model.tokens(model.prompt("?"))
    at = tokens.index(model.image_token_id)
    row = torch.tensor([*tokens[:at], *[model.image_token_id] * encoded.tokens])
    return model.positions(row, encoded.inputs), encoded.tokens


@torch.no_grad()
def _features(model: MultimodalModel, portraits: Sequence[Portrait], seed: int) -> Tensor:
    """What the tower sees of every picture, roughened as a generator's are, (n, ...) in half precision."""
    found = []
    for start in range(0, len(portraits), _CHUNK):
        images = from_bytes(rendered(portraits[start : start + _CHUNK]))
        rough = disturb(images, generator_for(seed, "features", start))
        found.append(patches_of(tower_of(model), rough).half())
    return torch.cat(found)
