"""Units made into items: the row of every image, its bytes, and what the skew sidecar says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .backend import open_backend
from .order import Longs, Units
from .pictures import Pictures, shard_table
from .selection import Selection

Item = dict[str, Any]
Flags = npt.NDArray[np.bool_]
#: What an item has besides the columns of a shard's Parquet.
ADDED = ("image", "skew", "weight", "copy")
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class _Images:
    """Images in their order: place of the part, place in the part, copy, and whether a batch ends with it."""

    part: Longs
    image: Longs
    copy: Longs
    last: Flags


def items(selection: Selection, units: Units, members: int, last: Flags) -> Iterator[tuple[Item, bool]]:
    """The items of some units of one window, each with whether a batch ends with it; files are open meanwhile.

    Args:
        selection: what is handed out.
        units: sets or images, in their order.
        members: images in a unit.
        last: whether a batch ends with the unit.

    Raises:
        ShardDamaged: a file is not what the manifests name.
    """
    images = _images(selection, units, members, last)
    backend, parts = open_backend(selection.dataset), selection.parts
    with ExitStack() as stack:
        opened = {
            int(place): stack.enter_context(Pictures(backend, parts[place].tar, parts[place].pairs))
            for place in np.unique(images.part)
        }
        columns = (images.part, images.image, images.copy, images.last)
        places = zip(*(column.tolist() for column in columns), strict=True)
        for item, (place, image, copy, ends) in zip(_rows(selection, images), places, strict=True):
            part = parts[place]
            item["image"] = opened[place].read(int(part.places[image]), item)
            item["skew"] = None if part.skew is None else float(part.skew[image])
            item["weight"] = 1.0 if part.weight is None else float(part.weight[image])
            item["copy"] = copy
            yield item, ends


def _images(selection: Selection, units: Units, members: int, last: Flags) -> _Images:
    """The images of units, those left out that have fewer copies."""
    image = (units.unit[:, None] * members + np.arange(members)).ravel()
    part, copy = np.repeat(units.part, members), np.repeat(units.copy, members)
    of = np.repeat(np.arange(len(last)), members)
    there = np.ones(len(image), bool)
    for place in np.unique(part):
        multiplicity = selection.parts[place].multiplicity
        if multiplicity is not None:
            mine = part == place
            there[mine] = multiplicity[image[mine]] > copy[mine]
    of = of[there]
    ends = np.diff(of, append=-1) != 0  # the unit's last image that is there
    return _Images(part[there], image[there], copy[there], ends & last[of])


def _rows(selection: Selection, images: _Images) -> Iterator[Item]:
    """Rows of the Parquet files in the order of the images; of every file, only those are held."""
    backend, axes = open_backend(selection.dataset), list(selection.axes)
    tables = []
    for place in np.unique(images.part):
        part = selection.parts[place]
        rows = part.rows[images.image[images.part == place]]
        tables.append(shard_table(backend, part.parquet, axes).take(rows))
    order = np.empty(len(images.part), np.int64)
    order[np.argsort(images.part, kind="stable")] = np.arange(len(order))
    table = pa.concat_tables(tables).combine_chunks().take(order)
    del tables
    for chunk in table.to_batches(max_chunksize=_CHUNK):
        yield from chunk.to_pylist()
