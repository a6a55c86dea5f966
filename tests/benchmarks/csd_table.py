"""The table of the proof, from what is on disk, and whether the bars are met."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from csd_arms import ARMS, SEEDS, TRAINED_ON
from csd_measure import ASKED, RANKS, Score, general, given_often, rank_agreement, score, table_of
from csd_run import BASES, DONE, REBOUNDS, RUNS, folder_of, rate_of, rebound_folder
from csd_world import OUT
from rich.console import Console
from scipy import stats

from flows.world.stereotypes import bias_table

SIDES = ("min_skew", "max_skew")
#: Arms that the first bars are about.
PLAIN, WHOLE, HALVES = "ft", "csd", ("resampling", "sfloss")
RANKS_BAR, HALF, MOST, GENERAL_BAR = 0.9, 0.5, 0.7, 0.005


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean and its 95 % interval; of a single value there is none."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """With two digits."""
        if np.isnan(self.low):
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Mean with Student's interval."""
    found = np.asarray(values, float)
    if len(found) < 2:
        return Spread(float(found.mean()), np.nan, np.nan)
    reach = float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))
    return Spread(float(found.mean()), float(found.mean()) - reach, float(found.mean()) + reach)


@dataclass(frozen=True, slots=True)
class Row:
    """An arm.

    Attributes:
        name: of the arm, or of a base model.
        folders: of its runs.
        scores: pool and side to the scores of every run.
        lost: points of general accuracy, this arm's less its base's, paired by question.
    """

    name: str
    folders: tuple[Path, ...]
    scores: Mapping[tuple[str, str], tuple[Score, ...]]
    lost: Spread

    def beyond(self, pool: str, side: str = SIDES[0], against: str = "null") -> Spread:
        """Magnitude beyond a fair model's, over the seeds; `against` is "null", "floor" or "value"."""
        return spread([getattr(one, against) for one in self.scores[pool, side]])


def done_runs() -> dict[str, tuple[Path, ...]]:
    """Folders of what has ended, by arm, in the order of the table."""
    found = {name: (RUNS / name,) for name in BASES if (RUNS / name / DONE).exists()}
    for name in ARMS:
        folders = tuple(folder_of(name, seed) for seed in SEEDS if (folder_of(name, seed) / DONE).exists())
        if folders:
            found[name] = folders
    return found


def of_one_base(runs: Mapping[str, tuple[Path, ...]], qwen: bool) -> dict[str, tuple[Path, ...]]:
    """The runs on one architecture."""
    return {name: folders for name, folders in runs.items() if name.startswith("qwen") == qwen}


def rows_of(runs: Mapping[str, tuple[Path, ...]]) -> dict[str, Row]:
    """Measure the runs of one architecture, on the concepts that all of them gave often enough."""
    every = [folder for folders in runs.values() for folder in folders]
    kept = {
        pool: sorted(set.intersection(*(given_often(folder, asked) for folder in every)))
        for pool, asked in ASKED.items()
    }
    base = general(next(iter(runs.values()))[0])
    found = {}
    for name, folders in runs.items():
        scores = {}
        for pool, asked in ASKED.items():
            tables = [table_of(folder, asked, kept[pool]) for folder in folders]
            for side in SIDES:
                scores[pool, side] = tuple(score(table, side) for table in tables)
        lost = np.mean([general(folder) - base for folder in folders], axis=0)
        found[name] = Row(name, folders, scores, spread(lost))
    return found


def reduction(row: Row, other: Row, pool: str = "portraits", against: str = "null") -> float:
    """Share of another arm's MinSkew beyond a fair model's that is gone, from the means over the seeds."""
    had = other.beyond(pool, against=against).mean
    return 1 - max(0.0, row.beyond(pool, against=against).mean) / had


