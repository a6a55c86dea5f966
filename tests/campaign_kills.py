"""Campaigns that are killed: a process that has imported everything forks one run after another, and kills them.

`kill(folder, plans)` starts it; the folder then holds one dataset per run. The pictures of the report's charts alone are
not drawn, since that takes longer than all the rest.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: [dataset's name, how the first run on it ended, how the next one did, ...]
Ends = list[list[Any]]
RANGES = ("0:2", "2:3", "3:6")
#: What holds measured seconds, and therefore differs from run to run.
MEASURED = "report/cost.json"
_COST = re.compile(rb'<section id="cost">.*?</section>', re.DOTALL)


def published(dataset: Path) -> dict[str, bytes]:
    """Every file of a dataset by its relative name, without the measured seconds and what the report says of them.

    Nor versions: they tell how often the dataset was closed in between.
    """
    names = sorted(path for path in dataset.rglob("*") if path.is_file())
    read = {str(path.relative_to(dataset)): path.read_bytes() for path in names}
    found = {
        name: data for name, data in read.items() if name != MEASURED and not name.startswith("versions/")
    }
    return {name: _COST.sub(b"", data) if name.endswith(".html") else data for name, data in found.items()}


def kill(folder: Path, **modes: Sequence[Any]) -> dict[str, Ends]:
    """Run modes of this module, each with its arguments, in one process: how the runs on every dataset ended, by mode."""
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), json.dumps(modes)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found: dict[str, Ends] = json.loads(run.stdout.splitlines()[-1])
    return found


def campaign(dataset: Path, shards: str | None = None) -> None:
    """The whole path without Prefect: plan, shards, list, card, report."""
    from flows_world import bad_candidates, load, run_all, small

    spec = small(sets_per_shard=1)
    run_all(dataset, spec, load(bad_candidates(spec, {"chef_0001": 1, "weapon_0000": 2})), shards=shards)


def _fork(work: Callable[[], None], fault: str | None = None, seconds: float | None = None) -> int:
    """How a forked run ended: 0, the signal that killed it, or its exit status times 256."""
    return _wait(_begin(work, fault), seconds)


def _begin(work: Callable[[], None], fault: str | None = None) -> int:
    child = os.fork()
    if child == 0:
        if fault:
            os.environ["COUNTERPOISE_FAULT"] = fault
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(9)
        os._exit(0)
    return child


def _wait(child: int, seconds: float | None = None) -> int:
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def at_every_step(folder: Path, first: int, step: int) -> Ends:
    """Killed at every step-th step, each time in a new folder, and run again; ends where no step is left."""
    ends: Ends = []
    while not ends or ends[-1][1] != 0:
        dataset = folder / f"step{first + step * len(ends)}"
        killed = _fork(lambda: campaign(dataset), f"#{first + step * len(ends)}")  # noqa: B023
        ends.append([dataset.name, killed, _fork(lambda: campaign(dataset))])  # noqa: B023
    return ends


def at_random_times(folder: Path, seed: int, rounds: int) -> Ends:
    """Killed after a random time, each time in a new folder, and run again."""
    import random

    start = time.monotonic()
    campaign(folder / "timed")
    rng, longest, ends = random.Random(seed), time.monotonic() - start, []
    for number in range(rounds):
        dataset = folder / f"time{number}"
        killed = _fork(lambda: campaign(dataset), seconds=rng.uniform(0, longest))  # noqa: B023
        ends.append([dataset.name, killed, _fork(lambda: campaign(dataset))])  # noqa: B023
    return ends


def in_one_folder(folder: Path, step: int) -> Ends:
    """Killed again and again in the same folder, each run one step further than the one before."""
    dataset, number, ends = folder / "chain", step, []
    while not ends or ends[-1][1] != 0:
        ends.append([dataset.name, _fork(lambda: campaign(dataset), f"#{number}")])
        number += 1
    return ends


def after_a_part(folder: Path, faults: Sequence[str]) -> Ends:
    """A part is made and closed; the rest is killed at each fault, and run again."""
    ends = []
    for fault in faults:
        dataset = folder / fault.replace("#", "step")
        campaign(dataset, "0:2")
        killed = _fork(lambda: campaign(dataset), fault)  # noqa: B023
        ends.append([dataset.name, killed, _fork(lambda: campaign(dataset))])  # noqa: B023
    return ends


def side_by_side(folder: Path, rounds: int) -> Ends:
    """One process per range of shards into one dataset, all at the same time."""
    ends = []
    for number in range(rounds):
        dataset = folder / f"round{number}"
        children = [_begin(lambda: campaign(dataset, shards)) for shards in RANGES]  # noqa: B023
        ends.append([dataset.name, *map(_wait, children)])
    return ends


def main(folder: str, modes: str) -> None:
    """Warm up, run the modes, print their answers."""
    from flows import charts

    charts.histogram = lambda *_: "data:image/png;base64,"
    campaign(
        Path(folder) / "undisturbed"
    )  # what libraries load at first use is loaded once, not by every run
    found = {mode: globals()[mode](Path(folder), *values) for mode, values in json.loads(modes).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
