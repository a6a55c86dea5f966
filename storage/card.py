"""The dataset card: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import card_text as text
from .backend import open_backend
from .manifest import DatasetManifest, Where
from .skewed import SkewJoin

CARD = "README.md"
_SIZES = [
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
]
_READING = """\
From inside the dataset's folder:

```python
import glob
tars, parquets = sorted(glob.glob("shards/*.tar")), sorted(glob.glob("shards/*.parquet"))

# One row per candidate image, kept or rejected, with its prompt, seed, scores and the reason
import pandas
records = pandas.concat(map(pandas.read_parquet, parquets))

import duckdb
kept = duckdb.sql("SELECT concept, count(*) FILTER (kept) AS images FROM 'shards/*.parquet' GROUP BY concept")

# Kept images, each with its record; the "split" of a record is drawn by set
import webdataset
images = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")

import datasets
rows = datasets.load_dataset("webdataset", data_files=tars, split="train")
```
"""


_CONFIGS = (
    {"config_name": "images", "data_files": "shards/*.tar", "default": True},
    {"config_name": "records", "data_files": "shards/*.parquet"},
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the files lie and are read; of the dataset itself or of an export.

    Attributes:
        configs: the hub's `configs`, which say what files a split has.
        reading: Markdown below "Reading it".
        tags: further tags.
        tasks: the hub's task categories.
        images: how many there are, where that is not the dataset's own count.
        note: a paragraph on what became of the dataset here.
    """

    configs: Sequence[Mapping[str, Any]] = _CONFIGS
    reading: str = _READING
    tags: tuple[str, ...] = ("webdataset",)
    tasks: tuple[str, ...] = ("image-classification", "zero-shot-image-classification")
    images: int | None = None
    note: str = ""


def dataset_card(
    manifest: DatasetManifest,
    yields: Iterable[Mapping[str, Any]],
    shortfalls: Iterable[Mapping[str, Any]],
    model: Mapping[str, Any],
    verdicts: Iterable[Mapping[str, Any]] = (),
    skews: Sequence[SkewJoin] = (),
    layout: Layout | None = None,
) -> str:
    """README.md of a dataset; no time in it, so the same dataset gives the same card.

    Args:
        manifest: the finished dataset.
        yields: rows of `metadata.yield_by_concept`.
        shortfalls: rows of `metadata.shortfalls`.
        model: "id", "license" and "sha256" of the weights, "use_restrictions" if they have any.
        verdicts: rows of `metadata.verdict_counts`.
        skews: what the skew sidecars say, by `skewed.join_skew`.
        layout: of an export; None for the dataset itself.
    """
    name, given = dataset_name(manifest), layout or Layout()
    parts = [
        _front_matter(manifest, name, model, given),
        f"# {escape(name)}\n",
        _what(manifest),
        *([f"{given.note}\n"] if given.note else []),
        f"## What the labels mean\n\n{text.LABELS}\n",
        f"## Intended use\n\n{_list(text.USES)}\n### Out of scope\n\n{_list(text.OUT_OF_SCOPE)}",
        f"## Bias and limits\n\n{_list((*text.BIASES, *text.LIMITATIONS))}",
        _yield(list(yields)),
        _short(list(shortfalls), manifest.missing),
        _filters(manifest.header),
        _verdicts(list(verdicts)),
        *([_skews(skews)] if skews else []),
        f"## Provenance\n\n{text.PROVENANCE}\n",
        _model(model),
        "## Reading it\n\n" + given.reading,
    ]
    return "\n".join(parts)


def write_card(dataset: Where, card: str) -> None:
    """Put a card into the dataset, whole or not at all."""
    with open_backend(dataset).staging() as staging:
        staging.put(staging.stage(CARD, [card.encode("utf-8")]), CARD)


def escape(value: object) -> str:
    """Text of others as plain words in a Markdown table: no markup, no new row, no HTML."""
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in r"\`*_{}[]()#|!~" else char for char in line)


def dataset_name(manifest: DatasetManifest) -> str:
    """The spec's name."""
    spec = manifest.header.get("spec")
    return str(spec.get("name", "dataset")) if isinstance(spec, Mapping) else "dataset"


def _front_matter(manifest: DatasetManifest, name: str, model: Mapping[str, Any], layout: Layout) -> str:
    """YAML in which every text of others is a JSON string, which YAML reads the same."""
    images = manifest.counts.get("images", 0) if layout.images is None else layout.images
    size = next((label for limit, label in _SIZES if images < limit), "n>10M")
    tags = (*layout.tags, "image", "synthetic", "counterfactual", "fairness")
    lines = [
        "---",
        f"pretty_name: {_quoted(name)}",
        *_license(model),
        f"size_categories:\n- {size}",
        "task_categories:",
        *(f"- {task}" for task in layout.tasks),
        "language:\n- en",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "configs:",
        *(f"- {_quoted(config)}" for config in layout.configs),
        "---\n",
    ]
    return "\n".join(lines)


