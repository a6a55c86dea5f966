"""Which sets a contact sheet shows, read from a dataset with every byte checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from math import prod

from PIL import Image

from storage import CounterpoiseError, DatasetManifest, Sample, list_shards, load_dataset, read_samples
from storage.checks import nsfw_limit
from storage.manifest import read_plan
from storage.metadata import first_kept, kept_among
from storage.query import open_records

from .sheets import Row, draw_sheet, kept_rows

SIDE = 64
_MOST = 36
_PER_CONCEPT = 2


def first_rows(
    dataset: str, most: int = _MOST, per_concept: int = _PER_CONCEPT, side: int = SIDE
) -> list[Row]:
    """The first kept sets of every concept, concepts in the order of the plan."""
    with open_records(dataset) as records:
        ((concepts,),) = records.connection.sql("SELECT count(DISTINCT concept) FROM planned").fetchall()
        found = first_kept(records, min(per_concept, max(1, most // max(1, concepts))))[:most]
    return _rows(dataset, {row["set_id"]: row["shard"] for row in found}, side)


def set_rows(dataset: str, names: Sequence[str], side: int = SIDE) -> list[Row]:
    """The sets of these ids.

    Raises:
        CounterpoiseError: a set is not in the plan, not made yet, or was not kept.
    """
    places = {row["set_id"]: row["shard"] for row in read_plan(dataset)}
    done, kept = {shard.index for shard in list_shards(dataset)}, kept_among(dataset, names)
    for name in names:
        if name not in places:
            near = difflib.get_close_matches(name, places, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CounterpoiseError(f"--set: given {name!r}, wanted a set of the plan of {dataset}{hint}")
        if places[name] not in done:
            raise CounterpoiseError(
                f"--set {name}: its shard {places[name]} is not made yet; generate it first"
            )
        if name not in kept:
            raise CounterpoiseError(f"--set {name}: no candidate of this set was kept, so it has no images")
    rows = _rows(dataset, {name: places[name] for name in names}, side)
    if missing := sorted(set(names) - {row.set_id for row in rows}):
        raise CounterpoiseError(f"--set {missing[0]}: it holds a flagged image, which is never shown")
    return rows


def whole_rows(manifest: DatasetManifest, samples: Iterable[Sample], side: int = SIDE) -> list[Row]:
    """The kept sets of samples of this dataset, without those that hold a flagged image."""
    recipe = manifest.header.get("recipe")
    limit = nsfw_limit(recipe) if isinstance(recipe, dict) else None
    return kept_rows(samples, prod(len(values) for values in manifest.axes.values()), limit, side)


def sheet(dataset: str, rows: Sequence[Row], side: int = SIDE) -> Image.Image:
    """The rows as a contact sheet of the dataset.

    Raises:
        CounterpoiseError: there is nothing to show.
    """
    if not rows:
        raise CounterpoiseError(f"{dataset}: no set is kept yet, so there is nothing to show; generate first")
    return draw_sheet(load_dataset(dataset).axes, rows, side)


def _rows(dataset: str, places: dict[str, int], side: int) -> list[Row]:
    manifest = load_dataset(dataset)
    found: dict[str, Row] = {}
    for index in sorted(set(places.values())):
        wanted = (one for one in read_samples(dataset, index) if one.set_id in places)
        found.update({row.set_id: row for row in whole_rows(manifest, wanted, side)})
    return [found[name] for name in places if name in found]
