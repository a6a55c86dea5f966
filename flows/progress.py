"""Progress on a terminal as a bar, elsewhere as a line per shard; always on stderr."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from generators.candidates import CandidateReport
from storage import ShardRecord

from .campaign import Campaign, Listener


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over so many steps where the console is a terminal; yields what is called after each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


class Terminal(Listener):
    """Tells the user what a campaign does; enter it around the work."""

    def __init__(self, console: Console) -> None:
        """Say nothing yet.

        Args:
            console: where to; a bar is drawn only if it is a terminal.
        """
        self._console = console
        self._lock = threading.Lock()
        self._tried = self._kept = self._shards = self._total = 0
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("sets, {task.fields[kept]} kept of {task.fields[tried]} tries"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        """Make room for the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begun(self, campaign: Campaign) -> None:
        """Begin the bar."""
        self._total = len(campaign.todo)
        self._task = self._bar.add_task("generating", total=campaign.sets, kept=0, tried=0)

    def candidate(self, report: CandidateReport) -> None:
        """Count a candidate, and a set if it was its last."""
        with self._lock:
            self._tried += 1
            self._kept += report.kept
            if self._task is not None:
                last = report.kept or report.candidate + 1 == report.tries
                self._bar.update(self._task, advance=int(last), kept=self._kept, tried=self._tried)

    def shard(self, record: ShardRecord) -> None:
        """Tell of a shard where there is no bar."""
        with self._lock:
            self._shards += 1
            if not self._console.is_terminal:
                counts = record.counts
                self.note(
                    f"shard {record.index:05d} done ({self._shards} of {self._total}): "
                    f"{counts.get('sets', 0)} sets kept of {counts.get('candidates', 0)} tries"
                )


@contextmanager
def counting_to(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar whose end comes to be known where the console is a terminal; yields what takes steps done and known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, known: bar.update(task, completed=done, total=known)
