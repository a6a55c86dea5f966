"""Bytes that the disk does not give: told with the file's name, and no reason to stop looking at the rest."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage_world import fill, publish, start

from storage import CounterpoiseError, ShardDamaged, finish_dataset, list_shards, rawfile, read_samples
from storage.manifest import read_plan
from storage.metadata import yield_by_concept
from storage.stream import stream
from storage.verify import verify

READERS: list[Callable[[Path], Any]] = [
    lambda data: list(read_samples(data, 1)),
    lambda data: list(stream(data)),
    lambda data: verify(data, quarantine=True),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three finished shards."""
    fill(tmp_path / "data")
    finish_dataset(tmp_path / "data")
    return tmp_path / "data"


class Broken(io.FileIO):
    """A file on a disk that does not give the bytes of some files beyond their first kilobyte."""

    ending, number = ".tar", errno.EIO

    def _refuse(self, size: int) -> None:
        if str(self.name).endswith(self.ending) and self.tell() + size > 1024:
            raise OSError(self.number, os.strerror(self.number))

    def readinto(self, buffer: Any, /) -> int:
        self._refuse(len(buffer))
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._refuse(2**20)
        return super().readall()


class BrokenRaw(rawfile.RawFile, Broken):
    """The same as our readers see it."""


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Broken]:
    """From now on files are opened on such a disk."""
    monkeypatch.setattr(rawfile, "RawFile", BrokenRaw)
    monkeypatch.setattr(Broken, "number", errno.EIO)
    monkeypatch.setattr(Broken, "ending", "nothing")
    return Broken


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_data_file_is_quarantined_by_its_reader(
    data: Path, broken: type[Broken], kind: str, read: Callable[[Path], Any]
) -> None:
    path = next(data.glob(f"shards/00001-*.{kind}"))
    broken.ending = path.name
    try:
        said = " ".join(read(data))
    except ShardDamaged as error:
        said = str(error)
    assert f"{path} is damaged: it cannot be read (Input/output error)." in said and "was moved to" in said
    assert not path.exists() and (data / "quarantine" / path.name).exists()
    broken.ending = "nothing"
    assert publish(data, 1).already and verify(data) == []


def test_verify_goes_on_with_other_shards(data: Path) -> None:
    manifest = data / "shards/00001.json"
    manifest.unlink()
    manifest.symlink_to("/proc/self/mem")
    tar = next(data.glob("shards/00002-*.tar"))
    tar.write_bytes(b"cut")
    first, second = verify(data)
    assert f"{manifest} is damaged: it cannot be read (Input/output error)." in first
    assert "`counterpoise verify --quarantine`" in first and tar.name in second


def test_a_manifest_is_quarantined_by_its_reader(data: Path) -> None:
    record, manifest = list_shards(data)[1], data / "shards/00001.json"
    manifest.unlink()
    manifest.symlink_to("/proc/self/mem")
    with pytest.raises(
        ShardDamaged, match=r"cannot be read .* was moved to .*quarantine/00001\.json: `counter"
    ):
        yield_by_concept(data)
    assert (data / "quarantine/00001.json").is_symlink() and not os.path.lexists(manifest)
    assert publish(data, 1) == record and verify(data) == []


@pytest.mark.parametrize("name", ["dataset.json", "plan.parquet"])
def test_what_a_run_restores(data: Path, broken: type[Broken], name: str) -> None:
    (data / name).unlink()
    (data / name).symlink_to("/proc/self/mem")
    with pytest.raises(
        ShardDamaged, match=rf"{name} is damaged: it cannot be read .*`counterpoise generate`"
    ):
        read_plan(data)
    assert any(f"{name} is damaged: it cannot be read" in line for line in verify(data))
    start(data)
    finish_dataset(data)
    assert verify(data) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ENOENT, errno.ESTALE])
def test_what_is_no_fault_of_the_file_is_not_called_damage(
    data: Path, broken: type[Broken], number: int
) -> None:
    broken.ending, broken.number = ".tar", number
    with pytest.raises(CounterpoiseError, match=r"\.tar: .* Cause and cure:") as caught:
        list(read_samples(data, 1))
    assert not isinstance(caught.value, ShardDamaged) and len(verify(data, quarantine=True)) == 3
    assert not (data / "quarantine").exists()
