"""A dataset read without any of our code: by webdataset, datasets, pandas, DuckDB and Polars, as for training."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from storage_world import NAMES, tar_path
from stream_world import keys, make

from storage import list_shards
from storage.sidecar import sidecar_name, write_sidecar
from storage.stream import stream
from storage.verdicts import write_verdicts

NAME = sidecar_name("tiny", "0" * 64, 0)
# Both libraries leave files open until they are collected.
OPEN_FILES = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of two sets; one set is rejected by a reviewer, and every image has a skew."""
    path = make(tmp_path_factory.mktemp("data"), 3, 2)
    every = keys(path, None)
    write_sidecar(path, NAME, every, [int(key[-2:]) / 10 for key in every], multiplicity=[2] * len(every))
    write_verdicts(path, "ann", [("chef_0002", "reject", "a second person"), ("chef_0000", "accept", None)])
    return path


def tars(dataset: Path) -> list[str]:
    return [str(tar_path(dataset, shard)) for shard in list_shards(dataset)]


@OPEN_FILES
def test_webdataset_shuffles_splits_and_batches_it(dataset: Path) -> None:
    import webdataset
    from torch.utils.data import DataLoader

    made = (
        webdataset.WebDataset(tars(dataset), shardshuffle=3, seed=1)
        .shuffle(20, seed=1)
        .to_tuple("json", "png")
    )
    items = [
        item
        for batch in DataLoader(made.batched(4), batch_size=None, num_workers=2)
        for item in zip(*batch, strict=True)
    ]
    found = {json.loads(record)["key"]: image for record, image in items}
    assert len(items) == 36 and found == {
        item["key"]: item["image"] for item in stream(dataset, verdicts=False)
    }
    gc.collect()


@OPEN_FILES
def test_webdataset_decodes_pixels_and_chooses_by_record(dataset: Path) -> None:
    import webdataset

    made = webdataset.WebDataset(tars(dataset), shardshuffle=False).decode("torchrgb")
    rows = [row for row in made if row["json"]["split"] == "test"]
    assert [row["__key__"] for row in rows] == keys(dataset, "test", shuffle=False)
    assert {tuple(row["png"].shape) for row in rows} == {(3, 8, 8)}
    gc.collect()


@OPEN_FILES
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_filters_and_shuffles_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # type: ignore[import-untyped]

    options: dict[str, Any] = {"split": "train", "cache_dir": str(tmp_path), "streaming": streaming}
    rows = datasets.load_dataset("webdataset", data_files=tars(dataset), **options)
    women = rows.filter(lambda row: row["json"]["gender"] == "woman").shuffle(seed=1)
    found = [row["__key__"] for row in women]
    assert sorted(found) == sorted(
        i["key"] for i in stream(dataset, verdicts=False) if i["gender"] == "woman"
    )
    assert found != sorted(found) and next(iter(women))["png"].size == (8, 8)
    gc.collect()


@OPEN_FILES
def test_datasets_reads_a_whole_folder_by_its_pattern(dataset: Path, tmp_path: Path) -> None:
    import datasets

    pattern = str(dataset / "shards/*.tar")
    rows = datasets.load_dataset("webdataset", data_files={"train": pattern}, cache_dir=str(tmp_path))[
        "train"
    ]
    assert rows["__key__"] == keys(dataset, None, shuffle=False, verdicts=False)
    gc.collect()


QUERY = """
    SELECT r.key, s.skew FROM '{0}/shards/*.parquet' r JOIN '{0}/{1}' s USING (key)
    ANTI JOIN (SELECT set_id FROM '{0}/verdicts/*.parquet' WHERE verdict = 'reject') v USING (set_id)
    WHERE r.kept ORDER BY r.key
"""


def test_pandas_duckdb_and_polars_join_verdicts_and_skew_as_we_do(dataset: Path) -> None:
    import duckdb
    import pandas  # type: ignore[import-untyped]
    import polars

    ours = sorted((item["key"], item["skew"]) for item in stream(dataset, skew=NAME) if item["copy"] == 0)
    assert len(ours) == 30
    with duckdb.connect() as connection:
        assert connection.execute(QUERY.format(dataset, NAME)).fetchall() == ours
    lazy = polars.scan_parquet(str(dataset / "shards/*.parquet")).filter(polars.col("kept"))
    rejected = polars.scan_parquet(str(dataset / "verdicts/*.parquet")).filter(
        polars.col("verdict") == "reject"
    )
    joined = lazy.join(polars.scan_parquet(dataset / NAME), on="key").join(rejected, on="set_id", how="anti")
    assert joined.select("key", "skew").sort("key").collect().rows() == ours
    frame = pandas.concat(map(pandas.read_parquet, sorted(dataset.glob("shards/*.parquet"))))
    frame = frame[frame["kept"]].merge(pandas.read_parquet(dataset / NAME), on="key", validate="one_to_one")
    verdicts = pandas.concat(map(pandas.read_parquet, dataset.glob("verdicts/*.parquet")))
    bad = set(verdicts.loc[verdicts["verdict"] == "reject", "set_id"])
    frame = frame[~frame["set_id"].isin(bad)].sort_values("key")
    assert list(zip(frame["key"], frame["skew"], strict=True)) == ours


def test_plain_tables_have_the_columns_and_types_that_are_promised(dataset: Path) -> None:
    import pandas
    import polars

    frame = pandas.read_parquet(next(iter(sorted(dataset.glob("shards/*.parquet")))))
    lazy = polars.scan_parquet(str(dataset / "shards/*.parquet")).collect_schema()
    assert list(frame.columns) == lazy.names() and set(NAMES) < set(lazy.names())
    assert (lazy["member"], lazy["seed"], lazy["kept"]) == (polars.Int32, polars.Int64, polars.Boolean)
    counts = Counter(zip(*(frame.loc[frame["kept"], name] for name in NAMES), strict=True))
    assert len(counts) == 6 and set(counts.values()) == {2}, "every cell has equally many kept images"
    sidecar, verdicts = (
        pandas.read_parquet(dataset / NAME),
        pandas.read_parquet(dataset / "verdicts/ann.parquet"),
    )
    assert {name: str(kind) for name, kind in sidecar.dtypes.items() if name != "key"} == {
        "skew": "float64", "multiplicity": "int32",
    }  # fmt: skip
    assert list(verdicts.columns) == ["set_id", "verdict", "reason"]
