"""Whether two runs asked the same questions in the same way; only then can their scores be paired."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from storage.errors import CounterpoiseError

from .logs import Run, Sample, TaskLog

#: Of a whole run; they change what all of its tasks ask or how a model answers.
_SETTINGS = ("gen_kwargs", "system_instruction")


def check_same(now: Run, then: Run, name: str) -> list[str]:
    """Check that a task is the same in both runs; what is doubtful nonetheless.

    Raises:
        CounterpoiseError: it is not in both, its settings differ, or its questions do; names the first that does.
    """
    if name not in then.tasks:
        raise CounterpoiseError(
            f"task {name}: it is not in the baseline {then.results}, which has {', '.join(then.tasks)}; run it for the "
            "baseline's model too, or leave it out of --suite."
        )
    one, other = now.tasks[name], then.tasks[name]
    where = f"task {name}"
    for key in _SETTINGS:
        _same(now.settings[key], then.settings[key], f"{where}: {key}")
    _same(one.version, other.version, f"{where}: version")
    for key in sorted({*one.config, *other.config}):
        _same(one.config.get(key), other.config.get(key), f"{where}: {key}")
    warnings = []
    if now.lmms_eval != then.lmms_eval:
        warnings.append(f"{where}: lmms-eval {now.lmms_eval} now, {then.lmms_eval} in the baseline.")
    for label in one.samples:
        warnings += _same_questions(one.samples[label], other.samples[label], where, (now, then))
    return list(dict.fromkeys(warnings))


def _same(now: Any, then: Any, what: str) -> None:
    if now != then:
        raise CounterpoiseError(
            f"{what} is {json.dumps(now)[:120]} now and {json.dumps(then)[:120]} in the baseline: scores that were made in "
            "different ways cannot be paired; run both models with one version and the same settings."
        )


def _same_questions(
    now: tuple[Sample, ...], then: tuple[Sample, ...], where: str, runs: tuple[Run, Run]
) -> list[str]:
    mine, others = {one.doc_id for one in now}, {one.doc_id for one in then}
    if mine != others:
        limits = " and ".join(f"{run.settings['limit']}" for run in runs)
        odd = sorted(mine ^ others)
        raise CounterpoiseError(
            f"{where}: {len(mine - others)} of {len(mine)} questions are not in the baseline, {len(others - mine)} of its "
            f"{len(others)} not in this run, the first doc_id {odd[0]} (limits: {limits}); ask both the same questions."
        )
    hashes = [one.doc_hash != other.doc_hash for one, other in zip(now, then, strict=True)]
    for one, other, hashed in zip(now, then, hashes, strict=True):
        parts = (
            ("prompt", one.prompt, other.prompt),
            ("target", one.target, other.target),
            ("doc_hash", *((one.doc_hash, other.doc_hash) if hashed and not all(hashes) else ("", ""))),
        )
        for what, a, b in parts:
            if a != b:
                raise CounterpoiseError(
                    f"{where}: doc_id {one.doc_id}: {what} is {a:.80} now and {b:.80} in the baseline; the same questions, "
                    "asked in the same words, are wanted: run both models with one version of task and data."
                )
    if all(hashes):
        return [f"{where}: no doc_hash agrees, though all prompts and targets do; are pictures the same?"]
    return []


def prompts_sha256(task: TaskLog) -> str:
    """Hash over number, prompt and target of all questions in order."""
    first = next(iter(task.samples.values()))
    return _sha256([[one.doc_id, one.prompt, one.target] for one in first])


def config_sha256(task: TaskLog) -> str:
    """Hash over a task's settings."""
    return _sha256(task.config)


def _sha256(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
