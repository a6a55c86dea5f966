"""Stage 2: a small CLIP (an `open_clip` model), which scores the embedded world through the code of the real ones."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from .data import Caption, caption, pixels, training_portrait, truth_table
from .readers import disturb
from .render import Rendered, render
from .training import Schedule, train
from .world import ATTRIBUTES, CLASSES, CONCEPT_NAMES, CaptionParts, Portrait

CONFIG = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 128, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
TWINS = 6
SCHEDULE = Schedule(steps=2000, batch=12, rate=1.5e-3, decay=0.05, ema=0.995)
_TWIN_LABELS = ("gender", "gender", "age", "age", "race", "race", "concept", "time", "accessory")


def build() -> nn.Module:
    """Return an untrained model."""
    return open_clip.CLIP(**CONFIG)


def twins(seed: int, count: int = TWINS) -> list[Portrait]:
    """Return a training portrait and twins in the same scene that differ in one label each."""
    base, rng = training_portrait(seed, partial=0.1), random.Random(f"twins {seed}")
    found = [base]
    for label in rng.sample(_TWIN_LABELS, count - 1):
        values = CONCEPT_NAMES if label == "concept" else CLASSES[label]
        found.append(replace(base, **{label: rng.choice([v for v in values if v != getattr(base, label)])}))
    return found


def twin_captions(parts: CaptionParts, seed: str, drop: float = 0.06) -> tuple[Caption, Caption]:
    """Return a caption and the same sentence with one attribute wrong; the same twice if it states none."""
    right = caption(parts, random.Random(seed), drop)
    rng = random.Random(f"wrong {seed}")
    if not (stated := [label for label in ATTRIBUTES if label in right.stated]):
        return right, right
    label = rng.choice(stated)
    other = rng.choice([value for value in CLASSES[label] if value != right.stated[label]])
    return right, caption(replace(parts, **{label: other}), random.Random(seed), drop)


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


def twin_loss(image: Tensor, right: Tensor, wrong: Tensor, scale: Tensor) -> Tensor:
    """Hard negative captions (Yuksekgonul et al. 2023, section 4): -log of the right one's share against the wrong one.

    Args:
        image: unit features (P, D).
        right: unit features (P, D) of true captions.
        wrong: unit features (P, D) of the same sentences with one attribute wrong.
        scale: inverse temperature.
    """
    return functional.softplus(scale * (image * (wrong - right)).sum(-1)).mean()


def _batch(number: int) -> tuple[list[Rendered], list[Caption], list[Caption]]:
    count = SCHEDULE.batch
    seeds = range(3 * 10**6 + number * count, 3 * 10**6 + (number + 1) * count)
    images = [render(twin) for seed in seeds for twin in twins(seed)]
    pairs = [twin_captions(item.parts, f"captions {number} {k}") for k, item in enumerate(images)]
    return images, [right for right, _ in pairs], [wrong for _, wrong in pairs]


def train_clip(folder: Path, weights: Path, seed: int) -> None:
    """Train and save as `weights`/clip, which `open_clip` loads as "local-dir:..."."""
    model, tokenizer = build().to(memory_format=torch.channels_last), SimpleTokenizer()

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        images, captions, wrong = _batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(disturb(pixels(images), generator), normalize=True).float()
            text = model.encode_text(
                tokenizer([item.text for item in (*captions, *wrong)]), normalize=True
            ).float()
        scale, count = model.logit_scale.exp().clamp(max=50), len(captions)
        truth = truth_table(captions, [item.parts for item in images])
        contrastive = contrastive_loss(image, text[:count], scale, truth)
        return contrastive + twin_loss(image, text[:count], text[count:], scale)

    train("clip", nn.ModuleDict({"clip": model}), loss_of, SCHEDULE, folder, seed)
    save(model, weights / "clip")


def save(model: nn.Module, folder: Path) -> None:
    """Write the model in open_clip's folder layout, float16."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in model.state_dict().items() if name != "attn_mask"}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(
        {name: value.contiguous() for name, value in halves.items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
