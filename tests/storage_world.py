"""A small dataset for the tests of the record: two axes, six cells, three shards, images of noise."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from storage import Sample, ShardRecord, create_dataset, publish_shard
from storage.canonical import SEAL, seal
from storage.checks import cell_values
from storage.images import encode_png
from storage.records import sample_key

AXES: dict[str, tuple[str, ...]] = {"gender": ("woman", "man"), "race": ("Asian", "Black", "White")}
NAMES = list(AXES)
CELLS = cell_values(AXES)
RECIPE: dict[str, Any] = {
    "weights": {"id": "tiny", "sha256": "0" * 64},
    "sampler": {"steps": 20, "guidance": 5.0},
    "thresholds": {"clip_text": 0.2, "nsfw": 0.5, "clip_base": None},
}
ENVIRONMENT = {"device": "cpu", "threads": 1, "torch": "2.0"}
SPEC: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "axes": {name: list(values) for name, values in AXES.items()},
    "steps": 20,
}
HEADER: dict[str, Any] = {
    "spec": SPEC,
    "recipe": RECIPE,
    "axes": AXES,
    "split": {"train": 0.8, "validation": 0.1, "test": 0.1},
}
CONCEPTS = ("chef", "science")
SETS_PER_SHARD = 2
SHARDS = 3


def plan_rows() -> list[dict[str, Any]]:
    """Three sets of each concept, two sets a shard."""
    rows = []
    for index in range(SETS_PER_SHARD * SHARDS):
        concept = CONCEPTS[index % 2]
        row = {"set_id": f"{concept}_{index // 2:04d}", "shard": index // SETS_PER_SHARD, "split": "train"}
        rows.append({**row, "concept": concept, "concept_group": f"{concept}_group", "seed": 1000 + index})
    return rows


def picture(seed: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG of noise."""
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    return encode_png(Image.frombytes("RGB", size, noise))


def candidate(row: Mapping[str, Any], number: int, kept: bool, base: int = 1) -> list[Sample]:
    """One candidate set of a planned set; its bases are the members of race `base`."""
    return [_sample(row, number, kept, member, member // 3 * 3 + base) for member in range(len(CELLS))]


def _sample(row: Mapping[str, Any], number: int, kept: bool, member: int, base: int) -> Sample:
    seed = row["seed"] * 100 + number
    values, edit = CELLS[member], member != base
    scores = {"clip_text": 0.25 + member / 100 if kept else 0.1, "attribute_ok": True, "nsfw": 0.01}
    edited = {"clip_base": 0.9, "clip_direction": 0.2, "background_change": 2.5} if edit else {}
    return Sample(
        key=sample_key(row["set_id"], member),
        set_id=row["set_id"],
        member=member,
        candidate=number,
        base=base,
        kept=kept,
        reason=None if kept else "clip_text",
        split=row["split"],
        concept=row["concept"],
        concept_group=row["concept_group"],
        attributes=values,
        prompt=f"A photo of a {values['race']} {values['gender']}, {row['concept']}",
        neutral_prompt=f"A photo of a person, {row['concept']}",
        edited_words=f"{CELLS[base]['race']} -> {values['race']}" if edit else "",
        seed=seed,
        steps=20,
        guidance=5.0,
        scheduler="ddim",
        cross_replace=0.8 if edit else None,
        self_replace=0.4 if edit else None,
        scores={**scores, **edited},
        width=8,
        height=8,
        image=picture(seed * 10 + member) if kept else None,
    )


def shard_samples(index: int) -> list[Sample]:
    """Two sets: the first kept at once, the second after one rejected candidate."""
    first, second = [row for row in plan_rows() if row["shard"] == index]
    return [*candidate(first, 0, True), *candidate(second, 0, False), *candidate(second, 1, True)]


def start(dataset: Path) -> None:
    """A header and a plan."""
    create_dataset(dataset, HEADER, plan_rows())


def publish(
    dataset: Path, index: int, samples: Sequence[Sample] | None = None, **changes: Any
) -> ShardRecord:
    """Publish one shard, with `recipe` or `environment` changed if given."""
    settings = {"recipe": {**RECIPE, "shard": index}, "environment": ENVIRONMENT, **changes}
    return publish_shard(
        dataset, index, shard_samples(index) if samples is None else samples, NAMES, **settings
    )


def fill(dataset: Path) -> None:
    """A dataset with all its shards, not finished."""
    start(dataset)
    for index in range(SHARDS):
        publish(dataset, index)


def tar_path(dataset: Path, record: ShardRecord) -> Path:
    """The tar of a shard that has one."""
    assert record.tar is not None
    return dataset / record.tar.path


def reseal(path: Path, changes: Mapping[str, Any]) -> None:
    """Change a manifest and make it look untouched, as somebody with bad intent would."""
    body = json.loads(path.read_text("utf-8"))
    body.pop(SEAL)
    path.write_bytes(seal({**body, **changes}))


def files(dataset: Path) -> dict[str, bytes]:
    """Every file of a dataset by its relative name."""
    return {
        str(path.relative_to(dataset)): path.read_bytes()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def changed(samples: Sequence[Sample], place: int, **changes: Any) -> list[Sample]:
    """Samples with one of them changed."""
    return [replace(sample, **changes) if i == place else sample for i, sample in enumerate(samples)]


def flipped(content: bytes) -> bytes:
    """The content with one bit changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
