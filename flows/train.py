"""The flow: from a recipe and a dataset to a trained model, its Skew before and after, here or on a work pool."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from storage.errors import CounterpoiseError

from .cancellation import cancellation
from .handover import find_target, hand_over
from .launching import Ended, Stopped
from .server import of_the_server, start_apart
from .training import Job, open_job
from .training_tasks import check_data, evaluate, fit_model, publish, refresh_skew

logging.getLogger().addHandler(logging.NullHandler())  # as in generate.py
_log = logging.getLogger("prefect.counterpoise")
_INSTEAD = ", or do without a server by --runner none"
_CANCELLED = "The run was cancelled; the same again goes on from the last checkpoint."


def _name() -> str:
    """Of a flow run: its folder, or the recipe's name."""
    given = flow_run.parameters
    recipe = given.get("recipe")
    return str(given.get("out") or (recipe if isinstance(recipe, str) else "training"))


@flow(name="train", flow_run_name=_name)
def train(
    recipe: str | dict[str, Any],
    dataset: str | None = None,
    out: str | None = None,
    fresh: bool = False,
) -> dict[str, Any] | State:
    """Measure a model, train it where its recipe says, evaluate it, and show its Skew before and after.

    Args:
        recipe: a YAML file, the name of a shipped recipe, or the recipe itself.
        dataset: folder or URI; None for the recipe's.
        out: the run's folder; None for out/train/NAME.
        fresh: begin anew instead of going on with what is in that folder.
    """
    job = open_job(recipe, dataset, out, fresh)
    check_data(job)
    target = find_target(job.recipe.launch)
    try:
        if target is None:
            refresh_skew(job)
            fit_model(job)
        else:
            hand_over(target, job, cancellation(), _log.info)
    except Stopped:
        return Cancelled(message=_CANCELLED)
    found = evaluate(job)
    publish(job, found)
    return found.facts()


def run(job: Job, recipe: str) -> Ended:
    """Run the flow from the command line.

    Raises:
        CounterpoiseError: the work failed for what the user can mend, or Prefect's server did not start.
    """
    with of_the_server(_INSTEAD):
        start_apart()
        try:
            facts = train(recipe, job.recipe.dataset, job.folder, job.fresh)
        except CancelledRun:
            raise CounterpoiseError(_CANCELLED) from None
    assert isinstance(facts, dict)
    return Ended(tuple(facts["lines"]), facts["shortfall"])
