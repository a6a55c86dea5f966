"""Rendered pictures and captions for training; everything follows from seeds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.prompts import TEMPLATES, fill
from generators.spec import Axis

from .render import Rendered, render
from .world import AGES, CLASSES, GENDERS, RACES, CaptionParts, Portrait, sample_portrait

AXES = (Axis("gender", GENDERS, "person"), Axis("age", AGES, ""), Axis("race", RACES, ""))


def pixels(images: Sequence[Rendered]) -> Tensor:
    """Stack pictures to a float tensor (B, 3, 128, 128) in [-1, 1]."""
    stacked = np.stack([np.asarray(item.image) for item in images])
    return from_bytes(torch.from_numpy(stacked))


def from_bytes(images: Tensor) -> Tensor:
    """Turn (B, H, W, 3) bytes into (B, 3, H, W) floats in [-1, 1]."""
    return (
        images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)
    )


def masks(images: Sequence[Rendered]) -> Tensor:
    """Stack person masks to (B, 128, 128) int64 of 0 and 1."""
    return torch.from_numpy(np.stack([np.asarray(item.mask) > 0 for item in images])).long()


def training_portrait(seed: int, partial: float = 0.0) -> Portrait:
    """Draw a portrait for training; with probability `partial` its concept is shown in part only."""
    rng = random.Random(f"cue {seed}")
    cue = rng.random() if rng.random() < partial else 1.0
    return sample_portrait(seed, cue=cue)


def renders(seeds: Sequence[int], partial: float = 0.0) -> list[Rendered]:
    """Render the training portraits of these seeds."""
    return [render(training_portrait(seed, partial)) for seed in seeds]


def label_ids(images: Sequence[Rendered]) -> dict[str, Tensor]:
    """Return class ids (B,) of every label in `world.CLASSES`."""
    return {
        name: torch.tensor([values.index(str(item.labels[name])) for item in images])
        for name, values in CLASSES.items()
    }


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and the labels that it states, by name."""

    text: str
    stated: dict[str, str]


def caption(parts: CaptionParts, rng: random.Random, drop: float = 0.12) -> Caption:
    """Say what a picture shows, in one of the shipped templates and paraphrases.

    Each attribute and the concept are left out with probability `drop`, so that neutral prompts work; what prompts
    seldom name (accessory, scene, time, objects) is said about half the time.
    """
    values = {name: getattr(parts, name) for name in ("gender", "age", "race") if rng.random() >= drop}
    phrase = rng.choice(parts.phrases) if parts.phrases and rng.random() >= drop else ""
    text = fill(rng.choice(TEMPLATES), AXES, values, phrase)
    spoken = {"accessory": 0.8, "scene": 0.7, "time": 0.4, "objects": 0.5}
    extra = {
        name: word
        for name, chance in spoken.items()
        if (word := getattr(parts, name)) and rng.random() < chance
    }
    words = [("with " + word if name == "objects" else word) for name, word in extra.items()]
    stated = values | ({"concept": parts.concept} if phrase else {}) | extra
    return Caption(", ".join([text, *words]), stated)


def truth_table(captions: Sequence[Caption], parts: Sequence[CaptionParts]) -> Tensor:
    """Return (C, P) booleans: does every statement of caption c hold of picture p?"""
    table = torch.ones(len(captions), len(parts), dtype=torch.bool)
    for name in ("gender", "age", "race", "concept", "accessory", "scene", "time", "objects"):
        said = np.array([item.stated.get(name, "") for item in captions])
        true = np.array([getattr(item, name) for item in parts])
        table &= torch.from_numpy((said[:, None] == "") | (said[:, None] == true[None, :]))
    return table
