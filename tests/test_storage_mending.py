"""What a run that mends a finished shard may find broken meanwhile: its own puts, and files that others renew."""

from __future__ import annotations

from pathlib import Path

import pytest
from place_world import Place
from storage_world import fill, publish

from storage import CounterpoiseError, finish_dataset, read_samples
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


def flipped(content: bytes) -> bytes:
    """The content with one bit changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


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
