"""Paired timing: every method once per repeat, in an order that turns, so that a noisy machine treats all alike."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.stats import binom

#: Values whose range holds the median in 95 of 100 samples.
FEWEST = 6
Times = dict[str, list[float]]


def paired(methods: Mapping[str, Callable[[], object]], repeats: int) -> Times:
    """Return seconds per method and repeat, after one run each to warm up."""
    names = list(methods)
    found: Times = {name: [] for name in names}
    for name in names:
        methods[name]()
    for repeat in range(repeats):
        for k in range(len(names)):
            name = names[(k + repeat) % len(names)]
            gc.collect()
            start = time.perf_counter()
            methods[name]()
            found[name].append(time.perf_counter() - start)
    return found


def ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the paired ratios and its interval."""
    return interval(np.array(first) / np.array(second))


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Return the median of some values and its 95 % interval by order statistics, whatever their distribution.

    From the k-th smallest to the k-th largest the median is missed with twice the probability that a fair coin shows fewer
    than k heads in n throws (Conover 1999, section 3.2); fewer than `FEWEST` values have no such interval, only a range.
    """
    ordered = np.sort(values)
    k = max(1, int(binom.ppf(0.025, len(ordered), 0.5)))
    return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k])


def median(times: Sequence[float]) -> float:
    """Return the middle one."""
    return float(np.median(times))


def shown(found: tuple[float, float, float]) -> str:
    """A ratio as text."""
    return f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"


def reset_peak() -> int:
    """Forget the process's peak of resident memory; returns the bytes resident now. Linux only."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the peak of resident memory in bytes since `reset_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def peak_of(measure: Callable[..., int], *arguments: object) -> int:
    """Return what `measure` finds in a process of its own, which has imported its module and gives memory back at once.

    Such processes are forked from one that is started once and does no more than import, so that imports cost nothing.
    """
    script, path = Path(str(sys.modules[measure.__module__].__file__)), os.environ.get("PYTHONPATH", "")
    os.environ |= {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }  # of processes begun from now on
    if str(script.parent) not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([str(script.parent), path])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([script.stem])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        return pool.submit(measure, *arguments).result()
