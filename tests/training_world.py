"""A tiny model, a tiny dataset and recipes on them, for the tests of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from storage_world import HEADER, publish
from stream_world import rows, samples
from tiny_mllm import MAKERS

from debias.models.base import MultimodalModel
from debias.models.opening import adapter_of
from debias.training.recipe import Lora, Recipe
from storage import create_dataset, finish_dataset

MEMBERS = 6
LORA = Lora(rank=4, alpha=8, dropout=0.1)


def dataset(folder: Path, shards: int = 2, sets: int = 5) -> Path:
    """Two concepts of one group, sets of six members; every fifth set is held out."""
    plan = [{**row, "concept_group": "work"} for row in rows(shards, sets)]
    create_dataset(folder, HEADER, plan)
    for shard in range(shards):
        publish(folder, shard, samples(plan, shard))
    finish_dataset(folder)
    return folder


def opened(maker: str) -> MultimodalModel:
    """A tiny model of a family."""
    model, processor = MAKERS[maker]()
    return MultimodalModel(maker, model, processor, adapter_of(model.config, maker))


def recipe(model: Path, data: Path, **changes: Any) -> Recipe:
    """A recipe that a test can afford."""
    plain = Recipe(
        method="sft", model=str(model), dataset=str(data), epochs=1, batch=12, micro_batch=6,
        learning_rate=1e-3, warmup=0.0, min_count=1, evaluate_on=(), seed=3,
    )  # fmt: skip
    return replace(plain, **changes)
