"""croissant.json: the dataset for machines, in Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html).

It holds no time, so `datePublished` is left to whoever publishes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from . import card_text as text
from .backend import open_backend
from .canonical import plain
from .card import dataset_name
from .manifest import HEADER, DatasetManifest, Where, list_shards, load_dataset
from .plan import PLAN
from .records import SCORES, schema
from .shardfile import FileRecord, ShardRecord

CROISSANT = "croissant.json"
SPEC = "http://mlcommons.org/croissant/1.0"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
_CR = "citeAs column conformsTo equivalentProperty extract field fileProperty fileObject fileSet format includes"
_CR += " isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate"
_CR += " separator source subField transform"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in _CR.split()},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int32(): "sc:Integer",
    pa.int64(): "sc:Integer",
    pa.float64(): "sc:Float",
}
_MEANINGS = {
    "key": "<set_id>-<member>, the name of the image in the tar",
    "base": "the member that this one was edited from; a base names itself",
    "kept": "whether the candidate set was kept, and so has images",
    "reason": "why the candidate set was rejected",
    "split": "train, validation or test; drawn by set",
    "sha256": "of the image file",
}


def croissant(dataset: Where, model: Mapping[str, Any]) -> dict[str, Any]:
    """The Croissant description of a finished dataset.

    Args:
        dataset: a folder.
        model: "id", "license" and "sha256" of the weights, "use_restrictions" if they have any.

    Raises:
        ShardDamaged: a manifest is damaged.
    """
    manifest, shards = load_dataset(dataset), list_shards(dataset)
    name, root = dataset_name(manifest), manifest.root_sha256 or "none"
    head = {"@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": [SPEC, RAI]}
    facts = {
        "name": name,
        "description": _description(manifest),
        "license": text.license_url(model),
        "version": f"1.0.0+{root[:12]}",
        "isLiveDataset": False,
        "keywords": ["synthetic", "counterfactual", "fairness", "images", *manifest.axes],
        "inLanguage": "en",
        "citeAs": _citation(name, manifest),
    }
    files = {"distribution": _distribution(manifest, shards), "recordSet": _records(manifest, shards)}
    found: dict[str, Any] = plain({**head, **facts, **_responsible(manifest, model), **files})
    return found


def write_croissant(dataset: Where, facts: Mapping[str, Any]) -> None:
    """Put croissant.json into the dataset, whole or not at all; the same facts give the same bytes."""
    content = (json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    with open_backend(dataset).staging() as staging:
        staging.put(staging.stage(CROISSANT, [content]), CROISSANT)


def _description(manifest: DatasetManifest) -> str:
    counts = manifest.counts
    axes = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in manifest.axes.items())
    return (
        f"{counts.get('images', 0)} synthetic images in {counts.get('sets', 0)} counterfactual sets, whose members "
        f"come from one noise and differ in prompted appearance alone ({axes}). {text.LABELS.replace('**', '')}"
    )


def _citation(name: str, manifest: DatasetManifest) -> str:
    """BibTeX; braces and backslashes of others are left out, for they would break it."""
    title = "".join(char for char in name if char not in "{}\\")
    note = f"Made with counterpoise. Dataset {manifest.dataset_id[:12]}, shards {(manifest.root_sha256 or 'none')[:12]}"
    return f"@misc{{counterpoise_{manifest.dataset_id[:12]}, title={{{title}}}, note={{{note}}}}}"


def _responsible(manifest: DatasetManifest, model: Mapping[str, Any]) -> dict[str, Any]:
    """Croissant RAI: how the data came about, what it is for, what it is not."""
    made = f"Weights: {model.get('id', 'unknown')}, sha256 {model.get('sha256', 'unknown')}."
    recipe = manifest.header.get("recipe")
    settings = recipe if isinstance(recipe, Mapping) else {}
    limits = json.dumps(plain(settings.get("thresholds")), sort_keys=True, ensure_ascii=False)
    return {
        "rai:dataCollection": f"Generated by a diffusion model with prompt-to-prompt edits. {made} {text.PROVENANCE}",
        "rai:dataCollectionType": ["Synthetic data generation"],
        "rai:dataPreprocessingProtocol": [f"{text.FILTERS} Limits: {limits}."],
        "rai:dataAnnotationProtocol": ["Labels are the words of the prompts; nobody annotated the images."],
        "rai:dataBiases": list(text.BIASES),
        "rai:dataLimitations": list(text.LIMITATIONS),
        "rai:dataUseCases": [*text.USES, *(f"Out of scope: {one}" for one in text.OUT_OF_SCOPE)],
        "rai:dataSocialImpact": text.use_restrictions(model)
        or "No use restrictions of the weights are known.",
        "rai:personalSensitiveInformation": [
            "None: nobody in these images exists. Labels are prompted appearance."
        ],
    }


def _distribution(manifest: DatasetManifest, shards: Sequence[ShardRecord]) -> list[dict[str, Any]]:
    tars = [shard.tar for shard in shards if shard.tar is not None]
    tables = [shard.parquet for shard in shards]
    plan = FileRecord(PLAN, int(manifest.plan["bytes"]), str(manifest.plan["sha256"]))
    return [
        _object(HEADER, HEADER, None, manifest.sha256, "application/json"),
        _object(PLAN, PLAN, plan.bytes, plan.sha256, "application/x-parquet"),
        *(_object(one.path, one.path, one.bytes, one.sha256, "application/x-parquet") for one in tables),
        *(_object(one.path, one.path, one.bytes, one.sha256, "application/x-tar") for one in tars),
        *([_set("parquet-files", "application/x-parquet", [one.path for one in tables])] if tables else []),
        *([_set("image-files", "image/png", ["*.png"], tars)] if tars else []),
    ]


def _object(name: str, url: str, size: int | None, digest: str, mime: str) -> dict[str, Any]:
    known = {} if size is None else {"contentSize": f"{size} B"}
    start = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": url, **known}
    return {**start, "encodingFormat": mime, "sha256": digest}


def _set(name: str, mime: str, includes: list[str], inside: Sequence[FileRecord] = ()) -> dict[str, Any]:
    """Files of one kind, in archives or, by their names in full, in the dataset's folder."""
    places = {"containedIn": [{"@id": file.path} for file in inside]} if inside else {}
    start = {"@type": "cr:FileSet", "@id": name, "name": name, **places}
    return {**start, "encodingFormat": mime, "includes": includes}


