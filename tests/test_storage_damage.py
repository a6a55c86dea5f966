from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storage_world import HEADER, SHARDS, SPEC, files, fill, plan_rows, publish, reseal, start

from storage import (
    CounterpoiseError,
    ShardDamaged,
    create_dataset,
    finish_dataset,
    list_shards,
    load_dataset,
    read_samples,
)
from storage.backend import open_backend
from storage.manifest import read_plan
from storage.metadata import table
from storage.query import open_records
from storage.verify import clean, verify

AGAIN = "`counterpoise generate` with the dataset's spec makes it again."


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound")
    fill(path)
    finish_dataset(path)
    return path


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one shard, for damage in every place."""
    path = tmp_path_factory.mktemp("single")
    create_dataset(path, HEADER, plan_rows()[:2])
    publish(path, 0)
    finish_dataset(path)
    return path


@pytest.fixture(autouse=True)
def same_after(dataset: Path) -> Iterator[None]:
    """Every test gives the dataset back as it was."""
    before = files(dataset)
    yield
    assert files(dataset) == before and verify(dataset) == []


class Damaged:
    """A file with other content inside a with-block; None removes it."""

    def __init__(self, path: Path, content: bytes | None) -> None:
        self.path, self.content = path, content

    def __enter__(self) -> None:
        self.before = self.path.read_bytes()
        if self.content is None:
            self.path.unlink()
        else:
            self.path.write_bytes(self.content)

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.before)
        for folder in self.path.parents[:2]:
            shutil.rmtree(folder / "quarantine", ignore_errors=True)


def _readers_refuse(dataset: Path, name: str) -> None:
    """Nothing of a damaged file comes out of a reader, not even its sound beginning."""
    given: list[object] = []
    with pytest.raises(CounterpoiseError):
        if name == "plan.parquet":
            given.extend(read_plan(dataset))
        elif name.startswith("versions/"):
            given.extend(list_shards(dataset, version=int(Path(name).stem)))
        else:
            index = int(Path(name).name[:5]) if name.startswith("shards/") else 0
            for sample in read_samples(dataset, index):
                given.append(sample)
    assert given == []
    if not name.endswith(".tar") and not name.startswith("versions/"):
        _tables_refuse(dataset, name)


def _tables_refuse(dataset: Path, name: str) -> None:
    """No row of a damaged file is counted, with or without the plan."""
    if name != "plan.parquet":
        with pytest.raises(CounterpoiseError):
            table(dataset)
    with pytest.raises(CounterpoiseError), open_records(dataset) as records:
        records.ask("SELECT 1")


def _cuts(size: int, rng: random.Random, count: int) -> list[int]:
    return sorted({*range(0, size, 512), *(rng.randrange(size) for _ in range(count))})


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["tar", "parquet", "json"])
def test_a_shard_file_cut_anywhere_is_found_and_refused(single: Path, kind: str, count: int) -> None:
    path = next(single.glob(f"shards/00000*.{kind}"))
    content = path.read_bytes()
    for end in _cuts(len(content), random.Random(count), count):
        with Damaged(path, content[:end]):
            lines = verify(single, decode_images=False)
            assert lines and all("00000" in line for line in lines)
            _readers_refuse(single, f"shards/{path.name}")


@pytest.mark.parametrize("name", ["dataset.json", "plan.parquet"])
def test_a_dataset_file_cut_anywhere_is_found_and_refused(single: Path, name: str) -> None:
    path = single / name
    content = path.read_bytes()
    for end in _cuts(len(content), random.Random(2), 30):
        with Damaged(path, content[:end]):
            assert any(name in line for line in verify(single, decode_images=False))
            _readers_refuse(single, name)


def test_a_longer_file_is_found_and_refused(single: Path) -> None:
    for name, content in files(single).items():
        for tail in (b"\0", b"\n", content):
            with Damaged(single / name, content + tail):
                assert any(Path(name).name in line for line in verify(single, decode_images=False))
                _readers_refuse(single, name)


@pytest.mark.parametrize("count", [250, pytest.param(2000, marks=pytest.mark.slow)])
def test_flipped_bits_are_found_and_refused(single: Path, count: int) -> None:
    rng, contents = random.Random(count), files(single)
    names = list(contents)
    for turn in range(count):
        name = names[turn % len(names)]
        content = bytearray(contents[name])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        with Damaged(single / name, bytes(content)):
            assert any(Path(name).name in line for line in verify(single, decode_images=False)), name
            _readers_refuse(single, name)


def test_a_flipped_bit_before_finishing_is_found(tmp_path: Path) -> None:
    start(tmp_path)
    publish(tmp_path, 0)
    path = tmp_path / "shards/00000.json"
    content, rng = path.read_bytes(), random.Random(4)
    for _ in range(100):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        for call in (list_shards, finish_dataset):
            with Damaged(path, bytes(flipped)):
                assert len(verify(tmp_path)) == 1
                with pytest.raises(ShardDamaged):
                    call(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "parquet", "json"])
def test_swapped_shards_are_found_and_refused(dataset: Path, kind: str) -> None:
    first, second = next(dataset.glob(f"shards/00000*.{kind}")), next(dataset.glob(f"shards/00002*.{kind}"))
    old = first.read_bytes()
    with Damaged(first, second.read_bytes()), Damaged(second, old):
        lines = verify(dataset)
        assert len(lines) == 2 and "00000" in lines[0] and "00002" in lines[1]
        for index in (0, 2):
            with pytest.raises(ShardDamaged):
                list(read_samples(dataset, index))
        if kind != "tar":
            _tables_refuse(dataset, first.name)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_missing_data_file_is_found_and_refused(dataset: Path, kind: str) -> None:
    path = next(dataset.glob(f"shards/00002*.{kind}"))
    with Damaged(path, None):
        assert verify(dataset) == [f"{path} is missing: {AGAIN}"]
        _readers_refuse(dataset, f"shards/{path.name}")
        assert clean(dataset) == []


def test_a_missing_manifest_is_found_and_its_files_are_not_cleaned_away(dataset: Path) -> None:
    path = dataset / "shards/00002.json"
    with Damaged(path, None):
        assert verify(dataset) == [f"{path} is missing: {AGAIN}"]
        with pytest.raises(ShardDamaged, match=r"00002\.json is missing, though dataset\.json lists it"):
            list_shards(dataset)
        assert clean(dataset) == []
    with Damaged(path, b"{}"):
        assert len(verify(dataset)) == 1 and clean(dataset) == []


def test_a_lost_header_is_restored_by_the_same_spec_only(dataset: Path) -> None:
    path = dataset / "dataset.json"
    with Damaged(path, None):
        with pytest.raises(CounterpoiseError, match=r"holds no dataset\.json"):
            verify(dataset)
        with pytest.raises(CounterpoiseError, match=r"spec\.seed is 7 there and 8 now"):
            create_dataset(dataset, {**HEADER, "spec": {**SPEC, "seed": 8}}, plan_rows())
        start(dataset)
        assert [record.index for record in list_shards(dataset)] == [0, 1, 2]
        assert finish_dataset(dataset).root_sha256 is not None and verify(dataset) == []


def test_shards_that_lost_every_header_get_back_their_own_only(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "dataset.json").unlink()
    shutil.rmtree(tmp_path / "versions")
    with pytest.raises(CounterpoiseError, match="dataset_id"):
        create_dataset(tmp_path, {**HEADER, "spec": {**SPEC, "seed": 8}}, plan_rows())
    start(tmp_path)
    assert finish_dataset(tmp_path).root_sha256 is not None and verify(tmp_path) == []


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shards made from another spec."""
    path = tmp_path_factory.mktemp("other")
    create_dataset(path, {**HEADER, "spec": {**SPEC, "name": "another"}}, plan_rows())
    for index in range(SHARDS):
        publish(path, index)
    finish_dataset(path)
    return path


