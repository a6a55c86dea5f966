"""Public benchmarks: asked by lmms-eval as a child, or read from its logs; measured, and tested against a baseline."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from storage.errors import CounterpoiseError

if TYPE_CHECKING:
    from debias.suites.comparing import Report
    from debias.suites.lmms_eval import Backend
    from debias.suites.logs import Run

LOGS, LOG, REPORT = "suite", "suite.log", "suite.json"
_POLL, _TAIL = 0.5, 8192


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """What is asked of benchmarks; the flags of `counterpoise evaluate`."""

    suite: str | None = None
    logs: str | None = None
    baseline: str | None = None
    margin: float = 0.01
    metrics: tuple[str, ...] = ()
    limit: int | None = None
    model: str | None = None
    python: str | None = None
    seed: int = 0

    def check(self) -> bool:
        """Whether benchmarks are asked for.

        Raises:
            CounterpoiseError: a value is bad, or flags do not go together.
        """
        if self.suite is None and self.logs is None:
            for flag, value in (
                ("--baseline", self.baseline),
                ("--metric", self.metrics),
                ("--limit", self.limit),
            ):
                if value:
                    raise CounterpoiseError(
                        f"{flag}: it is for benchmarks; give --suite or --suite-logs with it."
                    )
            return False
        if not 0 < self.margin < float("inf"):
            raise CounterpoiseError(
                f"--margin: given {self.margin:g}, wanted a number above 0, such as 0.01."
            )
        if self.limit is not None and self.limit < 1:
            raise CounterpoiseError(f"--limit: given {self.limit}, wanted a whole number of 1 or more.")
        if self.logs is not None and self.limit is not None:
            raise CounterpoiseError(
                "--limit: it is for a run, and --suite-logs reads one that is done; leave it out."
            )
        self.chosen_metrics()
        self.tasks()
        return True

    def tasks(self) -> list[str] | None:
        """Tasks that are named; None for all of the logs."""
        from debias.suites.lmms_eval import tasks_of

        return None if self.suite is None else tasks_of(self.suite)

    def chosen_metrics(self) -> dict[str, str]:
        """Task to metric."""
        found = {}
        for pair in self.metrics:
            task, equals, metric = pair.partition("=")
            if not (task and equals and metric):
                raise CounterpoiseError(
                    f"--metric: given {pair!r}, wanted TASK=METRIC, such as mme=mme_cognition_score."
                )
            found[task] = metric
        return found


def evaluate_suite(model: str, out: Path, options: SuiteOptions, console: Console, err: Console) -> str:
    """Ask or read, measure, compare, write `suite.json`; what fell short of non-inferiority, or nothing."""
    from debias.suites.comparing import report_on
    from debias.suites.logs import read_run

    from .suite_view import shortfall, show_report

    earlier = None if options.baseline is None else _baseline(options.baseline)
    if options.logs is not None:
        run = read_run(options.logs, options.tasks())
        _keep(run, out)
    else:
        _ask(model, out, options, err)
    run = read_run(out / LOGS, None if options.logs is None else options.tasks())
    with err.status("comparing"):
        report = report_on(run, earlier, options.margin, options.seed, options.chosen_metrics())
    _write(out / REPORT, model, report)
    show_report(report, console, err)
    console.print(f"written     {out / REPORT}", markup=False, highlight=False, soft_wrap=True)
    return shortfall(report)


def _baseline(given: str) -> Run:
    """Logs of an earlier evaluation, which keeps them in its folder, or logs as such."""
    from debias.suites.logs import read_run

    kept = Path(given) / LOGS
    return read_run(kept if kept.is_dir() else given)


def _keep(run: Run, out: Path) -> None:
    """Copy a run's logs to where an evaluation keeps its own, so that it can be a baseline; they appear whole."""
    from debias.suites.logs import read_note

    kept = out / LOGS
    if run.results.resolve().is_relative_to(kept.resolve()):
        return
    half = _fresh(out)
    folder = half / run.results.parent.name
    folder.mkdir()
    for path in run.files():
        shutil.copyfile(path, folder / path.name)
    _note(half, {"lmms_eval": run.lmms_eval, **read_note(run.results), "tasks": list(run.tasks)})
    half.rename(kept)


def _note(folder: Path, body: dict[str, object]) -> None:
    from debias.suites.logs import NOTE

    (folder / NOTE).write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", "utf-8")


def _fresh(out: Path) -> Path:
    """An empty folder for logs that are not whole yet.

    Raises:
        CounterpoiseError: there are logs already.
    """
    kept, half = out / LOGS, out / f"{LOGS}.part"
    if kept.exists():
        raise CounterpoiseError(
            f"{kept}: logs of another run are there; read them with --suite-logs {kept}, or give another --out."
        )
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    return half


def _ask(model: str, out: Path, options: SuiteOptions, err: Console) -> None:
    """Run lmms-eval; its logs are kept only if it came to an end."""
    from debias.suites.lmms_eval import NAME, VERSION, command
    from debias.suites.logs import find_results

    from .suite_environment import suite_python, versions

    tasks = options.tasks() or []
    with err.status("checking the model"):
        backend, device = _backend(model, options.model)
    half = _fresh(out)
    call = command("python", model, backend, tasks, half, device, options.limit)
    python = suite_python(options.python, err)
    found = versions(python)
    if found.get("lmms_eval") != VERSION:
        text = f"Warning: {NAME} {found.get('lmms_eval')} is asked; what is known here is {VERSION}."
        err.print(text, markup=False, highlight=False, soft_wrap=True)
    status = _run([python, *call[1:]], out / LOG, err)
    try:
        find_results(half)
    except CounterpoiseError as error:
        from debias.suites.lmms_eval import reason

        said = reason((out / LOG).read_text("utf-8", "replace"))
        raise CounterpoiseError(
            f"{NAME} ended with status {status} and wrote no results: {said}; see {out / LOG}."
        ) from error
    _note(half, dict(found))
    half.rename(out / LOGS)


def _backend(model: str, named: str | None) -> tuple[Backend, str]:
    from .train_command import quiet

    quiet()
    import torch

    from debias.models.opening import model_type
    from debias.suites.lmms_eval import backend_for, backend_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (backend_for(model_type(model), model) if named is None else backend_of(named)), device


def _run(call: Sequence[str], log: Path, err: Console) -> int:
    """Wait for a child, with a bar as its log tells; it ends with this process."""
    from debias.suites.lmms_eval import asked, environment

    from .children import child
    from .progress import counting_to

    with (
        log.open("wb") as lines,
        child(call, lines, environment(os.environ)) as process,
        counting_to(err, f"lmms-eval, log in {log}") as told,
    ):
        while process.poll() is None:
            if counted := asked(_tail(log)):
                told(*counted)
            time.sleep(_POLL)
    return process.returncode


def _tail(log: Path) -> str:
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - _TAIL))
        return re.sub(r"\r", "\n", lines.read().decode("utf-8", "replace"))


def _write(path: Path, model: str, report: Report) -> None:
    from debias.suites.comparing import body_of

    body = body_of(report, model=model)
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
