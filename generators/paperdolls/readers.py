"""Stages 3 and 4: the segmenter of the person, and the classifier that reads labels from pictures.

Both are transformers models with their labels in `id2label`, so that real ones take the same road. Classifier labels
are written "axis/value", e.g. "gender/woman"; one softmax per axis.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    ViTImageProcessor,
)

from .data import label_ids, masks, pixels, renders
from .training import Schedule, train
from .world import CLASSES

SEGMENTER_SCHEDULE = Schedule(steps=1600, batch=16, rate=3e-3)
CLASSIFIER_SCHEDULE = Schedule(steps=2000, batch=48, rate=3e-3)
HELD_OUT = range(5 * 10**6, 5 * 10**6 + 1000)
_HALF = [0.5, 0.5, 0.5]
LABELS = [f"{axis}/{value}" for axis, values in CLASSES.items() for value in values]


def build_segmenter() -> SegformerForSemanticSegmentation:
    """Return an untrained segmenter with the labels background and person."""
    config = SegformerConfig(
        hidden_sizes=[16, 32, 48, 64],
        patch_sizes=[5, 3, 3, 3],
        strides=[2, 2, 2, 2],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 2, 4],
        sr_ratios=[8, 4, 2, 1],
        decoder_hidden_size=48,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        id2label={0: "background", 1: "person"},
        label2id={"background": 0, "person": 1},
    )
    return SegformerForSemanticSegmentation(config)


def build_classifier() -> ResNetForImageClassification:
    """Return an untrained classifier of every label in `world.CLASSES`."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return ResNetForImageClassification(config)


def split_logits(logits: Tensor) -> dict[str, Tensor]:
    """Cut logits (B, all labels) into one block (B, K) per axis."""
    sizes = [len(values) for values in CLASSES.values()]
    return dict(zip(CLASSES, logits.split(sizes, dim=-1), strict=True))


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, dim and roughen pictures (B, 3, H, W) a little, as any generator might."""
    shape = (len(images), 1, 1, 1)
    blurred = functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = torch.lerp(images, blurred, torch.rand(shape, generator=generator))
    images = images * (1 + 0.1 * (torch.rand(shape, generator=generator) - 0.5))
    strength = 0.15 * torch.rand(shape, generator=generator)
    return images + strength * torch.randn(images.shape, generator=generator)


def train_segmenter(folder: Path, weights: Path, seed: int) -> None:
    """Train the segmenter, print its IoU on held-out renders, save as `weights`/segmenter."""
    model, count = build_segmenter(), SEGMENTER_SCHEDULE.batch

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        batch = renders(range(step * count, (step + 1) * count))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(disturb(pixels(batch), generator)).logits
        full = functional.interpolate(logits.float(), size=128, mode="bilinear")
        return functional.cross_entropy(full, masks(batch))

    train("segmenter", nn.ModuleDict({"model": model}), loss_of, SEGMENTER_SCHEDULE, folder, seed)
    model.half().save_pretrained(weights / "segmenter")
    size = {"height": 128, "width": 128}
    SegformerImageProcessor(size=size, image_mean=_HALF, image_std=_HALF).save_pretrained(
        weights / "segmenter"
    )
    print(f"segmenter: IoU {segmenter_iou(model.float()):.3f} on {len(HELD_OUT)} held-out renders")


@torch.no_grad()
def segmenter_iou(model: nn.Module) -> float:
    """Return intersection over union of the person, summed over the held-out renders."""
    inter = union = 0
    for start in range(0, len(HELD_OUT), 100):
        batch = renders(HELD_OUT[start : start + 100])
        full = functional.interpolate(model(pixels(batch)).logits, size=128, mode="bilinear")
        found, true = full.argmax(1) == 1, masks(batch) == 1
        inter, union = inter + int((found & true).sum()), union + int((found | true).sum())
    return inter / union


def train_classifier(folder: Path, weights: Path, seed: int) -> None:
    """Train the classifier on rendered pictures alone, print its held-out accuracy, save as `weights`/classifier."""
    model, count = build_classifier().to(memory_format=torch.channels_last), CLASSIFIER_SCHEDULE.batch

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        batch = renders(range(step * count, (step + 1) * count))
        with torch.autocast("cpu", torch.bfloat16):
            logits = split_logits(model(disturb(pixels(batch), generator)).logits.float())
        return sum(functional.cross_entropy(logits[axis], ids) for axis, ids in label_ids(batch).items())  # type: ignore[return-value]

    train("classifier", nn.ModuleDict({"model": model}), loss_of, CLASSIFIER_SCHEDULE, folder, seed)
    model.half().save_pretrained(weights / "classifier")
    size = {"height": 128, "width": 128}
    ViTImageProcessor(size=size, image_mean=_HALF, image_std=_HALF).save_pretrained(weights / "classifier")
    print("classifier:", {axis: f"{share:.1%}" for axis, share in classifier_accuracy(model.float()).items()})


@torch.no_grad()
def classifier_accuracy(model: nn.Module) -> dict[str, float]:
    """Return the share of held-out renders read right, by axis."""
    right = dict.fromkeys(CLASSES, 0)
    for start in range(0, len(HELD_OUT), 100):
        batch = renders(HELD_OUT[start : start + 100])
        logits = split_logits(model(pixels(batch)).logits)
        for axis, ids in label_ids(batch).items():
            right[axis] += int((logits[axis].argmax(-1) == ids).sum())
    return {axis: count / len(HELD_OUT) for axis, count in right.items()}