def test_a_manifest_from_another_dataset_is_found_and_refused(dataset: Path, other: Path) -> None:
    path = dataset / "shards/00001.json"
    with Damaged(path, (other / "shards/00001.json").read_bytes()):
        (line,) = verify(dataset)
        assert "00001.json is refused: it belongs to another dataset" in line
        _readers_refuse(dataset, "shards/00001.json")
        with pytest.raises(ShardDamaged):
            table(dataset)


def test_a_whole_shard_from_another_dataset_is_found_and_refused(dataset: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(dataset, mixed)
    create_dataset(tmp_path / "third", {**HEADER, "spec": {**SPEC, "name": "third"}}, plan_rows())
    publish(tmp_path / "third", 1, recipe={"another": True})
    shutil.copytree(tmp_path / "third/shards", mixed / "shards", dirs_exist_ok=True)
    assert any("00001.json is refused: it belongs to another dataset" in line for line in verify(mixed))
    with pytest.raises(ShardDamaged, match="another dataset"):
        list(read_samples(mixed, 1))


def test_the_header_of_another_dataset_is_found(dataset: Path, other: Path) -> None:
    with Damaged(dataset / "dataset.json", (other / "dataset.json").read_bytes()):
        assert len([line for line in verify(dataset) if "another dataset" in line]) == SHARDS


def test_a_remade_shard_that_the_list_does_not_know_yet(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    (copy / "shards/00001.json").unlink()
    publish(copy, 1, environment={"device": "other"})
    with pytest.raises(ShardDamaged, match=r"is not the manifest that dataset\.json lists"):
        list_shards(copy)
    with pytest.raises(ShardDamaged, match=r"is not the manifest that dataset\.json lists"):
        next(read_samples(copy, 1))
    root = finish_dataset(copy).root_sha256
    assert verify(copy) == [] and root != load_dataset(dataset).root_sha256


def test_left_overs_are_named_and_cleaned(tmp_path: Path) -> None:
    fill(tmp_path)
    before = files(tmp_path)
    left = [
        f"dataset.json.tmp-{'0' * 16}",
        f"shards/00000.tar.tmp-{'a' * 16}",
        "shards/00001-0123456789ab.tar",
    ]
    for name in left:
        (tmp_path / name).write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("the user's own")
    lines = verify(tmp_path)
    assert len(lines) == 3 and all(any(name in line for line in lines) for name in left)
    assert sorted(clean(tmp_path)) == sorted(left)
    assert files(tmp_path) == {**before, "notes.txt": b"the user's own"} and verify(tmp_path) == []


def test_cleaning_waits_for_writers(tmp_path: Path) -> None:
    fill(tmp_path)
    with open_backend(tmp_path).staging() as staging:
        staging.stage("shards/00001.tar", [b"half"])
        assert verify(tmp_path) == [], "what a writer is writing is no left-over"
        with pytest.raises(CounterpoiseError, match="somebody is writing"):
            clean(tmp_path)
    assert clean(tmp_path) == []


def test_a_dataset_from_a_later_version_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    reseal(tmp_path / "dataset.json", {"schema_version": 2})
    for call in (load_dataset, verify, finish_dataset, start):
        with pytest.raises(CounterpoiseError, match=r"version 2; this program reads .* version 1"):
            call(tmp_path)


def test_an_odd_dataset_file_is_damage_not_a_traceback(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "versions/00000.json").unlink()
    content = (tmp_path / "dataset.json").read_bytes()
    changes: list[dict[str, Any]] = [
        {"axes": None},
        {"axes": [1]},
        {"shards": [{"a": 1}]},
        {"shards": 3},
        {"plan": None},
    ]
    for change in changes:
        reseal(tmp_path / "dataset.json", change)
        for call in (load_dataset, start, finish_dataset):
            with pytest.raises(ShardDamaged):
                call(tmp_path)
        assert verify(tmp_path)
        (tmp_path / "dataset.json").write_bytes(content)
    for text in (b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b"{" * 10):
        (tmp_path / "dataset.json").write_bytes(text)
        with pytest.raises(ShardDamaged):
            load_dataset(tmp_path)
