"""Logs of lmms-eval, read and checked: which run, which questions, what each of them scored.

As lmms-eval 0.7.3 writes them with `--log_samples`: FOLDER/MODEL/DATE_results.json and beside it a
DATE_samples_TASK.jsonl for each task, a line for each question and filter, filter by filter.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import CounterpoiseError

#: What ends the name of a run's results, and counterpoise's note beside the folder that they are in. Installed from a
#: package, lmms-eval does not log its version.
RESULTS, NOTE = "_results.json", "note.json"
_DATED = re.compile(r"\d[\d_T:.-]*_results\.json")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with one filter.

    Attributes:
        doc_id: its place in the benchmark's split.
        prompt: what was asked, as JSON text.
        target: the right answer as the task has it.
        doc_hash: lmms-eval's hash of the question; that of nothing, equal for all, in some versions.
        row: the whole line, with a value for each metric.
    """

    doc_id: int
    prompt: str
    target: str
    doc_hash: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskLog:
    """What was logged of one task.

    Attributes:
        name: of the task.
        path: of the samples.
        config: of the task, without addresses in memory.
        version: of the task.
        task_hash: lmms-eval's.
        docs: how many questions were asked.
        original: how many the task has; None where that was not logged.
        samples: by filter, each in the order of doc_id.
        reported: aggregated metrics by "metric,filter".
        higher_is_better: by metric.
    """

    name: str
    path: Path
    config: dict[str, Any]
    version: object
    task_hash: str | None
    docs: int
    original: int | None
    samples: dict[str, tuple[Sample, ...]]
    reported: dict[str, Any]
    higher_is_better: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of lmms-eval.

    Attributes:
        results: path of its results.
        model: as lmms-eval names it, with its arguments.
        lmms_eval: version, as far as it was logged.
        settings: what a run asks of all tasks: limit, offset, gen_kwargs, system_instruction.
        tasks: by name.
    """

    results: Path
    model: str
    lmms_eval: str
    settings: dict[str, Any]
    tasks: dict[str, TaskLog]

    def files(self) -> list[Path]:
        """All that belongs to it."""
        return [self.results, *(task.path for task in self.tasks.values())]


def find_results(place: str | Path) -> Path:
    """The one run in a folder, or the file itself.

    Raises:
        CounterpoiseError: there is none, or there are several.
    """
    root = Path(place)
    if root.is_file():
        return root
    if not root.is_dir():
        raise CounterpoiseError(
            f"{place}: not there; a folder with logs of lmms-eval, or a results file, is wanted."
        )
    found = sorted(path for path in root.rglob(f"*{RESULTS}") if _DATED.fullmatch(path.name))
    if not found:
        raise CounterpoiseError(
            f"{place}: no DATE{RESULTS} in it; a folder that lmms-eval wrote with --log_samples --output_path is wanted."
        )
    if len(found) > 1:
        named = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        raise CounterpoiseError(
            f"{place}: it holds {len(found)} runs: {named}; name one of these files instead."
        )
    return found[0]


def read_run(place: str | Path, wanted: Sequence[str] | None = None) -> Run:
    """Read one run.

    Args:
        place: a folder that holds one run, or the path of its results.
        wanted: tasks, groups of tasks or patterns; None for all that were kept.

    Raises:
        CounterpoiseError: there is not one run, a file is missing, empty or damaged, or a task is incomplete or unknown.
    """
    path = find_results(place)
    body = _body(path)
    config = body.get("config") or {}
    settings = {
        "limit": config.get("limit"),
        "offset": config.get("offset") or 0,
        "gen_kwargs": config.get("gen_kwargs") or "",
        "system_instruction": body.get("system_instruction"),
    }
    note = read_note(path)
    names = _chosen(body, note.get("tasks") if wanted is None else wanted, path)
    tasks = {name: _task(body, name, settings, path) for name in names}
    model = f"{config.get('model')} ({config.get('model_args')})"
    return Run(path, model, str(note.get("lmms_eval", body.get("lmms_eval_version"))), settings, tasks)


def read_note(results: Path) -> dict[str, Any]:
    """What counterpoise noted beside the folder that results are in: versions, and `tasks` where it kept but some.

    Raises:
        CounterpoiseError: the note is damaged.
    """
    note = results.parent.parent / NOTE
    try:
        body = json.loads(note.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("tasks", []), list):
        raise CounterpoiseError(
            f"{note}: not as counterpoise writes it; remove it, and its facts are not known."
        )
    return body


def _body(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CounterpoiseError(
            f"{path}: it is no JSON ({error}); copy it again, or run the suite again."
        ) from error
    known = isinstance(body, dict) and all(isinstance(body.get(key), dict) for key in ("configs", "results"))
    if not known or not path.name.endswith(RESULTS):
        raise CounterpoiseError(f"{path}: not a DATE{RESULTS} of lmms-eval, with `configs` and `results`.")
    found: dict[str, Any] = body
    return found


def _chosen(body: dict[str, Any], wanted: Sequence[str] | None, path: Path) -> list[str]:
    every = sorted(body["configs"])
    if wanted is None:
        return every
    found: list[str] = []
    for name in wanted:
        mine = fnmatch.filter(every, name) or _leaves(body, name, set())
        if not mine:
            raise CounterpoiseError(f"{path}: task {name!r} is not in it; it has {', '.join(every)}.")
        found += mine
    return sorted(set(found))


def _leaves(body: dict[str, Any], name: str, seen: set[str]) -> list[str]:
    """Tasks of a group, whose parts may be groups."""
    if name in body["configs"]:
        return [name]
    if name in seen:
        return []
    parts = (body.get("group_subtasks") or {}).get(name) or []
    return [leaf for part in parts for leaf in _leaves(body, part, seen | {name})]


def _task(body: dict[str, Any], name: str, settings: dict[str, Any], results: Path) -> TaskLog:
    def of(field: str) -> Any:
        return (body.get(field) or {}).get(name)

    config = json.loads(_ADDRESS.sub("", json.dumps(body["configs"][name])))
    path = _samples_of(results, name)
    samples = list(_samples(path))
    by_filter = _by_filter(samples, config, path)
    docs = len(next(iter(by_filter.values())))
    counts = of("n-samples") or {}
    whole = not settings["offset"] and not 0 < (settings["limit"] or 0) < 1
    if whole and counts.get("effective") not in (None, docs):
        raise CounterpoiseError(
            f"{path}: it has {docs} of the {counts['effective']:g} questions that were asked; it was cut short: copy it "
            "again, or run the suite again."
        )
    return TaskLog(
        name, path, config, of("versions"), of("task_hashes"), docs, counts.get("original"), by_filter,
        of("results") or {}, of("higher_is_better") or {},
    )  # fmt: skip


def _samples_of(results: Path, name: str) -> Path:
    return results.with_name(results.name.removesuffix(RESULTS) + f"_samples_{name}.jsonl")


def _samples(path: Path) -> Iterator[Sample]:
    if not path.is_file():
        raise CounterpoiseError(
            f"{path}: missing beside its results; lmms-eval writes it with --log_samples."
        )
    text = path.read_text("utf-8", errors="replace")
    if not text.strip():
        raise CounterpoiseError(
            f"{path}: it is empty; a line for each question is wanted: run the suite again."
        )
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _sample(line, f"{path}: line {number}", number == len(lines))


def _sample(line: str, where: str, unended: bool) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = "it is cut off" if unended else f"it is no JSON ({error})"
        raise CounterpoiseError(f"{where}: {what}; copy the file again, or run the suite again.") from error
    doc_id = row.get("doc_id") if isinstance(row, dict) else None
    if not isinstance(doc_id, int) or isinstance(doc_id, bool):
        raise CounterpoiseError(
            f"{where}: doc_id is {doc_id!r}; a question's number, as lmms-eval logs it, is wanted."
        )
    prompt = json.dumps(row.get("input", row.get("arguments")), sort_keys=True)
    return Sample(doc_id, prompt, str(row.get("target")), str(row.get("doc_hash")), row)


def _by_filter(
    samples: Sequence[Sample], config: dict[str, Any], path: Path
) -> dict[str, tuple[Sample, ...]]:
    """Lines of one question are its filters', in their order; so many of each there have to be, or one."""
    names = [one.get("name", "none") for one in config.get("filter_list") or []] or ["none"]
    of_doc: dict[int, list[Sample]] = {}
    for sample in samples:
        of_doc.setdefault(sample.doc_id, []).append(sample)
    for doc_id, mine in of_doc.items():
        if len(mine) != len(names):
            raise CounterpoiseError(
                f"{path}: doc_id {doc_id} is in it {len(mine)} times, wanted {len(names)} (filters: {', '.join(names)}); "
                "two runs in one file cannot be told apart: run the suite again."
            )
    ordered = [of_doc[doc_id] for doc_id in sorted(of_doc)]
    return {name: tuple(mine[place] for mine in ordered) for place, name in enumerate(names)}
