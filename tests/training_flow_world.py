"""A process of its own that trains through Prefect and prints what the server knows as JSON.

Training is real but runs in this process, and workers are played by a thread; `test_flows_train_worker.py` has real ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from tiny_mllm import save
from training_world import dataset

from flows import __main__ as cli
from flows import launching, training
from flows.home import prepare_prefect
from flows.launching import Ended
from storage import CounterpoiseError

RECIPE: dict[str, Any] = {
    "method": "csd", "model": "model", "dataset": "nowhere", "epochs": 1, "batch": 12, "micro_batch": 6,
    "learning_rate": 1e-3, "warmup": 0.0, "min_count": 1, "seed": 3, "stop_drop": 1.0, "plateau": 0.0,
}  # fmt: skip
TREE = """
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def in_process(
    recipe: Any, folder: str, resume: bool, measure: bool = False, stopped: Callable[[], bool] = bool
) -> Ended:
    """Stand for `launching.launch`, without the seconds that a process takes to begin."""
    from debias.training import run

    launching._prepare(Path(folder), recipe)
    outcome = (run.measure if measure else run.train)(recipe, folder, not resume)
    lines = (training.measured if measure else training.told)(outcome)
    launching._note(folder, {"lines": lines, "shortfall": outcome.shortfall})
    return launching.ended(folder)


def command(*arguments: str) -> dict[str, Any]:
    """Run a command; how it ended and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.run(arguments)
        except BaseException:
            status = -1
            err.write(traceback.format_exc())
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def train(name: str, **launch: Any) -> dict[str, Any]:
    """Train by a recipe of its own into a folder of its own, and what the server knows of it."""
    Path(f"{name}.yaml").write_text(yaml.safe_dump({**RECIPE, "launch": launch}))
    found = command("train", f"{name}.yaml", "--dataset", "data", "--out", name, "--runner", "prefect")
    return {**found, **told(name)}


def told(name: str) -> dict[str, Any]:
    """Flow runs of a name, oldest first, and the artifacts of the first of them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=20)
        runs.sort(key=lambda run: str(run.created))
        asked = {"flow_run_id": {"any_": [str(run.id) for run in runs]}}
        artifacts = client.request("POST", "/artifacts/filter", json={"artifacts": asked}).json()
    return {
        "runs": [
            {
                "state": run.state_type.value,
                "message": run.state.message,
                "parameters": run.parameters,
                "deployed": run.deployment_id is not None,
                "part": run.parent_task_run_id is not None,
            }
            for run in runs
        ],
        "artifacts": {one["key"]: {"type": one["type"], "data": one["data"]} for one in artifacts},
    }


