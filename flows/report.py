"""report.html: what a dataset holds and how it came about, in one file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from storage import DatasetManifest, load_dataset, metadata
from storage.backend import open_backend
from storage.query import Records, open_records

from . import charts, cost
from .closing import REPORT
from .page import Section, Share, facts, figure, links, page, paragraph, share, table
from .preview import first_rows
from .proof import Proof, load_comparison
from .sheets import Row, draw_sheet, webp_uri
from .skew_section import skew_parts

_ROWS_PER_SHEET = 6
_SHEET_LIMIT = 600_000
_LABELS = (
    "The values of the axes say what the prompt asked a picture to look like. They are prompted appearance, "
    "never anybody's identity: nobody in these pictures exists."
)
_PROOF = (
    "The same prompts from the same seeds, once edited as the spec says (prompt-to-prompt, and local blend where it "
    "is on) and once sampled plainly, over few sets: an illustration, not a measurement. The background change is "
    "the mean absolute difference of an edit to its base outside the person, in grey levels (0 to 255)."
)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the report speaks of."""

    dataset: str
    manifest: DatasetManifest
    records: Records
    yields: Sequence[Mapping[str, Any]]
    rows: Sequence[Row]

    def total(self, name: str) -> int:
        """Sum over the concepts."""
        return sum(int(row[name]) for row in self.yields)

    @property
    def cells(self) -> int:
        """Members of a set."""
        return math.prod(len(values) for values in self.manifest.axes.values())

    def header(self, *names: str) -> Any:
        """A value of the dataset's header, None where it is not there."""
        value: Any = self.manifest.header
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def write_report(dataset: str) -> str:
    """Write report.html into the dataset's report folder; returns its path.

    Raises:
        CounterpoiseError: there is no dataset, or it is damaged.
    """
    manifest, rows = load_dataset(dataset), first_rows(dataset)
    with open_records(dataset) as records:
        given = _Facts(dataset, manifest, records, metadata.yield_by_concept(records), rows)
        name = str(given.header("spec", "name") or "dataset")
        content = page(f"{name}: counterfactual sets", _parts(name, given)).encode("utf-8")
    backend = open_backend(dataset)
    with backend.staging() as staging:
        staging.put(staging.stage(REPORT, [content]), REPORT)
    return backend.where(REPORT)


def _parts(name: str, given: _Facts) -> Iterator[str]:
    sections = [
        Section("sheets", "Contact sheets", _sheets(given)),
        Section("yield", "Yield", _yield(given)),
        Section("scores", "Scores", _scores(given)),
        Section("reasons", "Why candidates were rejected", _reasons(given)),
        Section(
            "comparison", "With and without prompt-to-prompt", _comparison(load_comparison(given.dataset))
        ),
        Section("skew", "Instance skew", skew_parts(given.records)),
        Section("weights", "Weights and settings", _weights(given)),
        Section("cost", "Cost", _cost(given)),
    ]
    yield f"<header><h1>{escape(name)}</h1>"
    yield paragraph(
        "Counterfactual sets: pictures from one noise that are prompted alike but for the attributes.",
        soft=True,
    )
    yield links(sections) + "</header>"
    yield _summary(given)
    yield paragraph(_LABELS)
    yield from (one.html for one in sections)


def _summary(given: _Facts) -> str:
    counts, tried = given.manifest.counts, given.total("candidates")
    kept = f"{given.total('sets') / tried:.0%}" if tried else "none yet"
    done = f"{len(given.manifest.shards)} of {given.manifest.plan['shards']}"
    return facts(
        [
            (str(counts.get("images", 0)), "images kept"),
            (f"{given.total('sets')} of {given.total('planned')}", "planned sets"),
            (str(len(given.yields)), "concepts"),
            (str(given.cells), "cells, each with equal counts"),
            (kept, "of candidates kept"),
            (done, "shards"),
        ]
    )


def _sheets(given: _Facts) -> Iterator[str]:
    if not given.rows:
        yield paragraph("No set is kept yet.")
        return
    yield paragraph(
        "One row is one set, all from one noise. A bar marks the bases; the others were edited from them."
    )
    for start in range(0, len(given.rows), _ROWS_PER_SHEET):
        rows = given.rows[start : start + _ROWS_PER_SHEET]
        names = ", ".join(dict.fromkeys(row.concept for row in rows))
        yield figure(webp_uri(draw_sheet(given.manifest.axes, rows), _SHEET_LIMIT), f"Contact sheet: {names}")


def _yield(given: _Facts) -> Iterator[str]:
    yield paragraph("A set is kept or rejected whole, so every kept cell has equal counts.")
    columns = ("group", "concept", "planned sets", "kept sets", "tries", "images", "kept per try")
    names = ("concept_group", "concept", "planned", "sets", "candidates", "images")
    yield "<h3>Per concept</h3>"
    yield table(
        columns, [[*(row[name] for name in names), share(row["share"])] for row in given.yields], bar=6
    )
    axes = list(given.manifest.axes)
    rows = metadata.yield_by_cell(given.records)
    cells = [
        [*(row[name] for name in (*axes, "tried", "kept")), share(row["share"]), share(row["attribute_ok"])]
        for row in rows
    ]
    yield "<h3>Per cell</h3>"
    yield table((*axes, "tried", "kept", "kept share", "reads as prompted"), cells, bar=len(axes) + 3)


