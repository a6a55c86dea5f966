"""What of a dataset is handed out: kept images of one split, without rejected sets, with skew joined by key.

Found once, before the first image is handed out, by reading every shard's Parquet; what is held afterwards are some
8 bytes an image, 28 where a skew sidecar is joined.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .backend import Backend, open_backend
from .errors import CounterpoiseError, ShardDamaged
from .manifest import Where, load_dataset, root_hash, shards_of
from .pictures import shard_table
from .quarantine import quarantining
from .reading import check_names
from .shardfile import FileRecord, ShardRecord
from .sidecar import Sidecar, read_sidecar
from .verdicts import rejected_sets

_READERS = 4
_NAMES = ["key", "set_id", "member", "kept", "split", "concept"]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """What of one shard is handed out; arrays have one entry per image, in the order of storage, sets together.

    Attributes:
        index: of the shard.
        parquet, tar: its files.
        pairs: kept images in the tar, handed out or not.
        rows: row of each image in the Parquet.
        places: its place among the tar's images.
        skew, weight, multiplicity: from the sidecar; None without one.
    """

    index: int
    parquet: FileRecord
    tar: FileRecord
    pairs: int
    rows: Ints
    places: Ints
    skew: Floats | None = None
    weight: Floats | None = None
    multiplicity: Ints | None = None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The shard's data files."""
        return self.parquet, self.tar

    def copies(self, members: int) -> Ints:
        """How often each unit of so many members is handed out: as often as that of its images most often is."""
        if self.multiplicity is None:
            return np.ones(len(self.rows) // members, np.int32)
        most: Ints = self.multiplicity.reshape(-1, members).max(axis=1)
        return most


@dataclass(frozen=True, slots=True)
class Selection:
    """What `select` found.

    Attributes:
        dataset: the folder.
        root_sha256: over the shards that are read.
        axes: of the dataset.
        cells: images in a whole set.
        split: None for all.
        rejected_sha256: over the rejected sets; None if verdicts are not applied.
        skew_sha256: of the sidecar's file; None without one.
        parts: shards with something to hand out, in order.
    """

    dataset: str
    root_sha256: str
    axes: tuple[str, ...]
    cells: int
    split: str | None
    rejected_sha256: str | None
    skew_sha256: str | None
    parts: tuple[Part, ...]

    @property
    def images(self) -> int:
        """Images that are handed out, each counted once."""
        return sum(len(part.rows) for part in self.parts)


def select(
    dataset: Where,
    split: str | None = None,
    skew: str | None = None,
    verdicts: bool = True,
    version: int | None = None,
) -> Selection:
    """Find what is handed out of a dataset.

    Args:
        dataset: a folder or URI.
        split: one of the dataset's splits; None for all.
        skew: name of a sidecar inside the dataset, such as "skew/llava-0123456789ab-0.parquet".
        verdicts: leave out the sets that a file in `verdicts/` rejects.
        version: of the dataset, with the shards that it lists; None for all that are there now.

    Raises:
        CounterpoiseError: nothing is left, the split is unknown, or keys are missing from the sidecar.
        ShardDamaged: a manifest or a Parquet is damaged.
    """
    backend, manifest = open_backend(dataset), load_dataset(dataset, version)
    shards = shards_of(backend, manifest, only_listed=version is not None)
    rejected = rejected_sets(dataset) if verdicts else {}
    finder = _Finder(backend, math.prod(map(len, manifest.axes.values())), split, rejected)
    keyed = [
        found
        for shard, table in _tables(backend, shards, list(manifest.axes))
        if (found := finder.part(shard, table))
    ]
    if not keyed:
        raise CounterpoiseError(finder.nothing())
    sidecar = read_sidecar(dataset, skew) if skew is not None else None
    parts = _joined(keyed, sidecar, backend) if sidecar else [part for part, _ in keyed]
    digest = hashlib.sha256("".join(f"{set_id}\n" for set_id in rejected).encode()).hexdigest()
    return Selection(
        dataset=os.fspath(dataset),
        root_sha256=root_hash(shards),
        axes=tuple(manifest.axes),
        cells=finder.cells,
        split=split,
        rejected_sha256=digest if verdicts else None,
        skew_sha256=sidecar.sha256 if sidecar else None,
        parts=tuple(parts),
    )


def _tables(
    backend: Backend, shards: Sequence[ShardRecord], axes: list[str]
) -> Iterator[tuple[ShardRecord, pa.Table]]:
    """Every shard with its records, in order; some are read ahead, since reading waits for disks and networks.

    Only the shard that is handed out next is moved where it is damaged.
    """

    def read(shard: ShardRecord) -> pa.Table:
        table = shard_table(backend, shard.parquet, axes, _NAMES)
        check_names(table, backend.where(shard.parquet.path))
        return table

    waiting: deque[tuple[ShardRecord, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        rest = iter(shards)
        try:
            while True:
                waiting.extend(
                    (shard, readers.submit(read, shard))
                    for shard in islice(rest, 2 * _READERS - len(waiting))
                )
                if not waiting:
                    return
                shard, table = waiting.popleft()
                with quarantining(backend, shard):
                    found = table.result()
                yield shard, found
        finally:
            for _, table in waiting:
                table.cancel()


class _Finder:
    """Looks through the shards' records and remembers what was seen, to say why nothing is left."""

    def __init__(
        self,
        backend: Backend,
        cells: int,
        split: str | None,
        rejected: Mapping[str, str],
    ) -> None:
        self.cells = cells
        self._backend = backend
        self._split = split
        self._rejected = pa.array(list(rejected), pa.string())
        self._splits: set[str] = set()

    def part(self, shard: ShardRecord, table: pa.Table) -> tuple[Part, pa.ChunkedArray] | None:
        """What a shard has to hand out, by its records, with the images' keys."""
        rows = np.flatnonzero(table["kept"].to_numpy())
        kept = table.take(rows)
        self._check(shard, kept)
        self._splits.update(pc.unique(kept["split"]).to_pylist())
        good = pc.invert(pc.is_in(kept["set_id"], value_set=self._rejected))
        if self._split is not None:
            good = pc.and_(good, pc.equal(kept["split"], self._split))
        places = np.flatnonzero(good.to_numpy())
        if shard.tar is None or not len(places):
            return None
        mine = (rows[places].astype(np.int32), places.astype(np.int32))
        return Part(shard.index, shard.parquet, shard.tar, len(rows), *mine), kept["key"].take(places)

    def _check(self, shard: ShardRecord, kept: pa.Table) -> None:
        """Kept sets are whole and lie together, as every writer leaves them."""
        sets = pc.run_end_encode(kept["set_id"].combine_chunks())
        starts = range(0, kept.num_rows + 1, self.cells)
        whole = sets.run_ends.to_pylist() == list(starts)[1:] and kept.num_rows % self.cells == 0
        if not whole or bool(shard.tar) != bool(kept.num_rows) or kept.num_rows != shard.counts["images"]:
            where = self._backend.where(shard.parquet.path)
            raise ShardDamaged(
                f"{where} is refused: its kept images are not the whole sets that are counted."
            )

    def nothing(self) -> str:
        """Why nothing was found to hand out."""
        if not self._splits:
            return f"{self._backend}: no finished shard has kept images; run `counterpoise generate` first."
        if self._split is not None and self._split not in self._splits:
            known = ", ".join(sorted(self._splits))
            return f"{self._backend}: no kept image is in split {self._split!r}; there are {known}."
        return f"{self._backend}: the verdicts reject every set of the split; read with verdicts=False, or review."


def _joined(keyed: list[tuple[Part, pa.ChunkedArray]], sidecar: Sidecar, backend: Backend) -> list[Part]:
    """Skew, weight and multiplicity of every image by its key; images of multiplicity 0 stay, handed out 0 times."""
    keys = pa.chunked_array([chunk for _, column in keyed for chunk in column.chunks], pa.string())
    found = pc.index_in(keys, value_set=sidecar.table["key"].combine_chunks())
    if found.null_count:
        missing = keys.filter(found.is_null())[0].as_py()
        raise CounterpoiseError(
            f"{backend.where(sidecar.name)}: {found.null_count} of {len(keys)} images to be handed out have no skew "
            f"there, {missing!r} among them: write the sidecar for all of them, or give the split that it is of."
        )
    order = found.to_numpy()
    values = {name: sidecar.table[name].to_numpy()[order] for name in ("skew", "weight", "multiplicity")}
    if not values["multiplicity"].any():
        raise CounterpoiseError(
            f"{backend.where(sidecar.name)}: every image has multiplicity 0, nothing is left."
        )
    ends = np.cumsum([len(part.rows) for part, _ in keyed])
    skew, weight, multiplicity = (np.split(column, ends[:-1]) for column in values.values())
    return [
        replace(part, skew=skew[i].copy(), weight=weight[i].copy(), multiplicity=multiplicity[i].copy())
        for i, (part, _) in enumerate(keyed)
    ]