def deploy(name: str, pool: str | None) -> None:
    """Put a deployment of the flow on a pool, which is made first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.train import train as flow

    with get_client(sync_client=True) as client:
        if pool is not None:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"), overwrite=True)
        client.create_deployment(client.create_flow(flow), name, work_pool_name=pool)


@contextlib.contextmanager
def worker(act: Callable[[Any, Any], None]) -> Iterator[None]:
    """A thread that does something to the first scheduled flow run of a deployment, as a worker would."""
    from prefect.client.orchestration import get_client

    done = threading.Event()

    def look() -> None:
        with get_client(sync_client=True) as client:
            while not done.wait(0.1):
                states = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
                for row in client.request("POST", "/flow_runs/filter", json=states).json():
                    act(client, row["id"])
                    return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def ends_as(state: Any) -> Callable[[Any, Any], None]:
    """A worker that lets a run end so."""
    return lambda client, run: client.set_flow_run_state(run, state, force=True)


def handed(root: Path) -> dict[str, Any]:
    """Every way in which a run that was handed over ends."""
    from prefect.states import Cancelled, Completed, Failed, Running

    from flows import handover

    handover.POLL, handover.PATIENCE = 0.1, 60.0
    found = {
        "no deployment": train("nodeployment", deployment="train/gpu"),
        "no pool": train("nopool", work_pool="gpu"),
    }
    deploy("other", "other")
    found["wrong pool"] = train("wrongpool", work_pool="gpu", deployment="train/other")
    deploy("gpu", "gpu")
    shutil.copytree("here", "handed")
    with worker(ends_as(Completed())):
        found["handed"] = train("handed", work_pool="gpu")
    with worker(ends_as(Completed())):
        found["not shared"] = train("notshared", work_pool="gpu")
    for name, state in {
        "failed": Failed(message="Flow run encountered an exception: SpecError: mend\nthe recipe."),
        "cancelled there": Cancelled(message="by hand"),
    }.items():
        with worker(ends_as(state)):
            found[name] = train(name.replace(" ", ""), deployment="train/gpu")
    handover.PATIENCE = 0.5
    found["nobody"] = train("nobody", work_pool="gpu")
    handover.PATIENCE = 60.0
    with worker(lambda client, run: busy(client, run, ends_as(Running()))):
        found["waiting cancelled"] = train("waiting", work_pool="gpu")
    deploy("second", "gpu")
    found["two"] = train("two", work_pool="gpu")
    found["another"] = another()
    return found


def busy(client: Any, run: Any, begin: Callable[[Any, Any], None]) -> None:
    """A worker that begins a run; then the flow run that waits for it is cancelled."""
    begin(client, run)
    cancel(client, "waiting")


def cancel(client: Any, name: str) -> None:
    """Cancel the running flow run of a name that no deployment made."""
    from prefect.states import Cancelling

    asked = {"flow_runs": {"name": {"any_": [name]}, "state": {"type": {"any_": ["RUNNING"]}}}}
    rows = client.request("POST", "/flow_runs/filter", json=asked).json()
    for row in rows:
        if row["deployment_id"] is None:
            client.set_flow_run_state(row["id"], Cancelling(), force=True)


def another() -> dict[str, Any]:
    """A second start while a run is at work in the folder."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Running

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train/gpu")
        tags = [f"training:{Path('another').absolute()}"]
        run = client.create_flow_run_from_deployment(deployment.id, tags=tags, name="first")
        client.set_flow_run_state(run.id, Running(), force=True)
        found = train("another", deployment="train/gpu")
        client.set_flow_run_state(run.id, Cancelled(), force=True)
    return found


def cancelled() -> dict[str, Any]:
    """Processes that train are ended when the flow run is cancelled; the launcher and its child are played."""
    from prefect.client.orchestration import get_client

    launching._command = lambda how, folder, *_: [sys.executable, "-c", TREE, f"{folder}/pid"]
    training.launch = launching.launch

    def watch() -> None:
        while not Path("ended/pid").exists() or not Path("ended/pid").read_text():
            time.sleep(0.1)
        with get_client(sync_client=True) as client:
            cancel(client, "ended")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    found = train("ended")
    thread.join()
    child = int(Path("ended/pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.1)
    return {**found, "left": alive(child)}


def dies() -> dict[str, Any]:
    """Processes that end without a word."""
    launching._command = lambda *_: [sys.executable, "-c", "raise SystemExit(7)"]
    return train("dies")


def alive(process: int) -> bool:
    """Whether a process still works; one that waits for its parent to look does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def skews() -> dict[str, Any]:
    """The flow `skew`, on predictions by the command and on a model by itself."""
    from flows.skew import skew

    asked = skew("asked/table.json", model="model", dataset="data", split="test", min_count=1, slug="tiny")
    given = command(
        "skew", "asked/table.predictions.parquet", "--out", "given.json", "--min-count", "1", "--runner", "prefect",
        "--axis", "gender",
    )  # fmt: skip
    try:
        skew("bad.json", predictions="x.csv", model="model")
    except CounterpoiseError as error:
        bad = str(error)
    return {
        "asked": {**told("asked/table.json"), "facts": asked},
        "given": {**given, **told("given.json")},
        "both": {"error": bad, **told("bad.json")},
    }


def main(root: Path) -> dict[str, Any]:
    """Every case in one process, with one server."""
    os.chdir(root)
    prepare_prefect()  # before Prefect is imported
    from flows import cancellation

    save("llava", Path("model"))
    dataset(Path("data"))
    training.launch = in_process
    cancellation._PAUSE = 0.2
    found = {"here": train("here"), **handed(root)}
    from flows.train import train as flow

    try:
        flow({**RECIPE, "tau": 1}, out="bad")
    except CounterpoiseError as error:
        found["bad"] = {"error": str(error), **told("bad")}
    found["no data"] = command("train", "here.yaml", "--runner", "prefect", "--out", "nodata")
    found["cancelled"] = cancelled()
    found["dies"] = dies()
    return {**found, **skews()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
