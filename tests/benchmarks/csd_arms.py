"""The arms: what each is fine-tuned by, at equal numbers of pictures shown to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from csd_world import DATASET, MODELS, NEUTRAL

from debias.training.recipe import Lora, Recipe

#: Of an arm: epochs of so many steps of so many pictures. Epochs of csd are longer than that, so that all are alike.
EPOCHS, STEPS, BATCH, MICRO = 6, 10, 48, 24
SEEDS = (1, 2, 3, 4, 5)
#: Rates tried for every arm, on the validation pool with a seed of its own; LoRA's are so many times as large.
RATES = (3e-4, 1e-3, 3e-3)
SEARCH_SEED = 100
#: Arms whose models are trained on, to see whether bias comes back.
TRAINED_ON = ("csd", "csd-consistency")
LLAVA, QWEN = "llava-base", "qwen-base"


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of fine-tuning.

    Attributes:
        name: of its runs.
        title: in the table.
        changes: of the recipe that all arms share.
        base: which base model.
        rates: that are tried.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    base: str = LLAVA
    rates: tuple[float, ...] = RATES

    def recipe(self, seed: int, rate: float) -> Recipe:
        """The recipe of one run."""
        shared = Recipe(
            method="sft", model=str(MODELS / self.base), dataset=str(DATASET), seed=seed, epochs=EPOCHS, steps=STEPS,
            batch=BATCH, micro_batch=MICRO, learning_rate=rate, caption_share=0.0, evaluate_on=(), min_count=20,
        )  # fmt: skip
        return replace(shared, **self.changes)


_CSD: dict[str, Any] = {"method": "csd", "skew_pool": str(NEUTRAL), "normalise_weights": True}
_HALVES = {"resampling": {"weights": False}, "sfloss": {"resample": False}}

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("ft", "FT"),
        Arm("resampling", "resampling only", {**_CSD, **_HALVES["resampling"]}),
        Arm("sfloss", "SFLoss only", {**_CSD, **_HALVES["sfloss"]}),
        Arm("csd", "CSD", _CSD),
        Arm("lora-csd", "LoRA-CSD", {**_CSD, "lora": Lora(rank=16, alpha=32, dropout=0.0)}),
        Arm("consistency", "consistency", {"method": "consistency"}),
        Arm("csd-consistency", "CSD with consistency", {**_CSD, "consistency": 1.0}),
        Arm("qwen-ft", "FT, second architecture", base=QWEN),
        Arm(
            "qwen-resampling", "resampling only, second architecture", {**_CSD, **_HALVES["resampling"]}, QWEN
        ),
        Arm("qwen-sfloss", "SFLoss only, second architecture", {**_CSD, **_HALVES["sfloss"]}, QWEN),
        Arm("qwen-csd", "CSD, second architecture", _CSD, QWEN),
    )
}
