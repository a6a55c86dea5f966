"""The order of an epoch: where every unit stands, as a pure function of dataset, split, seed and epoch.

A unit is an image or a whole set, once for every copy of it. Shards stand in the order of their hashes; the units of a
few shards at a time, a window, are mixed by the hashes of the units. So far apart images meet, and no more than a
window has to be known at a time. The k-th copies of a shard's units take part as if they were a shard of their own,
so that copies are placed independently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .canonical import canonical
from .selection import Part, Selection

Words = npt.NDArray[np.uint64]
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """Some units in their order; one entry of every array for each.

    Attributes:
        part: place of the shard among the selection's parts.
        unit: place of the image or set among those of its shard.
        copy: 0 for the first.
        position: in the epoch, over all ranks.
    """

    part: Longs
    unit: Longs
    copy: Longs
    position: Longs

    def where(self, chosen: npt.NDArray[np.bool_]) -> Units:
        """The chosen ones."""
        return Units(self.part[chosen], self.unit[chosen], self.copy[chosen], self.position[chosen])


@dataclass(frozen=True, slots=True)
class _Entry:
    """The copies [first, stop) of one shard's units, and how many units that are."""

    part: int
    first: int
    stop: int
    units: int


class Order:
    """The order of one epoch."""

    def __init__(
        self, selection: Selection, seed: int, epoch: int, *, sets: bool, shuffle: bool, window: int
    ) -> None:
        """Find where every shard's units stand; no file is read.

        Args:
            selection: what is handed out.
            seed: of the shuffle.
            epoch: each has an order of its own.
            sets: units are sets, else images.
            shuffle: else in the order of storage, copies next to each other.
            window: shards that are mixed with each other.
        """
        self._parts = selection.parts
        self._members = selection.cells if sets else 1
        self._shuffle = shuffle
        facts = [selection.root_sha256, selection.split, seed, epoch]
        self._key = hashlib.sha256(canonical(facts)).digest()
        entries = [entry for i, part in enumerate(self._parts) for entry in self._entries(i, part)]
        if shuffle:
            entries.sort(key=lambda entry: self._hash(self._parts[entry.part].index, entry.first))
        step = window if shuffle else 1
        self._windows = [entries[i : i + step] for i in range(0, len(entries), step)]
        counts = [sum(entry.units for entry in entries) for entries in self._windows]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @property
    def units(self) -> int:
        """Units of the epoch, over all ranks."""
        return int(self._starts[-1])

    def windows(self, first: int, stop: int) -> Iterator[Units]:
        """Units at the positions [first, stop), a window at a time; past the last unit it begins again."""
        start = first // self.units * self.units
        while start < stop:
            for i, entries in enumerate(self._windows):
                begin, end = start + int(self._starts[i]), start + int(self._starts[i + 1])
                if begin < stop and end > first:
                    found = self._mixed(entries, begin)
                    yield found.where((found.position >= first) & (found.position < stop))
            start += self.units

    def _entries(self, place: int, part: Part) -> Iterator[_Entry]:
        copies = part.copies(self._members)
        if self._shuffle:
            counts = [int((copies > copy).sum()) for copy in range(int(copies.max(initial=0)))]
            yield from (_Entry(place, copy, copy + 1, count) for copy, count in enumerate(counts))
        elif copies.any():
            yield _Entry(place, 0, int(copies.max()), int(copies.sum()))

    def _hash(self, *parts: int) -> bytes:
        return hashlib.sha256(self._key + canonical(list(parts))).digest()

    def _mixed(self, entries: Sequence[_Entry], begin: int) -> Units:
        """The units of a window in their order."""
        found = [self._of(entry) for entry in entries]
        part, unit, copy = (np.concatenate(columns) for columns in zip(*found, strict=True))
        if self._shuffle:
            shard = np.array([each.index for each in self._parts], np.uint64)[part]
            row = self._rows(part, unit)
            order = np.argsort(self._unit_hashes(shard, row, copy.astype(np.uint64)), kind="stable")
        else:
            order = np.lexsort((copy, unit, part))
        return Units(part[order], unit[order], copy[order], begin + np.arange(len(part)))

    def _of(self, entry: _Entry) -> tuple[Longs, Longs, Longs]:
        copies = self._parts[entry.part].copies(self._members)
        units = [np.flatnonzero(copies > copy) for copy in range(entry.first, entry.stop)]
        unit = np.concatenate(units)
        copy = np.repeat(np.arange(entry.first, entry.stop), [len(each) for each in units])
        return np.full(len(unit), entry.part), unit, copy

    def _rows(self, part: Longs, unit: Longs) -> Words:
        """A unit's first row in its shard's Parquet, which stays when verdicts take others away."""
        row = np.empty(len(part), np.uint64)
        for each in np.unique(part):
            mine = part == each
            row[mine] = self._parts[each].rows[:: self._members][unit[mine]]
        return row

    def _unit_hashes(self, shard: Words, row: Words, copy: Words) -> Words:
        """64 bits for every unit that depend on the epoch's key, the shard, the row and the copy alone."""
        state = np.full(len(shard), int.from_bytes(self._key[:8], "big"), np.uint64)
        for word in (shard, row, copy):
            state = mix(state ^ word)
        return state


def mix(words: Words) -> Words:
    """One step of the generator splitmix64 from every state (Steele, Lea and Flood 2014), modulo 2^64."""
    state = words + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
