"""`--to hf`: what `datasets` reads back is what was stored, byte by byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from export_world import exported, judge, kept, make
from huggingface_hub import DatasetCard
from storage_world import AXES, files

from flows.export import hub
from flows.export.source import open_source
from storage import CounterpoiseError
from storage.records import schema, to_row
from storage.verify import verify

COLUMNS = ["image", *schema(list(AXES)).names]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hub") / "data")


def rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of every split by plain Parquet, files in the order of their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / "data").iterdir()):
        found.setdefault(path.name.partition("-")[0], []).extend(pq.read_table(path).to_pylist())
    return found


def test_every_kept_image_is_a_row_with_all_that_is_recorded(dataset: Path, tmp_path: Path) -> None:
    exported(dataset, "hf", tmp_path / "out")
    found = rows(tmp_path / "out")
    assert {split: len(content) for split, content in found.items()} == {
        "train": 24,
        "validation": 6,
        "test": 6,
    }
    assert [row["key"] for row in found["train"]] == [k for k, s in kept().items() if s.split == "train"]
    for split, content in found.items():
        for row in content:
            sample = kept()[row["key"]]
            assert row.pop("image") == {"bytes": sample.image, "path": f"{sample.key}.png"}
            assert row == to_row(sample) and row["split"] == split
    assert verify(dataset) == []


def test_datasets_reads_the_folder(dataset: Path, tmp_path: Path) -> None:
    import datasets

    exported(dataset, "hf", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in found.items()} == {"train": 24, "validation": 6, "test": 6}
    assert found["train"].column_names == COLUMNS
    assert found["train"].features["image"] == datasets.Image()
    row = found["test"][0]
    assert row["image"].size == (8, 8) and row["concept"] == "science" and row["clip_base"] is not None
    raw = found["test"].cast_column("image", datasets.Image(decode=False))[0]
    assert raw["image"]["bytes"] == kept()[raw["key"]].image


def test_the_card_is_the_exports(dataset: Path, tmp_path: Path) -> None:
    exported(dataset, "hf", tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    parts = [{"split": name, "path": f"data/{name}-*"} for name in ("train", "validation", "test")]
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": parts}]
    assert card.data.license == "apache-2.0" and "parquet" in card.data.tags
    assert "This is an export" in card.text and "datasets.load_dataset(os.getcwd())" in card.text


def test_files_and_groups_are_closed_when_full(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(dataset, "hf", tmp_path / "one")
    size = len(next(iter(kept().values())).image or b"")
    monkeypatch.setattr(hub, "GROUP_ROWS", 4)
    monkeypatch.setattr(hub, "FILE_BYTES", 8 * size - size // 2)
    exported(dataset, "hf", tmp_path / "many")
    names = Counter(path.name.partition("-")[0] for path in (tmp_path / "many" / "data").iterdir())
    assert names == {"train": 3, "validation": 1, "test": 1}
    assert (tmp_path / "many/data/train-00002-of-00003.parquet").is_file()
    first = pq.ParquetFile(tmp_path / "many/data/train-00000-of-00003.parquet")
    assert (first.num_row_groups, first.metadata.num_rows) == (2, 8)
    assert rows(tmp_path / "many") == rows(tmp_path / "one")


def test_rejected_sets_are_left_out(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    judge(dataset, "ann", chef_0000="reject", science_0001="reject", science_0000="accept")
    found = exported(dataset, "hf", tmp_path / "out").source
    assert (found.left_out, dict(found.images)) == (2, {"train": 18, "validation": 6})
    content = rows(tmp_path / "out")
    assert list(content) == ["train", "validation"], "a split without images has no file"
    assert {row["set_id"] for row in content["train"]} == {"science_0000", "chef_0002", "science_0002"}
    assert "| ann | 1 | 2 |" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_dataset_without_a_set_that_may_go_out_is_refused(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    judge(dataset, "ann", **dict.fromkeys({one.set_id for one in kept().values()}, "reject"))
    with pytest.raises(CounterpoiseError, match="verdicts reject all 6 kept sets"):
        open_source(str(dataset))


def test_the_same_dataset_gives_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        exported(dataset, "hf", tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
