"""`--to energon`: tars, offsets and `.nv-meta` as Megatron-Energon's own preparation makes them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import struct
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest
import yaml
from export_world import exported, judge, kept, make
from huggingface_hub import DatasetCard
from storage_world import files

from storage.records import sample_json


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("energon")
    exported(make(folder / "data"), "energon", folder / "out")
    return folder / "out"


TARS = {"train/00000.tar": 12, "test/00001.tar": 6, "val/00001.tar": 6, "train/00002.tar": 12}


def test_the_files_are_those_of_energon(out: Path) -> None:
    tars = {name for tar in TARS for name in (tar, f"{tar}.idx")}
    meta = {".info.json", "split.yaml", "dataset.yaml", "index.sqlite", "index.uuid"}
    assert set(files(out)) == {*tars, *(f".nv-meta/{name}" for name in meta), "README.md", "export.json"}


def test_the_meta_files_say_what_energon_asks(out: Path) -> None:
    meta = out / ".nv-meta"
    info = json.loads((meta / ".info.json").read_text())
    assert info == {"energon_version": "7.4.1", "shard_counts": TARS}
    assert list(info["shard_counts"]) == list(TARS), "the index counts tars in this order"
    assert yaml.safe_load((meta / "split.yaml").read_text()) == {
        "split_parts": {
            "train": ["train/00000.tar", "train/00002.tar"],
            "val": ["val/00001.tar"],
            "test": ["test/00001.tar"],
        },
        "exclude": [],
    }
    assert yaml.safe_load((meta / "dataset.yaml").read_text()) == {
        "sample_type": {"__module__": "megatron.energon", "__class__": "CaptioningSample"},
        "field_map": {"image": "png", "caption": "json[neutral_prompt]"},
    }
    uuid.UUID((meta / "index.uuid").read_text())


def test_the_tars_hold_images_and_records_as_they_were_stored(out: Path) -> None:
    found = {}
    for name in TARS:
        with tarfile.open(out / name) as tar:
            for member in tar.getmembers():
                assert (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
                found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    wanted = {f"{key}.png": sample.image for key, sample in kept().items()}
    assert found == {**wanted, **{f"{key}.json": sample_json(sample) for key, sample in kept().items()}}


@pytest.mark.parametrize("name", TARS)
def test_offsets_lead_to_the_samples(out: Path, name: str) -> None:
    raw = (out / f"{name}.idx").read_bytes()
    places = struct.unpack(f"<{len(raw) // 8}Q", raw)
    content = (out / name).read_bytes()
    with tarfile.open(out / name) as tar:
        members = tar.getmembers()
        assert list(places) == [*(one.offset for one in members[::2]), tar.offset]
    assert content[places[-1] :].strip(b"\0") == b""


def test_the_index_leads_to_every_part(out: Path) -> None:
    names = list(TARS)
    database = sqlite3.connect(out / ".nv-meta/index.sqlite")
    keys = dict(database.execute("SELECT sample_key, tar_file_id FROM samples").fetchall())
    assert set(keys) == set(kept())
    parts = database.execute(
        "SELECT sample_key, p.tar_file_id, part_name, content_byte_offset, content_byte_size FROM sample_parts p "
        "JOIN samples s ON s.tar_file_id = p.tar_file_id AND s.sample_index = p.sample_index"
    ).fetchall()
    database.close()
    assert len(parts) == 2 * len(keys)
    for key, tar, part, offset, size in parts:
        content = (out / names[tar]).read_bytes()[offset : offset + size]
        assert content == (kept()[key].image if part == "png" else sample_json(kept()[key]))


def test_the_same_dataset_gives_the_same_bytes(out: Path, tmp_path: Path) -> None:
    exported(make(tmp_path / "data"), "energon", tmp_path / "again")
    assert files(tmp_path / "again") == files(out)


def test_the_hub_reads_the_tars_split_by_split(out: Path, tmp_path: Path) -> None:
    import datasets

    card = DatasetCard.load(out / "README.md").data.to_dict()
    (config,) = card["configs"]
    assert [part["path"] for part in config["data_files"]] == ["train/*.tar", "val/*.tar", "test/*.tar"]
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in found.items()} == {"train": 24, "validation": 6, "test": 6}


def test_rejected_sets_are_left_out_and_an_empty_split_stays_named(tmp_path: Path) -> None:
    dataset = make(tmp_path / "data")
    judge(dataset, "ann", science_0001="reject", chef_0000="reject")
    exported(dataset, "energon", tmp_path / "out")
    meta = tmp_path / "out/.nv-meta"
    counts = json.loads((meta / ".info.json").read_text())["shard_counts"]
    assert counts == {"train/00000.tar": 6, "train/00002.tar": 12, "val/00001.tar": 6}
    assert yaml.safe_load((meta / "split.yaml").read_text())["split_parts"]["test"] == []


LOAD = """
import sys
from megatron.energon import WorkerConfig, get_loader, get_train_dataset, get_val_dataset
from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator
settings = WorkerConfig(rank=0, world_size=1, num_workers=0)
plain = {"batch_size": 1, "worker_config": settings}
train = get_train_dataset(
    sys.argv[1], shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False, **plain
)
for name, part in (("train", train), ("val", get_val_dataset(sys.argv[1], **plain))):
    for batch in get_loader(part):
        print(name, batch.__key__[0], tuple(batch.image.shape[1:]), batch.caption[0], sep="|")
