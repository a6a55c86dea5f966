"""What a run that mends a finished shard may find broken meanwhile: its own puts, and files that others renew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from place_world import Place, bucket, folder
from s3_server import S3
from storage_world import fill, flipped, publish

from storage import CounterpoiseError, ShardDamaged, finish_dataset, quarantine, read_samples
from storage.objects import ObjectBackend
from storage.verify import verify


@pytest.fixture
def filled(place: Place) -> Place:
    """Three finished shards."""
    fill(place.uri)
    finish_dataset(place.uri)
    return place


def name_of(place: Place, kind: str, index: int = 1) -> str:
    """Name of a shard's tar or Parquet."""
    return next(
        name for name in place.files() if name.startswith(f"shards/{index:05d}-") and name.endswith(kind)
    )


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_flipped_bit_at_the_put_of_a_finished_shard_is_no_success(
    filled: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, before = name_of(filled, kind), filled.files()
    filled.delete(name)

    def lie(point: str) -> None:
        if point == f"{kind}.put":
            filled.write(name, flipped(before[name]))

    with monkeypatch.context() as patch:
        patch.setattr("storage.backend.fault_point", lie)
        with pytest.raises(CounterpoiseError, match="reads back otherwise than it was written") as caught:
            publish(filled.uri, 1)
    moved = f"quarantine/{Path(name).name}"
    assert "was moved to" in str(caught.value) and "`counterpoise generate`" in str(caught.value)
    assert name not in filled.files() and filled.files()[moved] == flipped(before[name])
    assert publish(filled.uri, 1).already and list(read_samples(filled.uri, 1)) and verify(filled.uri) == []


def test_a_file_that_is_there_to_the_byte_is_not_put_again(
    filled: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, points = filled.files(), []
    filled.delete(name_of(filled, "parquet"))
    monkeypatch.setattr("storage.backend.fault_point", points.append)
    assert publish(filled.uri, 1).already and filled.files() == before
    assert "parquet.put" in points and "tar.put" not in points


class Renewed:
    """Puts a sound file back where a damaged one is, once, when it is called with a point."""

    def __init__(self, place: Place, name: str, point: str) -> None:
        self.place, self.name, self.point = place, name, point
        self.content, self.done = place.files()[name], False
        place.write(name, flipped(self.content))

    def __call__(self, point: str) -> None:
        if point == self.point and not self.done:
            self.done = True
            self.place.backend.remove(self.name)
            self.place.write(self.name, self.content)


def moved_of(place: Place, before: dict[str, bytes]) -> dict[str, bytes]:
    """What is in quarantine, where all else is as it was."""
    after = place.files()
    moved = {name: after.pop(name) for name in list(after) if name.startswith("quarantine/")}
    assert after == before and verify(place.uri) == []
    return moved


def test_a_file_made_again_between_two_looks_stays(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before, look = filled.files(), quarantine.damaged_files
    renew = Renewed(filled, name_of(filled, "tar"), "looked")

    def looked(*given: Any) -> Any:
        found = look(*given)
        renew("looked")
        return found

    monkeypatch.setattr(quarantine, "damaged_files", looked)
    with pytest.raises(ShardDamaged, match="was made again by somebody else meanwhile: run the same again"):
        list(read_samples(filled.uri, 1))
    assert renew.done and moved_of(filled, before) == {}


@pytest.mark.parametrize(("point", "moves"), [("before_quarantine", False), ("quarantined", True)])
def test_a_file_made_again_while_it_is_moved_stays_in_a_folder(
    tmp_path: Path, point: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path)
    fill(place.uri)
    before, renew = place.files(), Renewed(place, name_of(place, "tar"), point)
    monkeypatch.setattr("storage.backend.fault_point", renew)
    with pytest.raises(ShardDamaged, match="was moved to" if moves else "was made again by somebody else"):
        list(read_samples(place.uri, 1))
    moved = {f"quarantine/{Path(renew.name).name}": flipped(renew.content)} if moves else {}
    assert renew.done and moved_of(place, before) == moved


@pytest.mark.parametrize("point", ["tar.synced", "looked"])
def test_a_file_made_again_while_it_is_moved_stays_in_a_bucket(
    s3: S3, request: pytest.FixtureRequest, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket(request)
    fill(place.uri)
    before, renew, ask = place.files(), Renewed(place, name_of(place, "tar"), point), ObjectBackend.head

    def head(self: ObjectBackend, name: str) -> Any:
        """Answer from before the file was made again: the store itself has to keep the condition."""
        found = ask(self, name)
        if "tar.synced" in points:
            renew("looked")
        return found

    def fault_point(point: str) -> None:
        points.append(point)
        renew(point)

    points: list[str] = []
    monkeypatch.setattr(ObjectBackend, "head", head)
    monkeypatch.setattr("storage.backend.fault_point", fault_point)
    with pytest.raises(ShardDamaged, match="was made again by somebody else meanwhile"):
        list(read_samples(place.uri, 1))
    moved = {f"quarantine/{Path(renew.name).name}": flipped(renew.content)}
    assert renew.done and moved_of(place, before) == moved


def test_a_store_that_does_not_know_the_condition_of_a_delete(s3: S3, request: pytest.FixtureRequest) -> None:
    place = bucket(request)
    fill(place.uri)
    name = name_of(place, "tar")
    place.write(name, flipped(place.files()[name]))
    s3.rules({"method": "DELETE", "path": name, "status": 501, "code": "NotImplemented"})
    with pytest.raises(ShardDamaged, match="was moved to"):
        list(read_samples(place.uri, 1))
    assert len(s3.seen("DELETE", name)) == 2 and name not in place.files()