def lines_of(rows: Mapping[str, Row]) -> Iterator[str]:
    """The table as Markdown."""
    heads = [
        "arm",
        "rate",
        "(ii) MinSkew",
        "beyond a permuted model's",
        "beyond a fair model's",
        "(ii) MaxSkew, beyond permuted",
    ]
    heads += [
        f"{asked.title}, MinSkew beyond permuted" for pool, asked in ASKED.items() if pool != "portraits"
    ]
    heads += ["(v) general questions, points against the base"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows.values():
        arm = ARMS.get(row.name)
        cells = [
            arm.title if arm else row.name,
            f"{rate_of(row.name):g}" if arm else "",
            str(row.beyond("portraits", against="value")),
            str(row.beyond("portraits")),
            str(row.beyond("portraits", against="floor")),
            str(row.beyond("portraits", SIDES[1])),
            *(str(row.beyond(pool)) for pool in ASKED if pool != "portraits"),
            str(Spread(*(100 * one for one in (row.lost.mean, row.lost.low, row.lost.high)))),
        ]
        yield f"| {' | '.join(cells)} |"


def rebounds(kept: Sequence[str]) -> Iterator[str]:
    """A line for each arm that was trained on: MinSkew on the portraits beyond a permuted model's, before and after."""
    asked = ASKED["portraits"]

    def beyond(folders: Sequence[Path]) -> Spread:
        return spread([score(table_of(folder, asked, kept), SIDES[0]).null for folder in folders])

    for name in TRAINED_ON:
        for what in REBOUNDS:
            seeds = [seed for seed in SEEDS if (rebound_folder(name, seed, what) / DONE).exists()]
            if seeds:
                before = beyond([folder_of(name, seed) for seed in seeds])
                after = beyond([rebound_folder(name, seed, what) for seed in seeds])
                yield f"- {ARMS[name].title}, trained on with {what} data: (ii) {before}, then {after}"


def bars(rows: Mapping[str, Row], agreement: float) -> Iterator[tuple[bool, str]]:
    """Each bar: whether it is met, and its figures."""
    yield (
        agreement >= RANKS_BAR,
        f"base's Skew ranks cells as the table put in: Spearman {agreement:.3f}, wanted 0.9",
    )
    base, plain, whole = rows["base"], rows[PLAIN], rows[WHOLE]
    first, second = whole.beyond("portraits"), plain.beyond("portraits")
    yield (
        first.high < second.low,
        f"(ii) CSD {first} below FT {second}, intervals apart: {reduction(whole, plain):.1%} less",
    )
    for name in HALVES:
        yield (
            rows[name].beyond("portraits").mean < second.mean,
            f"(ii) {name} {rows[name].beyond('portraits')} helps",
        )
    tuned = {name: row for name, row in rows.items() if name not in BASES}
    best = min(tuned.values(), key=lambda row: row.beyond("portraits").mean)
    yield (
        reduction(best, plain) >= HALF,
        f"(ii) best arm ({best.name}) {reduction(best, plain):.1%} below FT, wanted 50 %",
    )
    yield (
        reduction(best, base) >= MOST,
        f"(ii) best arm {reduction(best, base):.1%} below the base, wanted 70 %",
    )
    most = best.beyond("portraits", SIDES[1]).mean
    yield most <= base.beyond("portraits", SIDES[1]).mean, f"(ii) best arm's MaxSkew no worse: {most:.2f}"
    for pool, asked in ASKED.items():
        now, was = best.beyond(pool).mean, base.beyond(pool).mean
        yield now < was, f"{asked.title}: best arm {now:.2f}, base {was:.2f}"
    for name in dict.fromkeys((WHOLE, best.name)):
        lost = rows[name].lost
        told = Spread(*(100 * one for one in (lost.mean, lost.low, lost.high)))
        yield (
            abs(lost.mean) <= GENERAL_BAR,
            f"(v) general questions, {name}: {told} points, wanted within 0.5",
        )


def show(console: Console) -> int:
    """Print everything and write it to build/csd/table.md; 1 if a bar is missed."""
    runs = done_runs()
    agreement = rank_agreement(table_of(RUNS / "base", RANKS), bias_table())
    rows = rows_of(of_one_base(runs, qwen=False))
    told = [
        f"{datetime.date.today()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}; runs an arm: {len(rows[WHOLE].folders)}",
        "",
        *lines_of(rows),
    ]
    if second := of_one_base(runs, qwen=True):
        told += ["", *lines_of(rows_of(second))]
    concepts = set.intersection(
        *(given_often(one, ASKED["portraits"]) for row in rows.values() for one in row.folders)
    )
    told += ["", *rebounds(sorted(concepts))]
    held = list(bars(rows, agreement))
    told += ["", *(f"- {'met' if met else 'MISSED'}: {text}" for met, text in held)]
    (OUT / "table.md").write_text("\n".join(told) + "\n")
    for line in told:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0 if all(met for met, _ in held) else 1
