"""Nothing is handed out before it is right: damage of every kind, at first use and afterwards."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from storage_world import NAMES, reseal, tar_path
from stream_world import keys, make

from storage import CounterpoiseError, ShardDamaged, list_shards, pictures
from storage.checked import Checked
from storage.dealing import Dealing
from storage.local import LocalBackend
from storage.pictures import Pictures, shard_table
from storage.quarantine import check_bytes
from storage.records import rows_to_parquet
from storage.selection import select
from storage.shardfile import ShardRecord
from storage.stream import Stream, stream
from storage.tarball import header, tar_blocks, tar_members

SHARDS, SETS = 3, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made"), SHARDS, SETS)


@pytest.fixture(autouse=True)
def first_use() -> Iterator[None]:
    """As in a process that has read nothing yet."""
    forget()
    yield
    forget()


def forget() -> None:
    pictures._sound.clear()
    pictures._remembered.clear()


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def read_all(dataset: Path, shard: ShardRecord) -> list[bytes]:
    """Every image of a shard, by its records."""
    backend = LocalBackend(dataset)
    table = shard_table(backend, shard.parquet, NAMES)
    rows = [row for row in table.to_pylist() if row["kept"]]
    assert shard.tar is not None
    with Pictures(backend, shard.tar, len(rows)) as opened:
        return [opened.read(place, row) for place, row in enumerate(rows)]


def test_a_flipped_byte_anywhere_in_a_tar_is_noticed_at_first_use(dataset: Path) -> None:
    shard = list_shards(dataset)[0]
    path = tar_path(dataset, shard)
    content = path.read_bytes()
    for place in [*range(0, len(content), 151), *range(0, 1536, 19), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        forget()
        with pytest.raises(ShardDamaged) as caught:
            read_all(dataset, shard)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)
    path.write_bytes(content)
    forget()
    assert len(read_all(dataset, shard)) == SETS * 6


def test_a_flipped_byte_anywhere_is_noticed_in_a_whole_tar(dataset: Path) -> None:
    shard = list_shards(dataset)[0]
    path = tar_path(dataset, shard)
    content = path.read_bytes()
    for place in [*range(0, len(content), 1511), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        forget()
        found, text = handed_out(dataset, window=1, shuffle=False)
        assert found == [] and path.name in text


def test_a_cut_or_grown_tar_is_noticed_always(dataset: Path) -> None:
    shard = list_shards(dataset)[0]
    path = tar_path(dataset, shard)
    content = path.read_bytes()
    read_all(dataset, shard)
    for other in (content[:-1], content[: len(content) // 2], b"", content + b"\0", content + bytes(10240)):
        path.write_bytes(other)
        with pytest.raises(ShardDamaged, match="bytes, its manifest says"):
            read_all(dataset, shard)
    path.unlink()
    with pytest.raises(ShardDamaged, match="is missing"):
        read_all(dataset, shard)


def test_a_changed_parquet_is_noticed_at_first_use_and_when_it_changes(dataset: Path) -> None:
    shard = list_shards(dataset)[1]
    path = dataset / shard.parquet.path
    content = path.read_bytes()
    read_all(dataset, shard)
    for place in range(0, len(content), 997):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        os.utime(path, ns=(place, place))
        with pytest.raises(ShardDamaged, match="its sha256 is not the one in its manifest"):
            stream(dataset)
    path.write_bytes(content[:-1])
    with pytest.raises(ShardDamaged, match="bytes, its manifest says"):
        stream(dataset)


def test_a_tar_that_changes_after_its_first_use_is_noticed(dataset: Path) -> None:
    shard = list_shards(dataset)[0]
    path = tar_path(dataset, shard)
    assert len(keys(dataset, None)) == SHARDS * SETS * 6
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ShardDamaged, match="its sha256 is not the one in its manifest"):
        keys(dataset, None)


@pytest.mark.parametrize("workers", [1, 9])
def test_the_second_use_hashes_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Whole tars are hashed where most of their images are wanted, else those images alone."""
    hashed: list[int] = []
    real, real_check = pictures.sha256, pictures.check_bytes
    monkeypatch.setattr(pictures, "sha256", lambda data: (hashed.append(len(data)), real(data))[1])
    checked: list[str] = []
    monkeypatch.setattr(
        pictures, "check_bytes", lambda *facts: (checked.append(facts[3]), real_check(*facts))
    )
    options: dict[str, Any] = {"keep_sets": False, "batch_size": 1, "workers": workers}
    first = [item["image"] for item in stream(dataset, **options)]
    images, tars = (0, SHARDS) if workers == 1 else (len(first), 0)
    assert (len(hashed), len(checked)) == (SHARDS + images, tars), (
        "every Parquet once, and tars or images once"
    )
    hashed.clear()
    checked.clear()
    assert [item["image"] for item in stream(dataset, **options)] == first and hashed == checked == []


