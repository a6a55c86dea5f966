"""Datasets of any size for the tests of streaming: sets of six members in two splits, some candidates rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage_world import HEADER, candidate, publish

from storage import Sample, create_dataset, finish_dataset
from storage.stream import stream


def rows(shards: int, sets: int) -> list[dict[str, Any]]:
    """A plan of so many shards of so many sets; every fifth set is in the split "test"."""
    found = []
    for number in range(shards * sets):
        concept = ("chef", "science")[number % 2]
        place = {"set_id": f"{concept}_{number:04d}", "shard": number // sets}
        facts = {"concept": concept, "concept_group": f"{concept}_group", "seed": number}
        found.append({**place, "split": "test" if number % 5 == 4 else "train", **facts})
    return found


def samples(plan: list[dict[str, Any]], shard: int) -> list[Sample]:
    """Every third set after a rejected candidate."""
    mine = [row for row in plan if row["shard"] == shard]
    rejected = [sample for row in mine if row["seed"] % 3 == 0 for sample in candidate(row, 0, False)]
    return [*rejected, *(sample for row in mine for sample in candidate(row, 1, True))]


def make(dataset: Path, shards: int, sets: int) -> Path:
    """A finished dataset."""
    plan = rows(shards, sets)
    create_dataset(dataset, HEADER, plan)
    for shard in range(shards):
        publish(dataset, shard, samples(plan, shard))
    finish_dataset(dataset)
    return dataset


def keys(dataset: Path, split: str | None = "train", **settings: Any) -> list[str]:
    """Keys in the order in which they are handed out."""
    return [item["key"] for item in stream(dataset, split, **settings)]


def batches(dataset: Path, split: str | None = "train", **settings: Any) -> list[list[str]]:
    """Keys by batch."""
    return [[item["key"] for item in batch] for batch in stream(dataset, split, **settings).batches()]
