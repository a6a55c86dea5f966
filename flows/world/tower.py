"""The vision tower: a small CLIP vision transformer that learns to see every label of rendered portraits.

Not the shipped CLIP: that is a ResNet of open_clip, and LLaVA's class takes a tower of transformers that gives one feature
for each patch. It learns from portraits without bias, so that what is biased later is the language model alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPVisionConfig, CLIPVisionModel

from generators.paperdolls.data import from_bytes
from generators.paperdolls.readers import disturb
from generators.paperdolls.training import Schedule, train

from .pictures import LABELS, UNSEEN, drawn_portrait, label_ids, rendered

SIZE, PATCH, WIDTH, LAYERS = 128, 16, 96, 3
SCHEDULE = Schedule(steps=1500, batch=48, rate=2e-3, ema=0.99)
PICTURES = 8_000
_FIRST, _HELD_OUT = 20 * 10**6, 21 * 10**6


def build_tower() -> CLIPVisionModel:
    """An untrained tower."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
        image_size=SIZE, patch_size=PATCH, initializer_range=0.05,
    )  # fmt: skip
    return CLIPVisionModel(config)


class Seer(nn.Module):
    """Reads labels from patches: one attention query for each label. Only for training a tower."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(0.1 * torch.randn(len(LABELS), width))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in LABELS.items()})

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(B, T, width) to logits by label."""
        seen = self.norm(patches)
        asked = self.queries.expand(len(seen), -1, -1)
        found, _ = self.attention(asked, seen, seen, need_weights=False)
        return {name: head(found[:, place]) for place, (name, head) in enumerate(self.heads.items())}


def patches_of(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """What LLaVA's projector is given: the last layer's patches without the class token, (B, 64, width)."""
    found = tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    return found  # type: ignore[no-any-return]


def seen_loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over the labels."""
    each = [
        functional.cross_entropy(logits[name].float(), labels[name], ignore_index=UNSEEN) for name in LABELS
    ]
    return torch.stack(each).mean()


def train_tower(folder: Path, seed: int = 0, schedule: Schedule = SCHEDULE, pictures: int = PICTURES) -> Path:
    """Train a tower, print what it reads from held-out portraits, and save it as `folder`/tower.

    Args:
        folder: where checkpoints and the tower go; again = continue.
        seed: of weights and batches.
        schedule: how long.
        pictures: rendered beforehand; each is seen several times.
    """
    torch.manual_seed(seed)
    tower, seer = build_tower(), Seer(WIDTH)
    portraits = [drawn_portrait(_FIRST + number) for number in range(pictures)]
    images, labels = rendered(portraits), label_ids(portraits)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(pictures, (schedule.batch,), generator=generator)
        pixels = disturb(from_bytes(images[chosen]), generator)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # faster on short sequences
            logits = seer(patches_of(tower, pixels))
        return seen_loss(logits, {name: ids[chosen] for name, ids in labels.items()})

    modules = nn.ModuleDict({"tower": tower, "seer": seer})
    train("tower", modules, loss_of, schedule, folder, seed)
    tower.half().save_pretrained(folder / "tower")
    print("tower:", {name: f"{share:.1%}" for name, share in accuracy(tower.float(), seer).items()})
    return folder / "tower"


@torch.no_grad()
def accuracy(tower: CLIPVisionModel, seer: Seer, count: int = 500) -> dict[str, float]:
    """Share of held-out portraits of which each label is read right."""
    portraits = [drawn_portrait(_HELD_OUT + number) for number in range(count)]
    labels: dict[str, Any] = label_ids(portraits)
    logits = seer(patches_of(tower, from_bytes(rendered(portraits))))
    found = {}
    for name, ids in labels.items():
        there = ids != UNSEEN
        found[name] = float((logits[name].argmax(-1) == ids)[there].float().mean())
    return found