def workers_batches(
    dataset: Path, table: npt.NDArray[np.int64], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[str]]:
    """Keys that two workers hand out, each as in a process of its own, and the tars that they hashed."""
    hashed: list[str] = []
    real = check_bytes
    monkeypatch.setattr(pictures, "check_bytes", lambda *facts: (hashed.append(facts[3]), real(*facts)))
    found: list[str] = []
    for worker in range(2):
        forget()
        dealing = Dealing(batch_size=1, keep_sets=False)
        checked = Checked(table, worker, 2)
        made = Stream(select(dataset), dealing, worker=worker, workers=2, fields=(), checked=checked)
        found += [item["key"] for batch in made.batches() for item in batch]
    return found, hashed


def test_workers_hash_a_tar_only_once(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.zeros(SHARDS, np.int64)
    found, hashed = workers_batches(dataset, table, monkeypatch)
    assert sorted(found) == sorted(keys(dataset, None)) and len(set(hashed)) == len(hashed) == SHARDS


def test_a_tar_that_changed_since_another_worker_checked_it_is_hashed_again(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = np.zeros(SHARDS, np.int64)
    workers_batches(dataset, table, monkeypatch)
    shard = list_shards(dataset)[1]
    path = tar_path(dataset, shard)
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    with pytest.raises(ShardDamaged, match="its sha256 is not the one in its manifest"):
        workers_batches(dataset, table, monkeypatch)


def test_a_tar_that_was_written_to_since_it_was_opened_is_not_believed(dataset: Path) -> None:
    checked = Checked(np.zeros(1, np.int64), 0, 2, {0: 10**6})
    shard = list_shards(dataset)[0]
    assert shard.tar is not None
    backend, path = LocalBackend(dataset), tar_path(dataset, shard)
    pairs = shard.counts["images"]
    with Pictures(backend, shard.tar, pairs) as first, Pictures(backend, shard.tar, pairs) as second:
        assert first.sound(range(pairs), 0, checked)
        forget()
        content = bytearray(path.read_bytes())
        content[600] ^= 1
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(1, 1))
        second._places.sound[:] = bytes(pairs)
        with pytest.raises(ShardDamaged, match="its sha256 is not the one in its manifest"):
            second.sound(range(pairs), 0, checked)


@pytest.mark.parametrize(("together", "hashed"), [(3, False), (6, True)])
def test_what_workers_want_together_decides_whether_a_tar_is_hashed(
    dataset: Path, together: int, hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(pictures, "check_bytes", lambda *facts: seen.append(facts[3]))
    shard = list_shards(dataset)[0]
    assert shard.tar is not None and shard.counts["images"] == 12
    for _ in range(2):
        checked = Checked(np.zeros(1, np.int64), 0, 8, {0: together})
        with Pictures(LocalBackend(dataset), shard.tar, 12) as opened:
            assert opened.sound([0], 0, checked) is hashed
    assert len(seen) == hashed


def test_of_several_damaged_shards_the_first_alone_is_moved(dataset: Path) -> None:
    """The others' records are read ahead; they are moved when it is their turn."""
    backend = LocalBackend(dataset)
    for shard in list_shards(dataset):
        path = Path(backend.where(shard.parquet.path))
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    with pytest.raises(ShardDamaged, match=r"00000-.*was moved to"):
        select(dataset)
    assert len(list((dataset / "quarantine").iterdir())) == 1


def test_workers_begin_with_different_tars() -> None:
    table = np.zeros(8, np.int64)
    assert Checked(table, 1, 2).order(range(5)) == [2, 3, 4, 0, 1]
    assert {Checked(table, worker, 4).order(range(8))[0] for worker in range(4)} == {0, 2, 4, 6}
    assert not Checked(table).knows(0, ("here", 0)), "0 is nothing"


def test_what_is_remembered_is_bounded(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_REMEMBERED", 2 * SETS * 6)
    whole = keys(dataset, None)
    assert len(pictures._remembered) == 2
    assert keys(dataset, None) == whole


def damaged_image(dataset: Path, shard: ShardRecord) -> str:
    """Flip a byte in one image of a shard; returns its key."""
    path = tar_path(dataset, shard)
    content = path.read_bytes()
    bad = [name for name, _ in tar_members(io.BytesIO(content), "here")][6].rpartition(".")[0]
    place = content.index(f"{bad}.png".encode()) + 512 + 40
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    return bad


def handed_out(dataset: Path, **options: Any) -> tuple[list[str], str]:
    """Keys until there is an error, and its text."""
    found: list[str] = []
    try:
        for item in stream(dataset, None, batch_size=1, keep_sets=False, **options):
            found.append(item["key"])
    except ShardDamaged as error:
        return found, str(error)
    return found, ""


def test_nothing_of_a_damaged_tar_is_handed_out_and_all_before_it_is(dataset: Path) -> None:
    order = keys(dataset, None, keep_sets=False, window=1)
    forget()
    shard = list_shards(dataset)[2]
    bad = damaged_image(dataset, shard)
    mine = [key for key in order if key.rpartition("-")[0] in ("chef_0004", "science_0005")]
    found, text = handed_out(dataset, window=1)
    assert (
        bad in mine and found == order[: order.index(mine[0])] and f"/{tar_path(dataset, shard).name}" in text
    )


def test_who_wants_few_images_is_stopped_by_damage_in_these_alone(dataset: Path) -> None:
    order = [keys(dataset, None, keep_sets=False, batch_size=1, worker=i, workers=9) for i in range(9)]
    forget()
    bad = damaged_image(dataset, list_shards(dataset)[2])
    for worker, share in enumerate(order):
        found, text = handed_out(dataset, worker=worker, workers=9)
        assert found == (share[: share.index(bad)] if bad in share else share)
        assert (bad in text) == (bad in share)


def replaced(dataset: Path, content: bytes) -> None:
    """A tar that its manifest vouches for."""
    digest = hashlib.sha256(content).hexdigest()
    name = f"00000-{digest[:12]}.tar"
    (dataset / "shards" / name).write_bytes(content)
    reseal(dataset / "shards/00000.json", {"tar": {"name": name, "bytes": len(content), "sha256": digest}})
    relist(dataset)


def relist(dataset: Path) -> None:
    """Let `dataset.json` list the manifest of shard 0 as it is now."""
    listed: dict[str, Any] = json.loads((dataset / "dataset.json").read_bytes())
    listed["shards"][0]["sha256"] = hashlib.sha256((dataset / "shards/00000.json").read_bytes()).hexdigest()
    reseal(dataset / "dataset.json", {"shards": listed["shards"]})


@pytest.mark.parametrize(
    "kind", ["short", "long", "swapped", "record", "two images", "foreign key", "suffix"]
)
def test_pairs_that_do_not_fit_their_rows_are_refused_even_with_a_manifest(dataset: Path, kind: str) -> None:
    members = list(tar_members(io.BytesIO(tar_path(dataset, list_shards(dataset)[0]).read_bytes()), "here"))
    first, second = members[0], members[1]
    other: dict[str, list[tuple[str, bytes]]] = {
        "short": members[:-2],
        "long": [*members, ("z-00.json", b"{}"), ("z-00.png", b"")],
        "swapped": [(members[i ^ 2][0], members[i][1]) for i in range(len(members))],
        "record": [(first[0], first[1].replace(b"Asian", b"asian")), *members[1:]],
        "two images": [(first[0].replace("json", "jpg"), first[1]), *members[1:]],
        "foreign key": [("z-00.json", first[1]), ("z-00.png", second[1]), *members[2:]],
        "suffix": [first, (second[0], second[1][:-1] + b"\0"), *members[2:]],
    }
    replaced(dataset, b"".join(tar_blocks(other[kind])))
    with pytest.raises(ShardDamaged) as caught:
        read_all(dataset, list_shards(dataset)[0])
    assert "\n" not in str(caught.value)


def test_promises_of_huge_members_read_nothing_huge(dataset: Path) -> None:
    first = tar_path(dataset, list_shards(dataset)[0]).read_bytes()
    for promise in (
        header("chef_0000-00.json", 8**11 - 1),
        first[:1024] + header("chef_0000-00.png", 8**11 - 1),
    ):
        replaced(dataset, promise + bytes(10240))
        with pytest.raises(ShardDamaged):
            keys(dataset, None)


def test_rows_that_are_no_whole_sets_are_refused(dataset: Path) -> None:
    shard = list_shards(dataset)[0]
    rows = shard_table(LocalBackend(dataset), shard.parquet, NAMES).to_pylist()
    for wrong in (rows[:-1], [rows[-1], *rows[:-1]]):
        content = rows_to_parquet(wrong, NAMES)
        digest = hashlib.sha256(content).hexdigest()
        facts: dict[str, Any] = {
            "name": f"00000-{digest[:12]}.parquet",
            "bytes": len(content),
            "sha256": digest,
        }
        (dataset / "shards" / facts["name"]).write_bytes(content)
        reseal(dataset / "shards/00000.json", {"parquet": facts})
        relist(dataset)
        with pytest.raises(ShardDamaged, match="not the whole sets"):
            stream(dataset)


def test_left_overs_and_links_beside_the_manifests_are_not_read(dataset: Path) -> None:
    whole = keys(dataset, None)
    tar = tar_path(dataset, list_shards(dataset)[0])
    (dataset / "shards/00000-0123456789ab.tar").write_bytes(tar.read_bytes())
    (dataset / "shards/00009-0123456789ab.parquet").write_bytes(b"x")
    blob = dataset / "blob"
    tar.rename(blob)
    tar.symlink_to(blob)
    assert keys(dataset, None) == whole


def test_a_lost_manifest_is_an_error_not_a_smaller_epoch(dataset: Path) -> None:
    (dataset / "shards/00001.json").unlink()
    with pytest.raises(CounterpoiseError, match=r"00001\.json is missing"):
        stream(dataset)


def test_places_are_found_for_every_number_of_images(made: Path) -> None:
    shard = list_shards(made)[0]
    assert shard.tar is not None
    backend = LocalBackend(made)
    for pairs in itertools.chain(range(12), range(13, 20)):
        with pytest.raises(ShardDamaged):
            Pictures(backend, shard.tar, pairs)
        forget()
    with Pictures(backend, shard.tar, 12):
        pass
