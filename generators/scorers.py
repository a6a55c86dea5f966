"""Scores of a candidate set: what CLIP, the segmenter and the safety models say about each member."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.errors import CounterpoiseError

from .engine import SetRequest
from .filters import Score
from .paperdolls import WEIGHTS
from .plan import Member
from .spec import AUTO, EMBEDDED, Preview, ScorerChoice, Spec, Thresholds

REAL_CLIP = "ViT-L-14-quickgelu/openai"
REAL_SEGMENTER = "nvidia/segformer-b2-finetuned-ade-512-512"
REAL_NSFW = "yahoo-open-nsfw"
REAL_FACES = "facenet-mtcnn"
#: What InstructPix2Pix filtered by (Brooks et al. 2023, dataset_creation): text, image and direction similarity.
#: They were set for pairs; what a set of 24 yields under them has not been measured, so tune with `refilter`.
REAL_THRESHOLDS = Thresholds(clip_text=0.2, clip_base=0.7, clip_direction=0.2, attribute_share=0.75)


class Scorers(Protocol):
    """Scores pictures of a set; null where a score does not apply or is not computed."""

    def score(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        """Return one mapping per member, by the names of the score columns."""
        ...

    def thresholds(self, spec: Spec) -> Thresholds:
        """Return the spec's thresholds, or with "auto" those that belong to these scorers."""
        ...

    def preview(self, spec: Spec) -> Thresholds | None:
        """Return the limits of early rejection, if the spec asks for it."""
        ...

    def describe(self) -> dict[str, object]:
        """Return which models score, with their hashes."""
        ...


class ImageText(Protocol):
    """What a CLIP offers: unit features of pictures and texts."""

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return unit features (B, D)."""
        ...

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit features (B, D)."""
        ...


class Segmenter(Protocol):
    """Finds the person."""

    def masks(self, images: Sequence[Image.Image]) -> list[NDArray[np.bool_]]:
        """Return one mask (height, width) per picture, true on the person."""
        ...


