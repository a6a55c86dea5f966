"""A campaign that is stopped, killed or refused by the disk continues, and loses at most the shard at work."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flows_world import (
    Interrupting,
    load,
    opened,
    run_all,
)
from storage_world import files

from flows.campaign import Listener, Stopped
from generators.candidates import CandidateReport
from storage import CounterpoiseError, list_shards, load_dataset
from storage.verify import verify

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that was made without disturbance."""
    dataset = tmp_path_factory.mktemp("whole") / "data"
    run_all(dataset)
    return dataset


def shard_files(dataset: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(dataset).items() if name.startswith("shards/")}


def continued(dataset: Path, whole: Path) -> None:
    """Assert that the same again gives what an undisturbed run gives."""
    outcome = run_all(dataset)
    assert outcome.root_sha256 == load_dataset(whole).root_sha256
    assert [line for line in verify(dataset) if "left over" not in line] == []


@pytest.mark.parametrize("at", [1, 4])
def test_ctrl_c_leaves_a_dataset_that_continues(whole: Path, tmp_path: Path, at: int) -> None:
    campaign = opened(tmp_path / "data", factory=load(engine=Interrupting(at)))
    with pytest.raises(KeyboardInterrupt):
        campaign.run_here()
    assert len(list_shards(tmp_path / "data")) == (at - 1) // 2
    assert verify(tmp_path / "data") == []
    continued(tmp_path / "data", whole)


def test_a_stopped_campaign_publishes_nothing_more(whole: Path, tmp_path: Path) -> None:
    class Stopper(Listener):
        def candidate(self, report: CandidateReport) -> None:
            if report.set_id == "weapon_0000":
                campaign.stop()

    campaign = opened(tmp_path / "data", listeners=[Stopper()])
    with pytest.raises(Stopped):
        campaign.run_here()
    assert [record.index for record in list_shards(tmp_path / "data")] == [0]
    continued(tmp_path / "data", whole)


def test_a_full_disk_is_one_line_and_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = opened(tmp_path / "data")
    campaign.start()
    campaign.make_shard(0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CounterpoiseError, match="the disk is full") as caught:
            campaign.make_shard(1)
    assert "\n" not in str(caught.value)
    assert verify(tmp_path / "data") == []
    continued(tmp_path / "data", whole)


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from flows_world import Interrupting, load, opened
import flows_world

class Killed(Interrupting):
    def generate(self, request):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), 9)
        return flows_world.PreparedEngine.generate(self, request)

campaign = opened(Path({dataset!r}), factory=load(engine=Killed({at})))
campaign.run_here()
campaign.finish()
"""


def child(dataset: Path, at: int = 0, fault: str = "") -> int:
    """Run a campaign in a process of its own that is killed on the way; how it ended."""
    code = CHILD.format(here=str(HERE), dataset=str(dataset), at=at)
    environment = {**os.environ, "COUNTERPOISE_FAULT": fault, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False).returncode


def test_kill_9_while_generating_loses_at_most_the_shard(whole: Path, tmp_path: Path) -> None:
    assert child(tmp_path / "data", at=4) == -signal.SIGKILL
    assert [record.index for record in list_shards(tmp_path / "data")] == [0]
    continued(tmp_path / "data", whole)
    assert verify(tmp_path / "data") == []


@pytest.mark.parametrize("fault", ["before_create", "#40"])
def test_kill_9_while_publishing_continues(whole: Path, tmp_path: Path, fault: str) -> None:
    assert child(tmp_path / "data", fault=fault) == -signal.SIGKILL
    continued(tmp_path / "data", whole)


ON_A_TERMINAL = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
os.chdir({folder!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
from flows_world import PreparedEngine, load, spec_file
from flows import __main__ as cli, opening

class Slow(PreparedEngine):
    def generate(self, request):
        Path("begun").touch()
        time.sleep(2)
        return super().generate(request)

opening.load_factory = load(engine=Slow(24))
sys.exit(cli.run(["generate", spec_file(Path()), "--out", "data", "--workers", "2"]))
"""


@pytest.mark.slow
@pytest.mark.prefect
def test_ctrl_c_on_a_terminal_reaches_all_but_the_server(whole: Path, tmp_path: Path) -> None:
    """A terminal sends it to the whole group of processes; a flow whose server is gone would wait for minutes."""
    code = ON_A_TERMINAL.format(here=str(HERE), folder=str(tmp_path))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    clean |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=clean, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=90)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "does not answer" not in said
    assert said.rstrip().endswith("the same command continues."), said
    continued(tmp_path / "data", whole)
