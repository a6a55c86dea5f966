"""The card as the hub reads it, and what it tells of verdicts, provenance, bias and use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, DatasetCardData
from storage_world import fill

from storage import CounterpoiseError, finish_dataset, load_dataset
from storage.card import Layout, dataset_card
from storage.card_text import license_url
from storage.metadata import shortfalls, verdict_counts, yield_by_concept
from storage.verdicts import rejected_sets

TINY = {"id": "paperdolls", "license": "apache-2.0", "sha256": "cd" * 32}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    fill(tmp_path)
    finish_dataset(tmp_path)
    return tmp_path


def card(dataset: Path, model: dict[str, Any] = TINY, layout: Layout | None = None) -> str:
    yields, short = yield_by_concept(dataset), shortfalls(dataset)
    return dataset_card(load_dataset(dataset), yields, short, model, verdict_counts(dataset), layout=layout)


def judge(dataset: Path, reviewer: str, **columns: Any) -> Path:
    """Write a file of verdicts."""
    path = dataset / "verdicts" / f"{reviewer}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_the_hub_reads_the_front_matter(dataset: Path) -> None:
    found = DatasetCard(card(dataset)).data
    assert isinstance(found, DatasetCardData)
    assert (found.license, found.pretty_name, found.language) == ("apache-2.0", "small", ["en"])
    assert found.size_categories == ["n<1K"]
    assert set(found.task_categories) == {"image-classification", "zero-shot-image-classification"}
    assert {"webdataset", "image", "synthetic", "counterfactual"} <= set(found.tags)
    again = DatasetCardData(**found.to_dict())
    assert again.to_dict() == found.to_dict(), "nothing in it that the hub does not know"


def test_datasets_reads_the_configs(dataset: Path) -> None:
    from datasets.utils.metadata import MetadataConfigs

    found = MetadataConfigs.from_dataset_card_data(DatasetCard(card(dataset)).data)
    assert found.get_default_config_name() == "images"
    assert {name: one["data_files"] for name, one in found.items()} == {
        "images": "shards/*.tar",
        "records": "shards/*.parquet",
    }


def test_it_says_how_the_images_may_be_used_and_what_is_wrong_with_them(dataset: Path) -> None:
    found = card(dataset)
    for section in (
        "What the labels mean",
        "Intended use",
        "Out of scope",
        "Bias and limits",
        "Yield",
        "What fell short",
        "How it was filtered",
        "Verdicts",
        "Provenance",
        "Weights and licence",
        "Reading it",
    ):
        assert f"# {section}\n" in found, section
    for words in ("trainedAlgorithmicMedia", "stereotypes", "sha256 of its weights", "Nobody has judged"):
        assert words in found, words


def test_it_names_the_verdicts(dataset: Path) -> None:
    judge(
        dataset,
        "ann",
        set_id=["chef_0000", "science_0000"],
        verdict=["reject", "accept"],
        reason=["odd", None],
    )
    judge(dataset, "refilter", set_id=["chef_0000"], verdict=["accept"], reason=pa.nulls(1))
    assert verdict_counts(dataset) == [
        {"reviewer": "ann", "accepted": 1, "rejected": 1},
        {"reviewer": "refilter", "accepted": 1, "rejected": 0},
    ]
    assert "| ann | 1 | 1 |" in card(dataset) and "| refilter | 1 | 0 |" in card(dataset)
    assert rejected_sets(dataset) == {"chef_0000": "ann: odd"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"set_id": ["a"], "verdict": ["maybe"], "reason": [""]}, "'maybe', 'accept' or 'reject' is wanted"),
        ({"set_id": ["a"], "reason": [""]}, "'verdict'"),
        ({"set_id": [1], "verdict": ["accept"], "reason": [""]}, "'set_id'"),
        ({"set_id": [None, "a"], "verdict": ["accept"] * 2, "reason": ["", ""]}, "nulls"),
    ],
)
def test_a_bad_file_of_verdicts_is_one_line(dataset: Path, columns: dict[str, Any], words: str) -> None:
    path = judge(dataset, "ann", **columns)
    for ask in (rejected_sets, verdict_counts):
        with pytest.raises(CounterpoiseError, match=words) as caught:
            ask(dataset)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_verdicts_that_are_no_parquet_are_one_line(dataset: Path) -> None:
    judge(dataset, "ann", set_id=["a"], verdict=["accept"], reason=[""]).write_bytes(b"PAR1 not")
    with pytest.raises(CounterpoiseError, match=r"ann\.parquet is damaged"):
        rejected_sets(dataset)


def test_an_exports_card_has_its_own_files(dataset: Path) -> None:
    layout = Layout(
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        reading="As ever.\n",
        tags=("parquet",),
        images=12345,
        note="Exported.",
    )
    found = card(dataset, layout=layout)
    data = DatasetCard(found).data
    assert data.size_categories == ["10K<n<100K"] and "parquet" in data.tags and "webdataset" not in data.tags
    assert data.to_dict()["configs"] == [dict(layout.configs[0])]
    assert "Exported.\n" in found and found.endswith("## Reading it\n\nAs ever.\n")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("apache-2.0", "https://spdx.org/licenses/Apache-2.0.html"),
        ("CreativeML Open RAIL++-M", "https://huggingface.co/"),
        ("something of mine", "something of mine"),
        (None, "unknown"),
    ],
)
def test_licences_are_told_by_their_address(given: str | None, url: str) -> None:
    assert license_url({"license": given}).startswith(url)
