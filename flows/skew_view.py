"""A skew table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from debias.answers import Answers
from debias.skew_table import Cell, Extreme, SkewTable

WORST = 8
_LOWEST = 3
_MEANING = "fair: with as many answers, at random by the target. null: with these answers, values permuted."


def show_table(table: SkewTable, console: Console, err: Console) -> None:
    """Print a skew table; its warnings go to `err`."""
    console.print(_extremes(table))
    console.print(_worst(table))
    for line in answer_lines(table.answers):
        say(console, line)
    for warning in table.warnings:
        say(err, f"Warning: {warning}")


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _extremes(table: SkewTable) -> Table:
    view = Table(title=_title(table), title_justify="left", caption=_MEANING, caption_justify="left")
    view.add_column("axis", no_wrap=True)
    view.add_column("", no_wrap=True)
    for name in ("Skew", "95 %", "fair", "95 %", "null", "p"):
        view.add_column(
            name, justify="right", no_wrap=name != "95 %"
        )  # a narrow terminal breaks ranges alone
    for name, one in table.axes.items():
        view.add_row(escape(name), "MaxSkew", *_extreme(one.max_skew))
        view.add_row("", "MinSkew", *_extreme(one.min_skew))
    return view


def _title(table: SkewTable) -> str:
    one = next(iter(table.axes.values()))  # axes differ in values, not in concepts
    sets = "" if table.sets is None else f" in {table.sets} sets"
    return (
        f"Skew, target {table.target}: {table.rows} answers{sets}, {len(one.concepts)} concepts used, "
        f"{len(one.dropped)} dropped"
    )


def _extreme(one: Extreme) -> tuple[str, ...]:
    fair = one.floor
    measured = (number(one.value), interval(one.low, one.high))
    return (*measured, number(fair.mean), interval(fair.low, fair.high), number(one.null), f"{one.p:.3f}")


def _worst(table: SkewTable) -> Table:
    """The cells furthest from 0 of all axes."""
    cells = [(name, cell) for name, one in table.axes.items() for cell in one.cells()]
    cells.sort(key=lambda row: -abs(row[1].skew))
    view = Table(title="Cells furthest from 0", title_justify="left")
    for name in ("axis", "concept", "value"):
        view.add_column(name, overflow="fold")  # a narrow terminal breaks names rather than to cut them
    for name in ("answers", "share", "target", "Skew", "95 %"):
        view.add_column(name, justify="right", no_wrap=True)
    for name, cell in cells[:WORST]:
        view.add_row(escape(name), escape(cell.concept), escape(cell.value), *_cell(cell))
    return view


def _cell(cell: Cell) -> tuple[str, ...]:
    return (
        str(cell.count), f"{cell.share:.3f}", f"{cell.target:.3f}", number(cell.skew), interval(cell.low, cell.high),
    )  # fmt: skip


def number(value: float) -> str:
    """A Skew with two digits, a p or a Skew near 0 with three."""
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    return f"{value:.2f}" if abs(value) >= 0.095 else f"{value:z.3f}"


def interval(low: float, high: float) -> str:
    """The two ends of a range."""
    return f"{number(low)} to {number(high)}"


def answer_lines(answers: Answers) -> Iterator[str]:
    """What stands beside Skew, a line each."""
    flips, worst = answers.flips, answers.worst
    if flips:
        yield (
            f"flips       {flips.of_sets:.1%} of {flips.sets} sets have members with different answers, "
            f"{flips.of_pairs:.1%} of the pairs"
        )
    if worst:
        yield f"worst cell  {worst.accuracy:.1%} right of {worst.rows}: {', '.join(worst.cell.values())}"
    if answers.recall:
        lowest = sorted(answers.recall.items(), key=lambda row: row[1])[:_LOWEST]
        named = ", ".join(f"{concept} {share:.1%}" for concept, share in lowest)
        mean = sum(answers.recall.values()) / len(answers.recall)
        yield f"recall      {mean:.1%} over {len(answers.recall)} concepts; lowest {named}"
    sizes = {axis: one.value for axis, one in answers.skew_size.items() if one.value is not None}
    if sizes:
        yield f"SkewSize    {', '.join(f'{axis} {number(value)}' for axis, value in sizes.items())}"
