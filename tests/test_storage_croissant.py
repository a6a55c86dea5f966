"""croissant.json: valid by Croissant's own library, true to the manifests, the same from the same dataset."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from storage_world import AXES, HEADER, candidate, files, fill, plan_rows, publish, shard_samples, start

from storage import create_dataset, finish_dataset, list_shards, load_dataset
from storage.canonical import sha256
from storage.croissant import CROISSANT, croissant, write_croissant
from storage.metadata import table
from storage.verify import verify

pytestmark = pytest.mark.filterwarnings(  # of mlcroissant and what it builds on
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning",
    "ignore:The inplace keyword:DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
MODEL = {"id": "x/y", "license": "CreativeML Open RAIL++-M", "sha256": "ab" * 32}


def described(dataset: Path) -> Path:
    """The Croissant file of a dataset, written."""
    finish_dataset(dataset)
    write_croissant(dataset, croissant(load_dataset(dataset), list_shards(dataset), MODEL))
    return dataset / CROISSANT


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("croissant") / "data"
    fill(path)
    described(path)
    return path


@pytest.fixture
def opened(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The dataset by mlcroissant, which unpacks archives into a cache of its own."""
    return by_mlcroissant(dataset / CROISSANT, tmp_path, monkeypatch)


def by_mlcroissant(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from etils import epath

    mlcroissant = pytest.importorskip("mlcroissant")
    from mlcroissant._src.core import constants
    from mlcroissant._src.operation_graph.operations import download, extract

    for module in (constants, download.constants, extract):
        for name in ("DOWNLOAD_PATH", "EXTRACT_PATH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, epath.Path(cache / name))
    return mlcroissant.Dataset(jsonld=str(path))


def test_it_has_no_issue_but_that_it_tells_no_date(dataset: Path, opened: Any) -> None:
    issues = opened.metadata.ctx.issues
    assert list(issues.errors) == []
    assert len(issues.warnings) == 1 and "datePublished" in next(iter(issues.warnings)), issues.report()


def test_every_candidate_is_a_record(dataset: Path, opened: Any) -> None:
    rows = {(row["records/key"], row["records/candidate"]): row for row in opened.records("records")}
    asked = table(dataset)
    stored = [dict(zip(asked.columns, row, strict=True)) for row in asked.fetchall()]
    assert len(rows) == len(stored) == 54
    for one in stored:
        found = rows[one["key"].encode(), one["candidate"]]
        told = {name.removeprefix("records/"): value for name, value in found.items()}
        assert {n: v.decode() if isinstance(v, bytes) else v for n, v in told.items()} == one


def test_every_kept_image_is_a_record(dataset: Path, opened: Any) -> None:
    found = {row["images/key"].decode(): row["images/image"].tobytes() for row in opened.records("images")}
    kept = [sample for index in range(3) for sample in shard_samples(index) if sample.kept]
    assert found == {one.key: Image.open(io.BytesIO(one.image or b"")).tobytes() for one in kept}


def test_every_file_is_named_with_its_hash_and_length(dataset: Path) -> None:
    facts = json.loads((dataset / CROISSANT).read_text("utf-8"))
    objects = [one for one in facts["distribution"] if one["@type"] == "cr:FileObject"]
    assert len(objects) == 2 + 2 * 3
    for one in objects:
        content = (dataset / one["contentUrl"]).read_bytes()
        assert one["sha256"] == sha256(content)
        assert one.get("contentSize", f"{len(content)} B") == f"{len(content)} B"


def test_it_says_what_users_need(dataset: Path) -> None:
    facts = json.loads((dataset / CROISSANT).read_text("utf-8"))
    assert facts["conformsTo"][0] == "http://mlcommons.org/croissant/1.0"
    assert facts["license"].startswith("https://") and facts["name"] == "small"
    assert "prompted appearance" in facts["description"] and facts["citeAs"].startswith("@misc{counterpoise_")
    assert facts["rai:dataBiases"] and "discriminate" in facts["rai:dataSocialImpact"]
    fields = {one["name"]: one for one in facts["recordSet"][0]["field"]}
    assert "never identity" in fields["race"]["description"] and set(AXES) < set(fields)
    kinds = ("sc:Text", "sc:Boolean", "sc:Integer", "sc:Float")
    assert tuple(fields[n]["dataType"] for n in ("key", "kept", "seed", "nsfw")) == kinds


def test_the_same_dataset_gives_the_same_bytes_and_verify_knows_the_file(
    dataset: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "again")
    assert described(tmp_path / "again").read_bytes() == (dataset / CROISSANT).read_bytes()
    assert verify(dataset) == []


def test_a_dataset_without_shards_or_images_is_valid_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path / "empty")
    opened = by_mlcroissant(described(tmp_path / "empty"), tmp_path / "a", monkeypatch)
    assert list(opened.metadata.ctx.issues.errors) == [] and opened.metadata.record_sets == []
    start(tmp_path / "rejected")
    publish(tmp_path / "rejected", 0, [s for row in plan_rows()[:2] for s in candidate(row, 0, False)])
    opened = by_mlcroissant(described(tmp_path / "rejected"), tmp_path / "b", monkeypatch)
    assert [one.name for one in opened.metadata.record_sets] == ["records"]
    assert len(list(opened.records("records"))) == 12


def test_text_of_others_cannot_break_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = '"}, "x": {\\n} 漢 <script> }}'
    create_dataset(tmp_path / "data", {**HEADER, "spec": {"name": evil}}, plan_rows())
    publish(tmp_path / "data", 0)
    path = described(tmp_path / "data")
    facts = json.loads(path.read_text("utf-8"))
    assert facts["name"] == evil and facts["citeAs"].count("{") == facts["citeAs"].count("}") == 3
    assert list(by_mlcroissant(path, tmp_path, monkeypatch).metadata.ctx.issues.errors) == []


def test_writing_it_again_leaves_one_file(dataset: Path) -> None:
    before = files(dataset)
    write_croissant(dataset, croissant(load_dataset(dataset), list_shards(dataset), MODEL))
    assert files(dataset) == before
    assert load_dataset(dataset).root_sha256 is not None
