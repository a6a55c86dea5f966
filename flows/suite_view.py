"""Benchmarks on the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from debias.suites.comparing import Measured, Report
from debias.suites.noninferiority import NON_INFERIOR
from debias.suites.scores import LETTER

from .skew_view import say

_LETTER = "*: read from the letter of the answer here, not by the benchmark's own judge."


def show_report(report: Report, console: Console, err: Console) -> None:
    """Print scores and tests; warnings go to `err`."""
    console.print(_scores(report))
    if report.baseline is not None:
        console.print(_tests(report))
    if any(one.scores and one.scores.how == LETTER for one in report.tasks.values()):
        say(console, _LETTER)
    for warning in report.warnings:
        say(err, f"Warning: {warning}")


def _scores(report: Report) -> Table:
    """Means, and what lmms-eval reported in the benchmark's own unit."""
    view = Table(title="Benchmarks", title_justify="left")
    for name in ("task", "metric"):
        view.add_column(name, overflow="fold")  # a narrow terminal breaks names rather than to cut them
    for name in ("questions", "mean", "reported"):
        view.add_column(name, justify="right", no_wrap=True)
    for name, one in report.tasks.items():
        if one.scores is not None:
            reported = "-" if one.scores.reported is None else f"{one.scores.reported:.4g}"
            row = (str(len(one.scores.values)), f"{one.scores.values.mean():.4f}", reported)
            view.add_row(escape(name), _metric(one), *row)
    return view


def _tests(report: Report) -> Table:
    view = Table(title=f"Against the baseline, margin {report.margin:g}", title_justify="left")
    view.add_column("task", overflow="fold")
    for name in ("then", "change", "95 %", "p", "verdict"):
        view.add_column(name, justify="right", no_wrap=True)
    for name, one in report.tasks.items():
        found = one.comparison
        if found is not None:
            view.add_row(
                escape(name),
                f"{found.then:.3f}",
                f"{found.difference:+.4f}",
                f"{_end(found.low)} to {_end(found.high)}",
                "-" if found.p is None else f"{found.p:.3f}",
                found.verdict,
            )
    return view


def _metric(one: Measured) -> str:
    assert one.scores is not None
    name = one.scores.metric.removesuffix(",none")
    return escape(name) + ("*" if one.scores.how == LETTER else "")


def _end(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else "?"


def shortfall(report: Report) -> str:
    """The tasks that were not shown to be non-inferior, in a line; nothing where there are none."""
    found = [
        f"{name} is {one.comparison.verdict}"
        for name, one in report.tasks.items()
        if one.comparison is not None and one.comparison.verdict != NON_INFERIOR
    ]
    return f"capability: {', '.join(found)}, by a margin of {report.margin:g}." if found else ""
