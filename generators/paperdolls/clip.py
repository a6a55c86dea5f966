"""Stage 2: a small CLIP (an `open_clip` model), which scores the embedded world through the code of the real ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from .data import Caption, caption, halved, pixels, training_portrait, truth_table
from .render import Rendered, render
from .training import Schedule, train
from .world import CLASSES, CONCEPT_NAMES, Portrait

CONFIG = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 160, "head_width": 40, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
TWINS = 6
SCHEDULE = Schedule(steps=800, batch=16, rate=1.5e-3, decay=0.05)
#: A second cycle on the labels that are hardest to see.
SECOND = Schedule(steps=550, batch=16, rate=1.5e-3, decay=0.05, warmup=0.1)
_FIRST_LABELS = ("gender", "age", "race", "race", "concept", "time", "accessory")
_SECOND_LABELS = ("gender", "gender", "age", "age", "race")


def build() -> nn.Module:
    """Return an untrained model."""
    return open_clip.CLIP(**CONFIG)


def twins(seed: int, count: int = TWINS, labels: Sequence[str] = _FIRST_LABELS) -> list[Portrait]:
    """Return a training portrait and twins in the same scene that differ in one label each."""
    base, rng = training_portrait(seed, partial=0.1), random.Random(f"twins {seed}")
    found = [base]
    for label in rng.sample(labels, count - 1):
        values = CONCEPT_NAMES if label == "concept" else CLASSES[label]
        found.append(replace(base, **{label: rng.choice([v for v in values if v != getattr(base, label)])}))
    return found


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) where every true caption of a picture is a positive.

    Args:
        image: unit features (P, D).
        text: unit features (C, D).
        scale: inverse temperature.
        truth: (C, P) booleans from `truth_table`.
    """
    logits = scale * text @ image.T
    target = truth.float()
    by_caption = -(functional.log_softmax(logits, 1) * target).sum(1) / target.sum(1)
    by_picture = -(functional.log_softmax(logits, 0) * target).sum(0) / target.sum(0)
    return (by_caption.mean() + by_picture.mean()) / 2


def _batch(number: int, count: int, labels: Sequence[str]) -> tuple[list[Rendered], list[Caption]]:
    seeds = range(3 * 10**6 + number * count, 3 * 10**6 + (number + 1) * count)
    images = [render(twin) for seed in seeds for twin in twins(seed, labels=labels)]
    rng = random.Random(f"captions {number}")
    return images, [caption(item.parts, rng, drop=0.06) for item in images]


def train_clip(folder: Path, weights: Path, seed: int) -> None:
    """Train in two cycles and save as `weights`/clip, which `open_clip` loads as "local-dir:..."."""
    model, tokenizer = build(), SimpleTokenizer()

    def loss_of(number: int, labels: Sequence[str]) -> Tensor:
        images, captions = _batch(number, SCHEDULE.batch, labels)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(halved(pixels(images)), normalize=True)
            text = model.encode_text(tokenizer([item.text for item in captions]), normalize=True)
        truth = truth_table(captions, [item.parts for item in images])
        return contrastive_loss(image.float(), text.float(), model.logit_scale.exp().clamp(max=50), truth)

    modules = nn.ModuleDict({"clip": model})
    train("clip", modules, lambda step, _: loss_of(step, _FIRST_LABELS), SCHEDULE, folder, seed)
    second = SCHEDULE.steps
    train(
        "clip-second", modules, lambda step, _: loss_of(second + step, _SECOND_LABELS), SECOND, folder, seed
    )
    save(model, weights / "clip")


def save(model: nn.Module, folder: Path) -> None:
    """Write the model in open_clip's folder layout, float16."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items() if name != "attn_mask"},
              folder / "open_clip_model.safetensors")  # fmt: skip
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
