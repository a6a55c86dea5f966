"""Reading 20,000 images of 20 kB: ours, verified and again, against plain webdataset, MosaicML streaming and LitData.

All hand out image and record as bytes; "ours, columns" every column as Python's objects instead of the record.

Images a second with one and two processes, medians of paired repeats with 95 % intervals; every reader in a process
of its own, over files that are in the page cache. Then the peak of memory over 1 and over 100 shards. What is read is made
once, under build/. `python tests/benchmarks/reading.py [--repeats N]`; exit 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reading_rivals
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timing import Times, median, ratio, shown

from storage import Sample, create_dataset, finish_dataset, publish_shard
from storage.records import sample_key

PLACE = reading_rivals.ROOT / "build" / "reading"
CASE = Path(__file__).with_name("reading_case.py")
AXES = {"gender": ("woman", "man"), "age": ("young", "old")}
SHARDS, SETS, EDGE = 100, 50, 82
IMAGES = SHARDS * SETS * 4
#: Bars: images a second against webdataset's, at first and at second use; against the slower rival; growth of memory.
FASTER_BAR, RIVAL_BAR, GROWTH_BAR = 1.0, 1.0, 1.1
PASSES = ("first", "second")


def sample(number: int, member: int) -> Sample:
    """An image of noise, which a PNG makes no smaller, so that all are of one size."""
    noise = random.Random(number * 4 + member).randbytes(EDGE * EDGE * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (EDGE, EDGE), noise).save(buffer, "PNG", compress_level=0)
    values = {"gender": AXES["gender"][member // 2], "age": AXES["age"][member % 2]}
    set_id, words = f"chef_{number:04d}", f"{values['age']} {values['gender']}"
    return Sample(
        key=sample_key(set_id, member), set_id=set_id, member=member, candidate=0, base=member // 2 * 2, kept=True,
        reason=None, split="train", concept="chef", concept_group="occupations", attributes=values,
        prompt=f"A photo of a {words} working as a chef in a kitchen", edited_words="young -> old",
        neutral_prompt="A photo of a person working as a chef in a kitchen", seed=number, steps=20, guidance=5.0,
        scheduler="ddim", cross_replace=0.8, self_replace=0.4, scores={"clip_text": 0.25}, width=EDGE, height=EDGE,
        image=buffer.getvalue(),
    )  # fmt: skip


def make(folder: Path, shards: int, sets: int = SETS) -> Path:
    """A dataset of shards of so many sets of four; left as it is where it is finished."""
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    plan = [
        {"set_id": f"chef_{i:04d}", "shard": i // sets, "concept": "chef", "concept_group": "occupations"}
        for i in range(shards * sets)
    ]
    create_dataset(folder, {"axes": AXES}, plan)
    for shard in track(range(shards), f"making {shards} shards", console=Console(stderr=True)):
        numbers = range(shard * sets, (shard + 1) * sets)
        samples = [sample(number, member) for number in numbers for member in range(4)]
        publish_shard(folder, shard, samples, list(AXES), {"shard": shard}, {})
    finish_dataset(folder)
    (folder / "done").touch()
    return folder


def convert(dataset: Path, rival: str) -> Path:
    """The same images in a rival's form."""
    folder = dataset.with_name(f"{dataset.name}-{rival}")
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(reading_rivals.python(), "write", rival, str(dataset / "shards"), str(folder))
        (folder / "done").touch()
    return folder


