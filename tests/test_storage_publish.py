from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from storage_world import (
    ENVIRONMENT,
    NAMES,
    RECIPE,
    files,
    fill,
    picture,
    publish,
    shard_samples,
    start,
    tar_path,
)

from storage import CounterpoiseError, DatasetMismatch, finish_dataset, read_samples
from storage.records import SCORES, schema, to_row
from storage.shards import EnvironmentDiffers
from storage.verify import verify

HERE = Path(__file__).parent


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    start(tmp_path / "data")
    return tmp_path / "data"


def test_shard_layout(dataset: Path) -> None:
    record = publish(dataset, 0)
    assert record.tar is not None and not record.already
    for file in record.files:
        content = (dataset / file.path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert (len(content), digest) == (file.bytes, file.sha256)
        assert file.name == f"00000-{digest[:12]}.{file.name.rpartition('.')[2]}"
    assert record.counts == {"rows": 18, "candidates": 3, "sets": 2, "images": 12}
    assert sorted(os.listdir(dataset / "shards")) == sorted(
        ["00000.json", record.tar.name, record.parquet.name]
    )


def test_manifest_holds_settings_and_no_time(dataset: Path) -> None:
    publish(dataset, 0)
    manifest = json.loads((dataset / "shards/00000.json").read_text())
    assert manifest["recipe"]["sampler"] == RECIPE["sampler"] and manifest["environment"] == ENVIRONMENT
    wanted = {
        "counts",
        "dataset_id",
        "environment",
        "format",
        "index",
        "parquet",
        "recipe",
        "recipe_sha256",
        "tar",
    }
    assert set(manifest) == {*wanted, "self_sha256"}


def test_tar_members(dataset: Path) -> None:
    record = publish(dataset, 0)
    kept = [sample for sample in shard_samples(0) if sample.kept]
    path = tar_path(dataset, record)
    with tarfile.open(path, "r:") as tar:
        members = tar.getmembers()
        contents = [(info, tar.extractfile(info).read()) for info in members]  # type: ignore[union-attr]
    names = [info.name for info in members]
    assert names == sorted(f"{sample.key}.{suffix}" for sample in kept for suffix in ("json", "png"))
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    images = {s.key: s.image for s in kept}
    assert {info.name[:-4]: content for info, content in contents if info.name.endswith(".png")} == images


def test_parquet_has_every_candidate_and_every_column(dataset: Path) -> None:
    record = publish(dataset, 0)
    table = pq.read_table(dataset / record.parquet.path)
    columns = (
        "key set_id member candidate base kept reason split concept concept_group gender race prompt "
        "neutral_prompt edited_words seed steps guidance scheduler cross_replace self_replace "
        "clip_text clip_direction clip_base background_change attribute_ok attribute_failed nsfw face_count "
        "width height sha256"
    )
    assert table.column_names == columns.split() == schema(NAMES).names
    rows = table.to_pylist()
    assert [(row["set_id"], row["candidate"], row["member"]) for row in rows] == sorted(
        (sample.set_id, sample.candidate, sample.member) for sample in shard_samples(0)
    )
    rejected = [row for row in rows if not row["kept"]]
    assert len(rejected) == 6 and {row["reason"] for row in rejected} == {"clip_text"}
    assert {row["sha256"] for row in rejected} == {None} and {row["clip_text"] for row in rejected} == {0.1}
    assert {row["face_count"] for row in rows} == {None}, "what was not computed is null, never 0"


def test_read_back_is_what_was_given(dataset: Path) -> None:
    publish(dataset, 0)
    given = sorted(shard_samples(0), key=lambda sample: (sample.set_id, sample.candidate, sample.member))
    found = list(read_samples(dataset, 0))
    assert [to_row(sample) for sample in found] == [to_row(sample) for sample in given]
    assert [sample.image for sample in found] == [sample.image for sample in given]
    assert found[0] == replace(given[0], scores={**dict.fromkeys(SCORES), **given[0].scores})


def test_bytes_do_not_depend_on_order_or_process(dataset: Path, tmp_path: Path) -> None:
    shuffled = shard_samples(1)
    random.Random(1).shuffle(shuffled)
    publish(dataset, 1, [replace(s, scores=dict(reversed([*s.scores.items()]))) for s in shuffled])
    publish(dataset, 0, recipe=dict(reversed({**RECIPE, "shard": 0}.items())))
    publish(dataset, 2)
    finish_dataset(dataset)
    script = (
        "import sys, storage_world, storage; from pathlib import Path; d = Path(sys.argv[1]); "
        "storage_world.fill(d); storage.finish_dataset(d)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}:{HERE.parent}",
        "PYTHONHASHSEED": "5",
        "TZ": "Asia/Tokyo",
    }
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-c", script, str(other)], check=True, env=environment)
    assert files(other) == files(dataset)


def test_second_publish_changes_nothing_and_says_so(dataset: Path) -> None:
    first = publish(dataset, 0)
    before = {path: path.stat().st_mtime_ns for path in (dataset / "shards").glob("*.json")}
    second = publish(dataset, 0)
    assert second == first and second.already and not first.already
    assert before == {path: path.stat().st_mtime_ns for path in (dataset / "shards").glob("*.json")}
    assert verify(dataset) == []


def test_second_publish_with_other_bytes_yields_to_the_first(dataset: Path) -> None:
    first = publish(dataset, 0)
    before = files(dataset)
    other = [replace(s, image=picture(s.seed + 77)) if s.kept else s for s in shard_samples(0)]
    with pytest.warns(
        EnvironmentDiffers, match=r"00000\.json: the shard was there already, with other bytes"
    ):
        second = publish(dataset, 0, other, environment={**ENVIRONMENT, "torch": "2.1"})
    assert second == first and second.already and files(dataset) == before


def test_publish_mends_a_lost_file_of_a_committed_shard(dataset: Path) -> None:
    record = publish(dataset, 0)
    tar_path(dataset, record).unlink()
    (dataset / record.parquet.path).write_bytes(b"torn")
    assert len(verify(dataset)) == 1
    assert publish(dataset, 0).already
    assert verify(dataset) == []


def test_another_recipe_is_refused_with_its_field(dataset: Path) -> None:
    publish(dataset, 0)
    before = files(dataset)
    recipe = {**RECIPE, "shard": 0, "sampler": {"steps": 30, "guidance": 5.0}}
    with pytest.raises(DatasetMismatch, match=r"recipe\.sampler\.steps is 20 there and 30 now") as caught:
        publish(dataset, 0, recipe=recipe)
    assert (caught.value.field, caught.value.stored, caught.value.given) == ("recipe.sampler.steps", 20, 30)
    assert files(dataset) == before


def test_a_shard_without_kept_sets_has_no_tar(dataset: Path) -> None:
    rejected = [replace(s, kept=False, reason="faces", image=None) for s in shard_samples(0)[:12]]
    rejected = [s for s in rejected if s.candidate == 0]
    record = publish(dataset, 0, rejected)
    assert record.tar is None and record.counts["images"] == 0
    assert list(dataset.glob("shards/*.tar")) == [] and verify(dataset) == []
    assert [s.reason for s in read_samples(dataset, 0)] == ["faces"] * 12


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_image_formats(dataset: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    samples = [replace(s, image=buffer.getvalue()) if s.kept else s for s in shard_samples(0)]
    publish(dataset, 0, samples)
    kept = [s for s in read_samples(dataset, 0) if s.kept]
    assert {s.image for s in kept} == {buffer.getvalue()} and verify(dataset) == []


def _count_calls(calls: int, number: int, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let `os.<name>` fail with errno `number` at its `calls`-th call and after."""
    real, seen = getattr(os, name), iter(range(10**6))

    def failing(*args: object, **more: object) -> object:
        if next(seen) >= calls:
            raise OSError(number, os.strerror(number))
        return real(*args, **more)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize("name", ["fsync", "replace", "link"])
@pytest.mark.parametrize(
    ("number", "wanted"),
    [(errno.ENOSPC, "make room"), (errno.EROFS, "change its permissions"), (errno.EIO, "see to the disk")],
)
def test_a_refusing_disk(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, wanted: str
) -> None:
    clean = files(dataset)
    for calls in range(20):
        with monkeypatch.context() as patch:
            _count_calls(calls, number, patch, name)
            try:
                publish(dataset, 0)
            except CounterpoiseError as error:
                assert wanted in str(error) and os.strerror(number) in str(error)
            else:
                break
        assert [file for file in files(dataset) if ".tmp-" in file] == []
        if not (dataset / "shards/00000.json").exists():
            assert {file: files(dataset)[file] for file in clean} == clean
            with pytest.raises(CounterpoiseError):
                list(read_samples(dataset, 0))
    assert calls >= 1, "the failing call was never reached"
    publish(dataset, 0)
    assert verify(dataset) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Linux answers EPERM on FAT and exFAT; of any other call it means that rights are missing."""
    for name, wanted in (("link", "no hard links"), ("replace", "change its permissions")):
        with monkeypatch.context() as patch:
            _count_calls(0, number if name == "link" else errno.EPERM, patch, name)
            with pytest.raises(CounterpoiseError, match=wanted) as caught:
                publish(dataset, 0)
        assert "\n" not in str(caught.value) and not (dataset / "shards/00000.json").exists()


def test_every_file_is_on_disk_before_its_name_is(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut loses what was not synced: content first, then its name, the manifest last."""
    synced: set[int] = set()
    order: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        if os.fstat(descriptor).st_ino == (dataset / "shards").stat().st_ino:
            order.append("folder")
        real["fsync"](descriptor)

    def publishing(name: str) -> Callable[[Path, Path], None]:
        def call(source: Path, target: Path) -> None:
            assert os.stat(source).st_ino in synced, f"{target} was published before it was synced"
            order.append(target.suffix)
            real[name](source, target)

        return call

    (dataset / "shards").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", publishing("replace"))
    monkeypatch.setattr(os, "link", publishing("link"))
    publish(dataset, 0)
    assert order == [".parquet", "folder", ".tar", "folder", ".json", "folder"]


def test_the_names_of_new_folders_above_a_dataset_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    start(tmp_path / "a" / "b" / "data")
    wanted = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert {folder.stat().st_ino for folder in wanted} <= synced


LIMITED = """
import resource, sys
from pathlib import Path
from typing import Any
import storage_world
from storage import CounterpoiseError
dataset = Path(sys.argv[1])
storage_world.start(dataset)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    storage_world.publish(dataset, 0)
except CounterpoiseError as error:
    sys.exit(str(error))
"""


def test_a_real_refusal_by_the_kernel_in_the_middle_of_the_tar(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "data"), "15000"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "File too large" in run.stderr and "make room" in run.stderr
    assert "Traceback" not in run.stderr
    assert sorted(files(tmp_path / "data")) == ["dataset.json", "plan.parquet", "versions/00000.json"]
    publish(tmp_path / "data", 0)
    assert verify(tmp_path / "data") == []


def test_ctrl_c_leaves_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str) -> None:
        if name == "tar.written":
            raise KeyboardInterrupt

    before = files(dataset)
    with monkeypatch.context() as patch:
        patch.setattr("storage.backend.fault_point", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish(dataset, 0)
    assert files(dataset) == before
    assert not publish(dataset, 0).already


def test_a_disk_that_lies_is_noticed_before_the_commit(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(name: str) -> None:
        if name == "tar.synced":
            (staged,) = (dataset / "shards").glob("00000.tar.tmp-*")
            content = bytearray(staged.read_bytes())
            content[700] ^= 1
            staged.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr("storage.backend.fault_point", flip)
        with pytest.raises(CounterpoiseError, match="sha256"):
            publish(dataset, 0)
    assert list((dataset / "shards").iterdir()) == []


def test_fill_is_sound(tmp_path: Path) -> None:
    fill(tmp_path)
    assert verify(tmp_path) == []
