"""What a training recipe says, as frozen objects: the one description that every step reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
TRAIN, HELDOUT = "train", "heldout"
#: Where a recipe names none, as Cheng et al. 2025 fine-tune; what their table calls LLaVA is taken as LLaVA-1.5.
LEARNING_RATES: Mapping[str, float] = {"llava": 5e-7, "qwen": 1e-6, "bunny": 1e-7}
#: Rates of full fine-tuning are too small for LoRA's matrices; the factor is not printed in the paper, our reading.
LORA_FACTOR = 100.0
BATCH, MICRO_BATCH = 128, 8


@dataclass(frozen=True, slots=True)
class Method:
    """What a method does beside answering.

    Attributes:
        measures: Skew is measured before each epoch; instances are resampled and weighted by it.
        consistency: default factor of the divergence of answers within a set; above 0, sets are kept together.
    """

    measures: bool
    consistency: float = 0.0


#: Methods by name; a further one is a row here.
METHODS: Mapping[str, Method] = {
    "sft": Method(measures=False),
    "csd": Method(measures=True),
    "consistency": Method(measures=False, consistency=1.0),
}


@dataclass(frozen=True, slots=True)
class Lora:
    """LoRA on the linear layers of the language model's blocks (Hu et al. 2022)."""

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of the model are trained; with LoRA, `language` by its matrices."""

    vision: bool = False
    projector: bool = True
    language: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """How and where training runs; all but the number of processes leaves the result alone.

    Attributes:
        processes: that train together.
        config: accelerate's own configuration file, where FSDP or ZeRO is named.
        work_pool: whose workers train, where a flow runs the recipe; None for here.
        deployment: "flow/name" of the flow on that pool; None for the one there is.
    """

    processes: int = 1
    config: str | None = None
    work_pool: str | None = None
    deployment: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether it names others to train."""
        return self.work_pool is not None or self.deployment is not None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a model is trained.

    Attributes:
        method: one of `METHODS`.
        model: hub id or folder.
        dataset: folder or URI.
        split, heldout: the dataset's splits to train on and to hold out.
        axes: of Skew, joint ones too; None for the dataset's.
        batch: pictures in a step of the optimiser, over all processes; None for 128, where sets are kept together for the
            most whole sets within it.
        micro_batch: pictures in a forward of one process; None for 8 at most, or one set.
        steps: at most so many steps an epoch, of the shuffled order; None for all.
        learning_rate: None for the family's.
        save_steps: steps between checkpoints; None for the ends of epochs alone.
        caption_share: share of items that ask for a sentence.
        skew_pool: "train", "heldout", or another dataset's URI: whose images Skew is measured on.
        skew_images: so many of them, in whole sets; None for all.
        tau1, tau2: see `debias.sampling.multiplicity`.
        skew_clamp: largest magnitude of a Skew in a weight.
        faithful: weights as the paper prints them: no clamp, not normalised, nothing shrunk.
        normalise_weights: divide by a step's weights instead of its instances.
        shrink: see `debias.skew_formula.shrunk`.
        resample, weights: the method's two halves.
        smoothing, min_count: see `debias.skew.skew_table_from`.
        consistency: factor of the divergence of answers within a set; None for the method's.
        evaluate_on: pools before and after: "train", "heldout", or other datasets' URIs.
        questions: CSV of `image,question,answer`, a measure of general capability; None for the accuracy on the first pool.
        stop_drop: training stops where capability falls by more.
        plateau: share of the excess of MaxSkew - MinSkew that has to go.
    """

    method: str
    model: str
    dataset: str
    split: str = "train"
    heldout: str = "test"
    axes: tuple[str, ...] | None = None
    seed: int = 0
    epochs: int = 3
    batch: int | None = None
    micro_batch: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    train: Parts = field(default_factory=Parts)
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    bf16: bool = False
    workers: int = 0
    save_steps: int | None = None
    report_to: tuple[str, ...] = ()
    caption_share: float = 0.25
    skew_pool: str = TRAIN
    skew_images: int | None = None
    tau1: float = 1.0
    tau2: float = 1.0
    skew_clamp: float = 2.0
    faithful: bool = False
    normalise_weights: bool = False
    shrink: bool = False
    resample: bool = True
    weights: bool = True
    smoothing: float = 0.5
    min_count: int = 30
    consistency: float | None = None
    evaluate_on: tuple[str, ...] = (HELDOUT,)
    questions: str | None = None
    stop_drop: float = 0.02
    plateau: float = 0.1
    launch: Launch = field(default_factory=Launch)

    @property
    def measures(self) -> bool:
        """Whether Skew is measured before each epoch."""
        return METHODS[self.method].measures

    @property
    def divergence(self) -> float:
        """Factor of the divergence of answers within a set."""
        return METHODS[self.method].consistency if self.consistency is None else self.consistency

    @property
    def keeps_sets(self) -> bool:
        """Whether batches hold whole sets."""
        return self.divergence > 0

    @property
    def clamp(self) -> float | None:
        """Largest magnitude of a Skew in a weight."""
        return None if self.faithful else self.skew_clamp

    def rate(self, family: str) -> float:
        """The learning rate for a family of models."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LEARNING_RATES[family] * (LORA_FACTOR if self.lora else 1.0)

    def identity(self) -> str:
        """A hash of what decides the result; how it is launched does not count, but for the number of processes."""
        body = recipe_to_dict(self)
        body["launch"] = self.launch.processes
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def slug(self) -> str:
        """The run's name in sidecars: model and a part of `identity`, so that runs do not write over each other's."""
        name = re.sub(r"[^a-z0-9._-]+", "-", self.model.rstrip("/").rpartition("/")[2].lower()).strip("-._")
        return f"{name[:60] or 'model'}-{self.identity()[:8]}"


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON types, the same for equal ones."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain
