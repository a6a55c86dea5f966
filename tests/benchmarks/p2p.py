"""What prompt-to-prompt costs: attention at SDXL's shapes, a step of SDXL's whole UNet, a sampling of the shipped model.

Each for plain diffusers sampling of as many pictures, for prompt-to-prompt with every map built, and for ours; medians of
paired repeats with 95 % intervals, and the peak of memory with inputs and results, but without weights, of a run in a
process of its own. `python tests/benchmarks/p2p.py [attention] [unet] [sampling]`; all three without a name.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

sys.path.insert(0, str(Path(__file__).parent))

from p2p_cases import PARTS, Case
from timing import FEWEST, Times, median, paired, peak, peak_of, ratio, reset_peak, shown

METHODS = ("plain", "explicit", "ours")
SHAPES = ((1024, 20), (4096, 10))
EDITS = (1, 3, 7, 23)
#: Bars: attention of 8 pictures against plain, by tokens; explicit maps against ours; memory; a step of the whole UNet.
CORE_BARS, FASTER_BAR, MEMORY_BAR, STEP_BAR = {1024: 0.85, 4096: 1.05}, 4.0, 1.1, 1.03
#: torch counts fused attention on a GPU, and on a CPU takes it for nothing.
FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: _fused_flop(*shapes)
}
#: Threads of the whole UNet's step, which takes more than a minute on one; everything else has one.
STEP_THREADS = 2
HEADINGS = (
    "part", "tokens x heads", "edits", "plain s", "explicit / plain", "ours / plain", "explicit / ours", "TFLOP plain",
    "ours", "peak MB plain", "explicit / plain", "ours / plain",
)  # fmt: skip


@dataclass
class Row:
    """One row of the table: seconds by method, peaks of memory in bytes and TFLOP where they were counted."""

    part: str
    shape: str
    edits: int
    times: Times
    memory: dict[str, int]
    tflop: dict[str, float]

    def against(self, first: str, second: str) -> tuple[float, float, float] | None:
        """Return the paired ratio of two methods' times, if both ran."""
        return ratio(self.times[first], self.times[second]) if {first, second} <= self.times.keys() else None

    def cells(self) -> list[str]:
        """Return what the table shows; what explicit maps have no room for is left empty."""
        pairs = (("explicit", "plain"), ("ours", "plain"), ("explicit", "ours"))
        ratios = [shown(found) if (found := self.against(*pair)) else "no room" for pair in pairs]
        used = [self.memory[name] / self.memory["plain"] if name in self.memory else None for name in METHODS]
        return [
            self.part, self.shape, str(self.edits), f"{median(self.times['plain']):.3f}", *ratios,
            *(f"{self.tflop[name]:.2f}" if name in self.tflop else "" for name in ("plain", "ours")),
            f"{self.memory['plain'] / 1e6:.0f}" if self.memory else "",
            *("" if share is None else f"{share:.2f}" for share in used[1:]),
        ]  # fmt: skip


def measured(case: Case, repeats: int, flops: bool = False) -> Row:
    """Time every method of a case that this machine has room for, then the peak of its memory."""
    room = case.map_bytes < 0.8 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    methods = [name for name in METHODS if room or name != "explicit"]
    runs = {name: case.make(name) for name in methods}
    times = paired(runs, repeats)
    tflop = {name: _tflop(runs[name]) for name in methods} if flops else {}
    del runs
    memory = {name: peak_of(memory_of, name, case) for name in methods}
    shape = f"{case.pixels} x {case.heads}" if case.pixels else ""
    return Row(case.part, shape, case.edits, times, memory, tflop)