def run(python: Path | str, *arguments: str) -> str:
    """Run the case's script and return its last line; what it says against itself is shown if it fails."""
    paths = {"PYTHONPATH": str(reading_rivals.ROOT), "PYTHONWARNINGS": "ignore"}
    command = [str(python), str(CASE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-2000:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]


def read(method: str, folder: Path, processes: int, passes: int = 2, images: int = IMAGES) -> dict[str, Any]:
    """Read everything in a process of its own; what was read is counted."""
    python = reading_rivals.python() if method in reading_rivals.RIVALS else sys.executable
    found: dict[str, Any] = json.loads(run(python, method, str(folder), str(processes), str(passes)))
    if found["images"] != images:
        raise RuntimeError(f"{method} read {found['images']} of {images} images")
    return found


@dataclass
class Row:
    """One row of the table: seconds by method of one pass with so many processes."""

    processes: int
    which: str
    times: Times

    def against(self, method: str) -> tuple[float, float, float]:
        """Return how many times as many images a second as another method's ours are."""
        return ratio(self.times[method], self.times["ours"])


def measured(folders: Mapping[str, Path], processes: int, repeats: int) -> Iterator[Row]:
    """First and second pass of every method, once per repeat in an order that turns, after one run to warm up."""
    names = list(folders)
    rows = [Row(processes, which, {name: [] for name in names}) for which in PASSES]
    for repeat in track(range(-1, repeats), f"{processes} processes", console=Console(stderr=True)):
        for k in range(len(names)):
            name = names[(k + repeat) % len(names)]
            seconds = read(name, folders[name], processes)["seconds"]
            for row, each in zip(rows, seconds, strict=True):
                if repeat >= 0:
                    row.times[name].append(each)
    yield from rows


def memory(one: Path, hundred: Path) -> dict[int, tuple[int, int]]:
    """Peak of memory over 1 and 100 shards, by number of processes."""
    return {
        processes: (
            read("ours", one, processes, 1, SETS * 4)["peak"], read("ours", hundred, processes, 1)["peak"],
        )
        for processes in (1, 2)
    }  # fmt: skip


def missed(rows: list[Row], peaks: Mapping[int, tuple[int, int]]) -> list[str]:
    """Return the bars that are missed, each with its figure."""
    failed = []
    if not any(name in reading_rivals.RIVALS for row in rows for name in row.times):
        failed.append("no rival could be measured")
    for row in rows:
        what = f"{row.processes} processes, {row.which} pass: ours / "
        found = row.against("webdataset")[0]
        if found < FASTER_BAR:
            failed.append(f"{what}webdataset {found:.3f}, wanted {FASTER_BAR}")
        rivals = [row.against(name)[0] for name in row.times if name in reading_rivals.RIVALS]
        if rivals and max(rivals) <= RIVAL_BAR:
            failed.append(f"{what}the slower rival {max(rivals):.3f}, wanted above {RIVAL_BAR}")
    for processes, (one, hundred) in peaks.items():
        if hundred > one * GROWTH_BAR:
            failed.append(
                f"{processes} processes: memory grows {hundred / one:.3f} times, wanted {GROWTH_BAR}"
            )
    return failed


def table(rows: list[Row], missing: Mapping[str, str]) -> Table:
    """What was measured."""
    methods = ["ours", "ours, columns", "webdataset", *reading_rivals.RIVALS]
    others = [f"ours / {name}" for name in methods[2:]]
    found = Table(
        "processes", "pass", *(f"{name} images/s" for name in methods), *others, title=__doc__.split(":")[0]
    )
    for row in rows:
        speeds = [f"{IMAGES / median(row.times[name]):,.0f}" if name in row.times else "" for name in methods]
        ratios = [shown(row.against(name)) if name in row.times else "skipped" for name in methods[2:]]
        found.add_row(str(row.processes), row.which, *speeds, *ratios)
    for name, reason in missing.items():
        found.caption = f"{found.caption or ''}{name} is skipped: {reason}\n"
    return found


def main() -> int:
    """Measure; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    hundred, one = make(PLACE / "hundred", SHARDS), make(PLACE / "one", 1)
    missing = reading_rivals.make()
    folders = dict.fromkeys(("ours", "ours, columns", "webdataset"), hundred)
    folders |= {name: convert(hundred, name) for name in reading_rivals.RIVALS if name not in missing}
    rows = [row for processes in (1, 2) for row in measured(folders, processes, given.repeats)]
    peaks = memory(one, hundred)
    Console(width=210).print(table(rows, missing))
    for processes, (low, high) in peaks.items():
        print(
            f"{processes} processes: peak {low / 1e6:.0f} MB over 1 shard, {high / 1e6:.0f} MB over 100 shards"
        )
    for line in (failed := missed(rows, peaks)):
        print(line)
    print("all bars met" if not failed else f"{len(failed)} bars missed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