"""
PREPARE = """
import json, sys
from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator
tars = list(json.load(open(sys.argv[2] + "/.nv-meta/.info.json"))["shard_counts"])
parts = [(name, name + "/.*") for name in ("train", "val", "test")]
WebdatasetPreparator.prepare_dataset(sys.argv[1], tars, split_parts_patterns=parts, workers=1)
"""


def energon(code: str, *arguments: Path) -> str:
    """Run code where Megatron-Energon is installed: its pins do not fit this project's, so it lives by itself."""
    python = os.environ.get("COUNTERPOISE_ENERGON_PYTHON")
    if not python:
        pytest.skip("COUNTERPOISE_ENERGON_PYTHON names no Python with megatron-energon")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.slow
def test_energon_loads_it(out: Path) -> None:
    lines = [line.split("|") for line in energon(LOAD, out).splitlines()]
    wanted = {"train": "train", "val": "validation"}
    for part, split in wanted.items():
        found = {key: caption for name, key, shape, caption in lines if name == part and shape == "(3, 8, 8)"}
        assert found == {key: one.neutral_prompt for key, one in kept().items() if one.split == split}


@pytest.mark.slow
def test_the_cards_reading_lines_run_as_they_stand(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(out)
    assert energon(code + "print(next(iter(rows)).caption[0])").startswith("A photo of a person, ")


@pytest.mark.slow
def test_energons_own_preparation_makes_the_same(out: Path, tmp_path: Path) -> None:
    for name in TARS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((out / name).read_bytes())
    energon(PREPARE, tmp_path, out)
    for name in TARS:
        assert (tmp_path / f"{name}.idx").read_bytes() == (out / f"{name}.idx").read_bytes()
    info = (tmp_path / ".nv-meta/.info.json").read_text(), (out / ".nv-meta/.info.json").read_text()
    assert json.loads(info[0])["shard_counts"] == json.loads(info[1])["shard_counts"]
    assert dumped(tmp_path) == dumped(out)


def dumped(folder: Path) -> list[object]:
    """Tables, columns, indexes and rows of an index."""
    database = sqlite3.connect(folder / ".nv-meta/index.sqlite")
    found: list[object] = [
        sorted(database.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall())
    ]
    for table in ("samples", "sample_parts"):
        found += database.execute(f"PRAGMA table_info({table})").fetchall()
        found += sorted(database.execute(f"SELECT * FROM {table}").fetchall())
    database.close()
    return found
