"""The steps of a flow as Prefect's tasks: plain functions, wrapped."""

from __future__ import annotations

import errno
from typing import Any

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID

from .campaign import active_campaign

_FOR_THE_USER = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


def may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether trying again may help: after an error of the system, never after one for the user to mend."""
    try:
        state.result()
    except BaseException as error:
        causes = (error, error.__cause__)
        return any(isinstance(each, OSError) and each.errno not in _FOR_THE_USER for each in causes)
    return False


@task(
    name="make_shard",
    task_run_name="shard-{index:05d}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=may_pass,
    cache_policy=INPUTS + RUN_ID,
    refresh_cache=True,  # results are kept to be read; what is finished, the dataset alone knows
    persist_result=True,
    result_serializer="json",
)
def make_shard(index: int) -> dict[str, Any]:
    """Make, check and publish one shard; what is returned are paths, hashes and counts."""
    campaign = active_campaign()
    if campaign is None:
        raise RuntimeError("make_shard runs inside a campaign: use the flow `generate`")
    return campaign.make_shard(index)
