"""A dataset as batches for torch's DataLoader: the same batches in the same order for any number of workers.

    dataset = Batches("data/cmsc", "train", seed=1, batch_size=4)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=untouched)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for batch in counted(loader):
            ...
            state = dataset.state_dict()

A batch is a list of items as `storage.stream` describes them. Decoding and collating are up to the `collate_fn`; without
one torch looks through every field for what might become a tensor, which takes longer than to read the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from storage import CounterpoiseError
from storage.canonical import first_difference
from storage.checked import Checked
from storage.dealing import Dealing, check_count, check_state, make_state, settings
from storage.items import check_fields
from storage.manifest import Where
from storage.selection import select
from storage.stream import Batch, Stream

_DEALT_FROM = "dealt_from"


class Batches(IterableDataset[Batch]):
    """Batches of a dataset; `DataLoader(dataset, batch_size=None, num_workers=N)`.

    Rank and world size are those of torch.distributed where it is initialised when the first batch is asked for.
    """

    def __init__(
        self,
        dataset: Where,
        split: str | None = None,
        *,
        skew: str | None = None,
        verdicts: bool = True,
        version: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        fields: Sequence[str] | None = None,
        **dealing: Any,
    ) -> None:
        """Read every shard's records once, here and not in every worker.

        Args:
            dataset: a folder or URI.
            split: one of the dataset's splits; None for all.
            skew: name of a skew sidecar inside the dataset; `set_epoch` can name another one.
            verdicts: leave out the sets that a file in `verdicts/` rejects.
            version: of the dataset, with the shards that it lists; None for all that are there now.
            rank: None for torch.distributed's, or 0.
            world_size: None for torch.distributed's, or 1.
            fields: columns that items have; None for all. Few are faster, since workers have to hand them over.
            dealing: fields of `storage.dealing.Dealing`: seed, batch_size, keep_sets, shuffle, window, drop_uneven.

        Raises:
            CounterpoiseError: see `storage.stream.stream`.
        """
        super().__init__()
        if (rank is None) != (world_size is None):
            raise CounterpoiseError(f"rank {rank} and world_size {world_size}: both or none are wanted.")
        if rank is not None:
            check_count("rank", rank, 0, world_size)
        self._dataset, self._split, self._verdicts, self._version = dataset, split, verdicts, version
        self._ranks = None if rank is None or world_size is None else (rank, world_size)
        self._settings, self._fields = dealing, fields
        self._select(skew)
        self._dealing()
        check_fields(self._selection, fields)
        # Seen by workers that persist, too: epoch, batch to begin at, how often another sidecar was given.
        self._shared = torch.zeros(3, dtype=torch.int64).share_memory_()
        self._sidecars = 0
        self._left: _Place | None = None  # where a worker's state left off
        self._now = _Place(0, 0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """For workers: they have no torch.distributed to ask."""
        return {**self.__dict__, "_ranks": self._rank_and_size()}

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this process: all of the rank's, or a worker's share."""
        self._now, self._left = self._left or self._start(), None
        info = get_worker_info()
        if info is None:
            return self._counting(self._stream(self._now))
        worker = (info.id + self._now.dealt_from) % info.num_workers
        return self._counting(self._stream(self._now, worker, info.num_workers))

    def __len__(self) -> int:
        """Batches of this rank that are left of the epoch."""
        start = self._start()
        return self._stream(start).batch_count - start.batches

    @property
    def units(self) -> int:
        """Units (whole sets, or images) that this rank is handed in the epoch."""
        return self._stream(_Place(self.epoch, 0, 0)).unit_count

    @property
    def epoch(self) -> int:
        """The epoch that is handed out."""
        return int(self._shared[0])

    def set_epoch(self, epoch: int, skew: str | None = None) -> None:
        """Go to the beginning of an epoch, or stay where a state left off in it; call it before every epoch.

        Args:
            epoch: from 0.
            skew: name of the epoch's skew sidecar, where it has another one than before.

        Raises:
            CounterpoiseError: the sidecar is missing, is none, or lacks keys; or the ranks of torch.distributed, all of
                which have to call this, do not see the same dataset.
        """
        check_count("epoch", epoch, 0)
        if skew is not None and skew != self._skew:
            self._select(skew)
            self._sidecars += 1
            self._shared[2] = self._sidecars
        self._compare_ranks()
        if epoch != self.epoch:
            self._go_to(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: the epoch, and the batches of it that were handed out."""
        state = make_state(self._selection, self._dealing(), self._now.epoch, self._now.batches)
        return state if get_worker_info() is None else {**state, _DEALT_FROM: self._now.dealt_from}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, whatever the number of workers was.

        Raises:
            DatasetMismatch: it is of another dataset or of other settings.
            CounterpoiseError: it is no state.
        """
        plain = {name: value for name, value in state.items() if name != _DEALT_FROM}
        check_state(plain, self._selection, self._dealing())
        batches = int(plain["batches"])
        place = _Place(int(plain["epoch"]), batches, int(state.get(_DEALT_FROM, batches)))
        self._stream(place)
        if get_worker_info() is None:
            self._go_to(place.epoch, place.batches)
        else:
            self._left = place

    def count(self, batches: int) -> None:
        """Take note of how many batches were handed out since the iteration began; `counted` does."""
        start = self._start()
        self._now = replace(start, batches=start.batches + batches)

    def _select(self, skew: str | None) -> None:
        self._selection = select(self._dataset, self._split, skew, self._verdicts, self._version)
        self._skew = skew
        # Which tars one of the workers has compared with their manifests.
        self._checked = torch.zeros(len(self._selection.parts), dtype=torch.int64).share_memory_()

    def _compare_ranks(self) -> None:
        """Refuse ranks that opened the dataset at different moments of its making, or with different settings."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        mine = settings(self._selection, self._dealing())
        every: list[dict[str, Any]] = [{}] * distributed.get_world_size()
        distributed.all_gather_object(every, mine)
        for rank, theirs in enumerate(every):
            if found := first_difference(theirs, mine):
                name, there, here = found
                raise CounterpoiseError(
                    f"{self._dataset}: {name} is {there!r} on rank {rank} and {here!r} on rank {distributed.get_rank()}: "
                    "give all ranks the same dataset and settings, and version=N while shards are being added."
                )

    def _start(self) -> _Place:
        """Where an iteration begins."""
        epoch, batches, _ = self._shared.tolist()
        return _Place(epoch, batches, batches)

    def _go_to(self, epoch: int, batches: int) -> None:
        self._shared[0], self._shared[1] = epoch, batches
        self._now = self._start()

    def _counting(self, stream: Stream) -> Iterator[Batch]:
        """A stream's batches; the place is noted before each is handed out."""
        if self._sidecars != int(self._shared[2]):
            raise CounterpoiseError(
                "persistent_workers=True keeps the skew sidecar of before: use persistent_workers=False where "
                "epochs have sidecars of their own."
            )
        for batch in stream.batches():
            self._now = replace(self._now, batches=stream.done)
            yield batch

    def _stream(self, place: _Place, worker: int = 0, workers: int = 1) -> Stream:
        rank, _ = self._rank_and_size()
        state = make_state(self._selection, self._dealing(), place.epoch, place.batches)
        checked = Checked(self._checked.numpy(), worker, workers) if workers > 1 else None
        return Stream(
            self._selection, self._dealing(), rank, worker, workers,
            fields=self._fields, state=state, checked=checked,
        )  # fmt: skip

    def _dealing(self) -> Dealing:
        try:
            return Dealing(**self._settings, world_size=self._rank_and_size()[1])
        except TypeError as error:
            known = ", ".join(field.name for field in dataclass_fields(Dealing) if field.name != "world_size")
            given = ", ".join(self._settings)
            raise CounterpoiseError(f"settings {given}: known are {known}.") from error

    def _rank_and_size(self) -> tuple[int, int]:
        if self._ranks is not None:
            return self._ranks
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1


@dataclass(frozen=True, slots=True)
class _Place:
    """An epoch, the batches of it that are done, and the batch from which workers were dealt."""

    epoch: int
    batches: int
    dealt_from: int


def untouched(batch: Batch) -> Batch:
    """A batch as it is: a `collate_fn` for what is decoded elsewhere."""
    return batch


def counted(loader: DataLoader[Any]) -> Iterator[Any]:
    """A loader's batches, counted as they are handed out, so that its dataset's `state_dict` says where training is.

    Workers run ahead; what they have made but was not handed out is not counted.
    """
    dataset = loader.dataset
    if not isinstance(dataset, Batches) or loader.batch_size is not None:
        raise CounterpoiseError("counted: a DataLoader of Batches with batch_size=None is wanted.")
    for number, batch in enumerate(loader, start=1):
        dataset.count(number)
        yield batch
