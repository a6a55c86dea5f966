"""Running arms: each in a process of its own, its result a JSON on disk, so that what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csd_arms import ARMS, BATCH, SEEDS
from csd_measure import ASKED, RANKS, VALIDATION, ask, general, score, table_of
from csd_world import DATASET, MODELS, NEUTRAL, OUT, SPECS, write_pools
from rich.console import Console

from flows.world.base import Curriculum
from flows.world.lessons import general_lessons, lessons
from flows.world.stereotypes import Table, bias_table
from generators.paperdolls.training import Schedule

RUNS, SEARCH, CHOSEN, DONE = OUT / "runs", OUT / "search", OUT / "search.json", "done.json"
#: Models that are measured as they are.
BASES = {"base": "llava-base", "null": "llava-null", "qwen-base": "qwen-base"}
#: General accuracy may fall by so much on the validation pool.
MOST_LOST = 0.005
#: What a debiased model is trained on with: bias table and lessons.
REBOUNDS: dict[str, tuple[Callable[[], Table | None], Curriculum]] = {
    "unrelated": (lambda: None, general_lessons),
    "biased": (bias_table, lessons),
}
FURTHER = Schedule(steps=60, batch=24, rate=1e-3)
Job = tuple[str, ...]


def one_thread() -> None:
    """Processes share the machine, each has one thread."""
    import torch

    torch.set_num_threads(1)


def run_arm(name: str, seed: int, rate: float, folder: Path, searching: bool) -> None:
    """Train and measure one arm; a folder with a result is left alone, a run that was killed goes on."""
    if (folder / DONE).exists():
        return
    one_thread()
    from debias.training.run import train

    begun = time.monotonic()
    outcome = train(ARMS[name].recipe(seed, rate), str(folder / "run"))
    if outcome.model is None:
        raise SystemExit(f"{name}, seed {seed}: {outcome.shortfall}")
    if searching:
        ask(Path(outcome.model), folder, [VALIDATION], "validation")
    else:
        ask(Path(outcome.model), folder, ASKED.values(), "portraits")
    keep_model(folder)
    finish(
        folder,
        arm=name,
        seed=seed,
        rate=rate,
        pictures=outcome.steps * BATCH,
        seconds=time.monotonic() - begun,
    )


def keep_model(folder: Path) -> None:
    """Of a run that has ended: the model, the log and the recipe."""
    shutil.move(folder / "run" / "model", folder / "model")
    for name in ("log.jsonl", "recipe.json"):
        shutil.move(folder / "run" / name, folder / name)
    shutil.rmtree(folder / "run")


def finish(folder: Path, **facts: Any) -> None:
    """The result appears whole."""
    draft = folder / f"{DONE}.tmp"
    draft.write_text(json.dumps(facts, indent=1) + "\n")
    os.replace(draft, folder / DONE)


def run_base(name: str) -> None:
    """Measure a model as it is."""
    folder = RUNS / name
    if (folder / DONE).exists():
        return
    one_thread()
    ask(MODELS / BASES[name], folder, [*ASKED.values(), RANKS, VALIDATION], "portraits")
    ask(MODELS / BASES[name], folder / "validation", [VALIDATION], "validation")
    finish(folder, arm=name)


def run_rebound(name: str, seed: int, what: str) -> None:
    """Train a debiased model on, with data that have nothing to do with it or that are biased, and measure again."""
    folder = rebound_folder(name, seed, what)
    if (folder / DONE).exists():
        return
    one_thread()
    from debias.models.opening import open_model
    from flows.world.base import train_base

    bias, curriculum = REBOUNDS[what]
    model = open_model(str(folder_of(name, seed) / "model"), "float32")
    trained = train_base(
        model, "model", folder, bias(), seed, FURTHER, pictures=FURTHER.steps * FURTHER.batch // 2,
        curriculum=curriculum, words_alone=0,
    )  # fmt: skip
    ask(trained, folder, [ASKED["portraits"]], "portraits")
    (folder / "model.checkpoint.pt").unlink()
    finish(folder, arm=name, seed=seed, what=what)


def rebound_folder(name: str, seed: int, what: str) -> Path:
    """Where a run that was trained on lies."""
    return RUNS / f"{name}-{seed}-{what}"


def rebound_jobs(names: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Both kinds of further training of some arms."""
    return [("rebound", name, str(seed), what) for seed in seeds for name in names for what in REBOUNDS]


def folder_of(name: str, seed: int) -> Path:
    """Where a run of an arm lies."""
    return RUNS / f"{name}-{seed}"


def search_folder(name: str, rate: float) -> Path:
    """Where a run of the search lies."""
    return SEARCH / f"{name}-{rate:g}"


def search_jobs(names: Sequence[str]) -> list[Job]:
    """Every rate of every arm."""
    return [("search-one", name, f"{rate:g}") for name in names for rate in ARMS[name].rates]


def arm_jobs(names: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Every seed of every arm, seeds first, so that a run that is cut short has all arms."""
    return [("one", name, str(seed)) for seed in seeds for name in names]


def choose(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The best rate of each arm by the validation pool, and all that were tried.

    The least sum of |MinSkew| and MaxSkew beyond a permuted model's among the rates that lose at most half a point of
    general accuracy; where all lose more, the one that loses least.
    """
    chosen = {}
    for name in names:
        base = general(RUNS / _base_of(name) / "validation").mean()
        tried = []
        for rate in ARMS[name].rates:
            folder = search_folder(name, rate)
            table = table_of(folder, VALIDATION)
            lost = float(base - general(folder).mean())
            bias = score(table, "min_skew").null + score(table, "max_skew").null
            tried.append({"rate": rate, "bias": bias, "lost": lost})
        good = [one for one in tried if one["lost"] <= MOST_LOST]
        best = min(good, key=lambda one: one["bias"]) if good else min(tried, key=lambda one: one["lost"])
        chosen[name] = {"rate": best["rate"], "tried": tried}
    CHOSEN.write_text(json.dumps(chosen, indent=1) + "\n")
    return chosen


def _base_of(name: str) -> str:
    return "base" if ARMS[name].base == "llava-base" else "qwen-base"


def rate_of(name: str) -> float:
    """The rate that the search chose."""
    found: float = json.loads(CHOSEN.read_text())[name]["rate"]
    return found


@dataclass(frozen=True, slots=True)
class Pool:
    """So many child processes at a time, one thread each.

    Attributes:
        jobs: how many.
        console: says what is done.
    """

    jobs: int
    console: Console

    def run(self, todo: Sequence[Job]) -> None:
        """Run every job; those that fail are named at the end."""
        with ThreadPoolExecutor(self.jobs) as threads:
            failed = [job for job in threads.map(self._one, todo) if job]
        if failed:
            raise SystemExit("\n".join(["failed; their last lines:", *failed]))

    def _one(self, job: Job) -> str:
        begun = time.monotonic()
        script = Path(__file__).with_name("csd.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, str(script), *job], capture_output=True, text=True, env=environment
        )
        self.console.print(f"{' '.join(job)}: {time.monotonic() - begun:.0f} s", highlight=False)
        return "" if done.returncode == 0 else f"{' '.join(job)}: {done.stderr[-600:]}"


def make_datasets(call: Callable[[list[str]], None]) -> None:
    """Generate both datasets and render the pools; what is there is left alone."""
    for folder, spec in SPECS.items():
        call(["-m", "flows", "generate", str(spec), "--out", str(folder), "--runner", "none"])
    write_pools()


__all__ = ["DATASET", "NEUTRAL", "Pool", "make_datasets", "run_arm", "run_base"]
