"""A campaign: the shards that a spec asks for, made one by one and put into a dataset. Knows no Prefect."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

from generators.candidates import CandidateReport, Factory, limit_threads
from generators.plan import PlannedSet, cells
from generators.spec import Spec
from storage import CounterpoiseError, ShardRecord, publish_shard
from storage.backend import open_backend
from storage.progress import SavedCandidates, drop_published
from storage.shardfile import shard_name
from storage.shards import environment_difference

from .closing import Outcome, close_dataset

Load = Callable[[Spec], Factory]


class Stopped(Exception):
    """The campaign was stopped while a shard was in the making; what is published stays."""


class Listener:
    """Hears what a campaign does, from any of its threads; this one says nothing."""

    def note(self, text: str) -> None:
        """Take one line for the user."""

    def begun(self, campaign: Campaign) -> None:
        """Take that the work begins."""

    def candidate(self, report: CandidateReport) -> None:
        """Take that a candidate was made and judged."""

    def shard(self, record: ShardRecord) -> None:
        """Take that a shard was published."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a campaign is run; none of it touches the bytes.

    Attributes:
        shards: "A:B", the shards from A to B - 1; None for all.
        workers: shards in the making at a time; None for as many as there are cores (one for a large model).
        strict_environment: refuse a dataset whose finished shards were made in another environment.
        unsafe_no_filter: the user's word that images need no safety filter.
        extend: a spec that only asks for more extends the dataset.
        save_after: seconds that a candidate has to take for a killed run not to make it again.
    """

    shards: str | None = None
    workers: int | None = None
    strict_environment: bool = False
    unsafe_no_filter: bool = False
    extend: bool = False
    save_after: float = 60.0


@dataclass
class Campaign:
    """What is to be made, with what; `open_campaign` makes one."""

    spec: Spec
    dataset: str
    plan: Mapping[int, list[PlannedSet]]
    chosen: range
    todo: tuple[int, ...]
    workers: int
    factory: Factory
    load: Load
    listeners: list[Listener]
    environment: Mapping[str, Any]
    options: Options = Options()
    candidates: int = 0
    outcome: Outcome | None = None
    started: float | None = None
    _idle: queue.SimpleQueue[Factory] = field(default_factory=queue.SimpleQueue)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cells(self) -> int:
        """Members of a set."""
        return len(cells(self.spec.axes))

    @property
    def sets(self) -> int:
        """Planned sets in the shards that are still to be made."""
        return sum(len(self.plan[index]) for index in self.todo)

    def start(self) -> None:
        """Load an engine for every worker, one by one: loading changes settings of the whole process."""
        limit_threads()
        self._idle.put(self.factory)
        for _ in range(self.workers - 1):
            self._idle.put(self.load(self.spec))
        self.started = time.monotonic()
        for listener in self.listeners:
            listener.begun(self)

    def make_shard(self, index: int) -> dict[str, Any]:
        """Make and publish one shard; its facts as plain JSON: names, hashes and counts, no image.

        Raises:
            Stopped: the campaign was stopped meanwhile.
            CounterpoiseError: the shard cannot be made or stored.
        """
        planned = self.plan[index]
        with self._lent() as factory:
            recipe = factory.recipe(planned)
            strict, after = self.options.strict_environment, self.options.save_after
            saved = SavedCandidates(self.dataset, index, recipe, self.environment, after, strict)
            samples = factory.make_shard(planned, self._hear, saved)
        axes = [axis.name for axis in self.spec.axes]
        record = publish_shard(self.dataset, index, samples, axes, recipe, saved.environment)
        for difference in saved.differences:
            self.note(f"Warning: candidates of shard {index}: {difference}")
        self._settle(record, saved)
        for listener in self.listeners:
            listener.shard(record)
        return shard_facts(self.dataset, record)

    def _settle(self, record: ShardRecord, saved: SavedCandidates) -> None:
        """Forget what was saved of a published shard; refuse one that somebody elsewhere was faster with."""
        with suppress(CounterpoiseError):  # `finish` tries again, and verify tells
            saved.drop()
        if record.already and self.options.strict_environment:
            backend = open_backend(self.dataset)
            mismatch = environment_difference(backend, record, self.environment)
            if mismatch:
                raise mismatch

    def run_here(self) -> None:
        """Make every missing shard in this thread."""
        with self.active():
            self.start()
            for index in self.todo:
                self.make_shard(index)

    def note(self, text: str) -> None:
        """Tell the listeners one line."""
        for listener in self.listeners:
            listener.note(text)

    def stop(self) -> None:
        """Let shards in the making end after their present candidate, unpublished."""
        self._stop.set()

    def finish(self) -> Outcome:
        """List the shards, write card and report, and say what fell short."""
        drop_published(self.dataset)
        sets = [one for index in self.chosen for one in self.plan[index]]
        self.outcome = close_dataset(
            self.dataset,
            sets,
            self.factory.engine.describe(),
            images=self.candidates * self.cells,
            seconds=0.0 if self.started is None else time.monotonic() - self.started,
            workers=self.workers,
            made=len(self.todo),
            on_bad=lambda line: self.note(f"Warning: {line}"),
        )
        return self.outcome

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block, and in the contexts copied from it, `active_campaign` is this one.

        Nobody cleans up meanwhile what it saved: in a folder they are told that a run is at work.
        """
        token = _ACTIVE.set(self)
        try:
            with open_backend(self.dataset).at_work():
                yield
        finally:
            _ACTIVE.reset(token)

    @contextmanager
    def _lent(self) -> Iterator[Factory]:
        """An engine that no other thread uses meanwhile."""
        factory = self._idle.get()
        limit_threads()
        try:
            yield factory
        finally:
            self._idle.put(factory)

    def _hear(self, report: CandidateReport) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self.candidates += not report.restored
        for listener in self.listeners:
            listener.candidate(report)


_ACTIVE: ContextVar[Campaign | None] = ContextVar("campaign", default=None)


def active_campaign() -> Campaign | None:
    """The campaign that is being run here, if any."""
    return _ACTIVE.get()


def shard_facts(dataset: str, record: ShardRecord) -> dict[str, Any]:
    """What a shard's task returns: paths, hashes and counts."""
    return {
        "shard": record.index,
        "manifest": open_backend(dataset).where(shard_name(record.index)),
        "manifest_sha256": record.sha256,
        "recipe_sha256": record.recipe_sha256,
        "files": [asdict(file) for file in record.files],
        "counts": dict(record.counts),
    }
