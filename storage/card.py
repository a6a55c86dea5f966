"""The dataset card: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
_OPENRAIL = (
    "The weights are under CreativeML Open RAIL++-M. Its use-based restrictions (attachment A) travel with "
    "what is made from the model: do not use these images to exploit or harm people, to discriminate against "
    "or defame anybody, to spread disinformation, or for medical, legal or law-enforcement decisions about "
    "anybody; and pass these restrictions on with every copy."
)
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


def dataset_card(
    manifest: DatasetManifest,
    yields: Iterable[Mapping[str, Any]],
    shortfalls: Iterable[Mapping[str, Any]],
    model: Mapping[str, Any],
    skews: Sequence[SkewJoin] = (),
) -> str:
    """README.md of a dataset; no time in it, so the same dataset gives the same card.

    Args:
        manifest: the finished dataset.
        yields: rows of `metadata.yield_by_concept`.
        shortfalls: rows of `metadata.shortfalls`.
        model: "id", "license" and "sha256" of the weights, "use_restrictions" if they have any.
        skews: what the skew sidecars say, by `skewed.join_skew`.
    """
    name = _title(manifest)
    parts = [
        _front_matter(manifest, name, model),
        f"# {escape(name)}\n",
        _what(manifest),
        _labels(),
        _yield(list(yields)),
        _short(list(shortfalls), manifest.missing),
        _filters(manifest.header),
        *([_skews(skews)] if skews else []),
        _model(model),
        "## Reading it\n\n" + _READING,
    ]
    return "\n".join(parts)


def write_card(dataset: Where, text: str) -> None:
    """Put a card into the dataset, whole or not at all."""
    with open_backend(dataset).staging() as staging:
        staging.put(staging.stage(CARD, [text.encode("utf-8")]), CARD)


def escape(text: object) -> str:
    """Text of others as plain words in a Markdown table: no markup, no new row, no HTML."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in r"\`*_{}[]()#|!~" else char for char in line)


def _title(manifest: DatasetManifest) -> str:
    spec = manifest.header.get("spec")
    return str(spec.get("name", "dataset")) if isinstance(spec, Mapping) else "dataset"


def _front_matter(manifest: DatasetManifest, name: str, model: Mapping[str, Any]) -> str:
    """YAML in which every text of others is a JSON string, which YAML reads the same."""
    images = manifest.counts.get("images", 0)
    size = next((label for limit, label in _SIZES if images < limit), "n>10M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(name, ensure_ascii=True)}",
        *_license(model),
        f"size_categories:\n- {size}",
        "task_categories:\n- image-classification\n- zero-shot-image-classification",
        "language:\n- en",
        "tags:\n- webdataset\n- synthetic\n- counterfactual\n- fairness",
        "configs:",
        '- config_name: images\n  data_files: "shards/*.tar"\n  default: true',
        '- config_name: records\n  data_files: "shards/*.parquet"',
        "---\n",
    ]
    return "\n".join(lines)


def _license(model: Mapping[str, Any]) -> list[str]:
    """The weights' licence where the hub knows its name, "other" with the name given where not."""
    given = str(model.get("license") or "unknown")
    if _is_openrail(given):
        return ["license: openrail++"]
    if given.lower() in ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "openrail"):
        return [f"license: {given.lower()}"]
    return ["license: other", f"license_name: {json.dumps(given, ensure_ascii=True)}"]


def _is_openrail(name: str) -> bool:
    plain = name.lower().replace(" ", "").replace("-", "")
    return "openrail++" in plain


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


def _labels() -> str:
    return (
        "## What the labels mean\n\n"
        "The values of an axis say **what the prompt asked the picture to look like**. They are prompted "
        "appearance, never anybody's identity: nobody in these images exists, and no image says how a person "
        "of any group looks, acts or identifies. Do not use the labels to infer traits of real people.\n"
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
    return (
        "## How it was filtered\n\n"
        "Each candidate set was scored and rejected whole if a score broke its limit. Rejected candidates "
        "are in the Parquet files with their scores and the reason, without an image. Empty scores were not "
        "computed.\n\n" + body
    )


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
    given = str(model.get("license") or "unknown")
    rows = [
        ["weights", model.get("id", "unknown")],
        ["sha256", model.get("sha256", "unknown")],
        ["licence", given],
    ]
    restrictions = str(model.get("use_restrictions") or (_OPENRAIL if _is_openrail(given) else ""))
    text = f"\n**Use restrictions.** {escape(restrictions)}\n" if restrictions else ""
    return "## Weights and licence\n\n" + _table(("", ""), rows) + text