def _records(manifest: DatasetManifest, shards: Sequence[ShardRecord]) -> list[dict[str, Any]]:
    """`records`: every candidate image by the Parquet; `images`: the kept ones by the tars."""
    if not shards:
        return []
    columns = [_column(field, manifest.axes) for field in schema(list(manifest.axes))]
    told = "One row per candidate image, kept or rejected, with its prompt, seed, scores and the reason."
    found = [_record_set("records", told, columns)]
    if any(shard.tar is not None for shard in shards):
        name = {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": "filename"}}
        key = _field(
            "images/key", "sc:Text", {**name, "transform": {"regex": r"^(.+)\.png$"}}, _MEANINGS["key"]
        )
        content = {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": "content"}}
        image = _field("images/image", "sc:ImageObject", content, "The image; its record has the same key.")
        found.append(_record_set("images", "Kept images.", [key, image]))
    return found


def _record_set(name: str, told: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    start = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": told}
    return {**start, **({"key": {"@id": "images/key"}} if name == "images" else {}), "field": fields}


def _column(column: pa.Field, axes: Mapping[str, Any]) -> dict[str, Any]:
    source = {"fileSet": {"@id": "parquet-files"}, "extract": {"column": column.name}}
    told = _MEANINGS.get(column.name, "")
    if column.name in axes:
        told = f"Prompted appearance, never identity: {', '.join(axes[column.name])}."
    elif column.name in SCORES:
        told = "Score; empty where it was not computed."
    return _field(f"records/{column.name}", _TYPES[column.type], source, told)


def _field(name: str, kind: str, source: Mapping[str, Any], told: str) -> dict[str, Any]:
    start = {"@type": "cr:Field", "@id": name, "name": name.rpartition("/")[2]}
    return {**start, **({"description": told} if told else {}), "dataType": kind, "source": source}
