"""A run of a suite measured, and against a baseline tested task by task; as one body for JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from storage.errors import CounterpoiseError

from .logs import Run, TaskLog
from .noninferiority import DRAWS, INCONCLUSIVE, INFERIOR, NON_INFERIOR, Comparison, compare
from .pairing import check_same, config_sha256, prompts_sha256
from .scores import LETTER, Scores, scores_of

_NOTE = "no metric of it has a score for each question, so it is not tested"


@dataclass(frozen=True, slots=True)
class Measured:
    """A task of one run, and what a comparison says of it.

    Attributes:
        task: its log.
        scores: None where no metric has a score for each question.
        empty: how many answers are empty.
        comparison: None without a baseline or scores.
    """

    task: TaskLog
    scores: Scores | None
    empty: int
    comparison: Comparison | None = None

    @property
    def limited(self) -> bool:
        """Whether only a part of its questions was asked."""
        return self.task.original is not None and self.task.docs < self.task.original


@dataclass(frozen=True, slots=True)
class Report:
    """All tasks of a run.

    Attributes:
        run: of now.
        baseline: None where there is none.
        margin: of the tests.
        seed: of the bootstrap.
        tasks: by name.
        warnings: a line each.
    """

    run: Run
    baseline: Run | None
    margin: float
    seed: int
    tasks: dict[str, Measured]
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str | None:
        """Non-inferior if all tested tasks are, inferior if one is; None without a baseline."""
        found = {one.comparison.verdict for one in self.tasks.values() if one.comparison}
        if not found:
            return None
        return next(one for one in (INFERIOR, INCONCLUSIVE, NON_INFERIOR) if one in found)


def report_on(
    run: Run, baseline: Run | None, margin: float, seed: int = 0, metrics: Mapping[str, str] | None = None
) -> Report:
    """Measure every task of a run and, where there is a baseline, test it.

    Args:
        run: of now.
        baseline: of the model that capability is compared with.
        margin: what may be lost at most, in units of the scores, > 0.
        seed: of the bootstrap.
        metrics: task to the metric that is taken, for tasks whose first is not the one.

    Raises:
        CounterpoiseError: a metric is unknown, the questions differ, or nothing can be tested.
    """
    chosen = metrics or {}
    if unknown := sorted(set(chosen) - set(run.tasks)):
        raise CounterpoiseError(
            f"--metric: task {unknown[0]!r} is not in the run, which has {', '.join(run.tasks)}."
        )
    if baseline is not None and baseline.results.resolve() == run.results.resolve():
        raise CounterpoiseError(
            f"--baseline: {baseline.results} is this run itself; give that of another model."
        )
    report = Report(run, baseline, margin, seed, {})
    for name, task in run.tasks.items():
        found = Measured(task, scores_of(task, chosen.get(name)), _empty(task))
        if baseline is not None and found.scores is not None:
            report.warnings.extend(check_same(run, baseline, name))
            other = scores_of(baseline.tasks[name], found.scores.metric)
            found = Measured(
                task, found.scores, found.empty, _compared(name, found.scores, other, margin, seed)
            )
        report.tasks[name] = found
        report.warnings.extend(_doubts(name, found))
    if all(one.scores is None for one in report.tasks.values()):
        raise CounterpoiseError(
            f"{run.results}: of {', '.join(run.tasks)} {_NOTE}; ask for a task that logs scores."
        )
    return report


def _compared(name: str, now: Scores, then: Scores | None, margin: float, seed: int) -> Comparison:
    if then is None or now.how != then.how or not np.array_equal(now.docs, then.docs):
        raise CounterpoiseError(
            f"task {name}: {now.metric} was scored for other questions than in the baseline; name another with --metric."
        )
    digest = hashlib.sha256(json.dumps(["suite", seed, name, now.metric]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return compare(now.values, then.values, now.units, margin, rng, now.sign)


def _empty(task: TaskLog) -> int:
    """Answers without a word; what fails in generation is logged as such."""
    first = next(iter(task.samples.values()))
    return sum(one.row.get("filtered_resps") in ("", [], [""], None) for one in first)


def _doubts(name: str, found: Measured) -> list[str]:
    lines = []
    if found.scores is None:
        lines.append(f"task {name}: {_NOTE}.")
    elif found.scores.values.min() < 0 or found.scores.values.max() > 1:
        lines.append(
            f"task {name}: scores of {found.scores.metric} are not between 0 and 1; the margin is in their units."
        )
    if found.limited:
        lines.append(
            f"task {name}: {found.task.docs} of {found.task.original} questions; a limited run is for trying out."
        )
    if found.empty:
        lines.append(
            f"task {name}: {found.empty} of {found.task.docs} answers are empty; look for errors in the log."
        )
    return lines


def body_of(report: Report, **more: object) -> dict[str, Any]:
    """The report for JSON, without a clock: the same logs give the same text. What is infinite is null."""
    return {
        "suite": "lmms-eval",
        **more,
        "run": _run(report.run),
        "baseline": None if report.baseline is None else _run(report.baseline),
        "margin": report.margin,
        "confidence": 0.95,
        "draws": DRAWS,
        "seed": report.seed,
        "verdict": report.verdict,
        "tasks": {name: _task(one) for name, one in report.tasks.items()},
        "warnings": report.warnings,
    }


def _run(run: Run) -> dict[str, Any]:
    return {"model": run.model, "lmms_eval": run.lmms_eval, **run.settings}


def _task(one: Measured) -> dict[str, Any]:
    task, scores = one.task, one.scores
    body: dict[str, Any] = {
        "version": task.version,
        "metadata": task.config.get("metadata"),
        "config_sha256": config_sha256(task),
        "prompts_sha256": prompts_sha256(task),
        "task_hash": task.task_hash,
        "questions": task.docs,
        "of": task.original,
        "empty_answers": one.empty,
    }
    if scores is None:
        return {**body, "note": _NOTE}
    body |= {
        "metric": scores.metric,
        "scored_by": "our reading of the letter" if scores.how == LETTER else "lmms-eval",
        "scored": len(scores.values),
        "mean": float(scores.values.mean()),
        "reported": scores.reported,
        "higher_is_better": scores.sign > 0,
    }
    return {**body, "comparison": None if one.comparison is None else _finite(asdict(one.comparison))}


def _finite(body: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in body.items()
    }
