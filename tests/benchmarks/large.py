"""A dataset of millions of records, written column by column: what the benchmark of metadata asks its questions to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import create_dataset, finish_dataset, load_dataset
from storage.checks import cell_values
from storage.records import schema, to_parquet
from storage.shardfile import SHARDS, shard_manifest, shard_name

AXES = {
    "gender": ("woman", "man"),
    "age": ("young", "old"),
    "race": ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino"),
}
CONCEPTS = [f"concept_{n:02d}" for n in range(18)]
CELLS = cell_values(AXES)
THRESHOLDS = {
    "clip_text": 0.2, "clip_base": None, "clip_direction": 0.1, "background_change": None, "attribute_share": 0.9,
    "nsfw": 0.5, "faces": 1,
}  # fmt: skip
TRIES = 2
_SIDECAR = pa.schema({"key": pa.string(), "skew": pa.float64(), "multiplicity": pa.int32()})
SKEWS = "skew/model-0123456789ab-0.parquet"


def make_dataset(folder: Path, rows: int, shards: int) -> int:
    """Write a finished dataset of at least so many records, every set tried twice, and its skew sidecar.

    Returns:
        How many records there are.
    """
    sets = -(-rows // (shards * TRIES * len(CELLS)))
    recipe = {"thresholds": THRESHOLDS}
    header = {"spec": {"name": "large"}, "axes": AXES, "recipe": recipe, "split": {"train": 1.0}}
    create_dataset(folder, header, list(_plan(shards, sets)))
    dataset_id = load_dataset(folder).dataset_id
    (folder / SHARDS).mkdir()
    (folder / SKEWS).parent.mkdir()
    with pq.ParquetWriter(folder / SKEWS, _SIDECAR) as file:
        for index in range(shards):
            table = _records(index, sets)
            _publish(folder, index, table, dataset_id, recipe)
            file.write_table(_skews(table.filter(pc.field("kept"))["key"], index))
    finish_dataset(folder)
    return shards * sets * TRIES * len(CELLS)


def _concept(index: int, n: int) -> int:
    return (index + n) % len(CONCEPTS)


def _plan(shards: int, sets: int) -> Iterator[dict[str, Any]]:
    for index in range(shards):
        for n in range(sets):
            concept = CONCEPTS[_concept(index, n)]
            row = {"set_id": f"{concept}_{index:03d}{n:06d}", "shard": index, "split": "train"}
            yield {**row, "concept": concept, "concept_group": "group"}


def _records(index: int, sets: int) -> pa.Table:
    """Every column of a shard by whole arrays; the second candidate of a set is kept unless a score is bad."""
    rng, cells = np.random.default_rng(index), len(CELLS)
    count = sets * TRIES * cells
    place, member = np.arange(count) // (TRIES * cells), np.arange(count) % cells
    candidate = np.arange(count) // cells % TRIES
    concept = pa.array(CONCEPTS).take(pa.array((index + place) % len(CONCEPTS)))
    number = pc.utf8_slice_codeunits(pc.cast(pa.array(1_000_000 + place), pa.string()), 1)
    set_id = pc.binary_join_element_wise(
        concept, pc.binary_join_element_wise(f"{index:03d}", number, ""), "_"
    )
    two = pa.array([f"{m:02d}" for m in range(cells)]).take(pa.array(member))
    bad = rng.random(sets)[place] < 0.1
    kept = (candidate == 1) & ~bad
    clip = np.where(kept, 0.25, 0.1) + 0.1 * rng.random(count)
    columns = {
        "key": pc.binary_join_element_wise(set_id, two, "-"), "set_id": set_id, "member": member, "candidate": candidate,
        "base": member // 6 * 6, "kept": kept, "reason": _where(kept, None, "clip_text"), "split": _same("train", count),
        "concept": concept, "concept_group": _same("group", count),
        "prompt": pc.binary_join_element_wise("A photo of", concept, " "),
        "neutral_prompt": _same("A photo", count), "edited_words": _same("", count), "seed": rng.integers(0, 2**62, count),
        "steps": np.full(count, 20), "guidance": np.full(count, 5.0), "scheduler": _same("ddim", count),
        "cross_replace": np.full(count, 0.8), "self_replace": np.full(count, 0.4), "clip_text": clip,
        "clip_direction": np.where(kept, 0.2, 0.05) + 0.1 * rng.random(count), "clip_base": rng.random(count),
        "background_change": 5 * rng.random(count), "attribute_ok": rng.random(count) < 0.97,
        "attribute_failed": pa.nulls(count, pa.string()), "nsfw": 0.3 * rng.random(count), "face_count": np.full(count, 1),
        "width": np.full(count, 1024), "height": np.full(count, 1024), "sha256": _hashes(rng, kept),
    }  # fmt: skip
    for axis in AXES:
        columns[axis] = pa.array([cell[axis] for cell in CELLS]).take(pa.array(member))
    wanted = schema(list(AXES))
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in wanted], schema=wanted)


def _same(text: str, count: int) -> pa.Array:
    return pa.repeat(text, count)


def _where(mask: np.ndarray, yes: str | None, no: str | None) -> pa.Array:
    return pa.array([yes, no], pa.string()).take(pa.array(np.where(mask, 0, 1)))


def _hashes(rng: np.random.Generator, kept: np.ndarray) -> pa.Array:
    """Random hex digests of kept rows, null elsewhere."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, 64 * len(kept), np.uint8)]
    ends = np.arange(0, 64 * len(kept) + 1, 64, dtype=np.int32)
    texts = pa.StringArray.from_buffers(len(kept), pa.py_buffer(ends), pa.py_buffer(digits))
    return pc.if_else(pa.array(kept), texts, pa.scalar(None, pa.string()))


def _publish(folder: Path, index: int, table: pa.Table, dataset_id: str, recipe: dict[str, Any]) -> None:
    content = to_parquet(table)
    digest = hashlib.sha256(content).hexdigest()
    file = {"name": f"{index:05d}-{digest[:12]}.parquet", "bytes": len(content), "sha256": digest}
    (folder / SHARDS / file["name"]).write_bytes(content)
    images = pc.sum(table["kept"]).as_py()
    counts = {
        "rows": len(table),
        "candidates": len(table) // len(CELLS),
        "sets": images // len(CELLS),
        "images": images,
    }
    facts = {"index": index, "dataset_id": dataset_id, "counts": counts, "recipe": recipe, "environment": {}}
    (folder / shard_name(index)).write_bytes(shard_manifest({**facts, "tar": None, "parquet": file}))


def _skews(keys: pa.Array | pa.ChunkedArray, seed: int) -> pa.Table:
    """Instance skews around 0: a sidecar's columns without the weight, which may be left out."""
    rng = np.random.default_rng(1_000 + seed)
    drawn = pa.array(rng.integers(0, 4, len(keys)), pa.int32())
    return pa.table([keys, pa.array(rng.normal(size=len(keys))), drawn], schema=_SIDECAR)
