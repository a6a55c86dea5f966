"""Training recipes at the door: YAML in, validated once, a frozen `Recipe` out, or one line that says what to mend."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from debias.training.recipe import METHODS, SCHEDULES, Launch, Lora, Parts, Recipe, Schedule

from .schema import Count, Doc, Share, Text, distinct, refusal, refused_shape, wanted
from .settings import parse_yaml, read_yaml

_RECIPES = files("debias").joinpath("recipes")
SHIPPED = tuple(sorted(Path(one.name).stem for one in _RECIPES.iterdir() if one.name.endswith(".yaml")))
"""Names of the recipes that ship with the project."""

_SHARE, _COUNT = "a number from 0 to 1", "a whole number of 1 or more"
_SWITCH, _POOL = "true or false", '"train", "heldout" or the folder or URI of another dataset'
_ABOVE = "a number above 0"
Above = Annotated[float, Field(gt=0)]
FromZero = Annotated[float, Field(ge=0)]


class LoraDoc(Doc):
    """LoRA."""

    rank: Count = wanted(_COUNT, 128)
    alpha: Count = wanted(_COUNT, 256)
    dropout: Annotated[float, Field(ge=0, lt=1)] = wanted("a number from 0 to below 1", 0.05)


class PartsDoc(Doc):
    """Which parts are trained."""

    vision: bool = wanted(_SWITCH, False)
    projector: bool = wanted(_SWITCH, True)
    language: bool = wanted(_SWITCH, True)


class LaunchDoc(Doc):
    """How training is launched."""

    processes: Count = wanted(_COUNT, 1)
    config: Text | None = wanted("a configuration file of accelerate, or null", None)
    work_pool: Text | None = wanted("a work pool of Prefect, such as gpu, or null to train here", None)
    deployment: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")] | None = wanted(
        "a deployment of Prefect as FLOW/NAME, such as train/gpu, or null", None
    )


class RecipeDoc(Doc):
    """The whole file."""

    method: Text = wanted(f"one of {', '.join(METHODS)}")
    model: Text = wanted("the hub id or folder of a multimodal model")
    dataset: Text = wanted("the folder or URI of a dataset")
    split: Text = wanted("one of the dataset's splits", "train")
    heldout: Text = wanted("one of the dataset's splits", "test")
    axes: Annotated[list[Text], Field(min_length=1), AfterValidator(distinct)] | None = wanted(
        "a list of different axes, or null for the dataset's", None
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")
    epochs: Count = wanted(_COUNT, 3)
    batch: Count | None = wanted(f"{_COUNT}, or null for the default", None)
    micro_batch: Count | None = wanted(f"{_COUNT}, or null for the default", None)
    steps: Count | None = wanted(f"{_COUNT}, or null for whole epochs", None)
    learning_rate: Above | None = wanted(f"{_ABOVE}, or null for the family's", None)
    schedule: Schedule = wanted(f"one of {', '.join(SCHEDULES)}", "cosine")
    warmup: Annotated[float, Field(ge=0, lt=1)] = wanted("a number from 0 to below 1", 0.03)
    weight_decay: FromZero = wanted("a number of 0 or more", 0.0)
    max_grad_norm: FromZero = wanted("a number of 0 or more; 0 for no limit", 1.0)
    train: PartsDoc = wanted("a mapping", PartsDoc())
    lora: LoraDoc | None = wanted("a mapping, or null for full fine-tuning", None)
    gradient_checkpointing: bool = wanted(_SWITCH, False)
    bf16: bool = wanted(_SWITCH, False)
    workers: int = Field(default=0, ge=0, description="a whole number of 0 or more")
    save_steps: Count | None = wanted(f"{_COUNT}, or null for the ends of epochs", None)
    report_to: Annotated[list[Text], AfterValidator(distinct)] = wanted(
        "a list of integrations that transformers knows, such as tensorboard", []
    )
    caption_share: Share = wanted(_SHARE, 0.25)
    skew_pool: Text = wanted(_POOL, "train")
    skew_images: Count | None = wanted(f"{_COUNT}, or null for all", None)
    tau1: Above = wanted(_ABOVE, 1.0)
    tau2: Above = wanted(_ABOVE, 1.0)
    skew_clamp: Above = wanted(_ABOVE, 2.0)
    faithful: bool = wanted(_SWITCH, False)
    normalise_weights: bool = wanted(_SWITCH, False)
    shrink: bool = wanted(_SWITCH, False)
    resample: bool = wanted(_SWITCH, True)
    weights: bool = wanted(_SWITCH, True)
    smoothing: FromZero = wanted("a number of 0 or more", 0.5)
    min_count: Count = wanted(_COUNT, 30)
    consistency: FromZero | None = wanted("a factor of 0 or more, or null for the method's", None)
    evaluate_on: Annotated[list[Text], AfterValidator(distinct)] = wanted(f"a list of {_POOL}", ["heldout"])
    questions: Text | None = wanted("a CSV of image, question, answer, or null", None)
    stop_drop: Share = wanted(_SHARE, 0.02)
    plateau: Share = wanted(_SHARE, 0.1)
    launch: LaunchDoc = wanted("a mapping", LaunchDoc())


def load_recipe(path_or_shipped_name: str | Path) -> Recipe:
    """The recipe of a YAML file, or of one that ships with the project.

    Raises:
        SpecError: one line with the file, the field, what was given and what is wanted.
    """
    given = str(path_or_shipped_name)
    source = f"{given}.yaml" if given in SHIPPED else given
    return recipe_from_dict(parse_yaml(read_yaml(given, SHIPPED, _RECIPES), source, "method: csd"), source)


def recipe_from_dict(document: object, source: str = "recipe") -> Recipe:
    """The recipe of a document; ``source`` names it in errors."""
    if not isinstance(document, dict):
        raise refusal(source, "", document, "a mapping with the keys " + ", ".join(RecipeDoc.model_fields))
    try:
        checked = RecipeDoc.model_validate(document)
    except ValidationError as error:
        raise refused_shape(source, error, RecipeDoc) from None
    return _freeze(checked, source)


def _freeze(doc: RecipeDoc, source: str) -> Recipe:
    if doc.method not in METHODS:
        raise refusal(source, "method", doc.method, f"one of {', '.join(METHODS)}", list(METHODS))
    facts: dict[str, Any] = doc.model_dump(
        exclude={"train", "lora", "launch", "axes", "report_to", "evaluate_on"}
    )
    if doc.faithful:
        for name in ("normalise_weights", "shrink"):
            if getattr(doc, name):
                raise refusal(source, name, True, "false with faithful, which is the paper's form")
    return Recipe(
        **facts,
        train=Parts(**doc.train.model_dump()),
        lora=Lora(**doc.lora.model_dump()) if doc.lora else None,
        launch=Launch(**doc.launch.model_dump()),
        axes=tuple(doc.axes) if doc.axes else None,
        report_to=tuple(doc.report_to),
        evaluate_on=tuple(doc.evaluate_on),
    )
