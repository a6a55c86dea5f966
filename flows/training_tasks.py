"""The steps of the flow `train` as Prefect's tasks: plain functions, wrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.errors import CounterpoiseError

from . import training
from .artifacts import Shelf
from .cancellation import cancellation
from .launching import ENDED, Ended, ended
from .skew_artifacts import put_base, put_comparison
from .training import Job

if TYPE_CHECKING:
    from debias.training.comparing import Compared


@dataclass(frozen=True, slots=True)
class Found:
    """What a run came to.

    Attributes:
        folder: of the run.
        model: folder of the trained model, or of the last good checkpoint where training was stopped; None for neither.
        pools: before and after, of each pool.
        ended: what its processes said.
    """

    folder: str
    model: str | None
    pools: tuple[Compared, ...]
    ended: Ended

    def facts(self) -> dict[str, Any]:
        """The result of the flow: names and numbers."""
        return {
            "folder": self.folder,
            "model": self.model,
            "shortfall": self.ended.shortfall,
            "lines": list(self.ended.lines),
            "accuracy": {
                one.pool: [None if each is None else each.accuracy for each in (one.before, one.after)]
                for one in self.pools
            },
        }


@task(name="check_data", cache_policy=NO_CACHE)
def check_data(job: Job) -> None:
    """Refuse a recipe that does not go with its dataset."""
    training.check(job)


@task(name="refresh_skew", cache_policy=NO_CACHE)
def refresh_skew(job: Job) -> None:
    """Measure the base model: Skew for the first epoch's sidecar, and the evaluation before training."""
    training.refresh(job, cancellation())
    put_base(Shelf(), job)


@task(name="fit_model", cache_policy=NO_CACHE)
def fit_model(job: Job) -> None:
    """Train, in processes that end with this one."""
    training.fit(job, cancellation())


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(job: Job) -> Found:
    """Hold what the model answered after training against what it answered before, on the same concepts.

    Raises:
        CounterpoiseError: the folder cannot be seen from here.
    """
    from debias.training.comparing import compared
    from debias.training.folder import MODEL, RunFolder

    folder = RunFolder(job.folder)
    if not (folder.path / ENDED).exists():
        raise CounterpoiseError(
            f"{job.folder}: the run is over, but what it left cannot be seen from here; give an --out that this machine "
            "and the pool's workers share."
        )
    how = ended(job.folder)
    good = folder.checkpoints()
    kept = folder.path / MODEL
    model = kept if kept.is_dir() else folder.checkpoint(good[-1]) if good else None
    pools = tuple(compared(job.recipe, folder))
    return Found(job.folder, None if model is None else str(model), pools, how)


@task(name="publish", cache_policy=NO_CACHE)
def publish(job: Job, found: Found) -> None:
    """Heatmaps, the table and the link to the model as artifacts."""
    put_comparison(Shelf(), job.name, found.pools, found.model, found.ended)
