"""A dataset handed out for training: shuffled, dealt to ranks and workers, resumable in the middle of an epoch.

    for item in stream("data/cmsc", "train", seed=1, batch_size=4):
        item["image"], item["prompt"], item["gender"], item["weight"]

The order is a pure function of the dataset's root hash, the split, the seed and the epoch. Units (whole sets, or images)
are dealt to the ranks like cards, and a rank's batches likewise to its workers, so that a rank sees the same batches in the
same order whatever the number of workers. Only what manifests name is read, and nothing is handed out before its
sha256 is right; see `storage.pictures`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .checked import Checked
from .dealing import Dealing, check_count, check_state, make_state, units_per_rank
from .errors import CounterpoiseError
from .items import Item, Window, ahead, check_fields, items, open_window
from .manifest import Where
from .order import Order, Units
from .selection import Selection, select

Batch = list[Item]


def stream(
    dataset: Where,
    split: str | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    workers: int = 1,
    epoch: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    keep_sets: bool = True,
    shuffle: bool = True,
    window: int = 8,
    skew: str | None = None,
    verdicts: bool = True,
    version: int | None = None,
    drop_uneven: bool = True,
    fields: Sequence[str] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Stream:
    """Kept images of a dataset, one epoch, as dictionaries: the columns of a shard's Parquet and what follows.

    `image` is the encoded picture, `skew` None and `weight` 1.0 without a sidecar, `copy` 0 for the first of an
    image's copies. An image of multiplicity n is handed out n times at independent places, of multiplicity 0 never;
    where sets are kept together, the k-th copy of a set has those of its images that have k copies.

    Args:
        dataset: a folder or URI.
        split: one of the dataset's splits; None for all.
        rank: which of the disjoint, equal parts.
        world_size: how many parts there are.
        worker: which of the processes that share this part; batch b is worker b % workers's.
        workers: how many processes share this part.
        epoch: from 0, the default; with a state its epoch.
        seed: of the shuffle.
        batch_size: units in a batch: sets where they are kept together, else images. The last may be smaller.
        keep_sets: the images of a set stay next to each other, in the order of its members.
        shuffle: else in the order of storage, copies next to each other.
        window: shards that are mixed with each other; memory grows with it.
        skew: name of a sidecar inside the dataset (`storage.sidecar`), for skew, weight and multiplicity.
        verdicts: leave out the sets that a file in `verdicts/` rejects.
        version: of the dataset (`versions/`), with the shards that it lists; None for all that are there now. Name one
            where others may still add shards, so that every rank sees the same.
        drop_uneven: units that do not divide among the ranks are dropped, others in every epoch; else units from the
            epoch's beginning are handed out twice.
        fields: columns that an item has besides its key, the image, skew, weight and copy; "json" for the record as it
            is in the tar. None for all columns; fewer are faster, above all between processes.
        state: as `Stream.state` gave it, to go on from there; nothing that was handed out is read again.

    Raises:
        CounterpoiseError: a value is out of range, nothing is left to hand out, or the sidecar lacks keys.
        DatasetMismatch: the state is of another dataset or of other settings.
        ShardDamaged: a file is not what the manifests name; also while iterating.
    """
    dealing = Dealing(seed, batch_size, keep_sets, shuffle, window, drop_uneven, world_size)
    chosen = select(dataset, split, skew, verdicts, version)
    return Stream(chosen, dealing, rank, worker, workers, epoch=epoch, fields=fields, state=state)


class Stream(Iterator[Item]):
    """See `stream`, which makes one; may be iterated once, by items or by `batches`.

    Attributes:
        unit_count: units that this rank is handed in the epoch.
        batch_count: batches of this rank in the epoch, over all its workers.
        done: batches of this rank before the next one of this worker.
    """

    def __init__(
        self,
        selection: Selection,
        dealing: Dealing,
        rank: int = 0,
        worker: int = 0,
        workers: int = 1,
        *,
        epoch: int | None = None,
        fields: Sequence[str] | None = None,
        state: Mapping[str, Any] | None = None,
        checked: Checked | None = None,
    ) -> None:
        """Find the place to begin at; no image is read yet."""
        check_count("workers", workers, 1)
        check_count("worker", worker, 0, workers)
        check_count("rank", rank, 0, dealing.world_size)
        if epoch is not None:
            check_count("epoch", epoch, 0)
        check_fields(selection, fields)
        self._selection, self._dealing, self._fields = selection, dealing, fields
        self._checked = checked
        self._rank, self._worker, self._workers = rank, worker, workers
        self._epoch = epoch or 0
        self.done = 0 if state is None else self._resumed(state, epoch)
        self._order = Order(
            selection, dealing.seed, self._epoch,
            sets=dealing.keep_sets, shuffle=dealing.shuffle, window=dealing.window,
        )  # fmt: skip
        self._members = selection.cells if dealing.keep_sets else 1
        self.unit_count = units_per_rank(self._order.units, dealing)
        self.batch_count = -(-self.unit_count // dealing.batch_size)
        self._check_place()
        self._made = self._numbered_batches()
        self._waiting: deque[Item] = deque()
        self._current = self.done

    def __next__(self) -> Item:
        """The next item; its batch is read as a whole."""
        if not self._waiting:
            self._current, batch = next(self._made)
            self._waiting.extend(batch)
        item = self._waiting.popleft()
        if not self._waiting:
            self.done = self._current + 1
        return item

    def batches(self) -> Iterator[Batch]:
        """The items of this worker, a batch at a time."""
        for number, batch in self._made:
            self.done = number + 1
            yield batch

    def state(self) -> dict[str, Any]:
        """Where this stream stands, as JSON types: batches handed out in full, and what it was made from.

        All ranks have the same, and it may be resumed with another number of workers. With several workers it counts
        the batches before this one's next, so that the whole is where the one that is furthest behind stands.
        """
        return make_state(self._selection, self._dealing, self._epoch, self.done)

    def close(self) -> None:
        """Close the files that are open."""
        self._made.close()

    def _resumed(self, state: Mapping[str, Any], epoch: int | None) -> int:
        """Take over a state's epoch; returns its batches."""
        check_state(state, self._selection, self._dealing)
        if epoch is not None and epoch != state["epoch"]:
            raise CounterpoiseError(
                f"epoch {epoch} was given with the state of epoch {state['epoch']}: give one."
            )
        self._epoch = int(state["epoch"])
        return int(state["batches"])

    def _check_place(self) -> None:
        units, ranks = self._order.units, self._dealing.world_size
        if not self.unit_count:
            raise CounterpoiseError(
                f"{self._selection.dataset}: {units} units do not go round {ranks} ranks: hand out images instead of "
                "sets (keep_sets=False), fill up (drop_uneven=False), or take fewer ranks."
            )
        check_count("batches of the state", self.done, 0, self.batch_count + 1)

    def _numbered_batches(self) -> Generator[tuple[int, Batch], None, None]:
        """Batches with their numbers; one may reach over several windows."""
        number = self.done + (self._worker - self.done) % self._workers
        batch: Batch = []
        for item, ends in self._items():
            batch.append(item)
            if ends:
                yield number, batch
                number, batch = number + self._workers, []

    def _items(self) -> Iterator[tuple[Item, bool]]:
        """This worker's items, each with whether its batch ends with it; the next window is got ready meanwhile."""
        with closing(ahead(self._windows())) as windows:
            for window in windows:
                yield from items(window)

    def _windows(self) -> Iterator[Callable[[], Window]]:
        """What opens each window, in order."""
        ranks, size = self._dealing.world_size, self._dealing.batch_size
        for units in self._order.windows(self.done * size * ranks, self.unit_count * ranks):
            place = units.position // ranks
            ours = units.position % ranks == self._rank
            mine = ours & (place // size % self._workers == self._worker)
            last = (place % size == size - 1) | (place == self.unit_count - 1)
            if mine.any():
                checked = self._together(units.where(ours & (units.copy == 0)))
                yield partial(
                    open_window,
                    self._selection, units.where(mine), self._members, last[mine], self._fields, checked,
                )  # fmt: skip

    def _together(self, units: Units) -> Checked | None:
        """What workers tell each other, with the images of each part that they want of a window."""
        if self._checked is None:
            return None
        parts, counts = np.unique(units.part, return_counts=True)
        wanted = dict(zip(parts.tolist(), (counts * self._members).tolist(), strict=True))
        return replace(self._checked, wanted=wanted)