def attention(repeats: int) -> Iterator[Row]:
    """Attention at SDXL's shapes, float32."""
    cases = [
        Case(part, pixels, heads, edits)
        for part in PARTS
        if part.startswith(("self", "cross"))
        for pixels, heads in SHAPES
        for edits in EDITS
        if pixels == 1024 or "word maps" not in part  # SDXL's word maps come from its layers of 32 x 32
    ]
    for case in track(cases, "attention", console=Console(stderr=True)):
        yield measured(case, max(FEWEST, repeats // 3) if case.map_bytes > 1 << 30 else repeats)


def sampling(repeats: int) -> Iterator[Row]:
    """A set of 24 on the shipped model."""
    for part in ("sampling", "sampling, local blend"):
        yield measured(Case(part, 0, 0, 20), max(FEWEST, repeats // 2))


def unet_step(repeats: int) -> Iterator[Row]:
    """A step of SDXL's UNet for a set of 4, in both parts of the schedule, and weighted over it; on two threads."""
    torch.set_num_threads(STEP_THREADS)
    early, late = (
        measured(Case(f"UNet step, {when}", 0, 0, 3), max(FEWEST, repeats // 2), True)
        for when in ("early", "late")
    )
    yield early
    yield late

    def weighted(first: float, second: float) -> float:
        return 0.4 * first + 0.6 * second

    times = {
        name: [weighted(*pair) for pair in zip(early.times[name], late.times[name], strict=True)]
        for name in METHODS
    }
    tflop = {name: weighted(early.tflop[name], late.tflop[name]) for name in METHODS}
    yield Row("UNet step, over the schedule", "", 3, times, {}, tflop)


def missed(rows: Sequence[Row]) -> list[str]:
    """Return the bars that are missed, each with its figure."""
    failed = []

    def hold(row: Row, what: str, value: float, good: bool, bar: float) -> None:
        if not good:
            failed.append(f"{row.part}, {row.shape}, {row.edits} edits: {what} {value:.3f}, wanted {bar}")

    for row in rows:
        ours, faster = row.against("ours", "plain"), row.against("explicit", "ours")
        if row.part == "self, core" and row.edits == 7:
            bar = CORE_BARS[int(row.shape.split()[0])]
            if ours:
                hold(row, "ours / plain", ours[0], ours[0] <= bar, bar)
            if faster:
                hold(row, "explicit / ours", faster[0], faster[0] >= FASTER_BAR, FASTER_BAR)
            else:
                failed.append(
                    f"{row.part}, {row.shape}: no room for explicit maps, so not compared with them"
                )
        if row.shape and row.memory:
            share = row.memory["ours"] / row.memory["plain"]
            hold(row, "peak memory, ours / plain", share, share <= MEMORY_BAR, MEMORY_BAR)
        if row.part == "UNet step, over the schedule" and ours:
            hold(row, "upper end of ours / plain", ours[2], ours[2] <= STEP_BAR, STEP_BAR)
    return failed


def memory_of(method: str, case: Case) -> int:
    """Return the bytes at the peak of one run, its inputs among them, weights not."""
    torch.set_num_threads(STEP_THREADS if case.part.startswith("UNet") else 1)
    small = Case(case.part, 64 if case.pixels else 0, case.heads, 1)
    with torch.inference_mode():
        small.make(method)()  # loads weights, if there are any, and what a first run loads
        before = reset_peak()
        result = case.make(method)()
        found = peak() - before
        del result
    return found


def _tflop(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        run()
    return counter.get_total_flops() / 1e12


def _fused_flop(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    flop: int = sdpa_flop_count(query, key, value)
    return flop


def main() -> int:
    """Run the parts that were named; exit 1 if a bar is missed."""
    parts = {"attention": attention, "sampling": sampling, "unet": unet_step}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])  # [] lets nothing be named
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        rows = []
        for row in (
            row for name, run in parts.items() if name in (given.parts or parts) for row in run(given.repeats)
        ):
            rows.append(row)
            print(" | ".join(row.cells()), file=sys.stderr, flush=True)  # the table comes an hour later
    table = Table(*HEADINGS, title="prompt-to-prompt on a CPU, medians of paired repeats (95 % interval)")
    for row in rows:
        table.add_row(*row.cells())
    Console(width=210).print(table)
    for line in (failed := missed(rows)):
        print(line)
    print("all bars met" if not failed else f"{len(failed)} bars missed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
