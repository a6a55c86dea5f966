"""A damaged data file is moved out of the way, never deleted, and made again to the byte."""

from __future__ import annotations

import errno
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import Called, generate, one_line, use
from flows_world import no_report
from storage_world import ENVIRONMENT, RECIPE, changed, files, fill, publish, shard_samples

from storage import CounterpoiseError, ShardDamaged, ShardRecord, finish_dataset, list_shards, read_samples
from storage.backend import open_backend
from storage.metadata import yield_by_concept
from storage.quarantine import quarantining
from storage.shards import EnvironmentDiffers, ShardIncomplete, resume_check
from storage.verify import clean, verify


@pytest.fixture(scope="module", autouse=True)
def reports() -> Iterator[None]:
    """None are drawn."""
    with no_report():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three finished shards."""
    fill(tmp_path / "data")
    finish_dataset(tmp_path / "data")
    return tmp_path / "data"


def flip(path: Path) -> bytes:
    """Change one bit in the middle; the damaged content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return bytes(content)


def cut(path: Path) -> bytes:
    """Cut one byte off; the damaged content."""
    path.write_bytes(path.read_bytes()[:-1])
    return path.read_bytes()


def one(data: Path, kind: str, index: int = 1) -> Path:
    return next(data.glob(f"shards/{index:05d}-*.{kind}"))


def resumed(data: Path, index: int = 1, **changes: Any) -> ShardRecord | None:
    settings = {"recipe": {**RECIPE, "shard": index}, "environment": ENVIRONMENT, **changes}
    return resume_check(data, index, **settings)


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_reader_moves_it_and_says_what_to_run(data: Path, kind: str, harm: Callable[[Path], bytes]) -> None:
    path, before = one(data, kind), files(data)
    damaged = harm(path)
    with pytest.raises(ShardDamaged) as caught:
        next(read_samples(data, 1))
    moved = data / "quarantine" / path.name
    assert f"{path} is damaged" in str(caught.value) and "\n" not in str(caught.value)
    assert f"was moved to {moved}: `counterpoise generate`" in str(caught.value)
    assert moved.read_bytes() == damaged and not path.exists()
    del before[f"shards/{path.name}"]
    assert files(data) == {**before, f"quarantine/{path.name}": damaged}


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_the_shard_is_made_again_to_the_byte(data: Path, kind: str) -> None:
    before = files(data)
    damaged = flip(one(data, kind))
    with pytest.raises(ShardDamaged):
        list(read_samples(data, 1))
    with pytest.warns(ShardIncomplete, match=r"is missing\. Shard 1 is made again"):
        assert resumed(data) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert publish(data, 1).already
        assert resumed(data) is not None
    name = next(name for name in files(data) if name.startswith("quarantine/"))
    assert files(data) == {**before, name: damaged}
    assert finish_dataset(data) and verify(data) == [] and clean(data) == []
    assert len(list(read_samples(data, 1))) == len(shard_samples(1))


def test_questions_to_the_records_move_it_too(data: Path) -> None:
    path = one(data, "parquet")
    flip(path)
    with pytest.raises(ShardDamaged, match="was moved to"):
        yield_by_concept(data)
    assert (data / "quarantine" / path.name).exists()


def test_nothing_in_quarantine_is_ever_replaced(data: Path) -> None:
    path, contents = one(data, "tar"), []
    for _ in range(3):
        path.write_bytes(path.read_bytes() + b"x" * (1 + len(contents)))
        contents.append(path.read_bytes())
        with pytest.raises(ShardDamaged):
            list(read_samples(data, 1))
        publish(data, 1)
    names = [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert [(data / "quarantine" / name).read_bytes() for name in names] == contents


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EOPNOTSUPP])
def test_where_nothing_can_be_moved_the_error_is_the_same(
    data: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    path = one(data, "tar")
    flip(path)
    before = files(data)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ShardDamaged, match="sha256 is not the one in its manifest") as caught:
        list(read_samples(data, 1))
    assert "`counterpoise verify --quarantine`" in str(caught.value) and "was moved" not in str(caught.value)
    assert files(data) == before


def test_what_reads_well_the_second_time_is_not_moved(data: Path) -> None:
    backend, record = open_backend(data), list_shards(data)[1]
    before = files(data)
    with pytest.raises(ShardDamaged, match=r"^a bad cable$"), quarantining(backend, record):
        raise ShardDamaged("a bad cable")
    assert files(data) == before


