"""Rendered portraits that models are trained on, and the labels that can be seen in them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from generators.paperdolls.palettes import COLOURS
from generators.paperdolls.render import render, shown_cues
from generators.paperdolls.world import (
    CLASSES,
    CONCEPT_NAMES,
    NO_CONCEPT,
    OBJECTS,
    SCENES,
    BiasTable,
    Portrait,
    sample_portrait,
)

#: Share of portraits that show nothing of their concept, so that only the bias is left to answer by.
CUELESS = 0.4
CUES = (0.25, 0.5, 0.75, 1.0)
HIDDEN = "hidden"
UNSEEN = -100
#: What a tower learns to see; "hidden" where the concept's own place is shown.
LABELS: dict[str, tuple[str, ...]] = {
    **CLASSES,
    "scene": (*SCENES, HIDDEN),
    "count": ("0", "1", "2", "3", "4"),
    "colour": tuple(COLOURS),
    "kind": OBJECTS,
}


def drawn_portrait(seed: int, bias: BiasTable | None = None) -> Portrait:
    """A portrait of one of the 18 concepts, which shows much, little or nothing of it; attributes by `bias`."""
    rng = random.Random(f"drawn {seed}")
    cue = 0.0 if rng.random() < CUELESS else rng.choice(CUES)
    return sample_portrait(seed, concept=rng.choice(CONCEPT_NAMES), cue=cue, bias=bias)


def rendered(portraits: Sequence[Portrait]) -> Tensor:
    """Pictures as bytes, (n, 128, 128, 3)."""
    return torch.from_numpy(np.stack([np.asarray(render(portrait).image) for portrait in portraits]))


def visible(portrait: Portrait) -> dict[str, int]:
    """Place of every label among `LABELS`; `UNSEEN` where the picture cannot show it."""
    cues = shown_cues(portrait)
    told = {name: str(getattr(portrait, name)) for name in ("gender", "age", "race", "accessory", "time")}
    told["concept"] = portrait.concept if cues else NO_CONCEPT
    told["scene"] = HIDDEN if "place" in cues else portrait.scene
    told["count"] = str(portrait.object_count)
    found = {name: LABELS[name].index(value) for name, value in told.items()}
    there = portrait.object_count > 0
    found["colour"] = LABELS["colour"].index(portrait.object_colour) if there else UNSEEN
    found["kind"] = LABELS["kind"].index(portrait.object_kind) if there else UNSEEN
    return found


def label_ids(portraits: Sequence[Portrait]) -> dict[str, Tensor]:
    """`visible` of portraits, (n,) by name."""
    seen = [visible(portrait) for portrait in portraits]
    return {name: torch.tensor([one[name] for one in seen]) for name in LABELS}
