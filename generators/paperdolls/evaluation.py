"""Does the small SDXL draw what the words say? Figures of the shipped weights, measured and printed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ResNetForImageClassification, ViTImageProcessor

from generators.concepts import CONCEPTS
from generators.engine import SetRequest
from generators.filters import Score
from generators.plan import Member, cells, derive_seed
from generators.prompts import TEMPLATES, fill, neutral_prompt
from generators.scorer_models import load_clip, load_segmenter
from generators.scorers import background_change, clip_scores
from generators.sdxl import SdxlEngine
from generators.spec import EMBEDDED, Edit, LocalBlend, Sampler, Thresholds

from . import WEIGHTS
from .data import AXES
from .readers import classifier_accuracy, segmenter_iou, split_logits
from .render import render
from .world import CLASSES, CONCEPT_NAMES, Portrait

#: Share of generated pictures that must read as prompted, and of held-out renders that the classifier must read right.
BARS = {"gender": 0.95, "race": 0.92, "age": 0.92, "concept": 0.85}
RENDERED_BAR = 0.98
SEGMENTER_BAR = 0.9
#: What generated pictures may fall short of rendered ones: cosine, share of members read right.
SCORE_MARGIN, SHARE_MARGIN = 0.05, 0.05
#: How the embedded model draws best; the shipped demo spec says the same.
GUIDANCE = 3.0
EDIT = Edit(cross_replace={"default": 0.6, "edited": 0.2}, self_replace=0.9)
BLEND = LocalBlend(words=("edited", "gender"), threshold=0.3, start=0.2)


@dataclass(frozen=True, slots=True)
class Reading:
    """Share read as prompted, by axis: of generated pictures and of held-out renders."""

    generated: dict[str, float]
    rendered: dict[str, float]
    segmenter_iou: float
    pictures: int

    def passed(self) -> bool:
        """Tell whether every bar is met."""
        if self.segmenter_iou < SEGMENTER_BAR or min(self.rendered.values()) < RENDERED_BAR:
            return False
        return all(self.generated[axis] >= bar for axis, bar in BARS.items())


class Classifier:
    """The shipped classifier, which saw rendered pictures alone."""

    def __init__(self, folder: Path = WEIGHTS / "classifier") -> None:
        self.processor = ViTImageProcessor.from_pretrained(folder)
        self.model = ResNetForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """Return the most likely value of every axis for each picture."""
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        found = {
            axis: logits.argmax(-1).tolist()
            for axis, logits in split_logits(self.model(pixels).logits).items()
        }
        return [{axis: CLASSES[axis][ids[k]] for axis, ids in found.items()} for k in range(len(images))]


def balanced_prompts(count: int, seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield prompts balanced over cells and concepts, with what they ask for."""
    every = cells(AXES)
    for k in range(count):
        rng = random.Random(f"{seed} prompt {k}")
        concept = CONCEPT_NAMES[(k + k // len(every)) % len(CONCEPT_NAMES)]
        values = every[k % len(every)]
        prompt = fill(rng.choice(TEMPLATES), AXES, values, rng.choice(CONCEPTS[concept].phrases))
        yield prompt, {**values, "concept": concept}


def evaluate(
    count: int = 500,
    seed: int = 0,
    sampler: Sampler | None = None,
    on_picture: Callable[[], None] | None = None,
) -> Reading:
    """Generate `count` pictures by plain sampling, each from its own noise, and read them."""
    engine, classifier = SdxlEngine("embedded"), Classifier()
    sampler = sampler or Sampler(steps=20, guidance=GUIDANCE)
    right: dict[str, list[bool]] = {axis: [] for axis in BARS}
    for k, (prompt, asked) in enumerate(balanced_prompts(count, seed)):
        member = Member(0, asked, prompt, prompt, 0, "")
        noise = derive_seed(seed, "evaluate", k)
        images = engine.generate(SetRequest((member,), noise, sampler, Edit(p2p=False)))
        read = classifier.read(images)[0]
        for axis in BARS:
            right[axis].append(read[axis] == asked[axis])
        if on_picture:
            on_picture()
    rendered = classifier_accuracy(classifier.model)
    segmenter = load_segmenter(EMBEDDED)[0].model
    return Reading(
        {axis: float(np.mean(hits)) for axis, hits in right.items()},
        rendered,
        segmenter_iou(segmenter),
        count,
    )


def rendered_twins(concept: str, seed: int) -> tuple[list[Member], list[Image.Image]]:
    """Render one whole set: every cell of one concept in one scene, edited from the first race."""
    rng = random.Random(f"twins {seed} {concept}")
    template, phrase = rng.choice(TEMPLATES), rng.choice(CONCEPTS[concept].phrases)
    neutral = neutral_prompt(template, AXES, phrase)
    members = [
        Member(k, values, fill(template, AXES, values, phrase), neutral, k - k % 6, "")
        for k, values in enumerate(cells(AXES))
    ]
    return members, [
        render(Portrait(**member.values, concept=concept, seed=seed)).image for member in members
    ]


def calibrate(sets: int = 2, weights: Path = WEIGHTS) -> Thresholds:
    """Set the thresholds of the embedded scorers from rendered twins, and write them beside the CLIP.

    A set falls with its weakest member, so the minima are taken over sets: what 95 % of perfect sets reach, less a
    margin for pictures that are drawn less perfectly. `background_change` may be at most what separates the closest tenth
    of unrelated renders with the same words.
    """
    clip, segmenter = load_clip(EMBEDDED)[0], load_segmenter(EMBEDDED)[0]
    scored: list[list[dict[str, Score]]] = []
    changes: list[float] = []
    for concept in CONCEPT_NAMES:
        for seed in range(sets):
            members, images = rendered_twins(concept, 7 * 10**6 + seed)
            texts = clip.texts([member.prompt for member in members])
            scored.append(clip_scores(members, clip.images(images), texts))
            others = rendered_twins(concept, 8 * 10**6 + seed)[1]
            masks, other_masks = segmenter.masks(images), segmenter.masks(others)
            for k in range(0, len(images), 5):
                pair = [np.asarray(picture.convert("L"), np.float32) for picture in (images[k], others[k])]
                changes.append(background_change(pair[0], pair[1], masks[k] | other_masks[k]) or 0.0)
    shares = [float(np.mean([bool(row["attribute_ok"]) for row in rows])) for rows in scored]
    thresholds = Thresholds(
        clip_text=_reached(scored, "clip_text"),
        clip_base=_reached(scored, "clip_base"),
        clip_direction=_reached(scored, "clip_direction"),
        background_change=round(float(np.quantile(changes, 0.1)), 2),
        attribute_share=round(float(np.quantile(shares, 0.05)) - SHARE_MARGIN, 2),
        nsfw=0.5,
        faces=None,
    )
    (weights / "clip" / "thresholds.json").write_text(json.dumps(asdict(thresholds), indent=2) + "\n")
    return thresholds


def _reached(scored: Sequence[Sequence[dict[str, Score]]], name: str) -> float:
    """Return what 95 % of the sets' weakest members reach, less the margin."""
    weakest = [min(float(value) for row in rows if (value := row[name]) is not None) for rows in scored]
    return round(float(np.quantile(weakest, 0.05)) - SCORE_MARGIN, 3)
