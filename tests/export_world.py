"""A small dataset to export: three splits, one group of concepts, one rejected candidate a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from storage_world import HEADER, SHARDS, plan_rows, publish, shard_samples

from flows.export.options import Chat
from flows.export.run import Exported, export
from flows.export.source import open_source
from storage import Sample, create_dataset, finish_dataset

SPLITS = {"chef_0001": "validation", "science_0001": "test"}
GROUPS = {"chef": "work", "science": "work"}
MODEL = {"id": "tiny/model", "sha256": "ab" * 32, "licence": "apache-2.0", "restrictions": None}
SKEW = "skew/toy-0123456789ab-0.parquet"


def rows() -> list[dict[str, Any]]:
    """The plan: two shards of training sets, and one with a validation and a test set."""
    found = []
    for row in plan_rows():
        split = SPLITS.get(row["set_id"], "train")
        found.append({**row, "split": split, "concept_group": GROUPS[row["concept"]]})
    return found


def samples(index: int) -> list[Sample]:
    """Candidates of a shard, as the plan has them."""
    return [
        replace(one, split=SPLITS.get(one.set_id, "train"), concept_group=GROUPS[one.concept])
        for one in shard_samples(index)
    ]


def kept() -> dict[str, Sample]:
    """Every kept sample by its key, in the order of storage."""
    return {one.key: one for index in range(SHARDS) for one in samples(index) if one.kept}


def make(path: Path) -> Path:
    """The dataset, closed."""
    create_dataset(path, {**HEADER, "model": MODEL}, rows())
    for index in range(SHARDS):
        publish(path, index, samples(index))
    finish_dataset(path)
    return path


def judge(path: Path, reviewer: str, **verdicts: str) -> None:
    """Write a reviewer's verdicts."""
    names = list(verdicts)
    table = {"set_id": names, "verdict": list(verdicts.values()), "reason": ["why"] * len(names)}
    (path / "verdicts").mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path / "verdicts" / f"{reviewer}.parquet")


def sidecar(
    path: Path, skew: Mapping[str, float], name: str = SKEW, times: Sequence[int] | None = None
) -> None:
    """Write a skew sidecar, with multiplicities if given."""
    (path / "skew").mkdir(exist_ok=True)
    table = pa.table({"key": list(skew), "skew": pa.array(list(skew.values()), pa.float64())})
    if times is not None:
        table = table.append_column("multiplicity", pa.array(times, pa.int32()))
    pq.write_table(table, path / name)


def exported(path: Path, to: str, out: Path | str, **chat: Any) -> Exported:
    """Export without a terminal."""
    return export(open_source(str(path)), to, str(out), Chat(**chat), lambda: None)
