"""What Prefect's UI shows of Skew: heatmaps, the table beside a fair model's, every cell, links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debias.skew_null import reduction
from debias.skew_table import Cell, Extreme, SkewTable
from storage.card import escape
from storage.errors import CounterpoiseError

from .artifacts import Shelf, artifact_key
from .heatmap import Panel, heatmap_uri, legend
from .markdown import markdown_table
from .skew_view import answer_lines, interval, number

if TYPE_CHECKING:
    from debias.training.comparing import Compared

    from .launching import Ended
    from .training import Job

_FAIR = (
    "Fair: what a model scores that gives each concept as often, at random by the target; not 0. Excess gone: share of the "
    "distance beyond fair that is gone."
)
_MEASURES = ("MaxSkew", "MinSkew")


def put_skew(shelf: Shelf, name: str, table: SkewTable, where: str, about: str) -> None:
    """Heatmaps, extremes, cells and the link to a skew table that was written to `where`."""
    for axis, one in table.axes.items():
        _heatmap(shelf, artifact_key(name, "heatmap", axis), axis, [(about, one)], about)
    shelf.put(lambda: shelf.markdown(artifact_key(name, "skew"), _single(table, about), "Skew beside fair"))
    shelf.table(artifact_key(name, "cells"), lambda: list(_cells(about, [table])), "Skew of every cell")
    shelf.link(artifact_key(name, "table"), Path(where), where)


def put_base(shelf: Shelf, job: Job) -> None:
    """Heatmaps of the base model's Skew, before training; nothing where the method measures none."""
    from debias.training.epochs import stored_table
    from debias.training.folder import RunFolder

    table = stored_table(RunFolder(job.folder), 0)
    for axis, one in table.axes.items() if table else ():
        about = f"base model, asked about {job.recipe.skew_pool}"
        _heatmap(shelf, artifact_key(job.name, "base", axis), axis, [(about, one)], about)


def put_comparison(
    shelf: Shelf, name: str, pools: Sequence[Compared], model: str | None, ended: Ended
) -> None:
    """Heatmaps before and after, the table, every cell, and the link to the model of a training run."""
    from debias.training.evaluating import pool_slug

    for one in pools:
        for axis, panels in _panels(one).items():
            key = artifact_key(name, "heatmap", pool_slug(one.pool), axis)
            _heatmap(shelf, key, axis, panels, f"asked about {one.pool}")
    text = "\n\n".join(_comparison(name, pools, ended))
    shelf.markdown(artifact_key(name, "skew"), text, "Skew before and after, beside a fair model's")
    shelf.table(
        artifact_key(name, "cells"),
        lambda: [row for one in pools for row in _cells(one.pool, _tables(one))],
        "Skew of every cell, before and after",
    )
    if model is not None:
        shelf.link(artifact_key(name, "checkpoint"), Path(model), model)


def _heatmap(shelf: Shelf, key: str, axis: str, panels: Sequence[Panel], about: str) -> None:
    """Drawing that fails costs a line in the log as well."""

    def store() -> None:
        title = f"Skew by {axis}, {about}"
        lines = [f"## {escape(title)}", f"![heatmap]({heatmap_uri(panels)})", *legend(panels)]
        shelf.markdown(key, "\n\n".join(lines), escape(title))

    shelf.put(store)


def _tables(one: Compared) -> list[SkewTable | None]:
    """Before and after as they were measured, each on the concepts it kept."""
    return [None if each is None else each.table for each in (one.before, one.after)]


def _panels(one: Compared) -> dict[str, list[Panel]]:
    """By axis, the tables that there are under their headings."""
    found: dict[str, list[Panel]] = {}
    for heading, table in zip(("before", "after"), _tables(one), strict=True):
        for axis, each in table.axes.items() if table else ():
            found.setdefault(axis, []).append((heading, each))
    return found


def _single(table: SkewTable, about: str) -> str:
    rows = [
        (axis, measure, *_extreme(one), number(one.null), f"{one.p:.3f}")
        for axis, measure, one in _extremes(table)
    ]
    columns = ("axis", "", "Skew", "95 %", "fair", "null", "p")
    parts = [f"## Skew, {escape(about)}", markdown_table(columns, rows), _FAIR]
    parts += [f"- {escape(line)}" for line in answer_lines(table.answers)]
    return "\n\n".join([*parts, *(f"**{escape(line)}**" for line in table.warnings)])


