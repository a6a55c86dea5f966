"""Writers that are killed: a process that has imported everything forks one after another, each killed elsewhere."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from storage_world import (
    ENVIRONMENT,
    HEADER,
    RECIPE,
    SPEC,
    candidate,
    plan_rows,
    publish,
    shard_samples,
    start,
)

from storage import Sample, create_dataset, finish_dataset
from storage.progress import SavedCandidates

HERE = Path(__file__).parent
BIG = {**HEADER, "spec": {**SPEC, "sets": 4}, "extended_from": [{"sets": 3}]}
ADDED = {"set_id": "arts_0000", "shard": 3, "split": "test", "concept": "arts", "concept_group": "arts_group"}
PLAN = plan_rows()[::2]  # one set a shard, so that writers have fewer steps to be killed at
MORE = [*PLAN, {**ADDED, "seed": 77}]
Ends = list[tuple[str, int]]


def shard(dataset: Path) -> None:
    """A header, a shard, a list."""
    create_dataset(dataset, HEADER, PLAN)
    publish(dataset, 0, shard_samples(0)[:6])
    finish_dataset(dataset)


def two_shards(dataset: Path) -> None:
    """The same with two shards."""
    create_dataset(dataset, HEADER, PLAN)
    for index in (0, 1):
        publish(dataset, index, shard_samples(index)[:6])
    finish_dataset(dataset)


def extension(dataset: Path) -> None:
    """A dataset that is there becomes larger."""
    create_dataset(dataset, BIG, MORE, extend=True)
    publish(dataset, 3, candidate(MORE[-1], 0, True))
    finish_dataset(dataset)


def candidates(dataset: Path) -> None:
    """A shard whose candidates are saved one by one, and taken from there by who goes on."""
    start(dataset)
    recipe = {**RECIPE, "shard": 0}
    saved = SavedCandidates(dataset, 0, recipe, ENVIRONMENT)
    samples: list[Sample] = []
    for made in _by_candidate():
        before = saved.load(made[0].set_id, made[0].candidate)
        if before is None:
            saved.save(made, 1.0)
        samples += before or made
    publish(dataset, 0, samples)
    saved.drop()
    finish_dataset(dataset)


def _by_candidate() -> Iterator[list[Sample]]:
    samples = shard_samples(0)
    yield from (samples[place : place + 6] for place in range(0, len(samples), 6))


WORKS: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (shard, two_shards, extension, candidates)
}


def prepare(work: str, dataset: Path) -> None:
    """What is there before the work begins."""
    if work == "extension" and not dataset.exists():
        shard(dataset)


def killer(work: str, mode: str, root: Path, *numbers: int) -> Ends:
    """Run a mode of this file in a process of its own; the folders it left and how their writers ended."""
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "kill_world.py"), work, mode, str(root), *map(str, numbers)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [(name, status) for name, status in json.loads(run.stdout)]


def _run(work: str, dataset: Path, fault: str | None = None, seconds: float | None = None) -> int:
    child = os.fork()
    if child == 0:
        if fault:
            os.environ["COUNTERPOISE_FAULT"] = fault
        try:
            WORKS[work](dataset)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def every_step(work: str, root: Path, first: int, step: int) -> Ends:
    """A folder for every step at which a writer is killed, until one gets through."""
    number, ends = first, []
    base = root / "base"
    prepare(work, base)
    while True:
        dataset = root / f"step{number}"
        if base.exists():
            shutil.copytree(base, dataset)
        status = _run(work, dataset, f"#{number}")
        ends.append((dataset.name, status))
        if status == 0:
            return ends
        number += step


def every_time(work: str, root: Path, rounds: int) -> Ends:
    """One folder, writers killed at random times."""
    rng, dataset, ends = random.Random(5), root / "times", []
    for _ in range(rounds):
        ends.append((dataset.name, _run(work, dataset, seconds=rng.uniform(0, 0.12))))
    return ends


def chain(work: str, root: Path, first: int) -> Ends:
    """One folder, in which every writer gets a step further than the one before."""
    dataset, number, ends = root / "chain", first, []
    prepare(work, dataset)
    while True:
        status = _run(work, dataset, f"#{number}")
        ends.append((dataset.name, status))
        if status == 0:
            return ends
        number += 1


MODES: dict[str, Any] = {one.__name__: one for one in (every_step, every_time, chain)}

if __name__ == "__main__":
    work, mode, root, *numbers = sys.argv[1:]
    prepare(work, Path(root) / "warm")
    WORKS[work](Path(root) / "warm")  # what libraries load at first use is loaded once, not by every writer
    print(json.dumps(MODES[mode](work, Path(root), *map(int, numbers))))
