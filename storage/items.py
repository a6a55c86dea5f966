"""Units made into items: the row of every image, its bytes, and what the skew sidecar says of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .backend import Backend, open_backend
from .checked import Checked
from .errors import CounterpoiseError
from .order import Longs, Units
from .pictures import Pictures, shard_table
from .quarantine import quarantining
from .records import compared_columns, schema
from .selection import Part, Selection

Item = dict[str, Any]
Flags = npt.NDArray[np.bool_]
#: What an item has besides the columns of a shard's Parquet, and what it has only where it is asked for.
ADDED, RECORD = ("image", "skew", "weight", "copy"), "json"
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class _Images:
    """Images in their order: place of the part, place in the part, copy, and whether a batch ends with it."""

    part: Longs
    image: Longs
    copy: Longs
    last: Flags


def check_fields(selection: Selection, fields: Sequence[str] | None) -> None:
    """Refuse fields that items do not have, and axes of the same name as one of `ADDED`.

    Raises:
        CounterpoiseError: names the first.
    """
    taken = [axis for axis in selection.axes if axis in (*ADDED, RECORD)]
    if taken:
        raise CounterpoiseError(
            f"axis {taken[0]!r} has the name of a field that items have besides the axes."
        )
    known = [*schema(selection.axes).names, RECORD]
    strange = [name for name in fields or () if name not in known]
    if strange:
        raise CounterpoiseError(
            f"field {strange[0]!r}: items have no such field; known are {', '.join(known)}."
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Units of one window whose files are open, found, and compared with their manifests where that is done at once.

    Attributes:
        selection: what is handed out.
        images: in their order.
        opened: tars by place of the part.
        rows: of the images, in their order.
        fields: see `open_window`.
        files: closes the tars.
    """

    selection: Selection
    images: _Images
    opened: Mapping[int, Pictures]
    rows: pa.Table
    fields: Sequence[str] | None
    files: ExitStack


def open_window(
    selection: Selection,
    units: Units,
    members: int,
    last: Flags,
    fields: Sequence[str] | None = None,
    checked: Checked | None = None,
) -> Window:
    """Get the files of some units ready; what takes long, so that it can be done while the window before is handed out.

    Args:
        selection: what is handed out.
        units: sets or images, in their order.
        members: images in a unit.
        last: whether a batch ends with the unit.
        fields: columns that an item has besides its key, RECORD for the record as it is in the tar; None for all.
        checked: what workers that share the window tell each other.

    Raises:
        ShardDamaged: a file is not what the manifests name.
    """
    images = _images(selection, units, members, last)
    backend, parts = open_backend(selection.dataset), selection.parts
    with ExitStack() as stack:
        opened: dict[int, Pictures] = {
            int(place): stack.enter_context(_opened(backend, parts[place]))
            for place in np.unique(images.part)
        }
        sound = [
            _sound(backend, opened[place], place, parts[place], images.image[images.part == place], checked)
            for place in (checked.order(list(opened)) if checked else opened)
        ]
        rows = _rows(selection, images, _columns(selection, fields, all(sound)))
        return Window(selection, images, opened, rows, fields, stack.pop_all())


def ahead(windows: Iterator[Callable[[], Window]]) -> Generator[Window, None, None]:
    """Windows in order, each opened by a thread while the one before is handed out; what was not handed out is closed."""
    reader, waiting = ThreadPoolExecutor(1), deque[Future[Window]]()
    try:
        for opens in windows:
            waiting.append(reader.submit(opens))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # waits for nothing, since it may be the reader itself that collects a stream as garbage
        for left in waiting:
            if not left.cancel():
                left.add_done_callback(_close)
        reader.shutdown(wait=False)


def _close(opened: Future[Window]) -> None:
    if opened.exception() is None:
        opened.result().files.close()


def items(window: Window) -> Iterator[tuple[Item, bool]]:
    """The items of a window, each with whether a batch ends with it; its files are closed at the end.

    Raises:
        ShardDamaged: a file is not what the manifests name.
    """
    images, fields, parts = window.images, window.fields, window.selection.parts
    backend = open_backend(window.selection.dataset)
    columns = (images.part, images.image, images.copy, images.last)
    places = zip(*(column.tolist() for column in columns), strict=True)
    with window.files:
        for row, (place, image, copy, ends) in zip(_each(window.rows), places, strict=True):
            part = parts[place]
            with quarantining(backend, part):
                added = _added(window.opened[place], int(part.places[image]), row, fields)
            item = row if fields is None else {name: row[name] for name in ("key", *fields) if name in row}
            item.update(added)
            item["skew"] = None if part.skew is None else float(part.skew[image])
            item["weight"] = 1.0 if part.weight is None else float(part.weight[image])
            item["copy"] = copy
            yield item, ends


def _opened(backend: Backend, part: Part) -> Pictures:
    with quarantining(backend, part):
        return Pictures(backend, part.tar, part.pairs)


def _sound(
    backend: Backend, opened: Pictures, place: int, part: Part, images: Longs, checked: Checked | None
) -> bool:
    with quarantining(backend, part):
        return opened.sound(part.places[images].tolist(), place, checked)


def _added(opened: Pictures, place: int, row: Item, fields: Sequence[str] | None) -> Item:
    """What comes from the tar."""
    if fields is None or RECORD not in fields:
        return {"image": opened.read(place, row)}
    image, record = opened.read_pair(place, row)
    return {"image": image, RECORD: record}


def _columns(selection: Selection, fields: Sequence[str] | None, sound: bool) -> list[str] | None:
    """Columns to read: also those that images are compared with which were not yet found sound; None for all."""
    if fields is None:
        return None
    wanted = {"key", *fields, *([] if sound else compared_columns(selection.axes))}
    return [name for name in schema(selection.axes).names if name in wanted]


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


def _rows(selection: Selection, images: _Images, columns: list[str] | None) -> pa.Table:
    """Rows of the Parquet files in the order of the images; of every file, only those are held."""
    backend, axes = open_backend(selection.dataset), list(selection.axes)
    tables = []
    for place in np.unique(images.part):
        part = selection.parts[place]
        rows = part.rows[images.image[images.part == place]]
        with quarantining(backend, part):
            tables.append(shard_table(backend, part.parquet, axes, columns).take(rows))
    order = np.empty(len(images.part), np.int64)
    order[np.argsort(images.part, kind="stable")] = np.arange(len(order))
    return pa.concat_tables(tables).combine_chunks().take(order)


def _each(table: pa.Table) -> Iterator[Item]:
    """The rows of a table, made into Python's objects some at a time."""
    for chunk in table.to_batches(max_chunksize=_CHUNK):
        yield from chunk.to_pylist()
