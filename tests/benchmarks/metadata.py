"""What questions to a dataset of ten million records cost: seconds on two threads, and the peak of memory.

Yields by cell and by concept and the join of a skew sidecar by key are held to a bar together; the check of every
Parquet's sha256, which comes before any of them, and the other questions stand apart. Also at a tenth of the size, to show
that memory does not grow with it. `python tests/benchmarks/metadata.py [--rows N] [--shards N] [--repeats N]`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from large import SKEWS, make_dataset
from timing import interval, peak, reset_peak

from flows.refilter import refilter
from storage.metadata import reasons, score_histograms, yield_by_cell, yield_by_concept
from storage.query import open_records
from storage.skewed import join_skew

CHECKED, HELD = "open, every sha256 checked", ("yield by cell", "yield by concept", "skew join")
#: Bars for what is held together: seconds and peak of resident memory in bytes.
SECONDS_BAR, MEMORY_BAR = 10.0, 1e9
Seconds = dict[str, float]


def once(folder: Path, threads: int) -> Seconds:
    """Ask everything once; seconds by question."""
    found: Seconds = {}

    def timed(name: str, ask: Callable[[], object]) -> None:
        start = time.perf_counter()
        ask()
        found[name] = time.perf_counter() - start

    start = time.perf_counter()
    with open_records(folder, threads) as records:
        found[CHECKED] = time.perf_counter() - start
        timed("yield by cell", lambda: yield_by_cell(records))
        timed("yield by concept", lambda: yield_by_concept(records))
        timed("skew join", lambda: join_skew(records, SKEWS))
        timed("score histograms", lambda: score_histograms(records))
        timed("reasons", lambda: reasons(records))
    timed("refilter, its check among it", lambda: refilter(str(folder), {"clip_text": 0.27}))
    return found


def measured(folder: Path, threads: int) -> tuple[Seconds, int]:
    """`once` in a process of its own, with its peak of resident memory, libraries among it."""
    command = [sys.executable, __file__, "--ask", str(folder), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def held(seconds: Seconds) -> float:
    """Seconds of the questions that the bar is for."""
    return sum(seconds[name] for name in HELD)


def missed(runs: Sequence[tuple[Seconds, int]]) -> list[str]:
    """The bars that are missed, by the median time and the largest memory."""
    middle, memory = interval([held(seconds) for seconds, _ in runs])[0], max(peak for _, peak in runs)
    failed = []
    if middle >= SECONDS_BAR:
        failed.append(f"{' + '.join(HELD)}: {middle:.1f} s, wanted under {SECONDS_BAR:.0f} s")
    if memory >= MEMORY_BAR:
        failed.append(f"peak of memory: {memory / 1e6:.0f} MB, wanted under {MEMORY_BAR / 1e6:.0f} MB")
    return failed


def show(rows: int, runs: Sequence[tuple[Seconds, int]], threads: int) -> None:
    """Print the table of one size."""
    table = Table("question", "s, median", "95 % interval", title=f"{rows:,} records, {threads} threads")

    def add(name: str, values: list[float]) -> None:
        middle, low, high = interval(values)
        table.add_row(name, f"{middle:.2f}", f"{low:.2f} to {high:.2f}")

    for name in runs[0][0]:
        add(name, [seconds[name] for seconds, _ in runs])
    add(" + ".join(HELD), [held(seconds) for seconds, _ in runs])
    Console(width=110).print(table)
    print(f"peak of resident memory: {max(peak for _, peak in runs) / 1e6:.0f} MB")


def main() -> int:
    """Make the data, ask, print; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        reset_peak()
        print(json.dumps([once(Path(given.ask), given.threads), peak()]))
        return 0
    for rows in (given.rows // 10, given.rows):
        with tempfile.TemporaryDirectory() as folder:
            made = make_dataset(Path(folder), rows, given.shards)
            runs = [measured(Path(folder), given.threads) for _ in range(given.repeats)]
        show(made, runs, given.threads)
    failed = missed(runs)
    print("\n".join(failed) if failed else "all bars met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