class PictureScorer(Protocol):
    """Gives each picture a number."""

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return one number per picture."""
        ...


@dataclass(frozen=True, slots=True)
class ModelScorers:
    """Scorers made of models; any but CLIP may be missing."""

    clip: ImageText | None
    segmenter: Segmenter | None
    nsfw: PictureScorer | None
    faces: PictureScorer | None
    names: dict[str, object]
    auto: Thresholds
    early: Preview | None = None

    def score(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        """Compute every score there is a model for."""
        rows: list[dict[str, Score]] = [{} for _ in images]
        for scores in (self._clip(request, images), self._background(request, images), self._safety(images)):
            for row, found in zip(rows, scores, strict=True):
                row.update(found)
        return rows

    def thresholds(self, spec: Spec) -> Thresholds:
        """Return the spec's thresholds, or with "auto" the scorers' own."""
        return self.auto if isinstance(spec.filters, str) else spec.filters

    def preview(self, spec: Spec) -> Thresholds | None:
        """Return the spec's limits of early rejection, or with "auto" those measured for these scorers.

        Raises:
            CounterpoiseError: "auto", and none were measured, or with other steps.
        """
        if spec.preview is None:
            return None
        own = isinstance(spec.preview.filters, Thresholds)
        chosen = spec.preview if own else self._measured(spec.preview)
        return chosen.filters if isinstance(chosen.filters, Thresholds) else None

    def _measured(self, asked: Preview) -> Preview:
        if self.early is None:
            raise CounterpoiseError(
                "preview.filters: given auto, which goes with the embedded CLIP alone; wanted limits for these scorers"
            )
        for name in ("steps", "scheduler"):
            given, wanted = getattr(asked, name), getattr(self.early, name)
            if given != wanted:
                raise CounterpoiseError(
                    f"preview.{name}: given {given}, wanted {wanted}, with which the limits of filters: auto were "
                    "measured, or limits of your own"
                )
        return self.early

    def describe(self) -> dict[str, object]:
        """Return name and hash of every model."""
        return dict(self.names)

    def _clip(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        if self.clip is None:
            return [{} for _ in images]
        return clip_scores(request.members, self.clip.images(images), self.clip.texts(request.prompts))

    def _background(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        if self.segmenter is None:
            return [{} for _ in images]
        grey = [np.asarray(image.convert("L"), dtype=np.float32) for image in images]
        masks = self.segmenter.masks(images)
        return [
            {"background_change": None if member.base == member.index else background_change(
                grey[member.index], grey[member.base], masks[member.index] | masks[member.base])}
            for member in request.members
        ]  # fmt: skip

    def _safety(self, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        rows: list[dict[str, Score]] = [{} for _ in images]
        if self.nsfw is not None:
            for row, value in zip(rows, self.nsfw.score(images), strict=True):
                row["nsfw"] = value
        if self.faces is not None:
            for row, value in zip(rows, self.faces.score(images), strict=True):
                row["face_count"] = round(value)
        return rows


def clip_scores(
    members: Sequence[Member], image: NDArray[np.float32], text: NDArray[np.float32]
) -> list[dict[str, Score]]:
    """Return text-image, base and direction cosines and the zero-shot attribute check.

    clip_direction is the cosine of the change in picture and the change in words between base and edit (Gal et al.
    2022, equation 2). A base has neither clip_base nor clip_direction.

    Args:
        members: in the order of their cells.
        image: unit features (R, D) of their pictures.
        text: unit features (R, D) of their prompts.
    """
    rows: list[dict[str, Score]] = []
    for member in members:
        row, base = member.index, member.base
        edited = base != row
        failed = failed_axes(members, row, text @ image[row])
        rows.append(
            {
                "clip_text": float(image[row] @ text[row]),
                "clip_base": float(image[row] @ image[base]) if edited else None,
                "clip_direction": _cosine(image[row] - image[base], text[row] - text[base])
                if edited
                else None,
                "attribute_ok": not failed,
                "attribute_failed": ",".join(failed),
            }
        )
    return rows


def failed_axes(members: Sequence[Member], row: int, likeness: NDArray[np.float32]) -> list[str]:
    """Return the axes on which the picture of `row` is closer to a twin's prompt, which differs on that axis alone.

    Args:
        members: in the order of their cells.
        row: whose picture it is.
        likeness: (R,) cosine of the picture with every member's prompt.
    """
    own = members[row].values
    failed = []
    for axis in own:
        twins = [m.index for m in members if all(m.values[a] == own[a] for a in own if a != axis)]
        if max(twins, key=lambda index: float(likeness[index])) != row:
            failed.append(axis)
    return failed


def background_change(
    first: NDArray[np.float32], second: NDArray[np.float32], person: NDArray[np.bool_]
) -> float | None:
    """Return the mean absolute difference in grey levels (0-255) outside the person; null if nothing is outside."""
    outside = ~person
    return float(np.abs(first - second)[outside].mean()) if outside.any() else None


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm > 0 else 0.0


def resolve(choice: ScorerChoice, embedded: bool) -> ScorerChoice:
    """Replace "auto" by the names of the models that belong to the embedded or to real weights."""
    own = ScorerChoice(EMBEDDED, EMBEDDED, None, None)
    real = ScorerChoice(REAL_CLIP, REAL_SEGMENTER, REAL_NSFW, REAL_FACES)
    chosen = own if embedded else real
    given = {name: getattr(choice, name) for name in ("clip", "segmenter", "nsfw", "faces")}
    return replace(
        choice, **{name: getattr(chosen, name) if value == AUTO else value for name, value in given.items()}
    )


def load_scorers(spec: Spec) -> ModelScorers:
    """Load the scorers that a spec names.

    Raises:
        CounterpoiseError: a model or package is missing; says how to get it.
    """
    from . import scorer_models

    choice = resolve(spec.scorers, spec.embedded)
    loaders = {
        "clip": scorer_models.load_clip,
        "segmenter": scorer_models.load_segmenter,
        "nsfw": scorer_models.load_nsfw,
        "faces": scorer_models.load_faces,
    }
    models, names = {}, {}
    for kind, load in loaders.items():
        name = getattr(choice, kind)
        models[kind], names[kind] = load(name) if name else (None, None)
    embedded = choice.clip == EMBEDDED
    auto = embedded_thresholds() if embedded else REAL_THRESHOLDS
    return ModelScorers(**models, names=names, auto=auto, early=embedded_preview() if embedded else None)


def embedded_thresholds(folder: Path = WEIGHTS) -> Thresholds:
    """Return the verdict's limits for the embedded CLIP, from rendered twins."""
    return Thresholds(**json.loads((folder / "clip" / "thresholds.json").read_text()))


def embedded_preview(folder: Path = WEIGHTS) -> Preview | None:
    """Return the limits of early rejection for the embedded CLIP and the steps they hold at; None if not measured yet."""
    file = folder / "clip" / "preview.json"
    if not file.exists():
        return None
    stored = json.loads(file.read_text())
    return Preview(stored["steps"], stored["scheduler"], Thresholds(**stored["filters"]))


class PreparedScorers:
    """Gives every member the same good scores, for tests; `bad` maps (set seed, member) to scores that differ."""

    def __init__(self, bad: Mapping[tuple[int, int], Mapping[str, Score]] | None = None) -> None:
        self.bad = bad or {}

    def score(self, request: SetRequest, images: Sequence[Image.Image]) -> list[dict[str, Score]]:
        """Return fixed scores."""
        good: dict[str, Score] = {"clip_text": 0.3, "attribute_ok": True, "attribute_failed": ""}
        edit: dict[str, Score] = {"clip_base": 0.9, "clip_direction": 0.5, "background_change": 1.0}
        return [
            {**good, **(edit if m.base != m.index else {}), **self.bad.get((request.seed, m.index), {})}
            for m in request.members
        ]

    def thresholds(self, spec: Spec) -> Thresholds:
        """Return the spec's thresholds, or those of real scorers."""
        return REAL_THRESHOLDS if isinstance(spec.filters, str) else spec.filters

    def preview(self, spec: Spec) -> Thresholds | None:
        """Return the spec's limits of early rejection, or those of real scorers."""
        if spec.preview is None:
            return None
        return REAL_THRESHOLDS if isinstance(spec.preview.filters, str) else spec.preview.filters

    def describe(self) -> dict[str, object]:
        """Return a fixed description."""
        return {"clip": "prepared", "segmenter": "prepared", "nsfw": None, "faces": None}