def test_verify_moves_nothing_unless_it_is_told(data: Path) -> None:
    paths = [one(data, "tar", 0), one(data, "parquet", 0), one(data, "tar", 2)]
    for path, harm in zip(paths, (flip, cut, cut), strict=True):
        harm(path)
    before = files(data)
    lines = verify(data)
    assert len(lines) == 2 and all("verify --quarantine" in line for line in lines)
    assert files(data) == before
    moved = verify(data, quarantine=True)
    assert len(moved) == 2 and all("was moved to" in line for line in moved)
    assert sorted(path.name for path in paths) == sorted(os.listdir(data / "quarantine"))
    assert all(path.read_bytes() for path in (data / "quarantine").iterdir())
    missing = [line.split(".", 1)[1].split(":")[0] for line in verify(data)]
    assert missing == ["parquet is missing", "tar is missing"]


def test_other_bytes_are_told_and_left(data: Path) -> None:
    flip(one(data, "parquet"))
    with pytest.raises(ShardDamaged):
        list(read_samples(data, 1))
    before, other = files(data), changed(shard_samples(1), 0, scores={"clip_text": 0.5})
    environment = {**ENVIRONMENT, "torch": "2.1"}
    with pytest.warns(EnvironmentDiffers), pytest.warns(ShardIncomplete):
        assert resumed(data, environment=environment) is None
    with pytest.raises(ShardDamaged) as caught:
        publish(data, 1, other, environment=environment)
    text, manifest = str(caught.value), data / "shards/00001.json"
    assert "This environment makes other bytes" in text and "(environment.torch differs)" in text
    assert f"or delete {manifest} to accept new bytes" in text and "\n" not in text
    assert files(data) == before, "the manifest stays the truth, and nothing is left behind"
    manifest.unlink()
    assert not publish(data, 1, other, environment=environment).already
    finish_dataset(data)
    assert [line for line in verify(data) if "left over" not in line] == []


def test_a_file_that_has_the_same_bytes_elsewhere_is_put_back(data: Path) -> None:
    """The scores differ, which only the Parquet holds; the tar is what it was."""
    before, path = files(data), one(data, "tar")
    path.unlink()
    with pytest.warns(EnvironmentDiffers, match="with other bytes than this environment makes; it stays"):
        publish(data, 1, changed(shard_samples(1), 0, scores={"clip_text": 0.5}))
    assert files(data) == before


def test_a_strict_environment_does_not_mend_elsewhere(data: Path) -> None:
    one(data, "tar").unlink()
    with pytest.raises(CounterpoiseError, match=r"environment\.torch"):
        resumed(data, environment={**ENVIRONMENT, "torch": "2.1"}, strict=True)


def test_a_file_that_is_not_there_cannot_be_moved(data: Path) -> None:
    with pytest.raises(CounterpoiseError, match="is missing"):
        open_backend(data).quarantine("shards/00009-000000000000.tar")


@pytest.mark.parametrize("fault", ["before_quarantine", "quarantined"])
def test_killed_while_moving(data: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = one(data, "tar"), files(data)
    damaged = flip(path)
    child = os.fork()
    if child == 0:
        os.environ["COUNTERPOISE_FAULT"] = fault
        list(read_samples(data, 1))
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.raises(ShardDamaged, match="was moved to"):
        list(read_samples(data, 1))
    publish(data, 1)
    assert files(data) == {**before, f"quarantine/{path.name}": damaged}


def test_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    generate(capsys)
    path, dataset = one(Path("data"), "tar"), Path("data")
    before = files(dataset)
    flip(path)
    found = Called(capsys, "verify", "data")
    assert found.status == 1 and path.exists() and "verify --quarantine" in found.out
    one_line(Called(capsys, "show", "data"), path.name, "was moved to", "counterpoise generate")
    again = generate(capsys)
    assert again.status == 0 and "made     1 shards" in again.out
    assert f"{path.name} is missing. Shard 1 is made again." in again.err
    flip(one(dataset, "parquet", 0))
    assert Called(capsys, "verify", "data", "--quarantine").status == 1
    assert generate(capsys).status == 0
    after = {name: content for name, content in files(dataset).items() if "quarantine" not in name}
    stable = [name for name in before if not name.startswith("report/")]
    assert [after[name] for name in stable] == [before[name] for name in stable]
    assert Called(capsys, "verify", "data").status == 0 and len(os.listdir("data/quarantine")) == 2
    short = one(dataset, "tar", 2)
    cut(short)
    at_once = generate(capsys)
    assert at_once.status == 0 and f"{short.name} was moved to" in at_once.err
    assert Called(capsys, "verify", "data").status == 0


def test_a_file_that_somebody_else_moved_first_is_told_so(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(data, "tar")
    flip(path)

    def moved_before(point: str) -> None:
        if point == "before_quarantine":
            path.unlink(missing_ok=True)

    monkeypatch.setattr("storage.backend.fault_point", moved_before)
    with pytest.raises(ShardDamaged, match="by somebody else meanwhile") as caught:
        list(read_samples(data, 1))
    assert "--quarantine" not in str(caught.value)
