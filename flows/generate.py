"""The flow: from a spec to counterfactual shards, one task per shard."""

from __future__ import annotations

import logging
import os
from typing import Any

from prefect import flow, tags
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from storage import CounterpoiseError

from .artifacts import Board
from .campaign import Campaign, Options, active_campaign
from .closing import Outcome
from .opening import open_campaign
from .reconcile import dataset_tag
from .server import of_the_server, start_apart
from .settings import load_spec
from .tasks import make_shard

# Prefect's set-up empties the root logger; without a handler there, a library that logs would give it one that
# repeats Prefect's log on the terminal.
logging.getLogger().addHandler(logging.NullHandler())

_INSTEAD = ", or do without a server by --runner none"
_THREADS: Any = ThreadPoolTaskRunner(max_workers=os.cpu_count())


@flow(name="generate", flow_run_name="{dataset}", task_runner=_THREADS)
def generate(
    spec: str,
    dataset: str,
    shards: str | None = None,
    workers: int | None = None,
    strict_environment: bool = False,
    unsafe_no_filter: bool = False,
    extend: bool = False,
) -> dict[str, Any]:
    """Make the shards that a spec asks for and that are not there yet.

    Args:
        spec: a YAML file or the name of a shipped spec.
        dataset: the folder or URI of the dataset.
        shards: "A:B" for the shards A to B - 1; all if None.
        workers: shards in the making at a time.
        strict_environment: refuse shards from another environment.
        unsafe_no_filter: go without safety filters where that is allowed.
        extend: let a spec that only asks for more extend the dataset.
    """
    options = Options(shards, workers, strict_environment, unsafe_no_filter, extend)
    campaign = active_campaign() or open_campaign(load_spec(spec), dataset, options)
    board = Board(campaign)
    with campaign.active(), board:
        campaign.start()
        results = make_shards(campaign)
        outcome = campaign.finish()
        board.close(outcome, results)
    return {
        "dataset": dataset,
        "root_sha256": outcome.root_sha256,
        "report": outcome.report,
        "shards": results,
    }


def make_shards(campaign: Campaign) -> list[dict[str, Any]]:
    """Run one task per missing shard; one that fails, or Ctrl-C, stops the others after their candidate."""
    try:
        futures = [make_shard.submit(index) for index in campaign.todo]
        results = [future.result() for future in as_completed(futures)]
    except BaseException as error:
        campaign.stop()
        if isinstance(error, KeyboardInterrupt):
            campaign.note("Stopping after the candidates in the making ...")
        raise
    return sorted(results, key=lambda facts: int(facts["shard"]))


def run(campaign: Campaign, spec: str) -> Outcome:
    """Run a campaign that is open already through the flow, with as many threads as it has workers.

    Raises:
        CounterpoiseError: the work failed for what the user can mend, or Prefect's server did not start.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=campaign.workers)
    with campaign.active(), tags(dataset_tag(campaign.dataset)), of_the_server(_INSTEAD):
        start_apart()
        generate.with_options(task_runner=runner)(spec, str(campaign.dataset))
    if campaign.outcome is None:
        raise CounterpoiseError("The run was cancelled before its end; the same command continues it.")
    return campaign.outcome
