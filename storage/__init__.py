"""The record: bytes and facts of a dataset. Imports no torch, no diffusers, no Prefect.

Write with `create_dataset`, `publish_shard`, `finish_dataset`; read with `load_dataset`, `list_shards`,
`read_samples`. Checking is in `storage.verify`, questions to the records are in `storage.metadata`.
"""

from __future__ import annotations

from .errors import CounterpoiseError, DatasetMismatch, ShardDamaged
from .manifest import DatasetManifest, ShardRecord, create_dataset, finish_dataset, list_shards, load_dataset
from .records import Sample
from .shards import publish_shard, read_samples

__all__ = [
    "CounterpoiseError",
    "DatasetManifest",
    "DatasetMismatch",
    "Sample",
    "ShardDamaged",
    "ShardRecord",
    "create_dataset",
    "finish_dataset",
    "list_shards",
    "load_dataset",
    "publish_shard",
    "read_samples",
]
