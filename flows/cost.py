"""What generation costs: measured seconds, kept beside the report and never in a shard or a manifest."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.backend import open_backend

if TYPE_CHECKING:
    from .campaign import Campaign

FOLDER = "report"
COST = f"{FOLDER}/cost.json"
_MAX_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Cost:
    """Measured runs together; images count whether kept or not.

    Attributes:
        images: generated and scored.
        seconds: of wall time.
        worker_seconds: of wall time, times the workers at work.
    """

    images: int
    seconds: float
    worker_seconds: float

    @property
    def per_image(self) -> float:
        """Seconds of one worker for one image, scoring and storing included."""
        return self.worker_seconds / self.images


def add_run(dataset: str, images: int, seconds: float, workers: int) -> None:
    """Put a run to those measured before."""
    backend = open_backend(dataset)
    run = {"images": images, "seconds": round(seconds, 2), "workers": workers}
    with backend.turn(FOLDER), backend.staging() as staging:
        content = json.dumps({"runs": [*_runs(dataset), run]}, indent=1).encode()
        staging.put(staging.stage(COST, [content]), COST)


def measured(dataset: str) -> Cost | None:
    """The runs of a dataset, or None where nothing was measured."""
    runs = _runs(dataset)
    images = sum(run["images"] for run in runs)
    if not images:
        return None
    seconds = sum(run["seconds"] for run in runs)
    return Cost(images, seconds, sum(run["seconds"] * run["workers"] for run in runs))


def _runs(dataset: str) -> list[dict[str, Any]]:
    """Runs as stored; a file that is missing or is not ours counts as none."""
    backend = open_backend(dataset)
    if not backend.exists(COST):
        return []
    try:
        runs = json.loads(backend.read(COST, _MAX_BYTES))["runs"]
        return [{name: _number(run, name) for name in ("images", "seconds", "workers")} for run in runs]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _number(run: Mapping[str, Any], name: str) -> Any:
    value = run[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(name)
    return value


def calibrate(campaign: Campaign) -> float:
    """Generate and score one candidate in memory; seconds per image on one worker."""
    planned = next(iter(campaign.plan.values()))[0]
    start = time.perf_counter()
    campaign.factory.make_candidate(planned, 0)
    return (time.perf_counter() - start) / campaign.cells


def duration(seconds: float) -> str:
    """Seconds in words that a person plans with: 0.7 s, 42 s, 7.5 min, 3.2 h, 12.0 days."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if name == 's' else 1}f} {name}"
    return f"{seconds / 86400:.1f} days"
