from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from kill_world import WORKS as WORKS_OF
from kill_world import killer, prepare, two_shards
from storage_world import files, fill, publish, start

from storage import list_shards, load_dataset, read_samples
from storage.manifest import read_plan
from storage.verify import clean, verify

WORKS = ["shard", "extension", "candidates"]
MENDED = (
    "left over",
    "plan.parquet is missing",
    "is not the newest version",
)
"""What a killed writer may leave to be said: the next run sees to each of them."""


@pytest.fixture(scope="module", params=WORKS)
def work(request: pytest.FixtureRequest) -> str:
    """What the writers do."""
    return str(request.param)


@pytest.fixture(scope="module")
def undisturbed(work: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The work, done in peace."""
    dataset = tmp_path_factory.mktemp("undisturbed") / "data"
    prepare(work, dataset)
    WORKS_OF[work](dataset)
    return files(dataset)


def _continue(dataset: Path, work: str) -> None:
    WORKS_OF[work](dataset)
    assert load_dataset(dataset).root_sha256 is not None


def _check_killed(dataset: Path) -> None:
    """What a killed writer left: every shard that exists is whole, everything else is known as left over."""
    if not (dataset / "dataset.json").exists():
        return
    assert [line for line in verify(dataset) if not any(text in line for text in MENDED)] == []
    read_plan(dataset)
    for record in list_shards(dataset):
        assert len(list(read_samples(dataset, record.index))) == record.counts["rows"]


@pytest.mark.parametrize(
    ("work", "first", "step"),
    [
        ("shard", 1, 1),
        ("extension", 2, 4),
        ("candidates", 3, 6),
        pytest.param("extension", 1, 1, marks=pytest.mark.slow),
        pytest.param("candidates", 1, 1, marks=pytest.mark.slow),
    ],
    indirect=["work"],
)
def test_killed_at_every_step(
    work: str, first: int, step: int, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Every one of them where it is a shard; of the longer works only some, unless the slow tests are asked for."""
    ends = killer(work, "every_step", tmp_path, first, step)
    assert len(ends) > 40 / step and ends[-1][1] == 0
    for name, status in ends:
        assert status in (0, 9), "killed by the fault, not by an error"
        dataset = tmp_path / name
        _check_killed(dataset)
        _continue(dataset, work)
        clean(dataset)
        assert verify(dataset, decode_images=False) == [] and files(dataset) == undisturbed


def test_killed_again_and_again_in_the_same_folder(tmp_path: Path) -> None:
    """Two shards; every run gets one step further than the one before."""
    ends = killer("two_shards", "chain", tmp_path, 3)
    assert len(ends) > 10 and ends[-1][1] == 0
    assert {status for _, status in ends[:-1]} == {9}
    clean(tmp_path / "chain")
    two_shards(tmp_path / "peace")
    assert files(tmp_path / "chain") == files(tmp_path / "peace")


@pytest.mark.parametrize("work", WORKS[1:], indirect=True, scope="module")
def test_more_work_killed_again_and_again(work: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    ends = killer(work, "chain", tmp_path, 5)
    assert len(ends) > 10 and ends[-1][1] == 0
    assert {status for _, status in ends[:-1]} == {9}
    clean(tmp_path / "chain")
    assert files(tmp_path / "chain") == undisturbed


@pytest.mark.parametrize("work", WORKS[:1], indirect=True, scope="module")
def test_killed_at_random_times(work: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    ends = killer(work, "every_time", tmp_path, 20)
    assert any(status == 9 for _, status in ends)
    dataset = tmp_path / "times"
    _check_killed(dataset)
    _continue(dataset, work)
    clean(dataset)
    assert verify(dataset) == [] and files(dataset) == undisturbed


@pytest.mark.parametrize("work", WORKS, indirect=True, scope="module")
def test_cleaning_before_continuing_is_as_good(
    work: str, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    for name, _ in killer(work, "every_step", tmp_path, 20, 9):
        dataset = tmp_path / name
        clean(dataset)
        assert [line for line in verify(dataset) if not any(text in line for text in MENDED[1:])] == []
        _continue(dataset, work)
        assert files(dataset) == undisturbed


def _race(dataset: str, barrier: Barrier, answers: Any, where: str) -> None:
    """Make a dataset and its shard 0, waiting for the other writer whenever a step of this name comes."""
    import storage.backend

    def wait(name: str) -> None:
        if name == where:
            barrier.wait(30)

    storage.backend.fault_point = wait
    start(Path(dataset))
    barrier.wait(30)
    record = publish(Path(dataset), 0)
    answers.put((record.already, record.sha256, record.files[-1].sha256))


@pytest.mark.parametrize("step", ["before_create", "tar.before_put", "parquet.opened"])
def test_two_writers_race_for_a_shard(tmp_path: Path, step: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path / "data"), barrier, answers, step)
    writers = [context.Process(target=_race, args=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    found = sorted(answers.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [already for already, *_ in found] == [False, True], (
        "one is first, the other says that it was second"
    )
    assert found[0][1:] == found[1][1:]
    assert verify(tmp_path / "data") == [] and clean(tmp_path / "data") == []
    alone = tmp_path / "alone"
    start(alone)
    publish(alone, 0)
    assert files(alone) == files(tmp_path / "data")


def test_threads_race_for_every_shard(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    start(tmp_path / "data")
    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(lambda index: publish(tmp_path / "data", index % 3), range(12)))
    assert sum(not record.already for record in records) == 3
    fill(tmp_path / "alone")
    assert files(tmp_path / "data") == files(tmp_path / "alone")


def test_a_killed_writer_does_not_hold_off_cleaning(tmp_path: Path) -> None:
    ((name, status), *_) = killer("shard", "every_step", tmp_path, 25, 1000)
    assert status == 9
    left = clean(tmp_path / name)
    assert left and all(".tmp-" in file for file in left)
