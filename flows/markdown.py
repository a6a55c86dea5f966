"""What the UI is told about a shard and a run, as Markdown and as rows of tables; no picture above 200 kB."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from storage import Sample, ShardRecord, load_dataset, read_samples
from storage.card import escape
from storage.metadata import yield_by_cell

from .preview import sheet, whole_rows
from .sheets import webp_uri

SHEET_LIMIT = 190_000
_MOST_ROWS = 18


def shard_markdown(dataset: str, record: ShardRecord) -> str:
    """One shard: counts, contact sheet, scores, reasons; below 200 kB as a whole."""
    noted = _Notes()
    rows = whole_rows(load_dataset(dataset), noted.of(read_samples(dataset, record.index)))
    counts = record.counts
    lines = [
        f"## Shard {record.index:05d} of {escape(dataset)}",
        f"{counts.get('sets', 0)} sets kept of {counts.get('candidates', 0)} candidates, "
        f"{counts.get('images', 0)} images. Manifest `{record.sha256[:12]}`.",
    ]
    if rows:
        lines.append(f"![contact sheet]({webp_uri(sheet(dataset, rows[:_MOST_ROWS]), SHEET_LIMIT)})")
    if len(rows) > _MOST_ROWS:
        lines.append(f"The first {_MOST_ROWS} of {len(rows)} kept sets.")
    lines.append(markdown_table(("score", "least", "median", "most"), noted.scores()))
    if noted.reasons:
        lines.append(markdown_table(("rejected for", "candidates"), noted.reasons.most_common()))
    return "\n\n".join(lines)


class _Notes:
    """Scores and reasons of samples that pass by."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[float]] = defaultdict(list)
        self.rejected: dict[tuple[str, int], str] = {}

    def of(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples, noted."""
        for sample in samples:
            for name, value in sample.scores.items():
                if isinstance(value, float):
                    self.values[name].append(value)
            if not sample.kept:
                self.rejected[sample.set_id, sample.candidate] = sample.reason or ""
            yield sample

    @property
    def reasons(self) -> Counter[str]:
        """Rejected candidates by reason."""
        return Counter(self.rejected.values())

    def scores(self) -> list[Sequence[object]]:
        """Name, least, median and most of every score."""
        found = ((name, min(v), median(v), max(v)) for name, v in self.values.items())
        return [(name, *(f"{value:.3g}" for value in numbers)) for name, *numbers in found]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown; cells are text, whatever is in them."""
    body = [list(columns), ["---"] * len(columns), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def shard_rows(results: Sequence[Mapping[str, Any]], planned: Mapping[int, int]) -> list[dict[str, Any]]:
    """Rows of the table of shards, from what their tasks returned; `planned` is the sets of each."""
    return [
        {
            "shard": facts["shard"],
            "planned sets": planned[facts["shard"]],
            "kept sets": facts["counts"].get("sets", 0),
            "candidates": facts["counts"].get("candidates", 0),
            "images": facts["counts"].get("images", 0),
            "manifest": facts["manifest"],
            "sha256": facts["manifest_sha256"][:12],
        }
        for facts in results
    ]


def concept_rows(yields: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of concepts."""
    return [
        {
            "group": row["concept_group"],
            "concept": row["concept"],
            "planned sets": row["planned"],
            "kept sets": row["sets"],
            "tries": row["candidates"],
            "images": row["images"],
            "kept per try": _share(row["share"]),
        }
        for row in yields
    ]


def cell_rows(dataset: str) -> list[dict[str, Any]]:
    """Rows of the table of cells."""
    axes = list(load_dataset(dataset).axes)
    return [
        {
            **{axis: row[axis] for axis in axes},
            "tried": row["tried"],
            "kept": row["kept"],
            "kept share": _share(row["share"]),
            "reads as prompted": _share(row["attribute_ok"]),
        }
        for row in yield_by_cell(dataset)
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
