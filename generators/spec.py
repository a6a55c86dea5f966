"""What a spec says, as frozen objects: the one description that every step reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from storage.errors import CounterpoiseError

EditKind = Literal["auto", "replace", "refine"]
SplitName = Literal["train", "validation", "test"]
Scheduler = Literal["ddim", "euler", "euler_ancestral", "dpmpp", "lcm", "model"]
Halves = Literal["conditional", "both"]
Dtype = Literal["float32", "float16", "bfloat16"]

SCHEDULERS: tuple[Scheduler, ...] = get_args(Scheduler)
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
EMBEDDED = "embedded"
AUTO = "auto"


class SpecError(CounterpoiseError):
    """A spec that cannot be used; ``field`` is the dotted path of what is wrong, where there is one."""

    def __init__(self, message: str, field: str = "") -> None:
        """Keep the message as the one line to print, whatever it quotes."""
        super().__init__(" ".join(message.split()))
        self.field = field


@dataclass(frozen=True, slots=True)
class Axis:
    """A social attribute as prompted appearance; ``neutral`` is the word used when it is left out."""

    name: str
    values: tuple[str, ...]
    neutral: str = ""


@dataclass(frozen=True, slots=True)
class Concept:
    """A social concept and its paraphrases; each phrase reads on from "... a young Black woman"."""

    name: str
    group: str
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sampler:
    """How one set is denoised.

    ``chunk`` counts members per UNet call; None means as many as fit ``memory_gb``, or else the whole set.
    """

    steps: int = 50
    guidance: float = 7.5
    scheduler: Scheduler = "ddim"
    width: int | None = None
    height: int | None = None
    dtype: Dtype = "float32"
    negative_prompt: str = ""
    chunk: int | None = None
    memory_gb: float | None = None


def default_cross_replace() -> dict[str, float]:
    """Share of the steps in which cross-attention follows the base, by kind of word."""
    return {"default": 1.0, "edited": 0.4}


@dataclass(frozen=True, slots=True)
class LocalBlend:
    """Outside the region of ``words`` an edit keeps its base's latents.

    ``words`` are "edited", an axis (its value in each prompt) or words of every prompt; the region is where their attention
    exceeds ``threshold`` of its peak, from the share ``start`` of the steps on; ``resolution`` is the side of the attention
    layers that count, None the finest of at most 32.
    """

    words: tuple[str, ...] = ("edited",)
    threshold: float = 0.3
    start: float = 0.2
    resolution: int | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """How members are edited from their base; shares are of the denoising steps, from the start.

    ``reweight`` strengthens (or weakens) what a word's attention takes over from the base; ``self_resolution`` is the
    largest side of layers with self-attention injection, None all; ``halves`` says whether the unconditional half follows
    too.
    """

    kind: EditKind = "auto"
    cross_replace: Mapping[str, float] = field(default_factory=default_cross_replace)
    self_replace: float = 0.4
    p2p: bool = True
    reweight: Mapping[str, float] = field(default_factory=dict)
    self_resolution: int | None = None
    halves: Halves = "both"
    local_blend: LocalBlend | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The verdict's limits; None means that a score is not judged.

    The three ``clip_*`` are minimum cosines, ``background_change`` a maximum in grey levels,
    ``attribute_share`` the least share of members whose attributes all read as prompted,
    ``nsfw`` a maximum probability and ``faces`` the number of faces wanted.
    """

    clip_text: float | None = None
    clip_base: float | None = None
    clip_direction: float | None = None
    background_change: float | None = None
    attribute_share: float | None = 1.0
    nsfw: float | None = 0.5
    faces: int | None = 1


@dataclass(frozen=True, slots=True)
class Preview:
    """Early rejection: a candidate is sampled in so few ``steps`` first, scored, and given up if it fails ``filters``.

    In few steps DPM++ comes closest to where the samplers without noise of their own end in many.
    """

    steps: int
    scheduler: Scheduler = "dpmpp"
    filters: Thresholds | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """Which model computes each score: "auto", "embedded", a hub id, a folder, or None for no score."""

    clip: str | None = AUTO
    segmenter: str | None = AUTO
    nsfw: str | None = AUTO
    faces: str | None = AUTO


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the splits, drawn by set; every set of a held-out concept goes to "test"."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    held_out_concepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that decides which images are made and which are kept."""

    name: str
    seed: int
    model: str
    concepts: tuple[Concept, ...]
    axes: tuple[Axis, ...]
    base_axes: tuple[str, ...]
    edit_axes: tuple[str, ...]
    templates: tuple[str, ...]
    sets_per_concept: int
    candidates: Mapping[str, int]
    sets_per_shard: int
    sampler: Sampler = field(default_factory=Sampler)
    edit: Edit = field(default_factory=Edit)
    filters: Thresholds | Literal["auto"] = "auto"
    preview: Preview | None = None
    scorers: ScorerChoice = field(default_factory=ScorerChoice)
    split: Split = field(default_factory=Split)
    kind: Literal["counterfactual"] = "counterfactual"

    def axis(self, name: str) -> Axis:
        """The axis of that name."""
        return next(axis for axis in self.axes if axis.name == name)

    def concept(self, name: str) -> Concept:
        """The concept of that name."""
        return next(concept for concept in self.concepts if concept.name == name)

    def tries(self, concept: str) -> int:
        """Candidates that may be generated for each planned set of a concept."""
        return self.candidates.get(concept, self.candidates["default"])

    @property
    def embedded(self) -> bool:
        """Whether the images come from the model that ships with the project."""
        return self.model == EMBEDDED
