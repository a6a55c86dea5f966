"""A disk that is full or does not allow writing: one line, nothing half-published, and afterwards the same root hash."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import Disk, refuse_at, small_disk
from storage_world import SHARDS, files, fill, publish, start

from storage import CounterpoiseError, finish_dataset, list_shards, load_dataset, read_samples
from storage.card import write_card
from storage.verify import clean, verify

ROOM = 4096
#: What may be left to be said; the same again sees to it.
MENDED = ("left over", "plan.parquet is missing", "is not the newest version")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a dataset on a disk with room."""
    dataset = tmp_path_factory.mktemp("whole")
    make(dataset)
    return files(dataset)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", ROOM) as found:
        yield found


def make(dataset: Path) -> None:
    """Every step of a dataset; what is there already is left as it is."""
    start(dataset)
    there = {record.index for record in list_shards(dataset)}
    for index in range(SHARDS):
        if index not in there:
            publish(dataset, index)
    write_card(dataset, "# A card\n" * 500)
    finish_dataset(dataset)


def check_stopped(dataset: Path, error: CounterpoiseError, *words: str) -> None:
    """One line, no left-over, and whatever a manifest names is whole."""
    assert "\n" not in str(error) and all(word in str(error) for word in words), error
    assert [name for name in files(dataset) if ".tmp-" in name] == []
    if (dataset / "dataset.json").exists():
        assert [line for line in verify(dataset) if not any(text in line for text in MENDED)] == []
        for record in list_shards(dataset):
            assert len(list(read_samples(dataset, record.index))) == 18


def check_continued(dataset: Path, whole: dict[str, bytes]) -> None:
    """The same again ends in the same files."""
    make(dataset)
    clean(dataset)
    assert verify(dataset) == [] and files(dataset) == whole


def test_a_disk_that_is_full_at_any_size(disk: Disk, whole: dict[str, bytes]) -> None:
    needed = sum(-(-len(content) // 4096) * 4 for content in whole.values())
    made: set[int] = set()
    (disk.path / "filler").write_bytes(bytes(8192))
    for size in range(0, needed, 12):
        dataset = disk.path / f"data{size}"
        dataset.mkdir()
        disk.resize(_used(disk.path) + size)
        with pytest.raises(CounterpoiseError) as caught:
            make(dataset)
        check_stopped(dataset, caught.value, "No space left on device", "make room and run the same again")
        made.add(len(list_shards(dataset)) if (dataset / "dataset.json").exists() else -1)
        disk.resize(_used(disk.path) + ROOM)
        check_continued(dataset, whole)
        for path in sorted(dataset.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert made == {-1, 0, 1, 2, 3}, "it was full before the header, before every shard and after the last"


def _used(path: Path) -> int:
    """KiB that are taken on the disk of a folder."""
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024


def test_a_disk_without_room_for_another_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", ROOM) as disk:
        start(disk.path / "data")
        disk._remount(f"nr_inodes={len(list(disk.path.rglob('*'))) + 1}")
        with pytest.raises(CounterpoiseError, match="make room and run the same again"):
            publish(disk.path / "data", 0)
        assert verify(disk.path / "data") == [] and list_shards(disk.path / "data") == []


@pytest.mark.parametrize("made", [0, 1])
def test_a_read_only_disk(disk: Disk, whole: dict[str, bytes], made: int) -> None:
    dataset = disk.path / "data"
    if made:
        start(dataset)
        publish(dataset, 0)
    before = files(dataset)
    with disk.read_only():
        with pytest.raises(CounterpoiseError) as caught:
            make(dataset)
        check_stopped(
            dataset, caught.value, "Read-only file system", "change its permissions or choose another one"
        )
        assert files(dataset) == before
        if made:
            assert verify(dataset) == [] and clean(dataset) == [], "reading needs no right to write"
    check_continued(dataset, whole)


def test_left_overs_on_a_read_only_disk(disk: Disk) -> None:
    fill(disk.path / "data")
    (disk.path / f"data/shards/00000.tar.tmp-{'0' * 16}").write_bytes(b"half")
    with disk.read_only(), pytest.raises(CounterpoiseError, match="change its permissions"):
        clean(disk.path / "data")


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_no_room_at_any_write_step(tmp_path: Path, whole: dict[str, bytes], step: int) -> None:
    call, done = 0, False
    steps: set[str] = set()
    while not done:
        dataset = tmp_path / f"data{call}"
        with pytest.MonkeyPatch.context() as patch:
            seen = refuse_at(call, patch)
            try:
                make(dataset)
                done = True
            except CounterpoiseError as error:
                check_stopped(dataset, error, "No space left on device", "make room and run the same again")
            steps |= set(seen)
        check_continued(dataset, whole)
        call += step
    assert call > 100 and steps == {"open", "write", "fsync", "replace", "link", "mkdir"}


def test_the_root_hash_is_the_same_after_all(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refuse_at(40, patch, errno.EDQUOT)
        with pytest.raises(CounterpoiseError, match="quota"):
            make(tmp_path / "data")
    make(tmp_path / "data")
    make(tmp_path / "other")
    assert load_dataset(tmp_path / "data").root_sha256 == load_dataset(tmp_path / "other").root_sha256
