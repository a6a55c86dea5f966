"""A model's predictions on a pool of pictures: a table in the pool's order, for skew tables and rates of flips."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from rich.console import Console
from rich.progress import track

from storage.backend import open_backend
from storage.dealing import check_count
from storage.errors import CounterpoiseError
from storage.sidefile import write_side

from .pools import Pool, PoolItem
from .questions import Offer

COLUMNS = ("key", "set_id", "concept", "predicted", "options")
UNANSWERED = "unanswered"


class Chooser(Protocol):
    """What chooses concepts for pictures: `asking.Asker`, or `replies.TextAsker` for models that answer in text."""

    def choose(
        self, images: Sequence[Image.Image], names: Sequence[tuple[str, ...]], places: Sequence[str]
    ) -> Sequence[str | None]:
        """The concept of each image, of those offered for it; None where no answer could be made out.

        Args:
            images: RGB.
            names: concepts offered for each image.
            places: each image's set, or its key where it has none.
        """


def predict(chooser: Chooser, pool: Pool, offer: Offer, batch_size: int = 8) -> pa.Table:
    """Ask about every picture of a pool, with a progress bar on a terminal.

    The answers do not depend on `batch_size` beyond the last bits of floating-point sums.

    Args:
        chooser: the model.
        pool: what is shown.
        offer: what is offered for each picture; see `debias.questions`.
        batch_size: pictures asked about at once.

    Returns:
        One row a picture in the pool's order: key, set_id and concept (the true one) where any picture has one, predicted
        (null for what was not answered), options in the order offered, and one column per axis.

    Raises:
        CounterpoiseError: what is offered is no choice, a picture cannot be read, or the pool is empty.
    """
    check_count("batch_size", batch_size, 1)
    schema = predictions_schema(pool.axes)
    console = Console(stderr=True)
    shown = track(pool, "asking", len(pool), console=console, transient=True, disable=not console.is_terminal)
    rows = [row for items in _batches(iter(shown), batch_size) for row in _rows(chooser, items, offer)]
    if not rows:
        raise CounterpoiseError(f"{pool.where}: it has no pictures to ask about; give another pool.")
    table = pa.Table.from_pylist(rows, schema=schema)
    unknown = [name for name in ("set_id", "concept") if table[name].null_count == len(table)]
    return table.drop_columns(unknown)


def _batches(items: Iterator[PoolItem], size: int) -> Iterator[list[PoolItem]]:
    while batch := list(islice(items, size)):
        yield batch


def _rows(chooser: Chooser, items: Sequence[PoolItem], offer: Offer) -> Iterator[dict[str, Any]]:
    places = [item.set_id or item.key for item in items]
    names = [offer(place, item.concept) for place, item in zip(places, items, strict=True)]
    chosen = chooser.choose([item.image for item in items], names, places)
    for item, offered, name in zip(items, names, chosen, strict=True):
        facts = (item.key, item.set_id, item.concept, name, list(offered))
        yield {**dict(zip(COLUMNS, facts, strict=True)), **item.values}


def predictions_schema(axes: Sequence[str]) -> pa.Schema:
    """Columns of a table of predictions.

    Raises:
        CounterpoiseError: an axis has the name of another column.
    """
    if taken := [axis for axis in axes if axis in COLUMNS]:
        raise CounterpoiseError(f"axis {taken[0]!r} has the name of a column of predictions; rename it.")
    kinds = {**dict.fromkeys(COLUMNS, pa.string()), "options": pa.list_(pa.string())}
    return pa.schema({**kinds, **dict.fromkeys(axes, pa.string())})


def write_predictions(table: pa.Table, path: str | os.PathLike[str]) -> int:
    """Write the predictions that were answered as Parquet; returns how many pictures were not.

    The file appears whole or not at all, and replaces one that is there; its metadata hold that number as "unanswered".

    Args:
        table: as `predict` gives it.
        path: of the file, or its URI.

    Raises:
        CounterpoiseError: it cannot be written.
    """
    folder, name = os.path.split(os.fspath(path))
    if not name:
        raise CounterpoiseError(
            f"{os.fspath(path)!r}: the name of a file is wanted, such as out/predictions.parquet."
        )
    answered = table.filter(pc.is_valid(table["predicted"]))
    unanswered = len(table) - len(answered)
    told = {**(table.schema.metadata or {}), UNANSWERED: str(unanswered)}
    write_side(open_backend(folder or "."), name, answered.replace_schema_metadata(told))
    return unanswered