def _comparison(name: str, pools: Sequence[Compared], ended: Ended) -> Iterator[str]:
    yield f"## {escape(name)}: before and after"
    if ended.shortfall:
        yield f"**{escape(ended.shortfall)}**"
    if not pools:
        yield "The recipe evaluates on no pool (evaluate_on), so there is nothing to compare."
        return
    columns = ("pool", "axis", "", "before", "95 %", "fair", "after", "95 %", "fair", "excess gone")
    yield markdown_table(columns, [row for one in pools for row in _rows(one)])
    yield _FAIR
    for one in pools:
        yield from map(escape, _notes(one))


def _rows(one: Compared) -> Iterator[Sequence[str]]:
    accuracy = [None if each is None else each.accuracy for each in (one.before, one.after)]
    yield _beside(one.pool, "accuracy", accuracy)
    tables = (one.same_before, one.same_after) if one.same_before else _tables(one)
    for name, read in _OTHERS.items():
        found = [None if table is None else read(table) for table in tables]
        if any(value is not None for value in found):
            yield _beside(one.pool, name, found)
    was, now = tables
    if was is None:
        return
    after = {} if now is None else {(axis, measure): each for axis, measure, each in _extremes(now)}
    for axis, measure, each in _extremes(was):
        other = after.get((axis, measure))
        rest = ("", "", "", "") if other is None else (*_extreme(other), _gone(each, other))
        yield one.pool, axis, measure, *_extreme(each), *rest


def _beside(pool: str, name: str, pair: Sequence[float | None]) -> Sequence[str]:
    was, now = ("" if value is None else f"{value:.1%}" for value in pair)
    return pool, "", name, was, "", "", now, "", "", ""


def _flips(table: SkewTable) -> float | None:
    return None if table.answers.flips is None else table.answers.flips.of_sets


def _worst(table: SkewTable) -> float | None:
    return None if table.answers.worst is None else table.answers.worst.accuracy


def _recall(table: SkewTable) -> float | None:
    recall = table.answers.recall
    return min(recall.values()) if recall else None


_OTHERS = {
    "sets with different answers": _flips,
    "accuracy of the worst cell": _worst,
    "lowest recall of a concept": _recall,
}


def _extremes(table: SkewTable) -> Iterator[tuple[str, str, Extreme]]:
    for axis, one in table.axes.items():
        yield from ((axis, *pair) for pair in zip(_MEASURES, (one.max_skew, one.min_skew), strict=True))


def _extreme(one: Extreme) -> tuple[str, str, str]:
    return number(one.value), interval(one.low, one.high), number(one.floor.mean)


def _gone(was: Extreme, now: Extreme) -> str:
    try:
        return f"{reduction(was.value, now.value, was.floor.mean, now.floor.mean):.0%}"
    except CounterpoiseError:
        return "there was none"


def _notes(one: Compared) -> Iterator[str]:
    for when, each in (("before", one.before), ("after", one.after)):
        if each is None:
            yield f"{one.pool}, {when}: training did not come to it."
        elif each.note:
            yield f"{one.pool}, {when}: Skew was not measured: {each.note}"
    if one.concepts is None:
        return
    if not one.concepts:
        yield f"{one.pool}: no concept was given often enough both before and after; rows are of different concepts."
        return
    known = {
        name for table in _tables(one) if table for each in table.axes.values() for name in each.concepts
    }
    if left := sorted(known - set(one.concepts)):
        yield f"{one.pool}: compared on {len(one.concepts)} concepts; not kept in both and left out: {', '.join(left)}."


def _cells(about: str, tables: Sequence[SkewTable | None]) -> Iterator[dict[str, Any]]:
    """Rows of all cells that any of the tables has; of two tables, before and after."""
    endings = ("",) if len(tables) == 1 else (" before", " after")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for ending, table in zip(endings, tables, strict=True):
        for axis, one in table.axes.items() if table else ():
            for cell in one.cells():
                row = found.setdefault(
                    (axis, cell.concept, cell.value),
                    {"of": about, "axis": axis, "concept": cell.concept, "value": cell.value},
                )
                row.update(_numbers(cell, ending))
    columns = [name for ending in endings for name in (f"answers{ending}", f"Skew{ending}", f"95 %{ending}")]
    for row in found.values():
        yield {**row, **{name: row.get(name, "dropped") for name in columns}}


def _numbers(cell: Cell, ending: str) -> Mapping[str, Any]:
    facts = {"answers": cell.count, "Skew": number(cell.skew), "95 %": interval(cell.low, cell.high)}
    return {f"{name}{ending}": value for name, value in facts.items()}
