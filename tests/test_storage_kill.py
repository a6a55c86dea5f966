from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from storage_world import files, fill, publish, shard_samples, start

from storage import finish_dataset, list_shards, read_samples
from storage.verify import clean, verify

HERE = Path(__file__).parent

# A process that has imported everything forks one writer after another, each killed somewhere else.
KILLER = """
import json, os, random, signal, sys, time, warnings
from pathlib import Path
import storage_world as world
from storage import finish_dataset

def work(dataset):
    world.start(dataset)
    for index in (0, 1) if dataset.name == "chain" else (0,):
        world.publish(dataset, index, world.shard_samples(index)[:6])
    finish_dataset(dataset)

def run(dataset, fault=None, seconds=None):
    child = os.fork()
    if child == 0:
        if fault:
            os.environ["COUNTERPOISE_FAULT"] = fault
        try:
            work(dataset)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

def every_step(root, first, step):
    number, ends = first, []
    while True:
        dataset = Path(root) / f"step{number}"
        status = run(dataset, f"#{number}")
        ends.append([dataset.name, status])
        if status == 0:
            return ends
        number += step

def every_time(root, rounds):
    rng, dataset, ends = random.Random(5), Path(root) / "times", []
    for _ in range(rounds):
        ends.append([dataset.name, run(dataset, seconds=rng.uniform(0, 0.12))])
    return ends

def chain(root):
    dataset, number, ends = Path(root) / "chain", 3, []
    while True:
        status = run(dataset, f"#{number}")
        ends.append([dataset.name, status])
        if status == 0:
            return ends
        number += 1

mode, root, *numbers = sys.argv[1:]
work(Path(root) / "warm")  # what libraries load at first use is loaded once, not by every writer
print(json.dumps(globals()[mode](root, *map(int, numbers))))
"""


def _killer(mode: str, root: Path, *numbers: int) -> list[tuple[str, int]]:
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, mode, str(root), *map(str, numbers)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [(name, status) for name, status in json.loads(run.stdout)]


def _continue(dataset: Path) -> None:
    start(dataset)
    for index in (0, 1) if dataset.name == "chain" else (0,):
        publish(dataset, index, shard_samples(index)[:6])
    assert finish_dataset(dataset).root_sha256 is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One shard, made in peace."""
    dataset = tmp_path_factory.mktemp("undisturbed")
    _continue(dataset)
    return files(dataset)


def _check_killed(dataset: Path) -> None:
    """What a killed writer left: every shard that exists is whole, everything else is known as left over."""
    if not (dataset / "dataset.json").exists():
        return
    lines = [
        line for line in verify(dataset) if "left over" not in line and "plan.parquet is missing" not in line
    ]
    assert lines == []
    for record in list_shards(dataset):
        assert len(list(read_samples(dataset, record.index))) == 6


def test_killed_at_every_step(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    ends = _killer("every_step", tmp_path, 1, 1)
    assert len(ends) > 40 and ends[-1][1] == 0
    for name, status in ends:
        assert status in (0, 9), "killed by the fault, not by an error"
        dataset = tmp_path / name
        _check_killed(dataset)
        _continue(dataset)
        clean(dataset)
        assert verify(dataset, decode_images=False) == [] and files(dataset) == undisturbed


def test_killed_again_and_again_in_the_same_folder(tmp_path: Path) -> None:
    """Two shards; every run gets one step further than the one before."""
    ends = _killer("chain", tmp_path)
    assert len(ends) > 10 and ends[-1][1] == 0
    assert {status for _, status in ends[:-1]} == {9}
    clean(tmp_path / "chain")
    _continue(tmp_path / "peace" / "chain")
    assert files(tmp_path / "chain") == files(tmp_path / "peace" / "chain")


def test_killed_at_random_times(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    ends = _killer("every_time", tmp_path, 20)
    assert any(status == 9 for _, status in ends)
    dataset = tmp_path / "times"
    _check_killed(dataset)
    _continue(dataset)
    clean(dataset)
    assert verify(dataset) == [] and files(dataset) == undisturbed


def test_cleaning_before_continuing_is_as_good(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for name, _ in _killer("every_step", tmp_path, 20, 9):
        dataset = tmp_path / name
        clean(dataset)
        assert [line for line in verify(dataset) if "plan.parquet" not in line] == []
        _continue(dataset)
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
    ((name, status), *_) = _killer("every_step", tmp_path, 25, 1000)
    assert status == 9
    left = clean(tmp_path / name)
    assert left and all(".tmp-" in file for file in left)