def _scores(given: _Facts) -> Iterator[str]:
    found = metadata.score_histograms(given.records)
    drawn = [
        figure(charts.histogram(score, bins, _limit(given, score)), f"Histogram of {score}")
        for score, bins in found.items()
    ]
    if drawn:
        yield paragraph(
            "Images by score. A candidate is rejected whole if one member breaks a limit (dashed)."
        )
        yield f'<div class="charts">{"".join(drawn)}</div>'


def _limit(given: _Facts, score: str) -> float | None:
    value = given.header("recipe", "thresholds", score)
    return float(value) if isinstance(value, int | float) else None


def _reasons(given: _Facts) -> Iterator[str]:
    rows = metadata.reasons(given.records)
    total = sum(row["candidates"] for row in rows)
    if not rows:
        yield paragraph("No candidate was rejected.")
        return
    yield paragraph(
        "The first score that spoke against a candidate; all scores of rejected candidates are on record."
    )
    yield table(
        ("reason", "candidates", "share"),
        [[r["reason"], r["candidates"], Share(r["candidates"] / total)] for r in rows],
        bar=2,
    )


def _comparison(found: Proof | None) -> Iterator[str]:
    if found is None:
        return
    with_p2p, without = (
        [v for v in values if math.isfinite(v)] for values in (found.with_p2p, found.without)
    )
    yield paragraph(_PROOF)
    if with_p2p and without:
        yield figure(
            charts.distributions(with_p2p, without, "background change (grey levels)"), "Background change"
        )
    yield _proof_table(found, len(with_p2p))
    if found.examples:
        yield "<h3>Examples</h3>"
        yield f'<div class="examples">{"".join(map(_example, found.examples))}</div>'


def _proof_table(found: Proof, edits: int) -> str:
    number = {name: "not measured" if math.isnan(v) else f"{v:.3g}" for name, v in found.numbers.items()}
    percent = {name: "not measured" if math.isnan(v) else f"{v:.1%}" for name, v in found.numbers.items()}
    return table(
        ("measure", "value"),
        [
            ["bases", number["bases"]],
            ["edits", str(edits)],
            ["ratio of medians, with to without", number["ratio"]],
            ["95 % interval, over bases", f"{number['low']} to {number['high']}"],
            ["edits that read as prompted, with", percent["accuracy_with"]],
            ["edits that read as prompted, without", percent["accuracy_without"]],
        ],
    )


def _example(row: tuple[str, str, str]) -> str:
    names = ("base", "prompt-to-prompt", "same seed only")
    pairs = zip(row, names, strict=True)
    cells = (f'<div><img src="{escape(uri)}" alt="{name}"><span>{name}</span></div>' for uri, name in pairs)
    return f"<figure>{''.join(cells)}</figure>"


def _weights(given: _Facts) -> Iterator[str]:
    model = {name: given.header("model", name) for name in ("id", "sha256", "licence", "restrictions")}
    rows = [["weights", model["id"]], ["sha256", model["sha256"]], ["licence", model["licence"]]]
    rows += [["use restrictions", model["restrictions"]]] if model["restrictions"] else []
    rows += [["dataset", given.manifest.dataset_id], ["root hash of the shards", given.manifest.root_sha256]]
    yield table(("", ""), rows)
    settings = [
        [f"{part}.{name}", _plain(value)] for part in _SETTINGS for name, value in _items(given, part)
    ]
    yield "<h3>Settings</h3>"
    yield table(("setting", "value"), settings)
    yield from _environments(given)


_SETTINGS = ("sampler", "edit", "thresholds", "scorers")


def _items(given: _Facts, part: str) -> list[tuple[str, Any]]:
    found = given.header("recipe", part)
    return list(found.items()) if isinstance(found, Mapping) else []


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    return "not set" if value is None else str(value)


def _environments(given: _Facts) -> Iterator[str]:
    found: dict[str, int] = {}
    for shard in given.records.shards:
        text = _plain(shard.environment)
        found[text] = found.get(text, 0) + 1
    if found:
        yield "<h3>Environments</h3>"
        yield table(("shards", "environment"), [[count, text] for text, count in found.items()])


def _cost(given: _Facts) -> Iterator[str]:
    found = cost.measured(given.dataset)
    if found is None:
        yield paragraph("Not measured.")
        return
    kept = given.manifest.counts.get("images", 0)
    per_kept = found.worker_seconds / kept if kept else None
    yield table(
        ("measure", "value"),
        [
            ["images generated and scored", str(found.images)],
            ["wall time", cost.duration(found.seconds)],
            ["worker seconds per image generated", f"{found.per_image:.3g}"],
            ["worker seconds per image kept", "no image kept" if per_kept is None else f"{per_kept:.3g}"],
        ],
    )
