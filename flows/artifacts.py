"""What Prefect's UI shows of a run: progress, tables, a contact sheet per shard, a link to the report.

Flagged pictures never reach it, text of others is escaped, and a server that is slow or gone costs a line in
the log, never a shard.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from generators.candidates import CandidateReport
from storage import ShardRecord
from storage.backend import open_backend
from storage.card import escape

from .campaign import Campaign, Listener
from .closing import REPORT, Outcome
from .markdown import cell_rows, concept_rows, shard_markdown, shard_rows

_PAUSE = 3.0
_STRIKES = 3
_log = logging.getLogger("prefect.counterpoise")


def artifact_key(*parts: str) -> str:
    """A key that the UI takes: small letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class Shelf:
    """Where artifacts are put: one that cannot be stored is a line in the log, and after a few none is tried."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self.failures = 0

    def put(self, make: Callable[..., Any], *args: Any, **given: Any) -> Any:
        """What a call returns; None if it failed, or if too many failed before."""
        if self.failures >= _STRIKES:
            return None
        try:
            return make(*args, **given)
        except Exception as error:
            self.failures += 1
            _log.warning(
                "An artifact could not be stored (%s: %s); the work goes on.", type(error).__name__, error
            )
            return None

    def markdown(self, key: str, text: str, about: str) -> None:
        """Store Markdown."""
        self.put(lambda: create_markdown_artifact(text, key=key, description=about))

    def table(self, key: str, rows: Callable[[], list[dict[str, Any]]], about: str) -> None:
        """Store the rows of a table."""
        self.put(lambda: create_table_artifact(rows(), key=key, description=about))

    def link(self, key: str, path: Path | None, where: str) -> None:
        """Store the link to a file or folder; `path` is None where it is none of this machine's."""
        link, name = (where, where) if path is None else (path.resolve().as_uri(), str(path.resolve()))
        place = "local files" if path else "files of a store"
        self.put(
            create_link_artifact,
            link,
            link_text=escape(name),
            key=key,
            description=f"Browsers do not open {place} from a page: open the file by its name.",
        )


class Board(Listener):
    """The artifacts of one run; entered, it hears the campaign."""

    def __init__(self, campaign: Campaign) -> None:
        """Nothing is stored before the work begins."""
        self.campaign = campaign
        self.shelf = Shelf()
        self._progress: UUID | None = None
        self._done = 0
        self._told = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> Board:
        """Begin to listen."""
        self.campaign.listeners.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Listen no more."""
        self.campaign.listeners.remove(self)

    def begun(self, campaign: Campaign) -> None:
        """Store the progress of the run."""
        text = f"{campaign.sets} sets in {len(campaign.todo)} shards of {campaign.spec.name}"
        self._progress = self.shelf.put(
            create_progress_artifact, 0.0, key=self._key("progress"), description=text
        )

    def candidate(self, report: CandidateReport) -> None:
        """Count a finished set."""
        if report.kept or report.candidate + 1 == report.tries:
            with self._lock:
                self._done += 1
            self._tell()

    def shard(self, record: ShardRecord) -> None:
        """Store the shard's contact sheet and scores, beside its task."""
        self.shelf.put(self._sheet, record)
        self._tell()

    def close(self, outcome: Outcome, results: Sequence[Mapping[str, Any]]) -> None:
        """Store the tables and the link to the report."""
        planned = {index: len(sets) for index, sets in self.campaign.plan.items()}
        dataset = self.campaign.dataset
        table, key = self.shelf.table, self._key
        table(key("shards"), lambda: shard_rows(results, planned), "Shards made by this run")
        table(key("concepts"), lambda: concept_rows(outcome.yields), "Yield per concept, whole dataset")
        table(key("cells"), lambda: cell_rows(dataset), "Yield per cell, whole dataset")
        self.shelf.link(key("report"), open_backend(dataset).path(REPORT), outcome.report)
        self._tell(at_last=True)

    def _sheet(self, record: ShardRecord) -> None:
        text = shard_markdown(self.campaign.dataset, record)
        create_markdown_artifact(
            text, key=self._key(f"shard-{record.index:05d}"), description="Contact sheet and scores"
        )

    def _key(self, name: str) -> str:
        return artifact_key(self.campaign.spec.name, name)

    def _tell(self, at_last: bool = False) -> None:
        """Bring the progress up to date, now and then."""
        now = time.monotonic()
        with self._lock:
            due = at_last or now - self._told >= _PAUSE
            if self._progress is None or not due:
                return
            self._told = now
            share = 100.0 if at_last else 100.0 * self._done / max(1, self.campaign.sets)
        self.shelf.put(update_progress_artifact, self._progress, progress=min(100.0, share))
