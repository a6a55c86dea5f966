"""Datasets whose files were changed and whose manifests were made to fit, by somebody with bad intent."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_world import exported, make
from storage_world import files, fill, reseal

from flows.export.target import inside
from storage import CounterpoiseError, ShardDamaged, finish_dataset, list_shards, read_samples
from storage.records import to_parquet
from storage.stream import stream
from storage.verify import verify


def put(dataset: Path, kind: str, content: bytes) -> None:
    """Another data file in the first shard, and every hash made to fit."""
    digest = hashlib.sha256(content).hexdigest()
    name = f"00000-{digest[:12]}.{kind}"
    (dataset / "shards" / name).write_bytes(content)
    reseal(dataset / "shards/00000.json", {kind: {"name": name, "bytes": len(content), "sha256": digest}})
    for path in (dataset / "dataset.json", *sorted((dataset / "versions").iterdir())):
        reseal(path, {"shards": [], "counts": {}, "root_sha256": None})
    finish_dataset(dataset)


def change(dataset: Path, column: str, value: Any) -> None:
    """One value in every row of the first shard's Parquet."""
    rows = pq.read_table(dataset / list_shards(dataset)[0].parquet.path)
    field = rows.schema.field(column)
    values = pa.array([value] * rows.num_rows, field.type)
    put(dataset, "parquet", to_parquet(rows.set_column(rows.schema.get_field_index(column), field, values)))


ODD = [
    ("split", "../../../x"),
    ("split", "/tmp/x"),
    ("split", "train\n"),
    ("split", ""),
    ("set_id", "../x"),
    ("concept", "a/../b"),
    ("key", "../x-00"),
    ("member", 7),
]


@pytest.mark.parametrize(("column", "value"), ODD)
def test_rows_with_more_than_names_are_refused(tmp_path: Path, column: str, value: Any) -> None:
    fill(tmp_path)
    finish_dataset(tmp_path)
    change(tmp_path, column, value)
    wanted = "key .* has to be" if column in ("key", "member") else f"{column} .* has to match"
    calls: list[Any] = [
        lambda: next(read_samples(tmp_path, 0)),
        lambda: list(stream(tmp_path, keep_sets=False)),
    ]
    for call in calls:
        with pytest.raises(ShardDamaged, match=wanted) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert any("has to" in line for line in verify(tmp_path))


@pytest.mark.parametrize("to", ["hf", "chat", "energon"])
@pytest.mark.parametrize(("column", "value"), [("split", "../../escaped"), ("set_id", "../../../escaped")])
def test_exports_write_nothing_outside(tmp_path: Path, to: str, column: str, value: str) -> None:
    data = make(tmp_path / "data")
    change(data, column, value)
    before = set(files(tmp_path))
    with pytest.raises(ShardDamaged, match="has to match"):
        exported(data, to, tmp_path / "a/b/out")
    assert set(files(tmp_path)) == before


def test_no_file_of_an_export_is_outside_its_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "train/a.png") == tmp_path / "train/a.png"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path)
    for name in ("../x", "/tmp/x", "link/x", "a/../../x"):
        with pytest.raises(CounterpoiseError, match="nothing outside its folder"):
            inside(tmp_path / "out", name)
