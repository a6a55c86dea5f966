"""What each question of a task scored, from values as lmms-eval logs them.

A metric's value is a number, or a dictionary with its `score`, or (MMBench) one with `prediction`, `answer` and the
options by letter, whose score is ours: whether the prediction means the answer's option (`debias.replies.option_of`).
MMBench asks each question once for every rotation of its options and counts it if all are right (CircularEval, Liu et
al. 2024); rotations of one question are those whose `index` differs by millions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.errors import CounterpoiseError

from ..predictions import Ints
from ..questions import LETTERS
from ..replies import option_of
from ..sampling import Floats
from .logs import Sample, TaskLog

NUMBER, SCORE, LETTER = "number", "score", "letter"
_ROTATION = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One metric of a task.

    Attributes:
        metric: "metric,filter".
        how: NUMBER, SCORE or LETTER, see the module.
        docs: (n,), doc_id of each question.
        values: (n,), what it scored.
        units: (n,), questions of one unit (of one picture, say) are not independent.
        sign: 1 where more is better, else -1.
        reported: what lmms-eval aggregated the metric to; None where it did not.
    """

    metric: str
    how: str
    docs: Ints
    values: Floats
    units: Ints
    sign: int
    reported: float | None


def scores_of(task: TaskLog, wanted: str | None = None) -> Scores | None:
    """Scores by the metric that is wanted, or by the task's first that has one for a question; None where none has.

    Args:
        task: the log.
        wanted: "metric" or "metric,filter".

    Raises:
        CounterpoiseError: the metric is unknown or has no scores, or a value is missing, not a number or not finite.
    """
    metrics = [str(one.get("metric")) for one in task.config.get("metric_list") or []]
    known = [(metric, name) for metric in metrics for name in task.samples]
    for metric, name in known:
        if wanted is None or wanted in (metric, f"{metric},{name}"):
            found = _scores(task, metric, name)
            if found is not None:
                return found
    if wanted is None:
        return None
    having = [f"{metric},{name}" for metric, name in known if _kind(task, metric, name) is not None]
    raise CounterpoiseError(
        f"task {task.name}: metric {wanted!r} has no score for each question; wanted one of {', '.join(having) or 'none'}."
    )


def _present(task: TaskLog, metric: str, name: str) -> list[Sample]:
    return [sample for sample in task.samples[name] if metric in sample.row]


def _kind(task: TaskLog, metric: str, name: str) -> str | None:
    present = _present(task, metric, name)
    return _how(present[0].row[metric]) if present else None


def _how(value: Any) -> str | None:
    if isinstance(value, int | float):
        return NUMBER
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("score"), int | float):
        return SCORE
    options, answer = _options(value), value.get("answer")
    lettered = isinstance(answer, str) and len(answer) == 1 and answer in LETTERS[: len(options)]
    return LETTER if lettered and isinstance(value.get("prediction"), str) else None


def _options(value: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for letter in LETTERS:
        option = value.get(letter)
        if option is None or str(option) in ("", "nan"):
            break
        found.append(str(option))
    return found


def _scores(task: TaskLog, metric: str, name: str) -> Scores | None:
    how, present = _kind(task, metric, name), _present(task, metric, name)
    if how is None:
        return None
    values = np.array([_value(task, metric, sample, how) for sample in present])
    docs = np.array([sample.doc_id for sample in present])
    keys = [_unit(sample, sample.row[metric], how) for sample in present]
    places: dict[Any, int] = {}
    units = np.array([places.setdefault(key, len(places)) for key in keys])
    if how == LETTER:
        docs, values, units = _circular(docs, values, units)
    higher = task.higher_is_better.get(metric)
    reported = task.reported.get(f"{metric},{name}")
    number = float(reported) if isinstance(reported, int | float) and math.isfinite(reported) else None
    return Scores(f"{metric},{name}", how, docs, values, units, -1 if higher is False else 1, number)


def _value(task: TaskLog, metric: str, sample: Sample, how: str) -> float:
    value = sample.row[metric]
    if _how(value) == how:
        found = _letter(value) if how == LETTER else float(value["score"] if how == SCORE else value)
        if math.isfinite(found):
            return found
    raise CounterpoiseError(
        f"{task.path}: doc_id {sample.doc_id}: {metric} is {value!r:.80}; a finite number is wanted, as for others: name "
        "another metric with --metric, or run the task again."
    )


def _letter(value: dict[str, Any]) -> float:
    return float(option_of(value["prediction"], _options(value)) == LETTERS.index(value["answer"]))


def _unit(sample: Sample, value: Any, how: str) -> object:
    if how == LETTER and isinstance(value.get("index"), int):
        return value["index"] % _ROTATION
    question = value.get("question_id") if how == SCORE else None
    return ("doc", sample.doc_id) if question is None else str(question)


def _circular(docs: Ints, values: Floats, units: Ints) -> tuple[Ints, Floats, Ints]:
    """A question is right if all of its rotations are."""
    right = np.ones(int(units.max()) + 1)
    np.minimum.at(right, units, values)
    _, first = np.unique(units, return_index=True)
    return docs[first], right, np.arange(len(right))
