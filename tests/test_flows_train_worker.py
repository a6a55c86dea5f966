"""The flow `train` with a real server, a real work pool, its worker and real ranks: handed over, done, cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import yaml
from test_cli_train import ranks
from tiny_mllm import save
from training_world import dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.prefect,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not Path("/proc").exists(), reason="counts processes in /proc"),
]
ROOT = Path(__file__).resolve().parents[1]
PREFECT = [sys.executable, "-m", "prefect"]


class World:
    """A server, a pool with a deployment and a worker; all end with the fixture."""

    def __init__(self, root: Path) -> None:
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.children = root, []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {
            **clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(root / "home"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }  # fmt: skip

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self.children.append(child)
        return child

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=600
        )

    def ask(self, where: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{where}",
            json.dumps(body).encode() if body or where.endswith("filter") else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def answers(self) -> bool:
        try:
            return bool(self.ask("health"))
        except (urllib.error.URLError, OSError):
            return False

    def end(self) -> None:
        for child in reversed(self.children):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()


def until(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("worker")
    save("llava", root / "model")
    dataset(root / "data")
    made = World(root)
    try:
        made.start("server", *PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(made.port))
        until(made.answers)
        done = made.run(*PREFECT, "work-pool", "create", "gpu", "--type", "process")
        assert done.returncode == 0, done.stdout + done.stderr
        deploy = ["--no-prompt", "deploy", "flows/train.py:train", "--name", "gpu", "--pool", "gpu"]
        done = made.run(
            *PREFECT, *deploy
        )  # 3.8.8 fails where it looks for workers, after the deployment is made
        assert "Deployment 'train/gpu' successfully created" in done.stdout + done.stderr
        made.start("worker", *PREFECT, "worker", "start", "--pool", "gpu")
        yield made
    finally:
        made.end()


def recipe(world: World, name: str, **changes: Any) -> list[str]:
    """The command that trains in two processes on the pool."""
    body = {
        "method": "csd", "model": str(world.root / "model"), "dataset": str(world.root / "data"), "epochs": 1,
        "batch": 12, "micro_batch": 6, "learning_rate": 1e-3, "warmup": 0.0, "min_count": 1, "seed": 3,
        "stop_drop": 1.0, "launch": {"work_pool": "gpu", "processes": 2}, **changes,
    }  # fmt: skip
    (world.root / f"{name}.yaml").write_text(yaml.safe_dump(body))
    here = str(world.root / name)
    return [sys.executable, "-m", "flows", "train", f"{here}.yaml", "--out", here]


def runs(world: World, name: str) -> list[dict[str, Any]]:
    """The run that waits and the one on the pool, the one that began first first."""
    names = [str(world.root / name), name]
    found = world.ask("flow_runs/filter", flow_runs={"name": {"any_": names}})
    return sorted(found, key=lambda run: run["created"])


def test_a_pool_trains(world: World) -> None:
    done = world.run(*recipe(world, "done"))
    assert done.returncode in (0, 3), done.stdout + done.stderr
    mine, theirs = runs(world, "done")
    assert [run["state_type"] for run in (mine, theirs)] == ["COMPLETED", "COMPLETED"]
    assert theirs["work_pool_name"] == "gpu" and theirs["parent_task_run_id"] is not None
    assert json.loads((world.root / "done/recipe.json").read_text())["recipe"]["launch"]["processes"] == 2
    for run in (mine, theirs):
        kept = world.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
        assert {"done-skew", "done-checkpoint", "done-heatmap-heldout-race"} <= {one["key"] for one in kept}
    again = world.run(*recipe(world, "done"))
    assert (again.returncode, again.stdout) == (done.returncode, done.stdout)


@pytest.mark.parametrize("which", ["mine", "theirs"])
def test_cancelling_leaves_no_rank(world: World, which: str) -> None:
    """Whichever of the two runs is cancelled, from the outside: the worker's process, its launcher and ranks are gone."""
    folder = world.root / which
    command = world.start(f"{which}-command", *recipe(world, which, epochs=500, evaluate_on=[]))
    try:
        until(lambda: (folder / "checkpoints/checkpoint-4/place.json").exists())
        assert len(ranks(folder)) >= 4  # the command, the launcher, two ranks
        mine, theirs = runs(world, which)
        chosen = mine if which == "mine" else theirs
        world.ask(f"flow_runs/{chosen['id']}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
        assert command.wait(120) == 2
        until(lambda: not ranks(folder), 60)
        until(lambda: runs(world, which)[1]["state_type"] == "CANCELLED", 60)
        assert runs(world, which)[0]["state_type"] == {"mine": "CANCELLED", "theirs": "FAILED"}[which]
        assert "Error: " in (world.root / f"{which}-command.log").read_text().splitlines()[-1]
    finally:
        for process in ranks(folder):
            os.kill(process, signal.SIGKILL)
