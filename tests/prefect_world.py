"""A process of its own that generates through Prefect and prints what the server knows as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from flows_world import bad_candidates, load, small, spec_file

from flows import __main__ as cli
from flows import opening
from generators.engine import PreparedEngine, SetRequest
from storage import CounterpoiseError, load_dataset


class Failing(PreparedEngine):
    """Raises what it is given at the third set, so often."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__(24)
        self.error, self.times, self.calls = error, times, 0

    def generate(self, request: SetRequest) -> list[Any]:
        """Pictures, or the error."""
        self.calls += 1
        if self.calls >= 3 and self.times:
            self.times -= 1
            raise self.error
        return super().generate(request)


class CtrlC(PreparedEngine):
    """Interrupts the main thread at the third set."""

    def __init__(self) -> None:
        super().__init__(24)
        self.calls = 0

    def generate(self, request: SetRequest) -> list[Any]:
        """Pictures, each of which takes a while from the third on."""
        self.calls += 1
        if self.calls == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if self.calls >= 3:
            time.sleep(1)
        return super().generate(request)


def command(root: Path, name: str, **given: Any) -> dict[str, Any]:
    """Run `counterpoise generate` into a folder; how it ended and what it printed."""
    opening.load_factory = load(**given)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.run(["generate", spec_file(root), "--out", str(root / name), "--workers", "2"])
        except BaseException:
            status = -1
            err.write(traceback.format_exc())
    hash_ = load_dataset(root / name).root_sha256 if (root / name).exists() else None
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "root": hash_}


def told(root: Path, name: str) -> dict[str, Any]:
    """What the server knows of the runs of one folder."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    flow = FlowRunFilter(name=FlowRunFilterName(any_=[str(root / name)]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=flow, sort=FlowRunSort.START_TIME_ASC, limit=200)
        tasks = settled(client, flow)
        wanted = {"flow_run_id": {"any_": [str(run.id) for run in runs]}}
        artifacts = client.request("POST", "/artifacts/filter", json={"artifacts": wanted}).json()
    names = {str(task.id): task.name for task in tasks}
    return {
        "flows": [[run.state_type.value, run.parameters] for run in runs],
        "tasks": sorted([task.name, task.state_type.value, task.run_count] for task in tasks),
        "artifacts": {
            one["key"]: {
                "type": one["type"],
                "data": one["data"],
                "task": names.get(one["task_run_id"]),
            }
            for one in artifacts
        },
    }


def settled(client: Any, flow: Any) -> list[Any]:
    """Task runs, once the server has heard of their ends."""
    from prefect.client.schemas.sorting import TaskRunSort

    for _ in range(100):
        tasks: list[Any] = client.read_task_runs(flow_run_filter=flow, sort=TaskRunSort.NAME_ASC, limit=200)
        if tasks and all(
            task.state_type and task.state_type.value in ("COMPLETED", "FAILED") for task in tasks
        ):
            break
        time.sleep(0.2)
    return tasks


def main(root: Path) -> dict[str, Any]:
    """Every case in one process, with one server."""
    spec = small()
    found: dict[str, Any] = {}
    scorers = bad_candidates(spec, {"chef_0000": 1, "weapon_0001": 2})
    found["short"] = command(root, "short", scorers=scorers)
    from flows import artifacts, tasks

    tasks.make_shard.retry_delay_seconds = [0, 0]
    found["passing"] = command(root, "passing", engine=Failing(OSError("a hiccup of the network"), 2))
    found["mend"] = command(root, "mend", engine=Failing(CounterpoiseError("mend the third set"), 99))
    gone = artifacts.create_markdown_artifact
    artifacts.create_markdown_artifact = broken
    found["broken"] = command(root, "broken")
    found["stopped"] = command(root, "stopped", engine=CtrlC())
    artifacts.create_markdown_artifact = gone
    found = {name: {**one, **told(root, name)} for name, one in found.items()}
    found["continued"] = command(root, "stopped")
    return {**found, "reconcile": reconciled(root)}


def reconciled(root: Path) -> dict[str, Any]:
    """What `counterpoise reconcile` says after each kind of disagreement, and after it was told to mend it."""
    data = root / "passing"
    found = {"agreed": asked(root, "passing"), "continued": asked(root, "stopped")}
    manifest = data / "shards/00001.json"
    content = manifest.read_bytes()
    manifest.unlink()
    found |= {"lost": asked(root, "passing"), "lost fixed": asked(root, "passing", "--fix")}
    found["lost states"] = told(root, "passing")
    manifest.write_bytes(content)
    found |= {"back": asked(root, "passing"), "back fixed": asked(root, "passing", "--fix")}
    lose(data)
    found["made"] = command(root, "passing")
    found["made agrees"] = asked(root, "passing")
    lose(data)
    elsewhere(root, "passing")
    found |= {"other": asked(root, "passing"), "other fixed": asked(root, "passing", "--fix")}
    found["again"] = asked(root, "passing")
    elsewhere(root, "alone")
    found |= {"nothing": asked(root, "alone"), "nothing fixed": asked(root, "alone", "--fix")}
    return found


def lose(data: Path) -> None:
    """Lose every file of shard 1: its manifest alone would be made again from the others."""
    for path in data.glob("shards/00001*"):
        path.unlink()


def asked(root: Path, name: str, *more: str) -> dict[str, Any]:
    """Run `counterpoise reconcile`; how it ended, what it printed, and whether it touched storage."""
    from storage_world import files

    out, err, before = io.StringIO(), io.StringIO(), files(root / name)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.run(["reconcile", str(root / name), *more])
    untouched = files(root / name) == before
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "untouched": untouched}


def elsewhere(root: Path, name: str) -> None:
    """Make what is missing without Prefect, in another environment."""
    opening.load_factory, here = load(), opening.environment
    opening.environment = lambda: {**here(), "torch": "0.0"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.run(["generate", spec_file(root), "--out", str(root / name), "--runner", "none"])
    opening.environment = here


def broken(*_: Any, **__: Any) -> None:
    """Stand for a server that does not take artifacts."""
    raise TimeoutError("no answer")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    print(json.dumps(main(Path(sys.argv[1]))))
