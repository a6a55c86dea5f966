"""Vision towers: small transformers of real classes that learn to see every label of rendered portraits.

Not the shipped CLIP: that is a ResNet of open_clip, and LLaVA's class takes a tower of transformers that gives one feature
for each patch. Towers learn from portraits without bias, so that what is biased later is the language model alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from generators.paperdolls.data import from_bytes
from generators.paperdolls.readers import disturb
from generators.paperdolls.training import Schedule, train

from .pictures import LABELS, UNSEEN, drawn_portrait, label_ids, rendered

SIZE, PATCH, WIDTH, LAYERS, HEADS = 128, 16, 96, 3, 4
#: Qwen2-VL joins so many patches by so many to one image token, and takes a still picture as so many frames.
MERGE, FRAMES = 2, 2
LLAVA, QWEN = "llava", "qwen"
#: Patches of a picture that are asked at a step.
ASKED = 4
SCHEDULE = Schedule(steps=2000, batch=48, rate=2e-3, ema=0.99)
PICTURES, HELD_OUT = 8_000, 500
_FIRST, _HELD_OUT = 20 * 10**6, 21 * 10**6


def clip_tower() -> CLIPVisionModel:
    """An untrained tower for LLaVA's class."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        image_size=SIZE, patch_size=PATCH, initializer_range=0.05,
    )  # fmt: skip
    return CLIPVisionModel(config)


def qwen_tower() -> Qwen2VisionTransformerPretrainedModel:
    """An untrained tower of Qwen2-VL's class; its last part, the merger, is for the language model to be trained with."""
    config = Qwen2VLVisionConfig(
        depth=LAYERS, embed_dim=WIDTH, hidden_size=WIDTH, num_heads=HEADS, mlp_ratio=2, patch_size=PATCH,
        spatial_merge_size=MERGE, temporal_patch_size=FRAMES, initializer_range=0.05,
    )  # fmt: skip
    return Qwen2VisionTransformerPretrainedModel(config)


TOWERS: dict[str, Callable[[], PreTrainedModel]] = {LLAVA: clip_tower, QWEN: qwen_tower}


def patches_of(tower: Any, pixels: Tensor) -> Tensor:
    """What a tower gives the projector: features of 64 patches, (B, 64, width).

    Args:
        tower: of one of the two classes.
        pixels: (B, 3, 128, 128) in [-1, 1].
    """
    if isinstance(tower, CLIPVisionModel) or tower.config.model_type.startswith("clip"):
        found: Tensor = tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        return found
    side = SIZE // PATCH
    grid = torch.tensor([[1, side, side]]).expand(len(pixels), -1)
    seen: Tensor = tower(_flat_patches(pixels), grid_thw=grid).last_hidden_state
    return seen.view(len(pixels), side * side, -1)


def _flat_patches(pixels: Tensor) -> Tensor:
    """Patches in the order of Qwen2-VL's image processor, (B * 64, 3 * frames * patch * patch)."""
    count, channels, size, _ = pixels.shape
    cells = size // PATCH // MERGE
    cut = pixels.reshape(count, channels, cells, MERGE, PATCH, cells, MERGE, PATCH)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, FRAMES, -1, -1)
    return cut.reshape(count * (cells * MERGE) ** 2, -1)


class Seer(nn.Module):
    """Reads every label from any single patch. Only for training a tower.

    So each patch has to learn of the whole picture, and a language model finds it whichever patch it looks at.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in LABELS.items()})

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(B, T, width) to logits by label, (B, T, values)."""
        seen = self.norm(patches)
        return {name: head(seen) for name, head in self.heads.items()}


def seen_loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over labels and patches: logits (B, T, values), labels (B,)."""
    each = [
        functional.cross_entropy(
            found.flatten(0, 1), labels[name].repeat_interleave(found.shape[1]), ignore_index=UNSEEN
        )
        for name, found in logits.items()
    ]
    return torch.stack(each).mean()


def tower_folder(folder: Path, kind: str) -> Path:
    """Where `train_tower` saves a tower of a kind."""
    return folder / f"{kind}-tower"


def train_tower(
    kind: str,
    folder: Path,
    seed: int = 0,
    schedule: Schedule = SCHEDULE,
    pictures: int = PICTURES,
    held_out: int = HELD_OUT,
) -> Path:
    """Train a tower, print what it reads from held-out portraits, and save it in `tower_folder`.

    Args:
        kind: one of `TOWERS`.
        folder: where checkpoints and the tower go; again = continue.
        seed: of weights and batches.
        schedule: how long.
        pictures: rendered beforehand; each is seen several times.
        held_out: portraits that it is tried on.
    """
    torch.manual_seed(seed)
    tower, seer = TOWERS[kind](), Seer(WIDTH)
    portraits = [drawn_portrait(_FIRST + number) for number in range(pictures)]
    images, labels = rendered(portraits), label_ids(portraits)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(pictures, (schedule.batch,), generator=generator)
        pixels = disturb(from_bytes(images[chosen]), generator)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # faster on short sequences
            patches = patches_of(tower, pixels)
        some = torch.randint(patches.shape[1], (ASKED,), generator=generator)
        logits = seer(patches[:, some])
        return seen_loss(logits, {name: ids[chosen] for name, ids in labels.items()})

    out = tower_folder(folder, kind)
    train(out.name, nn.ModuleDict({"tower": tower, "seer": seer}), loss_of, schedule, folder, seed)
    tower.save_pretrained(out)
    print(f"{out.name}:", {name: f"{share:.1%}" for name, share in accuracy(tower, seer, held_out).items()})
    return out


@torch.no_grad()
def accuracy(tower: Any, seer: Seer, count: int) -> dict[str, float]:
    """Share of held-out portraits of which each label is read right."""
    portraits = [drawn_portrait(_HELD_OUT + number) for number in range(count)]
    labels = label_ids(portraits)
    logits = seer(patches_of(tower, from_bytes(rendered(portraits))))
    found = {}
    for name, ids in labels.items():
        there = ids != UNSEEN
        found[name] = float((logits[name].log_softmax(-1).mean(1).argmax(-1) == ids)[there].float().mean())
    return found
