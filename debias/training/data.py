"""The epochs of a training run as one stream of batches; before each epoch the run is told, so that it can measure Skew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from storage.errors import CounterpoiseError

from ..loading import Batches, counted
from .examples import Collator


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a step of the optimiser is cut.

    Attributes:
        batch: pictures in a step, over all processes.
        units: units (sets or pictures) in a forward of one process.
        accumulation: forwards of one process in a step.
        members: pictures in a unit.
    """

    batch: int
    units: int
    accumulation: int
    members: int

    def steps(self, units: int) -> int:
        """Whole steps in so many units of one process."""
        return units // (self.units * self.accumulation)


def sizes(
    batch: int | None, micro: int | None, members: int, processes: int, default: tuple[int, int]
) -> Sizes:
    """How a step is cut.

    Args:
        batch: pictures in a step; None for the most units that go evenly into the default.
        micro: pictures in a forward; None likewise.
        members: pictures in a unit.
        processes: that share a step.
        default: of batch and micro.

    Raises:
        CounterpoiseError: they do not divide.
    """
    usual, forward = default
    if micro is None:
        whole = (batch or usual) // processes
        micro = next(
            (n for n in range(min(forward, whole), members, -1) if whole % n == n % members == 0), members
        )
    if micro % members:
        raise CounterpoiseError(
            f"micro_batch: given {micro}, wanted a multiple of the {members} pictures of a set, which stays together."
        )
    one = micro * processes
    if batch is None:
        batch = max(usual // one, 1) * one
    if batch % one:
        raise CounterpoiseError(
            f"batch: given {batch}, wanted a multiple of {one}: micro_batch {micro} times {processes} processes."
        )
    return Sizes(batch, micro // members, batch // one, members)


@dataclass(frozen=True, slots=True)
class Opened:
    """An epoch that is ready: its number of steps in all, and how many of them are done."""

    steps: int
    done: int = 0


class Epochs:
    """Iterates over the batches of all epochs that are left; Trainer's dataloader.

    Attributes:
        batches: the dataset.
    """

    def __init__(
        self,
        batches: Batches,
        collators: Callable[[int], Collator],
        chosen: Sizes,
        span: range,
        begin: Callable[[int], Opened],
        workers: int = 0,
    ) -> None:
        """Open nothing yet.

        Args:
            batches: of the dataset, in units.
            collators: the collator of an epoch.
            chosen: how steps are cut.
            span: the epochs.
            begin: called before each; sets its sidecar.
            workers: processes that make batches; 0 for this one.
        """
        self.batches, self._collators, self._sizes = batches, collators, chosen
        self._span, self._begin, self._workers = span, begin, workers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Exactly `accumulation` batches for each step."""
        for epoch in self._span:
            opened = self._begin(epoch)
            left = (opened.steps - opened.done) * self._sizes.accumulation
            yield from islice(counted(self._loader(epoch)), left)

    def _loader(self, epoch: int) -> DataLoader[Any]:
        options: dict[str, Any] = {}
        if self._workers:
            # Workers make inputs with the model's tokenizer and positions: forked, they need no copy of the weights.
            options = {"num_workers": self._workers, "multiprocessing_context": "fork"}
        own = torch.Generator().manual_seed(
            epoch
        )  # else an epoch's beginning would change what dropout draws
        return DataLoader(
            self.batches, batch_size=None, collate_fn=self._collators(epoch), generator=own, **options
        )