def _quoted(value: object) -> str:
    """JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=True)


def _license(model: Mapping[str, Any]) -> list[str]:
    """The weights' licence where the hub knows its name, "other" with the name given where not."""
    name = text.hub_license(model)
    if name:
        return [f"license: {name}"]
    return ["license: other", f"license_name: {_quoted(text.license_given(model))}"]


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _what(manifest: DatasetManifest) -> str:
    counts, root = manifest.counts, manifest.root_sha256 or "none"
    axes = "\n".join(
        f"- {escape(axis)}: {', '.join(map(escape, values))}" for axis, values in manifest.axes.items()
    )
    return (
        f"{counts.get('images', 0)} synthetic images in {counts.get('sets', 0)} counterfactual sets: "
        "pictures from one noise whose prompts differ in the values of these axes alone. Members that share a base were "
        "edited from it; bases were sampled separately.\n\n"
        f"{axes}\n\n"
        f"Made with counterpoise. Dataset `{manifest.dataset_id[:12]}`, shards `{root[:12]}`.\n"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *([escape(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _yield(rows: list[Mapping[str, Any]]) -> str:
    columns = ("concept", "planned sets", "candidates", "kept sets", "images", "kept per candidate")
    cells = [[row["concept"], row["planned"], row["candidates"], row["sets"], row["images"]] for row in rows]
    shares = ["" if row["share"] is None else f"{row['share']:.0%}" for row in rows]
    body = _table(columns, [[*cell, share] for cell, share in zip(cells, shares, strict=True)])
    return f"## Yield\n\nA set is kept or rejected whole, so every kept cell has equal counts.\n\n{body}"


def _short(rows: list[Mapping[str, Any]], missing: list[int]) -> str:
    lines = [f"{len(missing)} planned shards are not in this dataset.\n"] if missing else []
    if rows:
        columns = ("concept", "planned sets", "kept sets", "missing in every cell")
        lines.append(
            _table(columns, [[row["concept"], row["planned"], row["sets"], row["missing"]] for row in rows])
        )
    return "## What fell short\n\n" + ("\n".join(lines) or "Nothing: every planned set is here.\n")


def _filters(header: Mapping[str, Any]) -> str:
    recipe = header.get("recipe")
    settings = recipe if isinstance(recipe, Mapping) else {}
    used = [
        (kind, settings[kind])
        for kind in ("thresholds", "scorers")
        if isinstance(settings.get(kind), Mapping)
    ]
    rows = [
        [kind, name, "not applied" if value is None else value]
        for kind, part in used
        for name, value in part.items()
    ]
    body = _table(("setting", "name", "value"), rows) if rows else "See `dataset.json`.\n"
    return f"## How it was filtered\n\n{text.FILTERS}\n\n{body}"


def _verdicts(rows: list[Mapping[str, Any]]) -> str:
    if not rows:
        return "## Verdicts\n\nNobody has judged the kept sets since: `verdicts/` is empty.\n"
    cells = [[row["reviewer"], row["accepted"], row["rejected"]] for row in rows]
    told = "Readers and exports leave out every set that one of these files rejects; the counts above do not.\n\n"
    return f"## Verdicts\n\n{told}" + _table(("file in verdicts/", "sets accepted", "sets rejected"), cells)


def _skews(found: Sequence[SkewJoin]) -> str:
    columns = ("file", "images", "with skew", "mean skew", "below 0", "at 0", "above 0")
    rows = []
    for one in found:
        total = one.total
        shares = [
            "" if total[name] is None else f"{total[name]:.0%}" for name in ("negative", "zero", "positive")
        ]
        mean = "" if total["mean_skew"] is None else f"{total['mean_skew']:.3g}"
        rows.append([one.name, total["images"], total["with_skew"], mean, *shares])
    return (
        "## Instance skew\n\n"
        "What models at one state of their weights make of the kept images, by key; shares are of the images with a "
        "skew.\n\n" + _table(columns, rows)
    )


def _model(model: Mapping[str, Any]) -> str:
    rows = [
        ["weights", model.get("id", "unknown")],
        ["sha256", model.get("sha256", "unknown")],
        ["licence", text.license_given(model)],
    ]
    restrictions = text.use_restrictions(model)
    told = f"\n**Use restrictions.** {escape(restrictions)}\n" if restrictions else ""
    return "## Weights and licence\n\n" + _table(("", ""), rows) + told
